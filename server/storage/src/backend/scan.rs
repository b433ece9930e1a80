//! Reading: one redb read transaction, kept together with the file it belongs to.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::ReadTransaction;
use redb::ReadableDatabase;
use redb::ReadableTable;

use super::BackendError;
use super::Generation;
use super::Table;
use super::Visit;
use super::tables::Definition;

/// A consistent view of every table. Survives a defragmentation: it keeps the file it reads.
pub struct ReadTxn {
    // Before the generation: redb closes the file with the database, and a transaction must not outlive it.
    txn: ReadTransaction,
    generation: Arc<Generation>,
}

type OpenTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

// === impl ReadTxn ===

impl ReadTxn {
    pub(crate) fn begin(generation: Arc<Generation>) -> Result<Self, BackendError> {
        let txn = generation.db.begin_read().map_err(|error| generation.unreadable(error))?;
        Ok(Self { txn, generation })
    }

    fn open(&self, definition: Definition) -> Result<OpenTable, BackendError> {
        self.txn.open_table(definition).map_err(|error| self.generation.unreadable(error))
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.get_many(table, &[key])?.pop().flatten())
    }

    /// The values of `keys`, in their order.
    pub fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError> {
        let table = self.open(table.definition())?;
        keys.iter()
            .map(|key| {
                let value = ReadableTable::get(&table, *key).map_err(|error| self.generation.unreadable(error))?;
                Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
            })
            .collect()
    }

    /// Visits the rows from `start` up to but without `end` (to the table's end for `None`) in key order.
    pub fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.scan_bounds(table, (Bound::Included(start), end), visit)
    }

    /// As `scan`, with any bounds.
    pub fn scan_bounds(
        &self,
        table: Table,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        if let (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) = bounds
            && start >= end
        {
            return Ok(());
        }
        let table = self.open(table.definition())?;
        let rows = ReadableTable::range::<&[u8]>(&table, bounds).map_err(|error| self.generation.unreadable(error))?;
        for row in rows {
            let (key, value) = row.map_err(|error| self.generation.unreadable(error))?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
