//! The log in memory: where each entry stands, the recent ones themselves, and how far all is synced.
//!
//! Invariants: `slots` covers (purged, last] without gaps; an entry not yet written is in the cache; `synced_next` never passes an
//! entry whose write has not been synced.

use std::collections::VecDeque;

use super::LogId;
use super::State;
use super::WalEntry;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Queued by the append with this ticket; only in the cache.
    Pending { ticket: u64 },
    /// In the segment `seq`: byte offset and whole length of its record, crc of the record before.
    Written { seq: u32, offset: u32, len: u32, previous_crc: u32 },
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub state: State,
    /// Index of `slots[0]`; one behind purged when there are none.
    first: u64,
    slots: VecDeque<Slot>,
    /// The newest entries; the last one is the log's last.
    cache: VecDeque<WalEntry>,
    cache_used: usize,
    /// All entries below this index are synced.
    synced_next: u64,
}

// === impl Log ===

impl Log {
    /// A log as recovered: every slot written and synced.
    pub(crate) fn recovered(state: State, first: u64, slots: VecDeque<Slot>, cache: VecDeque<WalEntry>) -> Self {
        let cache_used = cache.iter().map(WalEntry::memory_bytes).sum();
        let synced_next = state.last.map_or(0, |last| last.index + 1);
        Self { state, first, slots, cache, cache_used, synced_next }
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(crate) fn synced_next(&self) -> u64 {
        self.synced_next
    }

    pub(crate) fn slot(&self, index: u64) -> Option<Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    /// The entry, if the cache has it.
    pub(crate) fn cached(&self, index: u64) -> Option<&WalEntry> {
        let begin = self.next() - self.cache.len() as u64;
        self.cache.get(usize::try_from(index.checked_sub(begin)?).ok()?)
    }

    pub(crate) fn append(&mut self, entries: &[WalEntry], ticket: u64) {
        for entry in entries {
            match self.state.last {
                Some(last) => assert!(
                    entry.log_id.index == last.index + 1 && entry.log_id.term >= last.term,
                    "entry {:?} does not follow {last:?}",
                    entry.log_id
                ),
                None => self.first = entry.log_id.index,
            }
            self.state.last = Some(entry.log_id);
            self.slots.push_back(Slot::Pending { ticket });
            self.cache_used += entry.memory_bytes();
            self.cache.push_back(entry.clone());
        }
    }

    /// # Panics
    /// `after` is below purged or below committed: what may be committed is never truncated (Raft paper, section 5.4). Or it is behind the
    /// last entry.
    pub(crate) fn truncate_after(&mut self, after: Option<LogId>) {
        assert!(after >= self.state.purged, "truncation to {after:?} below purged {:?}", self.state.purged);
        let keep_below = after.map_or(0, |id| id.index + 1);
        let committed_next = self.state.committed.map_or(0, |id| id.index + 1);
        assert!(
            keep_below >= committed_next.min(self.next()),
            "truncation to {after:?} below {:?}",
            self.state.committed
        );
        assert!(keep_below <= self.next(), "truncation to {after:?} behind the last entry {:?}", self.state.last);
        if keep_below == self.next() {
            return;
        }
        let keep = usize::try_from(keep_below.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.truncate(keep);
        while self.cache.back().is_some_and(|entry| entry.log_id.index >= keep_below) {
            self.cache_used -= self.cache.pop_back().map_or(0, |entry| entry.memory_bytes());
        }
        self.state.last = after;
        self.synced_next = self.synced_next.min(keep_below);
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        if self.state.last.is_none_or(|last| last.index <= upto.index) {
            // Nothing is left behind it: the snapshot that this comes from is the whole log.
            self.slots.clear();
            self.cache.clear();
            self.cache_used = 0;
            self.state.last = Some(upto);
        } else {
            let gone = usize::try_from(upto.index + 1 - self.first.min(upto.index + 1)).unwrap_or(usize::MAX);
            self.slots.drain(..gone.min(self.slots.len()));
            while self.cache.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
                self.cache_used -= self.cache.pop_front().map_or(0, |entry| entry.memory_bytes());
            }
        }
        self.first = upto.index + 1;
        self.state.purged = Some(upto);
        self.synced_next = self.synced_next.max(upto.index + 1);
    }

    /// Notes that the append with `ticket` is written and synced: its first entry and where each one stands.
    pub(crate) fn written(&mut self, first: u64, ticket: u64, places: &[Slot]) {
        for (index, place) in (first..).zip(places) {
            let Some(at) = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { continue };
            // A truncation meanwhile may have taken the entry, a later append its index.
            if let Some(slot) = self.slots.get_mut(at)
                && *slot == (Slot::Pending { ticket })
            {
                *slot = *place;
                if self.synced_next >= index || at == 0 {
                    self.synced_next = self.synced_next.max(index + 1);
                }
            }
        }
    }

    /// Drops the oldest entries of the cache beyond `limit_bytes`, but none that is not written.
    pub(crate) fn trim_cache(&mut self, limit_bytes: usize) {
        while self.cache_used > limit_bytes {
            let begin = self.next() - self.cache.len() as u64;
            if !matches!(self.slot(begin), Some(Slot::Written { .. })) {
                break;
            }
            self.cache_used -= self.cache.pop_front().map_or(0, |entry| entry.memory_bytes());
        }
    }

    /// The oldest segment that an entry still stands in; `None` when none stands in any.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Written { seq, .. } => Some(u64::from(*seq)),
            Slot::Pending { .. } => None,
        })
    }
}
