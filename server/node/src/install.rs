//! A snapshot between members: read out of the database on one side, built into a new file on the other, and put in the state's place.
//!
//! The new file is complete, checked and synced before it takes the name of the old one. A crash before that leaves the old state, one after
//! it the new: the log is then behind the database, which [`META_INSTALLED`] explains to the next start.

mod incoming;
mod outgoing;

use std::io;
use std::sync::Arc;

use futures_util::Stream;
use garboard_mvcc::Position;
use garboard_mvcc::Store;
use garboard_proto::peers as pb;
use garboard_proto::peers::snapshot_part::Part;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_storage::backend::Backend;

use crate::compaction::Compactor;
use crate::consensus::Checkpointed;
use crate::consensus::Received;
use crate::consensus::StoredMembership;
use crate::flush::Flusher;
use crate::metrics::Metrics;
use crate::node::Node;
use incoming::Held;
pub(crate) use incoming::Incoming;
pub(crate) use incoming::KEPT_FOR;
pub(crate) use incoming::Receiver;
pub(crate) use incoming::SnapshotKey;
use incoming::blocking;
pub(crate) use incoming::clear;
pub(crate) use incoming::is_break;
pub(crate) use outgoing::Outgoing;
pub(crate) use outgoing::Point;
pub(crate) use outgoing::Points;

/// The row of `meta` that says up to which entry the database was a received snapshot: the log before that entry is another member's.
pub(crate) const META_INSTALLED: &str = "installed";

/// Puts what was received in the state's place.
pub(crate) struct Installer {
    pub(crate) backend: Arc<Backend>,
    pub(crate) store: Arc<Store>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) metrics: Arc<Metrics>,
    /// Held by a defragmentation, and while a snapshot takes the database's place.
    pub(crate) defragmenting: Arc<tokio::sync::Mutex<()>>,
}

impl Installer {
    /// Puts it in the state's place. Called where entries are applied, so that none is meanwhile.
    pub(crate) async fn install(self: Arc<Self>, received: Received) -> io::Result<()> {
        let Received { position, membership, database } = received;
        let _no_defragmentation = Arc::clone(&self.defragmenting).lock_owned().await;
        let started = clock::now();
        let installer = Arc::clone(&self);
        self.metrics.snapshot_applies.inc();
        let swapped = blocking(move || installer.swap(database, position, membership)).await;
        self.metrics.snapshot_applies.dec();
        swapped?;
        tracing::info!(index = position.index, took = ?started.elapsed(), "a snapshot has taken the state's place");
        self.compactor.scheduled();
        Ok(())
    }

    fn swap(&self, database: Incoming, position: Position, membership: StoredMembership) -> io::Result<()> {
        let checkpointed = Checkpointed { position: Some(position), membership };
        self.flusher.replace(checkpointed, || {
            self.backend.adopt(database.0).map_err(io::Error::other)?;
            self.store.reload().map_err(io::Error::other)
        })
    }
}

impl Node {
    /// Takes a snapshot that the member `from` sends. Goes on to its end also when nobody waits for the answer any more.
    pub(crate) async fn receive_snapshot(
        &self,
        from: u64,
        parts: impl Stream<Item = io::Result<pb::SnapshotPart>> + Send + Unpin + 'static,
    ) -> io::Result<pb::SnapshotResponse> {
        let node = self.clone();
        let taken = spawn::task(async move {
            let receiving = node.links().metrics().receiving(from);
            let taken = node.take_snapshot(from, parts).await;
            if taken.is_ok() {
                receiving.succeeded()
            } else {
                receiving.failed()
            }
            taken
        });
        taken.await.map_err(io::Error::other)?
    }

    async fn take_snapshot(
        &self,
        from: u64,
        mut parts: impl Stream<Item = io::Result<pb::SnapshotPart>> + Send + Unpin,
    ) -> io::Result<pb::SnapshotResponse> {
        let Some(Part::Head(head)) = incoming::next(&mut parts).await? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a snapshot without a head"));
        };
        let last = head.last.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a snapshot of no entry"))?;
        let position = Position { term: last.term, index: last.index };
        let membership = StoredMembership::from_proto(head.membership.unwrap_or_default())?;
        let (key, point) = (SnapshotKey { from, id: head.id }, head.from.unwrap_or_default());
        tracing::info!(index = position.index, rows = point.rows, "receiving a snapshot");
        let (database, mut held) = self.0.installer.receiver.receive(key, position, point, parts).await?;
        let received = Received { position, membership, database };
        let response = self.consensus().answer_snapshot(head.vote, received).await?;
        // Of one that raft had no use for; otherwise it has another name by now.
        self.0.installer.receiver.remove_or_warn().await;
        *held = Held::Taken(key, response);
        Ok(response)
    }

    /// What there is of the snapshot `id` that the member `from` has begun to send.
    pub(crate) async fn snapshot_held(&self, from: u64, id: u64) -> pb::SnapshotHeldResponse {
        pb::SnapshotHeldResponse { held: self.0.installer.receiver.held(SnapshotKey { from, id }).await }
    }
}
