//! The store as the watch hub reads it when watchers have to catch up.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::Error;
use crate::row::RowView;
use crate::store::Store;
use crate::watch::{History, HistoryError, Row};

impl History for Store {
    fn revision(&self) -> i64 {
        Store::revision(self)
    }

    fn compact_revision(&self) -> i64 {
        Store::compact_revision(self)
    }

    /// A scan that begins at the compact revision itself finds it whole: what compaction keeps includes its tombstones.
    fn scan(&self, from: i64, to: i64, visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>) -> Result<(), HistoryError> {
        let view = self.view();
        if from < view.compact {
            return Err(HistoryError::Compacted);
        }
        let to = to.min(view.current);
        let mut visit_row = |revision: crate::revision::Revision, tombstone, kv: &[u8]| {
            Ok(visit(Row { main: revision.main, sub: revision.sub, tombstone, kv }))
        };
        self.scan_rows(from, to, &mut visit_row).map_err(failed)
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError> {
        let view = self.view();
        if revision < view.compact || revision > view.current {
            return Ok(None);
        }
        let Some(version) = view.get(key, revision) else { return Ok(None) };
        let row = view.row(version.revision).map_err(failed)?;
        match RowView::parse(&row) {
            Ok(found) if found.key == key => Ok(Some(row)),
            _ => Err(HistoryError::Failed("a row is not of the key that the index names".to_owned())),
        }
    }
}

fn failed(error: Error) -> HistoryError {
    match error {
        Error::Compacted => HistoryError::Compacted,
        other => HistoryError::Failed(other.to_string()),
    }
}
