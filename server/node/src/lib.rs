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
