//! The handle on openraft: start it, propose, read-index, watch who leads.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use garboard_mvcc::Position;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::ReadPolicy;
use openraft::SnapshotPolicy;
use openraft::alias::SerdeInstantOf;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ChangeMembershipError;
use openraft::errors::ClientWriteError;
use openraft::errors::ForwardToLeader;
use openraft::errors::InitializeError;
use openraft::errors::LinearizableReadError;
use openraft::errors::RaftError;
use openraft::raft::Precondition;
use tokio::sync::Notify;

use super::lease::Lease;
use super::log_store::LogStore;
use super::network::Peers;
use super::proof::Proof;
use super::responder::Reply;
use super::state_machine::StateMachine;
use super::types::BatchBytes;
use super::types::MemberNode;
use super::types::Outcome;
use super::types::TypeConfig;
use super::types::log_id;
use super::types::position;
use crate::peers::Links;

/// What openraft is configured with.
#[derive(Debug, Clone)]
pub(crate) struct ConsensusConfig {
    pub(crate) member_id: u64,
    pub(crate) cluster_name: String,
    pub(crate) heartbeat_interval: Duration,
    /// openraft's maximum; half of it is the minimum.
    pub(crate) election_timeout: Duration,
    /// Entries between two recorded checkpoints (`--snapshot-count`).
    pub(crate) snapshot_count: u64,
    /// Entries kept in the log behind a recorded checkpoint (`--snapshot-catchup-entries`).
    pub(crate) catchup_entries: u64,
    pub(crate) pre_vote: bool,
    /// Whether reads may trust a lease.
    pub(crate) lease_reads: bool,
}

/// Why consensus did not take a proposal or a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConsensusError {
    #[error("no leader is known")]
    NoLeader,
    #[error("member {leader:x} leads")]
    NotLeader { leader: u64 },
    #[error("this leader has not yet proved its leadership to a quorum")]
    LeaseExpired,
    #[error("the leader changed while the proposal was under way; it may or may not take effect")]
    LeaderChanged,
    #[error("another change of the membership is under way")]
    InProgress,
    #[error("consensus has stopped: {0}")]
    Stopped(String),
}

/// Raft's state as the rest of the node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RaftView {
    /// 0 = none known.
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) is_leader: bool,
    pub(crate) last_log_index: u64,
    pub(crate) committed_index: u64,
    pub(crate) applied_index: u64,
    /// Of a leader: how long ago what a quorum last acknowledged was sent. `None`: nothing yet.
    pub(crate) quorum_ack_age: Option<Duration>,
}

/// How far a leader has come with the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) last_log_index: u64,
    /// How far each of them has the log.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// How long ago each of them acknowledged anything.
    pub(crate) ack_ages: BTreeMap<u64, Duration>,
}

/// What becomes of the membership.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A member that has the log and no vote.
    AddLearner(u64, MemberNode),
    /// A learner becomes a voter.
    Promote(u64, MemberNode),
    /// What is said of a member.
    Set(u64, MemberNode),
    RemoveVoter(u64),
    RemoveLearner(u64),
}

/// At most so many heartbeats are sent in an election timeout.
const HEARTBEATS_PER_ELECTION: u64 = 4;

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Consensus, running.
#[derive(Clone)]
pub(crate) struct Consensus {
    pub(super) raft: Raft,
    member_id: u64,
    pub(super) heard: Arc<Heard>,
    proof: Arc<Proof>,
    /// How long a proof may be waited for, once openraft has taken one for given.
    proof_timeout: Duration,
    /// `None`: each read is proved by a quorum.
    pub(super) lease: Option<Arc<Lease>>,
}

/// When a leader was last obeyed.
pub(crate) struct Heard {
    began: clock::Instant,
    /// Milliseconds from `began`, and one; 0: never.
    at_ms: AtomicU64,
    /// A leader that was not heard of for so long was none.
    election_timeout: Duration,
    /// There is a leader again.
    anew: Notify,
}

impl Heard {
    fn new(election_timeout: Duration) -> Self {
        Self { began: clock::now(), at_ms: AtomicU64::new(0), election_timeout, anew: Notify::new() }
    }

