//! What catch-up reads when the ring no longer reaches back far enough.

use std::ops::ControlFlow;

use bytes::Bytes;

/// One row of the revision table.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Main revision.
    pub main: i64,
    /// Place within the revision.
    pub sub: i64,
    /// Whether the row deletes its key.
    pub tombstone: bool,
    /// Marshalled `mvccpb.KeyValue`; of a tombstone only the key counts.
    pub kv: &'a [u8],
}

/// Why history could not be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HistoryError {
    /// The start lies below the compact revision and rows are gone.
    #[error("required revision has been compacted")]
    Compacted,
    /// The table could not be read; watchers that needed it are canceled with this text.
    #[error("{0}")]
    Failed(String),
}

/// Past revisions, read off the apply path. Never called with a lock of the hub held.
pub trait History: Send + Sync {
    /// Highest revision that readers can see. Not below what was published to the hub.
    fn revision(&self) -> i64;

    /// Revisions below this one are gone. Moves before any row is removed.
    fn compact_revision(&self) -> i64;

    /// Visits the rows with `from <= main <= to` in revision order, whole revisions, until the visitor breaks.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] if `from` is below the compact revision; at it, every event is still there (etcd accepts
    /// a watch from it).
    fn scan(&self, from: i64, to: i64, visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>) -> Result<(), HistoryError>;

    /// Marshalled `KeyValue` of `key` as of `revision`; `None` if absent there or compacted.
    ///
    /// # Errors
    /// [`HistoryError::Failed`] if the table could not be read.
    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError>;
}
