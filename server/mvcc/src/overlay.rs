//! Rows that are applied but not yet known to be in the backend, in revision order.
//!
//! Only apply appends, only the flush removes, and it removes from the front: rows here are always newer than those the
//! backend has, but for a checkpoint that was just written. Main revisions have no gaps, which makes looking one up
//! cheap.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::revision::Revision;

#[derive(Debug, Clone)]
pub struct OverlayRow {
    pub revision: Revision,
    pub tombstone: bool,
    /// A newer revision of the key exists: not worth keeping in the cache.
    pub superseded: bool,
    pub row: Bytes,
}

impl OverlayRow {
    /// What the row counts against the overlay's bound: the row, its key, and what holds them.
    pub fn cost(&self) -> usize {
        self.row.len() + 18 + size_of::<OverlayRow>()
    }
}

#[derive(Debug, Default)]
pub struct Overlay {
    rows: VecDeque<OverlayRow>,
}

impl Overlay {
    pub fn push(&mut self, row: OverlayRow) {
        if let Some(last) = self.rows.back() {
            assert!(last.revision < row.revision, "rows come in revision order");
            assert!(row.revision.main - last.revision.main <= 1, "main revisions have no gaps");
        }
        self.rows.push_back(row);
    }

    pub fn get(&self, revision: Revision) -> Option<&OverlayRow> {
        self.rows.get(self.position(revision)?)
    }

    /// Marks a row as no longer the newest of its key; false if it is not here.
    pub fn supersede(&mut self, revision: Revision) -> bool {
        let position = self.position(revision);
        if let Some(row) = position.and_then(|position| self.rows.get_mut(position)) {
            row.superseded = true;
        }
        position.is_some()
    }

    /// Rows from `from` on.
    pub fn since(&self, from: Revision) -> impl Iterator<Item = &OverlayRow> {
        let start = self.rows.partition_point(|row| row.revision < from);
        self.rows.range(start..)
    }

    /// Rows `[start, start + max)` from the front, no newer than main revision `to`.
    pub fn prefix(&self, start: usize, max: usize, to: i64) -> impl Iterator<Item = &OverlayRow> {
        let start = start.min(self.rows.len());
        let end = self.rows.len().min(start.saturating_add(max));
        self.rows.range(start..end).take_while(move |row| row.revision.main <= to)
    }

    /// Takes up to `max` rows from the front that are no newer than main revision `to`.
    pub fn take_front(&mut self, max: usize, to: i64) -> Vec<OverlayRow> {
        let end = self.rows.iter().take(max).take_while(|row| row.revision.main <= to).count();
        self.rows.drain(..end).collect()
    }

    pub fn first(&self) -> Option<Revision> {
        self.rows.front().map(|row| row.revision)
    }

    fn position(&self, revision: Revision) -> Option<usize> {
        let (first, last) = (self.rows.front()?.revision, self.rows.back()?.revision);
        if revision < first || revision > last {
            return None;
        }
        // Each main revision has at least one row: that bounds the place from both sides.
        let low = usize::try_from(revision.main - first.main).ok()?;
        let behind = usize::try_from(last.main - revision.main).ok()?;
        let (mut low, mut high) = (low, self.rows.len() - behind);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.rows[middle].revision.cmp(&revision) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(revisions: &[(i64, i64)]) -> Overlay {
        let mut overlay = Overlay::default();
        for &(main, sub) in revisions {
            let row = Bytes::from(format!("{main}.{sub}"));
            overlay.push(OverlayRow { revision: Revision { main, sub }, tombstone: false, superseded: false, row });
        }
        overlay
    }

    #[test]
    fn finds_each_row_and_nothing_else() {
        let revisions = [(7, 1), (7, 2), (8, 0), (9, 0), (9, 1), (9, 2), (10, 0), (11, 0), (11, 5)];
        let overlay = overlay(&revisions);
        for main in 6..13 {
            for sub in 0..7 {
                let found = overlay.get(Revision { main, sub }).map(|row| row.row.clone());
                let expected = revisions.contains(&(main, sub)).then(|| Bytes::from(format!("{main}.{sub}")));
                assert_eq!(found, expected, "{main}.{sub}");
            }
        }
    }

    #[test]
    fn gives_up_whole_revisions_from_the_front() {
        let mut overlay = overlay(&[(2, 0), (3, 0), (3, 1), (4, 0)]);
        assert!(overlay.supersede(Revision::new(3, 0)));
        assert!(!overlay.supersede(Revision::new(1, 0)));
        assert_eq!(overlay.prefix(1, 10, 3).count(), 2);
        assert_eq!(overlay.since(Revision::new(3, 0)).count(), 3);
        let taken = overlay.take_front(10, 3);
        assert_eq!(taken.iter().map(|row| row.superseded).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(overlay.first(), Some(Revision::new(4, 0)));
        assert_eq!(overlay.get(Revision::new(3, 1)).map(|row| row.revision), None);
    }

    #[test]
    #[should_panic(expected = "no gaps")]
    fn a_gap_in_the_history_is_a_bug() {
        overlay(&[(2, 0), (4, 0)]);
    }
}
