//! A backend in memory. Writing a checkpoint is atomic, as it is on disk; a clone of the tables is what a crash leaves.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Backend, BackendError, Checkpoint, Table, WriteOp};

type Tables = BTreeMap<(Table, Bytes), Bytes>;

#[derive(Default)]
pub struct MemoryBackend {
    tables: RwLock<Tables>,
}

impl MemoryBackend {
    pub fn new() -> Arc<MemoryBackend> {
        Arc::default()
    }

    /// Performs a checkpoint's transaction.
    pub fn write(&self, checkpoint: &Checkpoint) {
        let mut tables = self.tables.write();
        for op in &checkpoint.ops {
            match op {
                WriteOp::Put { table, key, value } => {
                    tables.insert((*table, key.clone()), value.clone());
                }
                WriteOp::Delete { table, key } => {
                    tables.remove(&(*table, key.clone()));
                }
            }
        }
    }

    /// The tables as they are: what a member would find after a crash now.
    pub fn fork(&self) -> Arc<MemoryBackend> {
        Arc::new(MemoryBackend { tables: RwLock::new(self.tables.read().clone()) })
    }

    /// Rows of a table.
    pub fn rows(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        let tables = self.tables.read();
        let rows = tables.iter().filter(|((of, _), _)| *of == table);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    pub fn set(&self, table: Table, key: &[u8], value: &[u8]) {
        self.tables.write().insert((table, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
    }
}

impl Backend for MemoryBackend {
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError> {
        let tables = self.tables.read();
        Ok(keys.iter().map(|key| tables.get(&(table, Bytes::copy_from_slice(key))).cloned()).collect())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let lower = Bound::Included((table, Bytes::copy_from_slice(start)));
        let upper = end.map_or(Bound::Unbounded, |end| Bound::Excluded((table, Bytes::copy_from_slice(end))));
        // A copy stands for the read transaction: writes during the scan are not seen.
        let rows: Vec<(Bytes, Bytes)> = {
            let tables = self.tables.read();
            let rows = tables.range((lower, upper)).take_while(|((of, _), _)| *of == table);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        for (key, value) in rows {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
