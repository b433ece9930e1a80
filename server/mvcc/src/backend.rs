//! What the state machine needs of storage: reads, and a description of what the next flush has to write.
//!
//! Writes leave the crate as a [`Checkpoint`]: one transaction that carries rows and everything that must never part
//! from them. The implementation over the database is `garboard-node`'s.

use std::ops::ControlFlow;

use bytes::Bytes;

#[cfg(any(test, feature = "testing"))]
pub mod memory;

/// The tables of the state machine. Keys order bytewise in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Revisions,
    Meta,
    Leases,
    Alarms,
    Members,
}

pub trait Backend: Send + Sync + 'static {
    /// The values of the keys, in their order, from one read transaction that begins with this call.
    fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError>;

    /// Visits rows with `start <= key < end` in key order, in one read transaction that begins with this call.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BackendError>;
}

/// Storage failed. Nothing can be answered after it: the member ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend: {0}")]
pub struct BackendError(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    Put { table: Table, key: Bytes, value: Bytes },
    Delete { table: Table, key: Bytes },
}

/// A position in the replicated log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// What one flush writes, in one transaction and in this order (a delete may follow a put of the same key). `ops` are
/// complete: the applied position, the membership and the revisions are among them; the fields repeat them for who
/// needs them without reading the tables.
#[derive(Debug)]
pub struct Checkpoint {
    pub ops: Vec<WriteOp>,
    pub applied: Position,
    /// The membership as last given, whether this checkpoint changes it or not.
    pub membership: Option<Bytes>,
    /// The store's revision at `applied`.
    pub revision: i64,
    /// Size of keys and values in `ops`.
    pub bytes: usize,
    pub(crate) overlay_bytes: usize,
    pub(crate) deleted_rows: usize,
}
