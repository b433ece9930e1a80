//! Who leads: followed for the response headers, the watches that require a leader, the lease clock and the metrics; and handed over.
//!
//! What is published is not raft's state but what holds: a leader that no quorum has acknowledged for an election timeout leads nobody, and
//! a follower that has heard of no leader for as long knows none.

use std::sync::Arc;
use std::time::Duration;

use garboard_mvcc::Store;
use garboard_runtime::clock;
use garboard_runtime::clock::Instant;
use garboard_runtime::spawn;
use tokio::sync::watch;

use crate::consensus::Consensus;
use crate::consensus::RaftView;
use crate::error::Error;
use crate::lease::LeaseClock;
use crate::metrics::Metrics;
use crate::node::Leadership;
use crate::node::Node;

/// The age of an acknowledgement is looked at so often in an election timeout.
const LOOKS_PER_ELECTION: u32 = 10;

/// Starts the following task on the current runtime. `election_timeout` is also what a new leader adds to every lease's lifetime; `ended`
/// is called when consensus has stopped.
pub(crate) fn follow(
    consensus: &Consensus,
    store: &Arc<Store>,
    leases: &Arc<LeaseClock>,
    metrics: &Arc<Metrics>,
    election_timeout: Duration,
    ended: impl FnOnce() + Send + 'static,
) -> watch::Receiver<Leadership> {
    let (sender, receiver) = watch::channel(Leadership::default());
    let (consensus, store) = (consensus.clone(), Arc::clone(store));
    let (leases, metrics) = (Arc::clone(leases), Arc::clone(metrics));
    spawn::task(async move {
        let mut led = None;
        let mut last_leader = 0;
        let look = |view: RaftView| {
            // By the term: between two looks another may have led.
            let leads = view.is_leader.then_some(view.term);
            if leads != led {
                match leads {
                    Some(term) => {
                        let all = || store.leases().into_iter().map(|l| (l.id, l.ttl_s, l.remaining_ttl_s));
                        leases.promote(term, all, election_timeout);
                    }
                    None => leases.demote(),
                }
                led = leads;
            }
            let age = if view.is_leader { view.quorum_ack_age } else { consensus.heard_age() };
            let alone = view.is_leader && consensus.voters().len() == 1;
            let holds = alone || age.is_some_and(|age| age < election_timeout);
            let now = if holds {
                Leadership { leader: view.leader, term: view.term, is_leader: view.is_leader }
            } else {
                Leadership { leader: 0, term: view.term, is_leader: false }
            };
            let is_told = now.leader == view.leader;
            if now == *sender.borrow() {
                return is_told;
            }
            if now.leader != 0 && now.leader != last_leader {
                last_leader = now.leader;
                metrics.leader_changes.inc();
                tracing::info!(leader = %format!("{:x}", now.leader), term = now.term, "elected leader");
            } else if now.leader == 0 && sender.borrow().leader != 0 {
                let lost = sender.borrow().leader;
                tracing::warn!(leader = %format!("{lost:x}"), term = now.term, "lost leader");
            }
            sender.send_replace(now);
            is_told
        };
        consensus.watch_leadership(election_timeout / LOOKS_PER_ELECTION, look).await;
        ended();
    });
    receiver
}

impl Node {
    /// Hands leadership to `target`, as the leader, and returns when it leads.
    ///
    /// # Errors
    /// This member does not lead, the target is no voter, or it did not take over in time: it then may still.
    pub async fn move_leader(&self, target: u64) -> Result<(), Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        if !self.consensus().voters().contains(&target) {
            return Err(Error::BadLeaderTransferee);
        }
        if target == self.member_id() {
            return Ok(());
        }
        self.transfer(target, clock::now() + self.request_timeout()).await
    }

    /// Hands leadership to whom it will cost least.
    pub(crate) async fn hand_over(&self) -> Result<(), Error> {
        let target = self.successor().ok_or(Error::Unhealthy)?;
        self.transfer(target, clock::now() + self.0.config.election_timeout * 2).await
    }

    /// The voter that answers and is furthest.
    fn successor(&self) -> Option<u64> {
        let progress = self.consensus().progress();
        let timeout = self.0.config.election_timeout;
        let answers = |id: &u64| progress.ack_ages.get(id).is_some_and(|age| *age < timeout);
        let others = self.consensus().voters().into_iter().filter(|id| *id != self.member_id());
        others.filter(answers).max_by_key(|id| progress.matched.get(id).copied().unwrap_or(0))
    }

    /// openraft never takes a transfer back, and takes no writes once it has begun: it begins when the target answers and has the log's
    /// end, or nearly.
    async fn transfer(&self, target: u64, deadline: Instant) -> Result<(), Error> {
        let step = self.0.config.heartbeat_interval / 4;
        while !self.is_near(target) {
            if clock::now() >= deadline {
                return Err(Error::TransferTimeout);
            }
            clock::sleep(step).await;
        }
        tracing::info!(to = %format!("{target:x}"), "handing over leadership");
        self.consensus().transfer(target).await?;
        let mut leadership = self.leadership();
        let moved = leadership.wait_for(|now| now.leader == target);
        match clock::timeout_at(deadline, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::TransferTimeout),
        }
    }

    fn is_near(&self, target: u64) -> bool {
        /// What is still under way to a follower that keeps up.
        const LAG: u64 = 64;
        let progress = self.consensus().progress();
        let answers = progress.ack_ages.get(&target).is_some_and(|age| *age < self.0.config.election_timeout);
        answers && progress.matched.get(&target).is_some_and(|matched| matched + LAG >= progress.last_log_index)
    }
}

/// Gives leadership up when the own disk does not answer: the others would wait for it with every write.
pub(crate) async fn run_watchdog(node: Node) {
    let timeout = node.0.config.election_timeout;
    let mut ticks = clock::interval(timeout / LOOKS_PER_ELECTION);
    loop {
        ticks.tick().await;
        let stalled = node.0.wal.stalled_for();
        if stalled.is_none_or(|stalled| stalled < timeout) || !node.is_leader() {
            continue;
        }
        tracing::warn!(stalled = ?stalled, "the disk has not answered for an election timeout; giving leadership up");
        if let Err(error) = node.hand_over().await {
            tracing::warn!(%error, "leadership could not be given up");
        }
    }
}
