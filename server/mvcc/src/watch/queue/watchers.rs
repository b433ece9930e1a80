//! The watchers of a stream: which there are, which lag and from where.

use super::{StreamState, Watcher};
use crate::watch::gather::Participant;
use crate::watch::range::KeyRange;

impl StreamState {
    pub(in crate::watch) fn free_watch_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        self.next_watch_id - 1
    }

    pub(in crate::watch) fn next_generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation
    }

    pub(in crate::watch) fn add(&mut self, watch_id: i64, watcher: Watcher) {
        self.counters.watchers.add(1);
        self.counters.prev_kv_watchers.add(usize::from(watcher.prev_kv));
        if watcher.lagging {
            self.lagging += 1;
            self.counters.slow_watchers.add(1);
        }
        let replaced = self.watchers.insert(watch_id, watcher);
        assert!(replaced.is_none(), "a watch id was given twice");
    }

    /// Forgets a watcher. What is queued for it stays queued.
    pub(in crate::watch) fn remove(&mut self, watch_id: i64) -> Option<Watcher> {
        let watcher = self.watchers.remove(&watch_id)?;
        self.counters.watchers.sub(1);
        self.counters.prev_kv_watchers.sub(usize::from(watcher.prev_kv));
        if watcher.lagging {
            self.lagging -= 1;
            self.counters.slow_watchers.sub(1);
        }
        Some(watcher)
    }

    pub(in crate::watch) fn watcher(&mut self, watch_id: i64, generation: u64) -> Option<&mut Watcher> {
        self.watchers.get_mut(&watch_id).filter(|watcher| watcher.generation == generation)
    }

    pub(in crate::watch) fn set_lagging(&mut self, watch_id: i64, cursor: i64) {
        let Some(watcher) = self.watchers.get_mut(&watch_id) else { return };
        if watcher.lagging {
            watcher.cursor = watcher.cursor.min(cursor);
        } else {
            watcher.lagging = true;
            watcher.cursor = cursor;
            self.lagging += 1;
            self.counters.slow_watchers.add(1);
        }
    }

    pub(in crate::watch) fn set_live(&mut self, watch_id: i64) {
        let Some(watcher) = self.watchers.get_mut(&watch_id).filter(|watcher| watcher.lagging) else { return };
        watcher.lagging = false;
        self.lagging -= 1;
        self.counters.slow_watchers.sub(1);
    }

    /// Every live watcher that has started owes what the hub was not told: it catches up from `revision`.
    pub(in crate::watch) fn set_all_lagging(&mut self, revision: i64, known: i64) {
        let missed = |watcher: &Watcher| !watcher.lagging && watcher.cursor <= known;
        let late: Vec<(i64, i64)> =
            self.watchers.iter().filter(|(_, w)| missed(w)).map(|(id, w)| (*id, w.cursor.max(revision))).collect();
        for (watch_id, cursor) in late {
            self.set_lagging(watch_id, cursor);
        }
    }

    /// Where the next chunk begins; `None` if nobody lags or a chunk is under way. Several watchers share a chunk if they are
    /// near each other; one that has the whole history before it does not hold up one that is nearly there.
    pub(in crate::watch) fn begin_catch_up(&mut self) -> Option<i64> {
        if self.catching_up {
            return None;
        }
        let cursors = || self.watchers.values().filter(|watcher| watcher.lagging).map(|watcher| watcher.cursor);
        let from = if self.nearest_first { cursors().max() } else { cursors().min() }?;
        self.nearest_first = !self.nearest_first;
        self.catching_up = true;
        Some(from)
    }

    /// The lagging watchers at or after `from`.
    pub(in crate::watch) fn lagging_from(&self, from: i64) -> Vec<(KeyRange, Participant)> {
        let lagging = self.watchers.iter().filter(|(_, watcher)| watcher.lagging && watcher.cursor >= from);
        lagging
            .map(|(watch_id, watcher)| {
                let participant = Participant {
                    watch_id: *watch_id,
                    generation: watcher.generation,
                    cursor: watcher.cursor,
                    filter: watcher.filter,
                    prev_kv: watcher.prev_kv,
                };
                (watcher.range.clone(), participant)
            })
            .collect()
    }

    /// Whether every watcher is live and its start has come; progress may then speak for all. False without watchers.
    pub(in crate::watch) fn all_in_step(&self, revision: i64) -> bool {
        !self.watchers.is_empty() && self.lagging == 0 && self.watchers.values().all(|w| w.start_revision <= revision)
    }
}
