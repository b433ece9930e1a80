//! The state machine's view of the database: mvcc knows a small trait of its own, storage knows tables.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use garboard_mvcc::backend::Backend;
use garboard_mvcc::backend::BackendError;
use garboard_mvcc::backend::Checkpoint;
use garboard_mvcc::backend::Table;
use garboard_mvcc::backend::WriteOp;
use garboard_storage::backend as storage;

/// [`Backend`] over the database.
pub(crate) struct Database(pub(crate) Arc<storage::Backend>);

fn table(table: Table) -> storage::Table {
    match table {
        Table::Revisions => storage::Table::Revisions,
        Table::Meta => storage::Table::Meta,
        Table::Leases => storage::Table::Leases,
        Table::Alarms => storage::Table::Alarms,
        Table::Members => storage::Table::Members,
    }
}

impl Backend for Database {
    fn get_many(&self, of: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError> {
        self.0.get_many(table(of), keys).map_err(|e| BackendError(e.to_string()))
    }

    fn scan(
        &self,
        of: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        self.0.scan(table(of), start, end, visit).map_err(|e| BackendError(e.to_string()))
    }
}

/// The one transaction of a checkpoint.
pub(crate) fn write_batch(checkpoint: &Checkpoint) -> storage::WriteBatch {
    let ops = checkpoint.ops.iter().map(|op| match op {
        WriteOp::Put { table: of, key, value } => {
            storage::Op::Put { table: table(*of), key: key.clone(), value: value.clone() }
        }
        WriteOp::Delete { table: of, key } => storage::Op::Delete { table: table(*of), key: key.clone() },
    });
    storage::WriteBatch { ops: ops.collect() }
}
