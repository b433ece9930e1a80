//! Compaction. Applying the command only moves the compact revision that reads obey; what became unreachable leaves the
//! index and the tables in bounded steps off the apply path, its rows with the next checkpoints.
//!
//! Which revisions go depends on the compact revision alone, not on when a step runs. After a crash the walk starts over
//! on the index as the tables have it. Readers keep what they were granted: see `IndexState::epoch`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::checkpoint::DELETE_COST_BYTES;
use crate::counters::add;
use crate::error::Error;
use crate::revision::RowKey;
use crate::store::Store;

/// Keys looked at under one hold of the index's lock.
const KEYS_PER_LOCK: usize = 1000;
/// Holds of the lock in one step.
const LOCKS_PER_STEP: usize = 16;

/// What a step of the compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Nothing is scheduled.
    Idle,
    /// There is more to do, but not now: a reader still holds an older revision, or the next checkpoint has to take what
    /// was dropped so far.
    Waiting,
    More,
    /// The compaction at this revision is done; its last deletions travel in the next checkpoint.
    Finished(i64),
}

pub(crate) struct Compaction {
    /// What the finished entries have scheduled.
    scheduled: i64,
    finished: i64,
    walk: Option<Walk>,
    /// Epochs that a compaction ended, with its revision, as long as a reader may hold them.
    epochs: Vec<(i64, Arc<()>)>,
}

struct Walk {
    at: i64,
    after: Option<Box<[u8]>>,
}

impl Compaction {
    pub fn restored(scheduled: i64, finished: i64) -> Compaction {
        Compaction { scheduled, finished, walk: None, epochs: Vec::new() }
    }

    /// Called with the epoch that ended when the compact revision moved to `at`.
    pub fn end_epoch(&mut self, at: i64, epoch: Arc<()>) {
        self.epochs.push((at, epoch));
    }

    /// Called when the entry is finished that asked for it: only then may a checkpoint carry its deletions.
    pub fn schedule(&mut self, at: i64) {
        assert!(at > self.scheduled, "compact revisions ascend");
        self.scheduled = at;
    }

    fn is_pinned(&mut self, at: i64) -> bool {
        self.epochs.retain(|(_, epoch)| Arc::strong_count(epoch) > 1);
        self.epochs.iter().any(|&(ended_by, _)| ended_by <= at)
    }
}

impl Store {
    /// The compact revision up to which nothing is left to drop; -1 before the first. A physical compaction at `n` is
    /// done when this is at least `n` and a checkpoint taken after that is written.
    pub fn finished_compact_revision(&self) -> i64 {
        self.compaction.lock().finished
    }

    /// Drops up to about `max_rows` rows of a scheduled compaction. Cheap when there is nothing to do; holds the index
    /// for short times only.
    pub fn compaction_step(&self, max_rows: usize) -> Result<CompactionStep, Error> {
        let mut compaction = self.compaction.lock();
        let (at, mut after) = match compaction.walk.take() {
            Some(walk) => (walk.at, walk.after),
            None if compaction.scheduled > compaction.finished => (compaction.scheduled, None),
            None => return Ok(CompactionStep::Idle),
        };
        let unwritten = self.pending.lock().pending_deletes();
        if compaction.is_pinned(at) || unwritten >= self.options.compaction_rows_pending {
            compaction.walk = Some(Walk { at, after });
            return Ok(CompactionStep::Waiting);
        }
        let mut dropped = Vec::new();
        let mut finished = false;
        for _ in 0..LOCKS_PER_STEP {
            let left = max_rows.max(1).saturating_sub(dropped.len());
            if left == 0 {
                break;
            }
            let mut drop_row = |revision, tombstone| dropped.push(RowKey::new(revision, tombstone));
            let mut index = self.index.write();
            after = index.keys.compact(after.as_deref(), at, KEYS_PER_LOCK, left, &mut drop_row);
            finished = after.is_none();
            if finished {
                break;
            }
        }
        add(&self.tally.compacted_revisions, dropped.len());
        self.pending_bytes.fetch_add(dropped.len() * DELETE_COST_BYTES, Relaxed);
        self.pending.lock().compacted(dropped, finished.then_some(at));
        if finished {
            compaction.finished = at;
            return Ok(CompactionStep::Finished(at));
        }
        compaction.walk = Some(Walk { at, after });
        Ok(CompactionStep::More)
    }
}
