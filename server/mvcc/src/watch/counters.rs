//! Plain numbers for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of the hub's counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WatchCounters {
    /// Open streams.
    pub streams: u64,
    /// Watchers of all streams.
    pub watchers: u64,
    /// Watchers that are catching up.
    pub slow_watchers: u64,
    /// Events handed out since start, once per watcher.
    pub events_total: u64,
    /// Events that wait in queues.
    pub pending_events: u64,
}

/// Kept up to date by the streams under their own locks.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub streams: Count,
    pub watchers: Count,
    pub slow_watchers: Count,
    pub events_total: Count,
    pub pending_events: Count,
    /// Watchers with prev_kv: while there is none, the applier looks nothing up.
    pub prev_kv_watchers: Count,
}

impl Counters {
    pub(super) fn read(&self) -> WatchCounters {
        WatchCounters {
            streams: self.streams.get(),
            watchers: self.watchers.get(),
            slow_watchers: self.slow_watchers.get(),
            events_total: self.events_total.get(),
            pending_events: self.pending_events.get(),
        }
    }
}

/// A counter that is read without a lock and orders nothing.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, n: usize) {
        let before = self.0.fetch_sub(n as u64, Ordering::Relaxed);
        assert!(before >= n as u64, "a watch counter went below zero");
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
