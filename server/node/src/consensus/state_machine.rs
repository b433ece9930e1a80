//! Applies committed entries, in order, on openraft's apply task: decode the batch, hand each command to the MVCC applier, answer.
//!
//! A snapshot, to openraft, is the checkpoint: building one flushes what is applied and records how far that came.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt as _;
use garboard_mvcc::Applier;
use garboard_mvcc::Position;
use garboard_proto::raft::Batch;
use garboard_proto::raft::Command;
use garboard_runtime::clock;
use openraft::RaftSnapshotBuilder;
use openraft::storage::EntryResponder;
use openraft::storage::RaftStateMachine;
use prost::Message as _;

use super::membership;
use super::types::LogId;
use super::types::Outcome;
use super::types::Outcomes;
use super::types::Payload;
use super::types::StoredMembership;
use super::types::TypeConfig;
use super::types::log_id;

pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the rest of the node does around the applying of entries.
pub(crate) trait ApplyObserver: Send + Sync + 'static {
    /// Called before an entry is applied; resolves when there is room for what it will leave to flush.
    fn admit(&self) -> Option<Pending<'_, ()>>;
    /// Called after each command.
    fn applied(&self, command: &AppliedCommand, outcome: &Outcome);
    /// Called after each entry, with the time that applying it took.
    fn finished(&self, position: Position, took: Duration);
    /// Flushes everything applied so far and returns how far the durable checkpoint now reaches.
    fn flush(&self) -> Pending<'static, io::Result<Checkpointed>>;
    /// How far the durable checkpoint reaches.
    fn checkpointed(&self) -> Checkpointed;
}

/// What of a command outlives its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppliedCommand {
    /// A lease was asked for.
    LeaseGrant { id: i64, ttl_s: i64 },
    /// A lease was taken back.
    LeaseRevoke { id: i64 },
    /// A compaction was scheduled.
    Compaction,
    /// Anything else.
    Other,
}

impl AppliedCommand {
    fn of(command: &Command) -> Self {
        use garboard_proto::raft::command::Op;
        match &command.op {
            Some(Op::LeaseGrant(r)) => Self::LeaseGrant { id: r.id, ttl_s: r.ttl },
            Some(Op::LeaseRevoke(r)) => Self::LeaseRevoke { id: r.id },
            Some(Op::Compaction(_)) => Self::Compaction,
            _ => Self::Other,
        }
    }
}

/// The durable checkpoint's position and the membership in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checkpointed {
    pub(crate) position: Option<Position>,
    pub(crate) membership: StoredMembership,
}

/// What openraft passes around as snapshot data: the state itself is in the checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CheckpointMark;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, CheckpointMark>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The state machine as openraft drives it.
pub(crate) struct StateMachine {
    applier: Applier,
    applied: Option<LogId>,
    membership: StoredMembership,
    observer: Arc<dyn ApplyObserver>,
}

impl StateMachine {
    /// `recovered` is what the checkpoint holds.
    pub(crate) fn new(applier: Applier, recovered: Checkpointed, observer: Arc<dyn ApplyObserver>) -> Self {
        let applied = recovered.position.map(|p| log_id(p.term, p.index));
        Self { applier, applied, membership: recovered.membership, observer }
    }

    fn apply_batch(&mut self, bytes: bytes::Bytes) -> io::Result<Outcomes> {
        let batch = Batch::decode(bytes).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a batch in the log cannot be read: {e}"))
        })?;
        let mut outcomes = Vec::with_capacity(batch.commands.len());
        for command in batch.commands {
            let applied = AppliedCommand::of(&command);
            let outcome = self.applier.apply(command);
            self.observer.applied(&applied, &outcome);
            outcomes.push(outcome);
        }
        Ok(Outcomes(outcomes))
    }

    fn apply_entry(&mut self, id: LogId, payload: Payload) -> io::Result<Outcomes> {
        let started = clock::now();
        let mut membership = None;
        let outcomes = match payload {
            Payload::Blank => Outcomes::default(),
            Payload::Normal(batch) => self.apply_batch(batch.0)?,
            Payload::Membership(m) => {
                self.membership = StoredMembership::new(Some(id), m);
                membership = Some(membership::encode_stored(&self.membership));
                Outcomes::default()
            }
        };
        let position = Position { term: id.leader_id.term, index: id.index };
        self.applier.finish_entry(position, membership);
        self.applied = Some(id);
        self.observer.finished(position, started.elapsed());
        Ok(outcomes)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = CheckpointMark;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let Some(room) = self.observer.admit() {
                room.await;
            }
            let outcomes = self.apply_entry(entry.log_id, entry.payload)?;
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder { observer: Arc::clone(&self.observer) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: CheckpointMark) -> Result<(), io::Error> {
        // Snapshots come from peers, and there is no transport to any.
        let text = format!("a snapshot at {:?} cannot be installed: none can have been sent", meta.last_log_id);
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let at = self.observer.checkpointed();
        Ok(at.position.is_some().then(|| snapshot_of(at)))
    }
}

/// Makes a "snapshot": flushes the checkpoint.
pub(crate) struct CheckpointBuilder {
    observer: Arc<dyn ApplyObserver>,
}

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = CheckpointMark;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(snapshot_of(self.observer.flush().await?))
    }
}

fn snapshot_of(at: Checkpointed) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: at.position.map(|p| log_id(p.term, p.index)),
            last_membership: at.membership,
        },
        snapshot: CheckpointMark,
    }
}