    pub(super) fn now(&self) {
        let ms = clock::now().saturating_duration_since(self.began).as_millis();
        let is_new = self.age().is_none_or(|age| age >= self.election_timeout);
        self.at_ms.store(u64::try_from(ms).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
        if is_new {
            self.anew.notify_one();
        }
    }

    /// How long ago; `None`: never.
    fn age(&self) -> Option<Duration> {
        let at = self.at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(clock::now().saturating_duration_since(self.began).saturating_sub(Duration::from_millis(at)))
    }
}

impl Consensus {
    /// Starts openraft on the current runtime; what the log holds as committed is applied before this returns.
    pub(crate) async fn start(
        config: ConsensusConfig,
        log: LogStore,
        state_machine: StateMachine,
        links: Arc<Links>,
    ) -> Result<Self, ConsensusError> {
        let member_id = config.member_id;
        let raft_config = raft_config(&config)?;
        let proof = Arc::new(Proof::new(member_id));
        let peers = Peers { links, own_id: member_id, proof: Arc::clone(&proof) };
        let raft = Raft::new(member_id, Arc::new(raft_config), peers, log, state_machine)
            .await
            .map_err(|e| ConsensusError::Stopped(e.to_string()))?;
        let lease = config.lease_reads.then(|| Arc::new(Lease::new(config.election_timeout)));
        if let Some(lease) = &lease {
            let (raft, until) = (raft.clone(), lease.bound_until());
            drop(spawn::task(async move {
                clock::sleep_until(until).await;
                raft.runtime_config().elect(true);
            }));
        }
        let heard = Arc::new(Heard::new(config.election_timeout));
        Ok(Self { raft, member_id, heard, proof, proof_timeout: config.election_timeout, lease })
    }

