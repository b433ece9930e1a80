//! One member: consensus, proposals, reads, leases, flushing, bootstrap, and its peers.
//!
//! A Put enters at [`Node::propose`], waits in `propose`, goes to the leader (`forward`) if that is another member, becomes an entry in `consensus` (openraft), is durable once `storage`'s
//! WAL has synced it, and is applied by `consensus::state_machine` through `mvcc`; `flush` carries it to the database later.
#![forbid(unsafe_code)]

mod auto_compaction;
mod backend;
mod compaction;
mod config;
mod consensus;
mod corrupt;
mod error;
mod flush;
mod forward;
mod identity;
mod inspect;
mod install;
mod join;
mod leadership;
mod lease;
mod leases;
mod members;
mod metrics;
mod node;
mod observe;
mod peers;
mod propose;
mod publish;
mod read;
mod release;
mod scrape;
mod snapshot;
mod space;
mod start;
mod versions;

pub use config::AutoCompaction;
pub use config::InitialClusterState;
pub use config::NodeConfig;
pub use config::PeerTls;
pub use consensus::MemberNode;
pub use error::Error;
pub use error::StartError;
pub use identity::cluster_id;
pub use identity::member_id;
pub use inspect::Damage;
pub use inspect::Identified;
pub use inspect::InspectError;
pub use inspect::Inspection;
pub use inspect::Logged;
pub use inspect::MembersKnown;
pub use inspect::Standing;
pub use inspect::Stored;
pub use inspect::inspect;
pub use node::Leadership;
pub use node::Node;
pub use node::Status;
pub use peers::PeersService;
pub use release::ETCD_VERSION;
pub use release::Release;
pub use snapshot::RestoreConfig;
pub use snapshot::Restored;
pub use snapshot::Snapshot;
pub use snapshot::SnapshotFileError;
pub use snapshot::SnapshotStatus;
pub use snapshot::restore;
pub use snapshot::resume;
pub use snapshot::snapshot_status;

/// What is called, with the reason, when the member can no longer keep its word.
pub type Fatal = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

/// The process's exit code when the cluster knows this member by another data directory: this one is new or was wiped.
pub const EXIT_WIPED: u8 = 3;
/// The process's exit code when this member was removed from its cluster.
pub const EXIT_REMOVED: u8 = 4;
/// The process's exit code when the cluster writes a format that this release cannot read.
pub const EXIT_OUTDATED: u8 = 5;
/// The process's exit code when log or database are damaged: no start will read them.
pub const EXIT_DAMAGED: u8 = 6;

/// Held by a thread that others wait for: a panic of it is the end of the member, or they would wait for good.
pub(crate) struct EndsMember {
    pub(crate) thread: &'static str,
    pub(crate) fatal: Fatal,
}

impl Drop for EndsMember {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.fatal)(&format!("the {} thread has panicked", self.thread));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_panic_of_a_thread_that_others_wait_for_ends_the_member() {
        let told = Arc::new(Mutex::new(String::new()));
        let fatal: Fatal = {
            let told = Arc::clone(&told);
            Arc::new(move |why| *told.lock().expect("nobody panics here") = why.to_owned())
        };
        let thread = garboard_runtime::spawn::thread("flush", move || {
            let _panics = EndsMember { thread: "flush", fatal };
            panic!("planted");
        });
        assert!(thread.expect("a thread").join().is_err());
        assert_eq!(*told.lock().expect("nobody panics here"), "the flush thread has panicked");
    }
}
