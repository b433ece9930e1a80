//! The key index: every key that is not compacted away, with its revisions, in key order.
//!
//! One writer (apply) changes it, revision by revision; readers pass the revision at which they look, so that what is
//! being written stays invisible until its revision is published. The map behind it is nobody else's business.

use std::ops::{Bound, ControlFlow};

pub use key_index::{KeyIndex, KeyVersion};

use crate::revision::Revision;

mod key_index;
#[cfg(test)]
mod tests;
mod tree;

use tree::Keep;
use tree::Place;
use tree::Tree;

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

    fn is_empty(&self) -> bool {
        matches!(self.end, RangeEnd::Before(end) if end <= self.start)
    }
}

#[derive(Debug, Default)]
pub struct Index {
    keys: Tree,
}

impl Index {
    /// Keys that exist now.
    pub fn live(&self) -> usize {
        self.keys.live()
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
        let put = |known: &mut KeyIndex| {
            let before = known.latest();
            (known.put(revision), before)
        };
        if let Some(changed) = self.keys.change(key, put) {
            return changed;
        }
        let version = KeyVersion { revision, created: revision.main, version: 1 };
        self.keys.insert(key.into(), KeyIndex::new(version));
        (version, None)
    }

    /// What the key was; `None`, and no change, if it does not exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) -> Option<KeyVersion> {
        self.keys.change(key, |known| known.tombstone(revision))?
    }

    /// Takes one row of the table, in revision order, into an index that is being rebuilt. `created` and `version` are
    /// the row's; they count only where nothing older of the key is left.
    pub fn restore(&mut self, key: &[u8], revision: Revision, tombstone: bool, created: i64, version: i64) {
        let add = |known: &mut KeyIndex| match tombstone {
            true => drop(known.tombstone(revision)),
            false => drop(known.put(revision)),
        };
        if self.keys.change(key, add).is_none() {
            let known = match tombstone {
                true => KeyIndex::tombstone_only(revision),
                false => KeyIndex::new(KeyVersion { revision, created, version }),
            };
            self.keys.insert(key.into(), known);
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
        let (from, to) = (self.keys.from(lower), self.end_of(range));
        let mut looked_at = 0;
        for entry in self.keys.leaves(from, to).flatten() {
            if let Some(version) = entry.index.get(at)
                && visit(&entry.key, version).is_break()
            {
                return None;
            }
            looked_at += 1;
            if looked_at == limit {
                return Some(entry.key.clone());
            }
        }
        None
    }

    /// How many keys of the range exist at main revision `at`, mostly without looking at them; `None` if more than `patience` had to be looked
    /// at one by one, because they have changed since `at`.
    pub fn count(&self, range: KeyRange<'_>, at: i64, patience: usize) -> Option<usize> {
        if range.is_empty() {
            return Some(0);
        }
        let from = self.keys.from(Bound::Included(range.start));
        self.keys.count(from, self.end_of(range), at, patience)
    }

    fn end_of(&self, range: KeyRange<'_>) -> Place {
        match range.end {
            RangeEnd::Single => self.keys.from(Bound::Excluded(range.start)),
            RangeEnd::Before(end) => self.keys.from(Bound::Included(end)),
            RangeEnd::Unbounded => self.keys.end(),
        }
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
        let from = self.keys.from(lower);
        let (mut looked_at, mut dropped_revisions) = (0, 0);
        self.keys.retain_from(from, &mut |entry| {
            let mut count = |revision, tombstone| {
                dropped_revisions += 1;
                dropped(revision, tombstone);
            };
            let stays = entry.index.compact(at, &mut count);
            looked_at += 1;
            Keep { stays, stop: looked_at == limit || dropped_revisions >= max_dropped }
        })
    }

    /// Whether a compaction at `at` keeps this revision of the key.
    pub fn survives(&self, key: &[u8], revision: Revision, at: i64) -> bool {
        self.keys.get(key).is_some_and(|index| index.survives(revision, at))
    }
}
