//! The latest revisions, kept so that a watcher that lags a little needs no disk. Contiguous; bounded by bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::event::Event;

/// Bookkeeping of a batch, beside its events.
const BATCH_OVERHEAD_BYTES: usize = 64;

/// All events of one revision, in order.
#[derive(Debug)]
pub(super) struct Batch {
    pub revision: i64,
    pub events: Vec<Arc<Event>>,
    bytes: usize,
}

impl Batch {
    pub(super) fn new(revision: i64, events: Vec<Event>) -> Self {
        assert!(events.iter().all(|event| event.main() == revision), "an event of another revision was published");
        assert!(events.is_sorted_by_key(Event::sub), "events of a revision out of order");
        let bytes = BATCH_OVERHEAD_BYTES + events.iter().map(Event::held_bytes).sum::<usize>();
        Self { revision, events: events.into_iter().map(Arc::new).collect(), bytes }
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Appends the next revision and forgets the oldest ones beyond the bound.
    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        if let Some(newest) = self.batches.back() {
            assert_eq!(newest.revision + 1, batch.revision, "the ring must be contiguous");
        }
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }

    /// The batches from `revision` on, at most `limit`; `None` if the ring does not reach back to it.
    pub(super) fn from(&self, revision: i64, limit: usize) -> Option<Vec<Arc<Batch>>> {
        let first = self.batches.front()?.revision;
        let skip = usize::try_from(revision.checked_sub(first)?).ok()?;
        (skip < self.batches.len()).then(|| self.batches.range(skip..).take(limit).cloned().collect())
    }
}
