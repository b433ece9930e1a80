//! What happens around the applying of entries: back-pressure from the flush, the lease clock, compaction, slow-apply warnings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_mvcc::Position;
use garboard_storage::backend::Backend;
use tokio::sync::watch;

use crate::compaction::Compactor;
use crate::consensus::AppliedCommand;
use crate::consensus::ApplyObserver;
use crate::consensus::Checkpointed;
use crate::consensus::Outcome;
use crate::consensus::Pending;
use crate::consensus::Received;
use crate::consensus::StoredMembership;
use crate::flush::Flusher;
use crate::forward::Waiting;
use crate::install::Installer;
use crate::lease::LeaseClock;
use crate::metrics::Metrics;
use crate::peers::Links;

/// The node's [`ApplyObserver`].
pub(crate) struct Observer {
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) warning_apply_duration: Duration,
    pub(crate) fatal: crate::Fatal,
    /// Called with the reason when this release must not read on.
    pub(crate) outdated: crate::Fatal,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) links: Arc<Links>,
    pub(crate) installer: Arc<Installer>,
    /// The last entry applied, for those who wait for one.
    pub(crate) applied: watch::Sender<u64>,
    /// Called when the membership no longer has this member.
    pub(crate) removed: Box<dyn Fn() + Send + Sync>,
    /// The entry being applied schedules a compaction; it counts once the entry is finished.
    pub(crate) compaction: AtomicBool,
}

impl Observer {
    /// What follows may be of a format that this release would misread: not one entry more is applied then.
    fn agreed(&self, format: u32) {
        let roster = self.links.roster();
        roster.agreed(format);
        if !roster.release().reads.contains(&format) {
            (self.outdated)(&format!(
                "the cluster writes format {format} from here on, which this release cannot read"
            ));
        }
    }

    /// Whoever waits for the state to come so far goes on.
    fn stands_at(&self, position: Position) {
        self.applied.send_replace(position.index);
        self.waiting.reached(position.term);
    }
}

impl ApplyObserver for Observer {
    fn admit(&self) -> Option<Pending<'_, ()>> {
        if self.flusher.has_room() {
            return None;
        }
        Some(Box::pin(self.flusher.wait_room()))
    }

    fn applied(&self, command: &AppliedCommand, outcome: &Outcome) {
        if let Err(error) = outcome {
            if error.is_fatal() {
                (self.fatal)(&format!("a committed command cannot be applied: {error}"));
            }
            return;
        }
        match *command {
            AppliedCommand::LeaseGrant { id, ttl_s } => self.leases.granted(id, ttl_s),
            AppliedCommand::LeaseRevoke { id } => self.leases.revoked(id),
            AppliedCommand::Compaction => self.compaction.store(true, Ordering::Release),
            AppliedCommand::FormatVersion { version } => self.agreed(version),
            AppliedCommand::Other => {}
        }
    }

    fn finished(&self, position: Position, took: Duration) {
        self.flusher.applied();
        self.stands_at(position);
        if self.compaction.swap(false, Ordering::AcqRel) {
            self.compactor.scheduled();
        }
        if took > self.warning_apply_duration {
            self.metrics.slow_applies.inc();
            let expected = self.warning_apply_duration;
            tracing::warn!(index = position.index, took = ?took, "expected-duration" = ?expected, "apply request took too long");
        }
    }

    fn flush(&self) -> Pending<'static, io::Result<Checkpointed>> {
        Box::pin(Arc::clone(&self.flusher).barrier())
    }

    fn checkpointed(&self) -> Checkpointed {
        self.flusher.checkpointed()
    }

    fn forwarded(&self, sequence: u64, outcomes: Vec<Outcome>) {
        self.waiting.applied(sequence, outcomes);
    }

    fn members(&self, membership: &StoredMembership) {
        let roster = self.links.roster();
        roster.applied(membership.at(), membership.nodes(), membership.removed.clone());
        self.links.retain(|id| !roster.is_removed(id));
        if roster.is_removed(roster.own().member_id) {
            (self.removed)();
        }
    }

    fn install(&self, received: Received) -> Pending<'_, io::Result<()>> {
        Box::pin(async move {
            let position = received.position;
            Arc::clone(&self.installer).install(received).await?;
            self.agreed(self.installer.store.format_version());
            self.stands_at(position);
            Ok(())
        })
    }

    fn backend(&self) -> Arc<Backend> {
        Arc::clone(&self.installer.backend)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use garboard_proto::peers as pb;
    use garboard_runtime::clock;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Release;
    use crate::install::Outgoing;
    use crate::install::Point;
    use crate::install::SnapshotKey;
    use crate::node::Node;

    /// A later format may come with a snapshot, past the entry that says so.
    #[tokio::test]
    async fn a_snapshot_tells_those_who_wait_as_its_entries_would() {
        let later = Node::alone(Release { reads: 1..=2, writes: 2, ..Release::default() }).await;
        let agreed = async {
            while later.store().format_version() < 2 {
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        clock::timeout(Duration::from_secs(30), agreed).await.expect("never agreed on");
        later.flush().await.expect("a disk");
        let outgoing = Outgoing::open(&later.0.backend).expect("a database");
        let (position, key) = (outgoing.position, SnapshotKey { from: later.member_id(), id: outgoing.id });
        let (parts, _) = outgoing.parts(Point::default());
        let parts = Box::pin(parts.map(Ok));

        let node = Node::alone(Release::default()).await;
        let receiver = &node.0.installer.receiver;
        let received = receiver.receive(key, position, pb::SnapshotPoint::default(), parts).await;
        let (database, _held) = received.expect("a whole snapshot");
        let membership = StoredMembership::from_proto(outgoing.membership.clone()).expect("a membership");
        let (told, mut why) = mpsc::channel(1);
        let observer = Observer {
            flusher: Arc::clone(&node.0.flusher),
            compactor: Arc::clone(&node.0.compactor),
            leases: Arc::clone(&node.0.leases),
            metrics: Arc::clone(&node.0.metrics),
            warning_apply_duration: Duration::MAX,
            fatal: Arc::new(|why| panic!("{why}")),
            outdated: Arc::new(move |why| told.try_send(why.to_owned()).expect("one end")),
            waiting: Arc::new(Waiting::new().expect("randomness")),
            links: Arc::clone(&node.0.links),
            installer: Arc::clone(&node.0.installer),
            applied: watch::Sender::new(0),
            removed: Box::new(|| {}),
            compaction: AtomicBool::new(false),
        };
        observer.install(Received { position, membership, database }).await.expect("room for it");
        assert_eq!(node.store().format_version(), 2);
        assert!(why.try_recv().is_ok_and(|why| why.contains("writes format 2")), "read on in a format it cannot read");
        assert_eq!(*observer.applied.borrow(), position.index);
        let overtaken = observer.waiting.overtaken(position.term - 1);
        let overtaken = clock::timeout(Duration::from_secs(5), overtaken).await;
        overtaken.expect("who waits for the outcome of an earlier term's entry waits in vain");
        node.shutdown().await;
        later.shutdown().await;
    }
}
