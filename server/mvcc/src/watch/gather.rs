//! Matches past revisions against the lagging watchers of a stream: one pass for all of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Event, EventKind, PrevKv, StoredKv};
use super::history::{History, HistoryError, Row};
use super::index::Index;
use super::range::{Filter, KeyRange};
use super::ring::Batch;

/// Scanned rows count against the limits too, if less: a watcher of a rare key must not hold a scan open for long.
const SCANNED_PER_MATCHED: usize = 8;

/// A lagging watcher as it was when the pass began.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub watch_id: i64,
    pub generation: u64,
    pub cursor: i64,
    pub filter: Filter,
    pub prev_kv: bool,
}

/// The watchers that share a pass.
pub(super) struct Participants {
    pub list: Vec<Participant>,
    index: Index<usize, ()>,
}

impl Participants {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), index: Index::new() }
    }

    pub(super) fn add(&mut self, range: &KeyRange, participant: Participant) {
        self.index.insert(range, self.list.len(), ());
        self.list.push(participant);
    }
}

/// When a pass ends, always between two revisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub revisions: usize,
    pub bytes: usize,
}

/// What a pass found.
pub(super) struct Gathered {
    /// The last revision that was looked at in full.
    pub through: i64,
    pub bytes: usize,
    events: Vec<Arc<Event>>,
    lacking_prev: Vec<usize>,
    /// Places in `events`, for each participant.
    matches: Vec<Vec<usize>>,
    matched_revisions: usize,
    scanned_revisions: usize,
    scanned_bytes: usize,
}

impl Gathered {
    /// Nothing yet, of revisions after `through`.
    pub(super) fn new(participants: &Participants, through: i64) -> Self {
        Self {
            through,
            bytes: 0,
            events: Vec::new(),
            lacking_prev: Vec::new(),
            matches: vec![Vec::new(); participants.list.len()],
            matched_revisions: 0,
            scanned_revisions: 0,
            scanned_bytes: 0,
        }
    }

    /// Goes on with batches of the ring, which must follow `through`.
    pub(super) fn add_batches(&mut self, participants: &Participants, batches: &[Arc<Batch>], limits: Limits) {
        for batch in batches {
            if self.is_full(limits) {
                return;
            }
            assert_eq!(batch.revision, self.through + 1, "a revision is missing in the ring");
            self.scanned_revisions += 1;
            for event in &batch.events {
                self.offer(participants, event.main(), event.key(), event.kind(), || Arc::clone(event));
            }
            self.through = batch.revision;
        }
    }

    /// Goes on with history up to `to`.
    pub(super) fn add_history(
        &mut self,
        participants: &Participants,
        history: &dyn History,
        to: i64,
        limits: Limits,
    ) -> Result<(), HistoryError> {
        let from = self.through + 1;
        let mut current = self.through;
        let mut end = to;
        let mut bad_row = None;
        history.scan(from, to, &mut |row| {
            if row.main != current {
                if row.main < current || row.main > to {
                    bad_row = Some(row.main);
                    return ControlFlow::Break(());
                }
                if self.is_full(limits) {
                    end = row.main - 1;
                    return ControlFlow::Break(());
                }
                current = row.main;
                self.scanned_revisions += 1;
            }
            if self.add_row(participants, row).is_none() {
                bad_row = Some(row.main);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(revision) = bad_row {
            return Err(HistoryError::Failed(format!("mvcc: bad row in revision {revision}")));
        }
        self.through = end;
        Ok(())
    }

    /// `None` if the row is no `KeyValue`.
    fn add_row(&mut self, participants: &Participants, row: Row<'_>) -> Option<()> {
        self.scanned_bytes += row.kv.len();
        let stored = StoredKv::parse(row.kv)?;
        let kind = if row.tombstone { EventKind::Delete } else { EventKind::Put };
        self.offer(participants, row.main, stored.key, kind, || {
            let key = Bytes::copy_from_slice(stored.key);
            Arc::new(match kind {
                EventKind::Delete => Event::delete(key, row.main, row.sub, PrevKv::Unknown),
                EventKind::Put => {
                    let create = stored.create_revision == row.main;
                    Event::put(key, row.main, row.sub, Bytes::copy_from_slice(row.kv), create, PrevKv::Unknown)
                }
            })
        });
        Some(())
    }

    fn offer(
        &mut self,
        participants: &Participants,
        main: i64,
        key: &[u8],
        kind: EventKind,
        event: impl FnOnce() -> Arc<Event>,
    ) {
        let place = self.events.len();
        let (mut wanted, mut wants_prev) = (0, false);
        let matches = &mut self.matches;
        let _ = participants.index.stab(key, &mut |&number, ()| {
            let participant = &participants.list[number];
            if participant.cursor <= main && participant.filter.passes(kind) {
                matches[number].push(place);
                wanted += 1;
                wants_prev |= participant.prev_kv;
            }
            ControlFlow::Continue(())
        });
        if wanted == 0 {
            return;
        }
        let event = event();
        if wants_prev && event.lacks_prev() {
            self.lacking_prev.push(place);
        }
        if self.events.last().is_none_or(|last| last.main() != main) {
            self.matched_revisions += 1;
        }
        self.bytes += wanted * event.held_bytes();
        self.events.push(event);
    }

    fn is_full(&self, limits: Limits) -> bool {
        self.matched_revisions >= limits.revisions
            || self.bytes >= limits.bytes
            || self.scanned_revisions >= limits.revisions.saturating_mul(SCANNED_PER_MATCHED)
            || self.scanned_bytes >= limits.bytes.saturating_mul(SCANNED_PER_MATCHED)
    }

    /// Whether some watcher wants a previous value that has to be looked up.
    pub(super) fn lacks_prev(&self) -> bool {
        !self.lacking_prev.is_empty()
    }

    /// Looks the missing previous values up. If they are large, ends between two revisions when `bytes_max` is reached.
    pub(super) fn fill_prev(&mut self, history: &dyn History, bytes_max: usize) -> Result<(), HistoryError> {
        let mut bytes = 0;
        let mut main = self.through;
        for place in std::mem::take(&mut self.lacking_prev) {
            let event = &mut self.events[place];
            if bytes >= bytes_max && event.main() != main {
                let next = event.main();
                self.cut(next);
                return Ok(());
            }
            main = event.main();
            let prev = match history.value_at(event.key(), main - 1) {
                Ok(Some(prev)) => PrevKv::Known(prev),
                Ok(None) | Err(HistoryError::Compacted) => PrevKv::Absent,
                Err(failed) => return Err(failed),
            };
            *event = Arc::new(event.with_prev(prev));
            bytes += event.held_bytes();
        }
        Ok(())
    }

    /// Forgets what was found from `revision` on.
    fn cut(&mut self, revision: i64) {
        let kept = self.events.partition_point(|event| event.main() < revision);
        self.events.truncate(kept);
        for matches in &mut self.matches {
            matches.truncate(matches.partition_point(|&place| place < kept));
        }
        self.through = revision - 1;
    }

    /// Joins what was found in the revisions that follow.
    pub(super) fn append(&mut self, rest: Self) {
        let shift = self.events.len();
        self.events.extend(rest.events);
        for (matches, more) in self.matches.iter_mut().zip(rest.matches) {
            matches.extend(more.into_iter().map(|place| place + shift));
        }
        self.bytes += rest.bytes;
        self.through = rest.through;
    }

    /// The events of a participant, in order.
    pub(super) fn events_of(&self, participant: usize) -> impl ExactSizeIterator<Item = Arc<Event>> + '_ {
        self.matches[participant].iter().map(|&place| Arc::clone(&self.events[place]))
    }
}
