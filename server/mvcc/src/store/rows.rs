//! How a read is done: a view of one revision, keys from the index in bounded steps, rows from overlay, cache and
//! backend in this order.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{IndexState, Store};
use crate::backend::Table;
use crate::counters::add;
use crate::error::Error;
use crate::index::{KeyRange, KeyVersion};
use crate::revision::{Revision, RowKey};

/// Keys looked at under one hold of the index's lock, and rows fetched in one go.
const ROWS_PER_STEP: usize = 1000;
/// Reads of more rows than this do not fill the cache: a scan must not wash it out.
const CACHED_READ_ROWS: usize = 256;

/// What a reader sees: the store at `current` and at every older revision down to `compact`, for as long as it holds
/// this.
pub(crate) struct View<'a> {
    pub store: &'a Store,
    pub current: i64,
    pub compact: i64,
    replaced: u64,
    _epoch: Arc<()>,
}

impl Store {
    /// Runs a read. Parts of two states would be neither: refused if a snapshot came between.
    pub(crate) fn read<T>(&self, run: impl FnOnce(&View<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let view = self.view();
        let result = run(&view);
        if self.index.read().replaced == view.replaced { result } else { Err(Error::Replaced) }
    }

    pub(crate) fn view(&self) -> View<'_> {
        let index = self.index.read();
        // Loaded under the index lock, as the two belong together.
        let current = self.revision.load(Ordering::Acquire);
        self.view_of(&index, current)
    }

    /// A view that sees what a transaction has written so far: for the writer only.
    pub(crate) fn view_at(&self, current: i64) -> View<'_> {
        self.view_of(&self.index.read(), current)
    }

    fn view_of(&self, index: &IndexState, current: i64) -> View<'_> {
        View {
            store: self,
            current,
            compact: index.compact_revision,
            replaced: index.replaced,
            _epoch: index.epoch.clone(),
        }
    }
}

impl View<'_> {
    /// The main revision to read at for a request's `revision`.
    pub fn resolve(&self, revision: i64) -> Result<i64, Error> {
        let at = if revision <= 0 { self.current } else { revision };
        if at > self.current {
            return Err(Error::FutureRevision);
        }
        if at < self.compact {
            return Err(Error::Compacted);
        }
        Ok(at)
    }

    pub fn get(&self, key: &[u8], at: i64) -> Option<KeyVersion> {
        self.store.index.read().keys.get(key, at)
    }

    /// Visits the keys of the range that exist at `at`, in key order. The index is locked for one step at a time.
    pub fn visit(&self, range: KeyRange<'_>, at: i64, visit: &mut dyn FnMut(&[u8], KeyVersion) -> ControlFlow<()>) {
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let next = self.store.index.read().keys.visit(range, after.as_deref(), at, ROWS_PER_STEP, visit);
            match next {
                Some(key) => after = Some(key),
                None => return,
            }
        }
    }

    /// How many keys of the range exist at `at`.
    pub fn count(&self, range: KeyRange<'_>, at: i64) -> usize {
        let quick = self.store.index.read().keys.count(range, at, ROWS_PER_STEP);
        quick.unwrap_or_else(|| {
            let mut count = 0;
            self.visit(range, at, &mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            });
            count
        })
    }

    pub fn row(&self, revision: Revision) -> Result<Bytes, Error> {
        let mut rows = self.store.rows(&[revision])?;
        rows.pop().ok_or_else(|| missing(revision))
    }

    /// The rows of put revisions, in their order.
    pub fn rows(&self, revisions: &[Revision]) -> Result<Vec<Bytes>, Error> {
        self.store.rows(revisions)
    }
}

impl Store {
    /// The rows of put revisions that the caller knows not to be compacted away.
    pub(crate) fn rows(&self, revisions: &[Revision]) -> Result<Vec<Bytes>, Error> {
        let keep = revisions.len() <= CACHED_READ_ROWS;
        let mut rows = Vec::with_capacity(revisions.len());
        for revisions in revisions.chunks(ROWS_PER_STEP) {
            self.rows_step(revisions, keep, &mut rows)?;
        }
        Ok(rows)
    }

