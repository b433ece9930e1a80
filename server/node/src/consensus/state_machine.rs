//! Applies committed entries, in order, on openraft's apply task: decode the batch, hand each command to the MVCC applier, answer.
//!
//! A snapshot, to openraft, is the checkpoint: building one flushes what is applied and records how far that came. What a peer is sent is read
//! from the database when the sending begins.

use std::collections::BTreeSet;
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
use garboard_storage::backend::Backend;
use openraft::RaftSnapshotBuilder;
use openraft::storage::EntryResponder;
use openraft::storage::RaftStateMachine;
use prost::Message as _;

use super::membership::Stored;
use super::snapshot::Received;
use super::snapshot::SnapshotData;
use super::types::LogId;
use super::types::Outcome;
use super::types::Outcomes;
use super::types::Payload;
use super::types::StoredMembership;
use super::types::TypeConfig;
use super::types::log_id;
use super::types::position;

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
    /// Called with the outcomes of an entry that this member gave to a leader.
    fn forwarded(&self, sequence: u64, outcomes: Vec<Outcome>);
    /// Called when an entry or a snapshot has brought a membership.
    fn members(&self, membership: &Stored);
    /// Puts a received snapshot in the place of the state; durable when it returns.
    fn install(&self, received: Received) -> Pending<'_, io::Result<()>>;
    /// What a snapshot is sent from.
    fn backend(&self) -> Arc<Backend>;
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
    /// The members write another format from here on.
    FormatVersion { version: u32 },
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
            Some(Op::FormatVersion(r)) => Self::FormatVersion { version: r.version },
            _ => Self::Other,
        }
    }
}

/// The durable checkpoint's position and the membership in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checkpointed {
    pub(crate) position: Option<Position>,
    pub(crate) membership: Stored,
}

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// The state machine as openraft drives it.
pub(crate) struct StateMachine {
    member_id: u64,
    applier: Applier,
    applied: Option<LogId>,
    membership: Stored,
    observer: Arc<dyn ApplyObserver>,
}

impl StateMachine {
    /// `recovered` is what the checkpoint holds.
    pub(crate) fn new(
        member_id: u64,
        applier: Applier,
        recovered: Checkpointed,
        observer: Arc<dyn ApplyObserver>,
    ) -> Self {
        let applied = recovered.position.map(|p| log_id(p.term, p.index));
        observer.members(&recovered.membership);
        Self { member_id, applier, applied, membership: recovered.membership, observer }
    }

    fn apply_entry(&mut self, id: LogId, payload: Payload) -> io::Result<Outcomes> {
        let started = clock::now();
        let observer = &self.observer;
        let voters = matches!(payload, Payload::Membership(_)).then(|| self.membership.configs().clone());
        let mut applied = apply(&mut self.applier, &mut self.membership, id, payload, |command, outcome| {
            observer.applied(command, outcome);
            Ok(())
        })?;
        if applied.origin == self.member_id && applied.sequence != 0 {
            observer.forwarded(applied.sequence, std::mem::take(&mut applied.outcomes));
        }
        self.applied = Some(id);
        if let Some(before) = voters {
            self.tell_voters(&before);
            observer.members(&self.membership);
        }
        observer.finished(position(&id), started.elapsed());
        Ok(Outcomes(applied.outcomes))
    }

    /// Logs the end of a change of the voters: its first step, after which two sets of them decide together, is none.
    fn tell_voters(&self, before: &[BTreeSet<u64>]) {
        let configs = self.membership.configs();
        if let [voters] = configs.as_slice()
            && configs != before
        {
            let voters: Vec<String> = voters.iter().map(|id| format!("{id:x}")).collect();
            tracing::info!(voters = %voters.join(", "), "the voters have changed");
        }
    }
}

/// What became of one entry.
#[derive(Default)]
pub(super) struct Applied {
    outcomes: Vec<Outcome>,
    /// The member that gave it to a leader, and that member's number for it; 0: none.
    origin: u64,
    sequence: u64,
    is_membership: bool,
}

/// Applies one entry: each of its commands, of which `told` hears at once, or the membership that it brings.
///
/// # Errors
/// The entry cannot be read, or `told` ends it.
pub(super) fn apply(
    applier: &mut Applier,
    membership: &mut Stored,
    id: LogId,
    payload: Payload,
    told: impl Fn(&AppliedCommand, &Outcome) -> io::Result<()>,
) -> io::Result<Applied> {
    let mut applied = Applied::default();
    match payload {
        Payload::Blank => {}
        Payload::Normal(batch) => {
            let batch = Batch::decode(batch.0).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a batch in the log cannot be read: {e}"))
            })?;
            (applied.origin, applied.sequence) = (batch.origin, batch.sequence);
            applied.outcomes.reserve_exact(batch.commands.len());
            for command in batch.commands {
                let kind = AppliedCommand::of(&command);
                let outcome = applier.apply(command);
                told(&kind, &outcome)?;
                applied.outcomes.push(outcome);
            }
        }
        Payload::Membership(brought) => {
            membership.replace(id, brought);
            applied.is_membership = true;
        }
    }
    applier.finish_entry(position(&id), applied.is_membership.then(|| membership.encode()));
    Ok(applied)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.membership.clone()))
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

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let SnapshotData::Received(received) = snapshot else {
            let text = format!("a snapshot at {:?} that did not come from a peer", meta.last_log_id);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let membership = received.membership.clone();
        self.observer.install(*received).await?;
        self.applied = meta.last_log_id;
        self.membership = membership;
        self.observer.members(&self.membership);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let at = self.observer.checkpointed();
        Ok(at.position.is_some().then(|| snapshot_of(at, self.observer.backend())))
    }
}

/// Makes a "snapshot": flushes the checkpoint.
pub(crate) struct CheckpointBuilder {
    observer: Arc<dyn ApplyObserver>,
}

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Ok(snapshot_of(self.observer.flush().await?, self.observer.backend()))
    }
}

fn snapshot_of(at: Checkpointed, backend: Arc<Backend>) -> Snapshot {
    Snapshot {
        meta: SnapshotMeta {
            last_log_id: at.position.map(|p| log_id(p.term, p.index)),
            last_membership: at.membership.membership,
        },
        snapshot: SnapshotData::Own(backend),
    }
}
