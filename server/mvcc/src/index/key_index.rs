//! What the index knows about one key: its generations, each a run of revisions that ends in a tombstone, but for the
//! last one of a key that exists. The semantics are those of etcd's `keyIndex`.
//!
//! Most keys have one generation with one revision; that form takes 24 bytes and no allocation. The others keep one
//! flat, sorted list of marks: generations follow from where the tombstones are. Invariants: marks are strictly
//! ascending; `start` is where the last generation begins; a key index is never empty.

use std::num::NonZeroI64;

use crate::revision::Revision;

/// A key as it is at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// The revision of the last change.
    pub revision: Revision,
    /// The main revision that created the key's generation.
    pub created: i64,
    /// How many puts the generation has seen.
    pub version: i64,
}

#[derive(Debug, Clone)]
pub enum KeyIndex {
    One { created: NonZeroI64, main: i64, sub: u32, version: u32 },
    Many(Box<History>),
}

#[derive(Debug, Clone)]
pub struct History {
    /// Of the first generation that is still known: its creation, and the version that its first mark had.
    created: i64,
    version: i64,
    start: usize,
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    main: i64,
    sub: u32,
    tombstone: bool,
}

impl Mark {
    fn new(revision: Revision, tombstone: bool) -> Mark {
        let sub = u32::try_from(revision.sub).expect("fewer than 2^32 changes in one revision");
        Mark { main: revision.main, sub, tombstone }
    }

    fn revision(&self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.sub) }
    }
}

impl KeyIndex {
    /// A key whose first known revision is `at.revision`; it exists there.
    pub fn new(at: KeyVersion) -> KeyIndex {
        let numbers = (NonZeroI64::new(at.created), u32::try_from(at.version), u32::try_from(at.revision.sub));
        if let (Some(created), Ok(version), Ok(sub)) = numbers {
            return KeyIndex::One { created, main: at.revision.main, sub, version };
        }
        let marks = vec![Mark::new(at.revision, false)];
        KeyIndex::Many(Box::new(History { created: at.created, version: at.version, start: 0, marks }))
    }

    /// A key of which only its deletion is still known.
    pub fn tombstone_only(revision: Revision) -> KeyIndex {
        let marks = vec![Mark::new(revision, true)];
        KeyIndex::Many(Box::new(History { created: 0, version: 1, start: 0, marks }))
    }

    /// The key now; `None` if it is deleted.
    pub fn latest(&self) -> Option<KeyVersion> {
        match self {
            KeyIndex::One { .. } => Some(self.only()),
            KeyIndex::Many(history) => history.version_at(history.marks.len() - 1),
        }
    }

    /// The main revision of the latest change.
    pub fn newest(&self) -> i64 {
        match self {
            KeyIndex::One { main, .. } => *main,
            KeyIndex::Many(history) => history.marks[history.marks.len() - 1].main,
        }
    }

    /// The key as of main revision `at`; `None` if it does not exist there.
    pub fn get(&self, at: i64) -> Option<KeyVersion> {
        match self {
            KeyIndex::One { main, .. } => (*main <= at).then(|| self.only()),
            KeyIndex::Many(history) => {
                let newer = match history.marks.last() {
                    Some(last) if last.main <= at => history.marks.len(),
                    _ => history.marks.partition_point(|mark| mark.main <= at),
                };
                history.version_at(newer.checked_sub(1)?)
            }
        }
    }

    /// Adds a put and returns what the key is then.
    pub fn put(&mut self, revision: Revision) -> KeyVersion {
        let history = self.history();
        history.push(Mark::new(revision, false));
        history.version_at(history.marks.len() - 1).expect("a key that was just put exists")
    }

    /// Adds a tombstone and returns what the key was; `None`, and no change, if it does not exist.
    pub fn tombstone(&mut self, revision: Revision) -> Option<KeyVersion> {
        let before = self.latest()?;
        self.history().push(Mark::new(revision, true));
        Some(before)
    }

