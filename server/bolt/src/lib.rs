//! bbolt database files (`go.etcd.io/bbolt`, format version 2), the format of etcd's snapshots, read and written as a stream.
//!
//! [`Measure`] and [`Writer`] are the two passes that write a file front to back; [`Database`] reads one and trusts none of its
//! bytes. Buckets are top-level only, as etcd's are. The crate opens no file: it writes to an [`std::io::Write`] and reads from a
//! [`ReadAt`]. Numbers are little endian, as on every machine that etcd supports.
#![forbid(unsafe_code)]

mod format;
mod read;
mod write;

pub use format::MetaFault;
pub use format::PageSize;
pub use read::Bucket;
pub use read::Database;
pub use read::Fault;
pub use read::Limits;
pub use read::ReadAt;
pub use read::ReadError;
pub use read::Row;
pub use read::Rows;
pub use read::Summary;
pub use read::read_all;
pub use write::Layout;
pub use write::Measure;
pub use write::Tally;
pub use write::WriteError;
pub use write::Writer;

/// Longest key or bucket name, in bytes (bbolt's `MaxKeySize`). None is empty.
pub const KEY_LEN_MAX: usize = 32_768;

/// Longest value, in bytes (bbolt's `MaxValueSize`).
pub const VALUE_LEN_MAX: usize = (1 << 31) - 2;

/// Most buckets in one file; etcd has ten. It bounds what a reader keeps, and how often a hostile file can have its pages read.
pub const BUCKETS_MAX: usize = 256;