    fn rows_step(&self, revisions: &[Revision], keep: bool, rows: &mut Vec<Bytes>) -> Result<(), Error> {
        let start = rows.len();
        let mut missing_at = Vec::new();
        {
            let overlay = self.overlay.read();
            for (position, &revision) in revisions.iter().enumerate() {
                match overlay.get(revision) {
                    Some(row) => rows.push(row.row.clone()),
                    None => {
                        rows.push(Bytes::new());
                        missing_at.push(position);
                    }
                }
            }
        }
        add(&self.tally.overlay_hits, revisions.len() - missing_at.len());
        let looked_up = missing_at.len();
        missing_at.retain(|&position| match self.cache.get(revisions[position]) {
            Some(row) => {
                rows[start + position] = row;
                false
            }
            None => true,
        });
        add(&self.tally.cache_hits, looked_up - missing_at.len());
        if missing_at.is_empty() {
            return Ok(());
        }
        add(&self.tally.cache_misses, missing_at.len());
        let keys: Vec<RowKey> = missing_at.iter().map(|&at| RowKey::new(revisions[at], false)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(RowKey::as_bytes).collect();
        let found = self.backend.get_many(Table::Revisions, &keys)?;
        assert_eq!(found.len(), keys.len(), "the backend answers for each key");
        for (&at, row) in missing_at.iter().zip(found) {
            let row = row.ok_or_else(|| missing(revisions[at]))?;
            if keep {
                self.cache.insert(revisions[at], row.clone());
            }
            rows[start + at] = row;
        }
        Ok(())
    }

    /// Visits rows with `from <= main revision <= to` in revision order: row key, revision, tombstone, row. `to` is
    /// published, and the caller holds a view with `compact <= from`, or can do without rows that are compacted.
    pub(crate) fn scan_rows(
        &self,
        from: i64,
        to: i64,
        visit: &mut dyn FnMut(Revision, bool, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut next = Revision::new(from.max(0), 0);
        while next.main <= to {
            // Rows before the overlay's first are in the backend, if its transaction begins after this look.
            let boundary = self.overlay.read().first().filter(|first| first.main <= to);
            let end = boundary.unwrap_or(Revision::new(to + 1, 0));
            if end > next {
                if self.scan_backend(next, end, visit)?.is_break() {
                    return Ok(());
                }
                next = end;
                continue;
            }
            let rows = self.overlay_step(next, to);
            for row in &rows {
                if visit(row.revision, row.tombstone, &row.row)?.is_break() {
                    return Ok(());
                }
            }
            match rows.last() {
                Some(last) => next = Revision::new(last.revision.main, last.revision.sub + 1),
                None if self.overlay.read().first().is_some_and(|first| first <= next) => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }

    /// The next rows of the overlay; none if they left it meanwhile.
    fn overlay_step(&self, next: Revision, to: i64) -> Vec<crate::overlay::OverlayRow> {
        let overlay = self.overlay.read();
        if overlay.first().is_none_or(|first| first > next) {
            return Vec::new();
        }
        let rows = overlay.since(next);
        rows.take_while(|row| row.revision.main <= to).take(ROWS_PER_STEP).cloned().collect()
    }

    fn scan_backend(
        &self,
        start: Revision,
        end: Revision,
        visit: &mut dyn FnMut(Revision, bool, &[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        let (start, end) = (RowKey::new(start, false), RowKey::new(end, false));
        let mut result = Ok(ControlFlow::Continue(()));
        self.backend.scan(Table::Revisions, start.as_bytes(), Some(end.as_bytes()), &mut |key, row| {
            result = match RowKey::decode(key) {
                Some((revision, tombstone)) => visit(revision, tombstone, row),
                None => Err(Error::Damaged(format!("row key {}", key.escape_ascii()))),
            };
            if matches!(result, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        result
    }
}

fn missing(revision: Revision) -> Error {
    Error::Damaged(format!("no row for revision {}.{}", revision.main, revision.sub))
}