    /// Founds the cluster with `members`; does nothing when it is founded already.
    pub(crate) async fn initialize(&self, members: BTreeMap<u64, MemberNode>) -> Result<(), ConsensusError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(ConsensusError::Stopped(e.to_string())),
        }
    }

    /// The only voter need not wait until it misses a leader.
    pub(crate) async fn elect_if_alone(&self) -> Result<(), ConsensusError> {
        if !self.voters().iter().eq([&self.member_id]) || self.view().is_leader {
            return Ok(());
        }
        self.raft.trigger().elect(false).await.map_err(|e| ConsensusError::Stopped(e.to_string()))
    }

    /// Proposes one entry. `deliver` gets the outcomes once this member has applied it, or why that will not happen.
    pub(crate) async fn propose(
        &self,
        batch: Bytes,
        deliver: impl FnOnce(Result<Vec<Outcome>, ConsensusError>) + Send + 'static,
    ) -> Result<(), ConsensusError> {
        let reply = Reply::new(move |result: Result<openraft::raft::ClientWriteResponse<TypeConfig>, _>| {
            deliver(result.map(|response| response.data.0).map_err(write_error));
        });
        self.raft
            .client_write_ff(BatchBytes(batch), Some(reply))
            .await
            .map_err(|e| ConsensusError::Stopped(e.to_string()))
    }

    /// The same, as the leader of `term` and of no other.
    pub(crate) async fn propose_in_term(
        &self,
        term: u64,
        batch: Bytes,
        deliver: impl FnOnce(Result<Vec<Outcome>, ConsensusError>) + Send + 'static,
    ) -> Result<(), ConsensusError> {
        let reply = Reply::new(move |result: Result<openraft::raft::ClientWriteResponse<TypeConfig>, _>| {
            deliver(result.map(|response| response.data.0).map_err(write_error));
        });
        let leader = log_id(term, 0).leader_id;
        let write = self.raft.write(BatchBytes(batch)).with_leader(leader).responder(reply);
        write.await.map_err(|e| ConsensusError::Stopped(e.to_string()))
    }

    /// One ReadIndex round (Raft thesis, 6.4): returns once this member has applied all that was committed when the call began. Under a lease
    /// nobody is asked. The term in which this member was the leader after the call began.
    pub(crate) async fn read_index(&self) -> Result<u64, ConsensusError> {
        if let Some(lease) = &self.lease
            && lease.holds(&self.proved_view())
            && self.raft.ensure_linearizable(ReadPolicy::LeaseRead).await.is_ok()
        {
            // Once more: the index was taken in between, and may be that of a leader that was no longer one.
            let view = self.proved_view();
            if lease.holds(&view) {
                return Ok(view.term);
            }
        }
        let begun = clock::now();
        let index = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map_err(|e| match e {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(f)) => forward(&f),
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ConsensusError::LeaseExpired,
            RaftError::Fatal(f) => ConsensusError::Stopped(f.to_string()),
        })?;
        // The index is of the term that is to be proved.
        let (term, configs) = (index.committed_leader_id().term, self.configs());
        let proved = self.proof.wait(term, &configs, begun);
        clock::timeout(self.proof_timeout, proved).await.map_err(|_| ConsensusError::LeaseExpired)?;
        Ok(term)
    }

    /// The view, with the age of what a quorum has surely obeyed.
    fn proved_view(&self) -> RaftView {
        let view = self.view();
        RaftView { quorum_ack_age: self.proof.age(view.term, &self.configs()), ..view }
    }

    /// Whose quorums decide: one set of voters, or two while the membership changes.
    fn configs(&self) -> Vec<BTreeSet<u64>> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().clone()
    }

    /// Whether two sets of voters decide together: a change of them is under way, or was given up halfway.
    pub(crate) fn is_joint(&self) -> bool {
        self.configs().len() > 1
    }

    /// Where in the log the membership in effect was set. It need not be committed yet.
    pub(crate) fn membership_at(&self) -> Position {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.log_id().as_ref().map(position).unwrap_or_default()
    }

    /// Ends a change of the voters that nobody goes on with, since the leader that made it is gone: the newer of the two sets remains.
    /// Until then the loss of one member can cost the quorum of either.
    pub(crate) async fn settle(&self) -> Result<(), ConsensusError> {
        // What openraft's own second step is.
        self.to_its_end(ChangeMembers::AddVoterIds(BTreeSet::new()), false, self.membership_at()).await
    }

    /// Changes the membership that was set at `on`, and returns when that is committed.
    ///
    /// # Errors
    /// [`ConsensusError::InProgress`] when that membership is not committed yet, or another has taken its place.
    pub(crate) async fn change(&self, change: Change, on: Position) -> Result<(), ConsensusError> {
        let one = |id: u64, node: MemberNode| BTreeMap::from([(id, node)]);
        let (changes, retain) = match change {
            Change::AddLearner(id, node) => (ChangeMembers::AddNodes(one(id, node)), true),
            Change::Promote(id, node) => {
                let both =
                    vec![ChangeMembers::SetNodes(one(id, node)), ChangeMembers::AddVoterIds(BTreeSet::from([id]))];
                (ChangeMembers::Batch(both), true)
            }
            Change::Set(id, node) => (ChangeMembers::SetNodes(one(id, node)), true),
            Change::RemoveVoter(id) => (ChangeMembers::RemoveVoters(BTreeSet::from([id])), false),
            Change::RemoveLearner(id) => (ChangeMembers::RemoveNodes(BTreeSet::from([id])), true),
        };
        self.to_its_end(changes, retain, on).await
    }

    /// A change of the voters has two steps, which openraft has its caller drive: both are taken also when nobody waits any more.
    async fn to_its_end(
        &self,
        changes: ChangeMembers<u64, MemberNode>,
        retain: bool,
        on: Position,
    ) -> Result<(), ConsensusError> {
        let raft = self.raft.clone();
        let newest = Precondition::LastMembershipLogId { last_membership_log_id: Some(log_id(on.term, on.index)) };
        let changing = spawn::task(async move { raft.change_membership_if(changes, retain, [newest]).await });
        let changed = changing.await.map_err(|e| ConsensusError::Stopped(e.to_string()))?;
        changed.map(drop).map_err(|e| match e {
            RaftError::APIError(e) => write_error(e),
            RaftError::Fatal(f) => ConsensusError::Stopped(f.to_string()),
        })
    }

    /// Asks `to` to take over; that it has is seen by who leads.
    pub(crate) async fn transfer(&self, to: u64) -> Result<(), ConsensusError> {
        if let Some(lease) = &self.lease {
            lease.hands_over(self.view().term);
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|e| ConsensusError::Stopped(e.to_string()))
    }

    /// How long ago the leader was last obeyed.
    pub(crate) fn heard_age(&self) -> Option<Duration> {
        self.heard.age()
    }

    /// Raft's state now.
    pub(crate) fn view(&self) -> RaftView {
        // What openraft tells of a change first is told last: of the three, only these two are as new as the change that is waited for.
        let (server, data) = (self.raft.server_metrics(), self.raft.data_metrics());
        let (leader, term, state) = {
            let m = server.borrow_watched();
            (m.current_leader.unwrap_or(0), m.vote.leader_id.term, m.state)
        };
        let m = data.borrow_watched();
        RaftView {
            leader,
            term,
            is_leader: leader == self.member_id && state == openraft::ServerState::Leader,
            last_log_index: m.last_log.map_or(0, |id| id.index),
            committed_index: m.local_committed.map_or(0, |id| id.index),
            applied_index: m.last_applied.map_or(0, |id| id.index),
            quorum_ack_age: m.last_quorum_acked.as_ref().map(|at| at.elapsed()),
        }
    }

    /// How far this leader has come with the others; nothing when it is none.
    pub(crate) fn progress(&self) -> Progress {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let ack = |(id, at): (&u64, &Option<_>)| at.as_ref().map(|at: &SerdeInstantOf<TypeConfig>| (*id, at.elapsed()));
        Progress {
            last_log_index: m.last_log_index.unwrap_or(0),
            matched: m
                .replication
                .iter()
                .flatten()
                .map(|(id, at)| (*id, at.as_ref().map_or(0, |at| at.index)))
                .collect(),
            ack_ages: m.heartbeat.iter().flatten().filter_map(ack).collect(),
        }
    }

    /// Who votes, by the membership in effect.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// Calls `look` at each change of leader or term, and every `interval`, until consensus stops. While it answers that raft's leader is not
    /// one yet, also at each acknowledgement.
    pub(crate) async fn watch_leadership(&self, interval: Duration, mut look: impl FnMut(RaftView) -> bool) {
        let (mut server, mut data) = (self.raft.server_metrics(), self.raft.data_metrics());
        loop {
            let is_told = look(self.view());
            let changed = async {
                tokio::select! {
                    changed = server.changed() => changed.is_ok(),
                    changed = data.changed(), if !is_told => changed.is_ok(),
                    // openraft tells of a new leader before what it sent has been answered.
                    () = self.heard.anew.notified() => true,
                }
            };
            if let Ok(false) = clock::timeout(interval, changed).await {
                return;
            }
        }
    }

    /// Stops openraft's tasks.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(|e| io::Error::other(e.to_string()))
    }
}

