//! Bytes on disk: the only crate that opens a file.
//!
//! [`disk`] is the seam; [`wal`] makes an entry durable before it is acknowledged; [`backend`] is the checkpoint that a restart
//! begins from. The formats are written down in `docs/formats.md`.
#![forbid(unsafe_code)]

pub mod backend;
pub mod data_dir;
pub mod disk;
pub mod wal;

pub use backend::Backend;
pub use data_dir::DataDir;
pub use data_dir::MemberFiles;
pub use disk::Disk;
pub use disk::RealDisk;
pub use wal::Wal;
