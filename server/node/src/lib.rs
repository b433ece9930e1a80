//! One member: consensus, proposals, reads, leases, flushing, bootstrap.
//!
//! A Put enters at [`Node::propose`], waits in `propose`, becomes an entry in `consensus` (openraft), is durable once `storage`'s
//! WAL has synced it, and is applied by `consensus::state_machine` through `mvcc`; `flush` carries it to the database later.
#![forbid(unsafe_code)]

mod auto_compaction;
mod backend;
mod compaction;
mod config;
mod consensus;
mod error;
mod flush;
mod identity;
mod leadership;
mod lease;
mod leases;
mod metrics;
mod node;
mod observe;
mod propose;
mod publish;
mod read;
mod scrape;
mod snapshot;
mod space;
mod start;

pub use config::AutoCompaction;
pub use config::InitialClusterState;
pub use config::NodeConfig;
pub use consensus::MemberNode;
pub use error::Error;
pub use error::StartError;
pub use identity::cluster_id;
pub use identity::member_id;
pub use node::Leadership;
pub use node::Node;
pub use node::Status;
pub use snapshot::RestoreConfig;
pub use snapshot::Restored;
pub use snapshot::STORAGE_VERSION;
pub use snapshot::Snapshot;
pub use snapshot::SnapshotFileError;
pub use snapshot::SnapshotStatus;
pub use snapshot::restore;
pub use snapshot::snapshot_status;

/// What is called, with the reason, when the member can no longer keep its word.
pub type Fatal = std::sync::Arc<dyn Fn(&str) + Send + Sync>;
