//! The value cache: rows that the backend has, by revision, bounded by bytes. It never decides an answer, only its cost.
//!
//! Rows enter when they leave the overlay as the newest of their key, or when they were read; they leave when they are
//! superseded, or by second chance (a row that was read since the hand last came by stays).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::revision::Revision;

const SHARDS: usize = 16;
/// What an entry costs beside its bytes: map slot, queue slot, the buffer's header.
const ENTRY_OVERHEAD_BYTES: usize = 112;

pub struct ValueCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes: usize,
}

#[derive(Default)]
struct Shard {
    rows: HashMap<Revision, Entry, BuildHasherDefault<RevisionHasher>>,
    queue: VecDeque<Revision>,
    bytes: usize,
}

struct Entry {
    row: Bytes,
    read: bool,
}

/// Revisions are small, dense numbers, not keys that a client chooses: a multiplication spreads them.
#[derive(Default)]
struct RevisionHasher(u64);

impl Hasher for RevisionHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

impl ValueCache {
    pub fn new(bytes: usize) -> ValueCache {
        ValueCache { shards: Default::default(), shard_bytes: bytes / SHARDS }
    }

    pub fn get(&self, revision: Revision) -> Option<Bytes> {
        let mut shard = self.shard(revision).lock();
        let entry = shard.rows.get_mut(&revision)?;
        entry.read = true;
        Some(entry.row.clone())
    }

    pub fn insert(&self, revision: Revision, row: Bytes) {
        let cost = row.len() + ENTRY_OVERHEAD_BYTES;
        if cost > self.shard_bytes / 4 {
            return;
        }
        let mut shard = self.shard(revision).lock();
        if shard.rows.contains_key(&revision) {
            return;
        }
        shard.make_room(self.shard_bytes - cost);
        shard.bytes += cost;
        shard.rows.insert(revision, Entry { row, read: false });
        shard.queue.push_back(revision);
    }

    pub fn remove(&self, revision: Revision) {
        let mut shard = self.shard(revision).lock();
        if let Some(entry) = shard.rows.remove(&revision) {
            shard.bytes -= entry.row.len() + ENTRY_OVERHEAD_BYTES;
        }
        // Removed rows leave ghosts in the queue; they must not pile up.
        let shard = &mut *shard;
        if shard.queue.len() > 2 * shard.rows.len() + 64 {
            shard.queue.retain(|revision| shard.rows.contains_key(revision));
        }
    }

    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn shard(&self, revision: Revision) -> &Mutex<Shard> {
        &self.shards[(revision.main as usize ^ revision.sub as usize) % SHARDS]
    }
}

impl Shard {
    fn make_room(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some(revision) = self.queue.pop_front() else { break };
            let Some(entry) = self.rows.get_mut(&revision) else { continue };
            if entry.read {
                entry.read = false;
                self.queue.push_back(revision);
            } else if let Some(entry) = self.rows.remove(&revision) {
                self.bytes -= entry.row.len() + ENTRY_OVERHEAD_BYTES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64) -> Revision {
        // All in one shard, so that its bound shows.
        Revision::new(number * SHARDS as i64, 0)
    }

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_read() {
        let cache = ValueCache::new(SHARDS * 10_000);
        cache.insert(revision(1), Bytes::from(vec![1; 100]));
        for number in 2..1000 {
            assert!(cache.get(revision(1)).is_some(), "read all the time, kept all the time");
            cache.insert(revision(number), Bytes::from(vec![2; 100]));
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.bytes() > 9_000);
        assert_eq!(cache.get(revision(2)), None);
        assert!(cache.get(revision(999)).is_some());
    }

    #[test]
    fn removal_leaves_no_growing_queue() {
        let cache = ValueCache::new(SHARDS * 10_000);
        for number in 1..10_000 {
            cache.insert(revision(number), Bytes::from_static(b"row"));
            cache.remove(revision(number));
        }
        assert_eq!(cache.bytes(), 0);
        assert!(cache.shards.iter().all(|shard| shard.lock().queue.len() <= 65));
    }

    #[test]
    fn a_row_too_large_for_the_bound_is_not_kept() {
        let cache = ValueCache::new(0);
        cache.insert(revision(1), Bytes::from_static(b"row"));
        assert_eq!((cache.get(revision(1)), cache.bytes()), (None, 0));
    }
}
