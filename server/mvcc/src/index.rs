//! The key index: every key that is not compacted away, with its revisions, in key order.
//!
//! One writer (apply) changes it, revision by revision; readers pass the revision at which they look, so that what is
//! being written stays invisible until its revision is published. The map behind it is nobody else's business.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

pub use key_index::{KeyIndex, KeyVersion};

use crate::revision::Revision;

mod key_index;
#[cfg(test)]
mod tests;

/// The keys a request names: one, `[start, end)`, or all from `start` on (`range_end` = "\0").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    pub start: &'a [u8],
    pub end: RangeEnd<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd<'a> {
    Single,
    Before(&'a [u8]),
    Unbounded,
}

impl<'a> KeyRange<'a> {
    /// etcd's reading of `key` and `range_end`.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> KeyRange<'a> {
        let end = match range_end {
            b"" => RangeEnd::Single,
            b"\0" => RangeEnd::Unbounded,
            end => RangeEnd::Before(end),
        };
        KeyRange { start: key, end }
    }

    pub fn is_single(&self) -> bool {
        self.end == RangeEnd::Single
    }

    fn upper(&self) -> Bound<&'a [u8]> {
        match self.end {
            RangeEnd::Single => Bound::Included(self.start),
            RangeEnd::Before(end) => Bound::Excluded(end),
            RangeEnd::Unbounded => Bound::Unbounded,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.end, RangeEnd::Before(end) if end <= self.start)
    }
}

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Box<[u8]>, KeyIndex>,
    live: usize,
}

impl Index {
    /// Keys that exist now.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Keys that are known, deleted ones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn get(&self, key: &[u8], at: i64) -> Option<KeyVersion> {
        self.keys.get(key)?.get(at)
    }

    /// What the key is with this put, and what it was before, if it existed.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> (KeyVersion, Option<KeyVersion>) {
        if let Some(known) = self.keys.get_mut(key) {
            let before = known.latest();
            self.live += usize::from(before.is_none());
            return (known.put(revision), before);
        }
        let version = KeyVersion { revision, created: revision.main, version: 1 };
        self.keys.insert(key.into(), KeyIndex::new(version));
        self.live += 1;
        (version, None)
    }

    /// What the key was; `None`, and no change, if it does not exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) -> Option<KeyVersion> {
        let before = self.keys.get_mut(key)?.tombstone(revision)?;
        self.live -= 1;
        Some(before)
    }

    /// Takes one row of the table, in revision order, into an index that is being rebuilt. `created` and `version` are
    /// the row's; they count only where nothing older of the key is left.
    pub fn restore(&mut self, key: &[u8], revision: Revision, tombstone: bool, created: i64, version: i64) {
        match (self.keys.get_mut(key), tombstone) {
            (Some(known), true) => self.live -= usize::from(known.tombstone(revision).is_some()),
            (Some(known), false) => {
                self.live += usize::from(known.latest().is_none());
                known.put(revision);
            }
            (None, true) => {
                self.keys.insert(key.into(), KeyIndex::tombstone_only(revision));
            }
            (None, false) => {
                self.keys.insert(key.into(), KeyIndex::new(KeyVersion { revision, created, version }));
                self.live += 1;
            }
        }
    }

    /// Visits the keys of the range that exist at main revision `at`, in key order, looking at no more than `limit`
    /// known keys. Returns where to go on: the last key looked at, if there may be more behind it and the visitor did
    /// not break.
    pub fn visit(
        &self,
        range: KeyRange<'_>,
        after: Option<&[u8]>,
        at: i64,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], KeyVersion) -> ControlFlow<()>,
    ) -> Option<Box<[u8]>> {
        if range.is_single() {
            if after.is_none()
                && let Some(version) = self.get(range.start, at)
            {
                let _ = visit(range.start, version);
            }
            return None;
        }
        if range.is_empty() {
            return None;
        }
        let lower = after.map_or(Bound::Included(range.start), Bound::Excluded);
        let mut looked_at = 0;
        for (key, index) in self.keys.range::<[u8], _>((lower, range.upper())) {
            if let Some(version) = index.get(at)
                && visit(key, version).is_break()
            {
                return None;
            }
            looked_at += 1;
            if looked_at == limit {
                return Some(key.clone());
            }
        }
        None
    }

    /// Compacts up to `limit` known keys behind `after` at main revision `at`; stops early once `max_dropped` revisions
    /// went. Returns where to go on, `None` at the end.
    pub fn compact(
        &mut self,
        after: Option<&[u8]>,
        at: i64,
        limit: usize,
        max_dropped: usize,
        dropped: &mut dyn FnMut(Revision, bool),
    ) -> Option<Box<[u8]>> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut gone = Vec::new();
        let mut next = None;
        let (mut looked_at, mut dropped_revisions) = (0, 0);
        for (key, index) in self.keys.range_mut::<[u8], _>((lower, Bound::Unbounded)) {
            let mut count = |revision, tombstone| {
                dropped_revisions += 1;
                dropped(revision, tombstone);
            };
            if !index.compact(at, &mut count) {
                gone.push(key.clone());
            }
            looked_at += 1;
            if looked_at == limit || dropped_revisions >= max_dropped {
                next = Some(key.clone());
                break;
            }
        }
        for key in gone {
            self.keys.remove(&key);
        }
        next
    }

    /// Whether a compaction at `at` keeps this revision of the key.
    pub fn survives(&self, key: &[u8], revision: Revision, at: i64) -> bool {
        self.keys.get(key).is_some_and(|index| index.survives(revision, at))
    }
}
