//! Plain numbers for the metrics. They count since the store was opened and decide nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A reading of all counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Keys put, in transactions too.
    pub puts: u64,
    /// Keys deleted.
    pub deletes: u64,
    /// Ranges served, in transactions too.
    pub ranges: u64,
    /// Transactions applied or read.
    pub txns: u64,
    /// Events made: one a change.
    pub events: u64,
    /// Keys that exist.
    pub keys: u64,
    /// Keys in the index, deleted ones that are not compacted included.
    pub indexed_keys: u64,
    /// Revisions removed by compaction.
    pub compacted_revisions: u64,
    pub leases: u64,
    pub leased_keys: u64,
    pub leases_granted: u64,
    pub leases_revoked: u64,
    pub overlay_hits: u64,
    pub cache_hits: u64,
    /// Rows that had to be read from the backend.
    pub cache_misses: u64,
    pub cache_bytes: u64,
    /// Applied but not in the backend yet.
    pub pending_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Tally {
    pub puts: AtomicU64,
    pub deletes: AtomicU64,
    pub ranges: AtomicU64,
    pub txns: AtomicU64,
    pub events: AtomicU64,
    pub compacted_revisions: AtomicU64,
    pub leases_granted: AtomicU64,
    pub leases_revoked: AtomicU64,
    pub overlay_hits: AtomicU64,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: usize) {
    if by != 0 {
        counter.fetch_add(by as u64, Relaxed);
    }
}

impl Tally {
    pub fn read(&self) -> Counters {
        Counters {
            puts: self.puts.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            ranges: self.ranges.load(Relaxed),
            txns: self.txns.load(Relaxed),
            events: self.events.load(Relaxed),
            compacted_revisions: self.compacted_revisions.load(Relaxed),
            leases_granted: self.leases_granted.load(Relaxed),
            leases_revoked: self.leases_revoked.load(Relaxed),
            overlay_hits: self.overlay_hits.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            cache_misses: self.cache_misses.load(Relaxed),
            ..Counters::default()
        }
    }
}