    /// Forgets what nobody can read at `at` or later, and tells `dropped` (with whether it is a tombstone). A tombstone
    /// at exactly `at` stays, as in etcd since 3.5.16: watchers from there still have to see it. Returns whether
    /// anything is left.
    pub fn compact(&mut self, at: i64, dropped: &mut impl FnMut(Revision, bool)) -> bool {
        let KeyIndex::Many(history) = self else { return true };
        let cut = history.cut(at);
        for mark in &history.marks[..cut] {
            dropped(mark.revision(), mark.tombstone);
        }
        if cut == history.marks.len() {
            return false;
        }
        history.drop_before(cut);
        if let [mark] = history.marks[..]
            && !mark.tombstone
        {
            let (created, version) = (history.created, history.version);
            *self = KeyIndex::new(KeyVersion { revision: mark.revision(), created, version });
        }
        true
    }

    /// Whether `compact(at)` keeps this revision.
    pub fn survives(&self, revision: Revision, at: i64) -> bool {
        match self {
            KeyIndex::One { .. } => self.only().revision == revision,
            KeyIndex::Many(history) => history.marks[history.cut(at)..].iter().any(|mark| mark.revision() == revision),
        }
    }

    fn only(&self) -> KeyVersion {
        match self {
            KeyIndex::One { created, main, sub, version } => KeyVersion {
                revision: Revision { main: *main, sub: i64::from(*sub) },
                created: created.get(),
                version: i64::from(*version),
            },
            KeyIndex::Many(_) => unreachable!("called for the compact form only"),
        }
    }

    fn history(&mut self) -> &mut History {
        if let KeyIndex::One { .. } = self {
            let only = self.only();
            let mut marks = Vec::with_capacity(2);
            marks.push(Mark::new(only.revision, false));
            let history = History { created: only.created, version: only.version, start: 0, marks };
            *self = KeyIndex::Many(Box::new(history));
        }
        match self {
            KeyIndex::Many(history) => history,
            KeyIndex::One { .. } => unreachable!("converted above"),
        }
    }
}

impl History {
    fn push(&mut self, mark: Mark) {
        let last = self.marks[self.marks.len() - 1];
        assert!((last.main, last.sub) < (mark.main, mark.sub), "revisions of a key ascend");
        if last.tombstone {
            assert!(!mark.tombstone, "a deleted key is not deleted again");
            self.start = self.marks.len();
        }
        self.marks.push(mark);
    }

    fn version_at(&self, at: usize) -> Option<KeyVersion> {
        let mark = self.marks[at];
        if mark.tombstone {
            return None;
        }
        let start = if at >= self.start {
            self.start
        } else {
            self.marks[..at].iter().rposition(|mark| mark.tombstone).map_or(0, |tombstone| tombstone + 1)
        };
        let (created, first) = if start == 0 { (self.created, self.version) } else { (self.marks[start].main, 1) };
        Some(KeyVersion { revision: mark.revision(), created, version: first + (at - start) as i64 })
    }

    /// The first mark that a compaction at `at` keeps.
    fn cut(&self, at: i64) -> usize {
        let mut start = 0;
        // Generations that ended before `at` go entirely.
        for (position, mark) in self.marks.iter().enumerate() {
            if mark.main >= at {
                break;
            }
            if mark.tombstone {
                start = position + 1;
            }
        }
        let end = match self.marks[start..].iter().position(|mark| mark.tombstone) {
            Some(tombstone) => start + tombstone + 1,
            None => self.marks.len(),
        };
        let older = self.marks[start..end].partition_point(|mark| mark.main <= at);
        start + older.saturating_sub(1)
    }

    fn drop_before(&mut self, cut: usize) {
        if cut == 0 {
            return;
        }
        if let Some(first) = self.version_at(cut) {
            (self.created, self.version) = (first.created, first.version);
        } else {
            (self.created, self.version) = (0, 1);
        }
        self.start = self.start.saturating_sub(cut);
        self.marks.drain(..cut);
        if self.marks.capacity() > 2 * self.marks.len() {
            self.marks.shrink_to_fit();
        }
    }
}
