//! `--auto-compaction-mode`: the leader proposes compactions by age or by number of revisions, at etcd's intervals.

use std::collections::VecDeque;
use std::time::Duration;

use garboard_proto::etcdserverpb::CompactionRequest;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;

use crate::config::AutoCompaction;
use crate::node::Node;

/// Revision mode looks this often.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Periodic mode samples the revision ten times a period, and compacts once a period (once an hour for longer ones).
const SAMPLES_PER_INTERVAL: u32 = 10;
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs until the member stops.
pub(crate) async fn run(node: Node, mode: AutoCompaction) {
    match mode {
        AutoCompaction::Off => {}
        AutoCompaction::Periodic(period) => periodic(&node, period).await,
        AutoCompaction::Revision(retention) => by_revision(&node, retention).await,
    }
}

/// The revisions of the last period, oldest first: the oldest is what a full period has passed over.
struct Samples {
    revisions: VecDeque<i64>,
    needed: usize,
}

impl Samples {
    fn new(period: Duration) -> Self {
        let sample = period.min(LONGEST_INTERVAL) / SAMPLES_PER_INTERVAL;
        let needed = (period.as_nanos() / sample.as_nanos().max(1)) as usize;
        Self { revisions: VecDeque::new(), needed: needed.max(1) }
    }

    /// Takes a sample; the revision that is one period old, once a period has passed.
    fn push(&mut self, revision: i64) -> Option<i64> {
        self.revisions.push_back(revision);
        if self.revisions.len() <= self.needed {
            return None;
        }
        self.revisions.pop_front()
    }
}

async fn periodic(node: &Node, period: Duration) {
    let interval = period.min(LONGEST_INTERVAL);
    let mut samples = Samples::new(period);
    let mut ticks = clock::interval((interval / SAMPLES_PER_INTERVAL).max(Duration::from_millis(1)));
    let mut since_compaction = SAMPLES_PER_INTERVAL;
    loop {
        ticks.tick().await;
        let old = samples.push(node.store().revision());
        since_compaction += 1;
        if let Some(revision) = old
            && since_compaction >= SAMPLES_PER_INTERVAL
            && compact(node, revision).await
        {
            since_compaction = 0;
        }
    }
}

async fn by_revision(node: &Node, retention: i64) {
    let mut ticks = clock::interval(REVISION_INTERVAL);
    loop {
        ticks.tick().await;
        compact(node, node.store().revision() - retention).await;
    }
}

/// True when the compaction was proposed and taken.
async fn compact(node: &Node, revision: i64) -> bool {
    if !node.is_leader() || revision <= node.store().compact_revision().max(0) {
        return false;
    }
    let request = CompactionRequest { revision, physical: false };
    match node.propose(Command { op: Some(Op::Compaction(request)) }).await {
        Ok(_) => {
            tracing::info!(revision, "completed auto compaction");
            true
        }
        Err(error) => {
            tracing::warn!(revision, error = %error, "failed auto compaction");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compacted_is_one_period_old() {
        let mut samples = Samples::new(Duration::from_secs(100));
        let taken: Vec<_> = (1..=13).map(|revision| samples.push(revision)).collect();
        assert_eq!(taken[..10], [None; 10]);
        assert_eq!(taken[10..], [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_period_above_an_hour_is_sampled_every_six_minutes() {
        assert_eq!(Samples::new(Duration::from_secs(24 * 3600)).needed, 240);
    }
}