fn raft_config(config: &ConsensusConfig) -> Result<openraft::Config, ConsensusError> {
    let election_ms = u64::try_from(config.election_timeout.as_millis()).unwrap_or(u64::MAX);
    let heartbeat_ms = u64::try_from(config.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
    let raft_config = openraft::Config {
        cluster_name: config.cluster_name.clone(),
        // openraft gives a heartbeat no longer for its way there and back: more often would part members that are far from each other.
        heartbeat_interval: heartbeat_ms.max(election_ms / HEARTBEATS_PER_ELECTION),
        election_timeout_min: election_ms / 2,
        election_timeout_max: election_ms,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count),
        max_in_snapshot_log_to_keep: config.catchup_entries,
        purge_batch_size: 256,
        enable_pre_vote: Some(config.pre_vote),
        // A lease that it may have granted in its life before is waited for first.
        enable_elect: !config.lease_reads,
        quorum_loss_probe_interval: Some(election_ms.saturating_mul(2)),
        broadcast_submitted_on_append: Some(true),
        ..openraft::Config::default()
    };
    raft_config.validate().map_err(|e| ConsensusError::Stopped(format!("raft configuration: {e}")))
}

fn write_error(error: ClientWriteError<TypeConfig>) -> ConsensusError {
    match error {
        ClientWriteError::ForwardToLeader(f) => forward(&f),
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
        | ClientWriteError::PreconditionFailed(_) => ConsensusError::InProgress,
        _ => ConsensusError::LeaderChanged,
    }
}

fn forward(error: &ForwardToLeader<TypeConfig>) -> ConsensusError {
    match (&error.reason, error.leader_id) {
        (openraft::errors::ForwardReason::LeaseExpired, _) => ConsensusError::LeaseExpired,
        (_, Some(leader)) => ConsensusError::NotLeader { leader },
        (_, None) => ConsensusError::NoLeader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leader_heard_of_anew_is_told_at_once_and_one_heard_of_all_along_is_not() {
        let heard = Heard::new(Duration::from_secs(3600));
        heard.now();
        heard.anew.notified().await;
        heard.now();
        assert!(futures_util::poll!(std::pin::pin!(heard.anew.notified())).is_pending());
        let never = Heard::new(Duration::ZERO);
        never.now();
        never.anew.notified().await;
        never.now();
        never.anew.notified().await;
    }

    /// Before its first tick, and not a moment after it.
    #[test]
    fn who_may_be_bound_by_a_lease_starts_without_elections() {
        for lease_reads in [false, true] {
            let config = ConsensusConfig {
                member_id: 1,
                cluster_name: "c".into(),
                heartbeat_interval: Duration::from_millis(100),
                election_timeout: Duration::from_secs(1),
                snapshot_count: 1,
                catchup_entries: 1,
                pre_vote: true,
                lease_reads,
            };
            assert_eq!(raft_config(&config).expect("it is valid").enable_elect, !lease_reads);
        }
    }
}
