//! The handle on a running member: what `api` calls.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_mvcc::Response;
use garboard_mvcc::Store;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;
use garboard_runtime::executor::Executor;
use garboard_runtime::spawn;
use garboard_storage::DataDir;
use garboard_storage::backend::Backend;
use garboard_storage::backend::DefragPace;
use garboard_storage::wal::Wal;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;

use crate::compaction::Compactor;
use crate::config::NodeConfig;
use crate::consensus::Consensus;
use crate::consensus::node_to_proto;
use crate::error::Error;
use crate::flush::Flusher;
use crate::install::Installer;
use crate::lease::LeaseClock;
use crate::members::listed;
use crate::metrics::Metrics;
use crate::peers::Links;
use crate::peers::OnRefused;
use crate::peers::Refusal;
use crate::peers::Roster;
use crate::propose::Proposer;
use crate::read::ReadIndex;
use crate::space::DiskSpace;

/// Who leads, as this member knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's member id; 0 = none is known.
    pub leader: u64,
    /// The raft term.
    pub term: u64,
    /// Whether it is this member.
    pub is_leader: bool,
}

/// What Maintenance.Status and the metrics say of a member.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The leader's member id; 0 = none.
    pub leader: u64,
    /// The raft term.
    pub raft_term: u64,
    /// The committed index.
    pub raft_index: u64,
    /// The applied index.
    pub raft_applied_index: u64,
    /// Bytes of the database: pages in use and pages free for reuse.
    pub db_size: i64,
    /// Bytes of pages in use.
    pub db_size_in_use: i64,
    /// The quota in bytes; 0 = none.
    pub db_size_quota: i64,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// What is wrong, in etcd's words.
    pub errors: Vec<String>,
    /// The cluster version, once decided.
    pub cluster_version: Option<String>,
    /// What the downgrade under way is to reach.
    pub downgrade_target: Option<String>,
}

/// A running member. Clones share it.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// Whether this member found its cluster there.
    pub(crate) joined: bool,
    pub(crate) store: Arc<Store>,
    pub(crate) consensus: Consensus,
    pub(crate) links: Arc<Links>,
    pub(crate) proposer: Proposer,
    pub(crate) reads: ReadIndex,
    pub(crate) installer: Arc<Installer>,
    /// One change of the membership at a time.
    pub(crate) changing_members: tokio::sync::Mutex<()>,
    /// Called when the others refuse this member for good.
    pub(crate) on_refused: OnRefused,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) space: Arc<DiskSpace>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) threads: Mutex<Vec<spawn::ThreadHandle<()>>>,
    /// Set before consensus is told to stop: its end is no failure then.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) defragmenting: Arc<tokio::sync::Mutex<()>>,
    /// Dropped last: the tasks that use all of the above run here.
    pub(crate) executor: Executor,
    /// Released by a shutdown, though clones of this handle may live on.
    pub(crate) data_dir: Mutex<Option<DataDir>>,
    /// The node's own tasks, which hold clones of it.
    pub(crate) tasks: Mutex<Vec<spawn::JoinHandle<()>>>,
}

/// A command of one operation.
pub(crate) fn command(op: Op) -> Command {
    Command { op: Some(op) }
}

impl Node {
    /// Proposes a write and returns its reply once this member has applied it. A physical compaction returns when its rows are
    /// gone and that is on disk.
    ///
    /// # Errors
    /// What the state machine refuses, and every way in which a proposal can fail; after [`Error::Timeout`] and
    /// [`Error::LeaderChanged`] it may still take effect.
    pub async fn propose(&self, command: Command) -> Result<Response, Error> {
        let bytes = command.encoded_len();
        if bytes > self.0.config.max_request_bytes {
            return Err(Error::RequestTooLarge);
        }
        self.check_space(&command).await?;
        let physical = match &command.op {
            Some(Op::Compaction(r)) if r.physical => Some(r.revision),
            _ => None,
        };
        let response = self.0.proposer.propose(command, bytes).await?;
        if let Some(revision) = physical {
            self.0.compactor.wait_finished(revision).await?;
            self.flush().await?;
        }
        Ok(response)
    }

    /// Returns once a read of the local state is linearizable.
    ///
    /// # Errors
    /// No leader could be proved within the request timeout.
    pub async fn linearizable_read(&self) -> Result<(), Error> {
        self.0.reads.wait().await
    }

