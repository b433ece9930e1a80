//! The handle on openraft: start it, propose, read-index, watch who leads.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::ReadPolicy;
use openraft::SnapshotPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::errors::ForwardToLeader;
use openraft::errors::InitializeError;
use openraft::errors::LinearizableReadError;
use openraft::errors::RaftError;

use super::log_store::LogStore;
use super::network::Peers;
use super::responder::Reply;
use super::state_machine::StateMachine;
use super::types::BatchBytes;
use super::types::MemberNode;
use super::types::Outcome;
use super::types::TypeConfig;

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
}

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Consensus, running.
#[derive(Clone)]
pub(crate) struct Consensus {
    raft: Raft,
    member_id: u64,
}

impl Consensus {
    /// Starts openraft on the current runtime; what the log holds as committed is applied before this returns.
    pub(crate) async fn start(
        config: ConsensusConfig,
        log: LogStore,
        state_machine: StateMachine,
    ) -> Result<Self, ConsensusError> {
        let member_id = config.member_id;
        let raft_config = raft_config(&config)?;
        let raft = Raft::new(member_id, Arc::new(raft_config), Peers, log, state_machine)
            .await
            .map_err(|e| ConsensusError::Stopped(e.to_string()))?;
        Ok(Self { raft, member_id })
    }

    /// Founds the cluster with `members`; does nothing when it is founded already.
    pub(crate) async fn initialize(&self, members: BTreeMap<u64, MemberNode>) -> Result<(), ConsensusError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(ConsensusError::Stopped(e.to_string())),
        }
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

    /// One ReadIndex round (Raft thesis, 6.4): returns once this member has applied all that was committed when the call began.
    pub(crate) async fn read_index(&self) -> Result<(), ConsensusError> {
        self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await.map(drop).map_err(|e| match e {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(f)) => forward(&f),
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ConsensusError::LeaseExpired,
            RaftError::Fatal(f) => ConsensusError::Stopped(f.to_string()),
        })
    }

    /// Replaces what the membership says of `id`.
    pub(crate) async fn set_node(&self, id: u64, node: MemberNode) -> Result<(), ConsensusError> {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, node)]));
        self.raft.change_membership(change, true).await.map(drop).map_err(|e| match e {
            RaftError::APIError(e) => write_error(e),
            RaftError::Fatal(f) => ConsensusError::Stopped(f.to_string()),
        })
    }

    /// The members of the effective membership, by id.
    pub(crate) fn members(&self) -> BTreeMap<u64, MemberNode> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    /// Raft's state now.
    pub(crate) fn view(&self) -> RaftView {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let leader = m.current_leader.unwrap_or(0);
        RaftView {
            leader,
            term: m.current_term,
            is_leader: leader == self.member_id && m.state == openraft::ServerState::Leader,
            last_log_index: m.last_log_index.unwrap_or(0),
            committed_index: m.local_committed.map_or(0, |id| id.index),
            applied_index: m.last_applied.map_or(0, |id| id.index),
        }
    }

    /// Calls `changed` for each change of leader or term, until consensus stops.
    pub(crate) async fn watch_leadership(&self, mut changed: impl FnMut(RaftView)) {
        let mut metrics = self.raft.server_metrics();
        loop {
            changed(self.view());
            if metrics.changed().await.is_err() {
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
    let raft_config = openraft::Config {
        cluster_name: config.cluster_name.clone(),
        heartbeat_interval: u64::try_from(config.heartbeat_interval.as_millis()).unwrap_or(u64::MAX),
        election_timeout_min: election_ms / 2,
        election_timeout_max: election_ms,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_count),
        max_in_snapshot_log_to_keep: config.catchup_entries,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(election_ms.saturating_mul(2)),
        broadcast_submitted_on_append: Some(true),
        ..openraft::Config::default()
    };
    raft_config.validate().map_err(|e| ConsensusError::Stopped(format!("raft configuration: {e}")))
}

fn write_error(error: ClientWriteError<TypeConfig>) -> ConsensusError {
    match error {
        ClientWriteError::ForwardToLeader(f) => forward(&f),
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