    /// A linearizable read, as health checks make it.
    ///
    /// # Errors
    /// As [`Self::linearizable_read`].
    pub async fn health_read(&self) -> Result<(), Error> {
        self.linearizable_read().await
    }

    /// The state machine, for reads and watches.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// The most bytes that the answer to a range is likely to have: its keys by the average of the database, history counted in.
    pub fn expected_bytes(&self, request: &pb::RangeRequest) -> u64 {
        let store = self.store();
        let keys = store.expected_keys(request);
        let stored = self.0.backend.size().in_use_bytes + u64::try_from(store.pending_bytes()).unwrap_or(u64::MAX);
        keys.saturating_mul(stored / u64::try_from(store.keys().max(1)).unwrap_or(u64::MAX))
    }

    /// A response header.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.0.cluster_id,
            member_id: self.0.member_id,
            revision,
            raft_term: self.0.leadership.borrow().term,
        }
    }

    /// This member's id.
    pub fn member_id(&self) -> u64 {
        self.0.member_id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.0.leadership.borrow().is_leader
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Where this member stands.
    pub fn status(&self) -> Status {
        let view = self.0.consensus.view();
        let size = self.0.backend.size();
        let mut errors: Vec<String> = self
            .0
            .store
            .alarms()
            .iter()
            .map(|a| format!("memberID:{} alarm:{} ", a.member_id, a.alarm().as_str_name()))
            .collect();
        errors.extend(self.0.space.complaint());
        let leader = self.0.leadership.borrow().leader;
        if leader == 0 {
            errors.push("etcdserver: no leader".into());
        }
        Status {
            leader,
            raft_term: view.term,
            raft_index: view.committed_index,
            raft_applied_index: self.0.store.applied().index,
            db_size: clamp(size.total_bytes),
            db_size_in_use: clamp(size.in_use_bytes),
            db_size_quota: self.0.config.quota_bytes().map_or(0, clamp),
            is_learner: self.is_learner(),
            errors,
            cluster_version: self.0.store.cluster_version(),
            downgrade_target: self.0.store.downgrade_target(),
        }
    }

    /// The members, as raft has committed them.
    pub fn members(&self) -> Vec<pb::Member> {
        let members = self.roster().members();
        listed(members.iter().map(|(id, node)| node_to_proto(*id, node)).collect())
    }

    /// Whether clients see this member as a learner. One that has joined and has yet to learn what it is may be one.
    pub fn is_learner(&self) -> bool {
        self.roster().member(self.0.member_id).map_or(self.0.joined, |member| member.is_learner)
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        self.0.links.roster()
    }

    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.0.links
    }

    pub(crate) fn consensus(&self) -> &Consensus {
        &self.0.consensus
    }

    /// The others refuse this member for good.
    pub(crate) fn refused(&self, refusal: Refusal) {
        (self.0.on_refused)(refusal);
    }

    /// Alarms: GET is a linearizable read, the others go through raft.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub async fn alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Error> {
        if request.action() == pb::alarm_request::AlarmAction::Get {
            // One that any member has been told of is listed by all.
            self.linearizable_read().await?;
            let wanted = |a: &pb::AlarmMember| request.alarm() == pb::AlarmType::None || a.alarm == request.alarm;
            let alarms = self.0.store.alarms().into_iter().filter(wanted).collect();
            return Ok(pb::AlarmResponse { header: None, alarms });
        }
        match self.propose(command(Op::Alarm(request))).await? {
            Response::Alarm(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// Rebuilds the database file without its free pages, while reads and writes go on. One at a time; it goes on to its end also when nobody
    /// waits for it any more.
    ///
    /// # Errors
    /// The disk; the old file stays in use then.
    pub async fn defragment(&self) -> Result<(), Error> {
        let turn = Arc::clone(&self.0.defragmenting).lock_owned().await;
        self.flush().await?;
        let inner = Arc::clone(&self.0);
        spawn::blocking(move || {
            let _turn = turn;
            inner.metrics.defrag_inflight.set(1);
            let _timer = inner.metrics.defrag_duration.start_timer();
            let (started, before) = (clock::now(), inner.backend.size().total_bytes);
            tracing::info!("current-db-size-bytes" = before, "starting defragment");
            let result =
                inner.backend.defragment(DefragPace::default()).map(drop).map_err(|e| Error::Internal(e.to_string()));
            inner.metrics.defrag_inflight.set(0);
            let took = clock::now().saturating_duration_since(started);
            match &result {
                Ok(()) => {
                    let after = inner.backend.size().total_bytes;
                    tracing::info!("current-db-size-bytes" = after, took = ?took, "finished defragment");
                }
                Err(error) => tracing::warn!(error = %error, took = ?took, "failed to defragment"),
            }
            result
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))?
    }

    /// etcd's hash over the keys at `revision` (0 = the current one).
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub async fn hash_kv(&self, revision: i64) -> Result<garboard_mvcc::HashKv, Error> {
        self.flush().await?;
        let inner = Arc::clone(&self.0);
        spawn::blocking(move || {
            let _timer = inner.metrics.hash_rev_duration.start_timer();
            inner.store.hash_kv(revision).map_err(Error::Mvcc)
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))?
    }

    /// A hash over the whole database.
    ///
    /// # Errors
    /// The disk.
    pub async fn hash(&self) -> Result<u32, Error> {
        self.flush().await?;
        let inner = Arc::clone(&self.0);
        spawn::blocking(move || {
            let _timer = inner.metrics.hash_duration.start_timer();
            inner.store.hash().map_err(Error::Mvcc)
        })
        .await
        .map_err(|e| Error::Internal(e.to_string()))?
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        self.0.config.request_timeout()
    }

    /// `--max-request-bytes`.
    pub fn max_request_bytes(&self) -> usize {
        self.0.config.max_request_bytes
    }

    /// Resolves when a leader is known and this member has applied what it had committed.
    ///
    /// # Errors
    /// The member stopped before.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut leadership = self.leadership();
        leadership.wait_for(|l| l.leader != 0).await.map_err(|_| Error::Stopped)?;
        loop {
            match self.linearizable_read().await {
                Ok(()) => return Ok(()),
                Err(Error::Timeout | Error::NoLeader | Error::LeaderChanged) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives leadership to another member, if there is one that can take it: so that the cluster need not wait for an election.
    pub async fn hand_over_if_leading(&self) {
        if !self.is_leader() || self.consensus().voters().len() == 1 {
            return;
        }
        if let Err(error) = self.hand_over().await {
            tracing::warn!(%error, "leadership was not handed over");
        }
    }

    /// Stops: no more proposals, everything applied is flushed, the log is closed.
    pub async fn shutdown(&self) {
        self.0.stopping.store(true, Ordering::Release);
        if let Err(error) = self.0.consensus.shutdown().await {
            tracing::warn!(error = %error, "consensus did not stop cleanly");
        }
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            task.abort();
            // Aborted is what it is meant to be.
            let _ = task.await;
        }
        self.0.compactor.stop();
        self.0.flusher.stop();
        let threads = std::mem::take(&mut *self.0.threads.lock());
        let inner = Arc::clone(&self.0);
        let joined = spawn::blocking(move || {
            let clean = threads.into_iter().all(|t| t.join().is_ok());
            inner.wal.close();
            inner.data_dir.lock().take();
            clean
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::warn!("a thread of this member ended with a panic");
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        Arc::clone(&self.0.flusher).barrier().await.map(drop).map_err(|e| Error::Internal(e.to_string()))
    }

    /// Refuses what the disk or the quota has no room for; for the quota an alarm is raised (etcd: checked before raft, with its
    /// cost model).
    async fn check_space(&self, command: &Command) -> Result<(), Error> {
        let cost = garboard_mvcc::validate::cost(command);
        if cost == 0 {
            return Ok(());
        }
        if self.0.space.is_low() {
            return Err(Error::NoSpace);
        }
        let Some(quota) = self.0.config.quota_bytes() else { return Ok(()) };
        let pending = u64::try_from(self.0.store.pending_bytes()).unwrap_or(u64::MAX);
        let used = self.0.backend.size().total_bytes.saturating_add(pending);
        if used.saturating_add(cost) <= quota {
            return Ok(());
        }
        if !self.0.store.has_alarm(pb::AlarmType::Nospace) {
            let alarm = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Activate.into(),
                member_id: self.0.member_id,
                alarm: pb::AlarmType::Nospace.into(),
            };
            let raise = Command { op: Some(Op::Alarm(alarm)) };
            let bytes = raise.encoded_len();
            self.0.proposer.propose(raise, bytes).await?;
            tracing::warn!(quota, used, "database space exceeded: NOSPACE alarm raised");
        }
        Err(Error::NoSpace)
    }
}

pub(crate) fn unexpected(response: &Response) -> Error {
    Error::Internal(format!("the state machine answered another command: {response:?}"))
}

fn clamp(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
