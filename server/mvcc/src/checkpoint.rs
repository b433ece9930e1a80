//! The flush side: what was applied since the last checkpoint, cut at whole log entries.
//!
//! Invariant: a checkpoint holds everything up to its position and nothing of a later entry, but for deletions by a
//! compaction that an entry up to that position scheduled: which rows those are does not depend on later entries.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};

use crate::backend::{Checkpoint, Position, Table, WriteOp};
use crate::meta;
use crate::overlay::OverlayRow;
use crate::revision::RowKey;
use crate::store::Store;

/// Rows handled under one hold of the overlay's lock.
const ROWS_PER_LOCK: usize = 1024;

/// Rows of the small tables by key; `None` deletes.
pub(crate) type Rows = BTreeMap<(Table, Bytes), Option<Bytes>>;

#[derive(Default)]
pub(crate) struct Pending {
    pub position: Position,
    pub revision: i64,
    pub membership: Option<Bytes>,
    rows: Rows,
    /// What `finish` has reported of `rows`; a row put twice counts twice until it is taken.
    rows_cost: usize,
    deletes: Vec<RowKey>,
    finished_compaction: Option<i64>,
    /// Something happened since the last checkpoint was taken.
    dirty: bool,
    outstanding: bool,
}

fn rows_cost(rows: &Rows) -> usize {
    rows.iter().map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Bytes::len) + 64).sum()
}

impl Pending {
    pub fn restored(position: Position, revision: i64, membership: Option<Bytes>) -> Pending {
        Pending { position, revision, membership, ..Pending::default() }
    }

    /// Ends an entry; returns by how much what is pending grew.
    pub fn finish(&mut self, position: Position, revision: i64, membership: Option<Bytes>, rows: Rows) -> usize {
        assert!(position >= self.position, "entries are applied in order");
        assert!(revision >= self.revision, "revisions never go back");
        (self.position, self.revision) = (position, revision);
        let mut cost = rows_cost(&rows);
        self.rows.extend(rows);
        if let Some(membership) = membership {
            cost += membership.len() + 64;
            self.rows.insert((Table::Meta, meta::key(meta::MEMBERSHIP)), Some(membership.clone()));
            self.membership = Some(membership);
        }
        self.rows_cost += cost;
        self.dirty = true;
        cost
    }

    pub fn pending_deletes(&self) -> usize {
        self.deletes.len()
    }

    /// Takes over the rows that a step of the compaction dropped.
    pub fn compacted(&mut self, deletes: Vec<RowKey>, finished: Option<i64>) {
        self.deletes.extend(deletes);
        self.finished_compaction = finished.or(self.finished_compaction);
        self.dirty = true;
    }
}

impl Store {
    /// Bytes applied but not yet in a checkpoint that was written.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Relaxed)
    }

    /// Whether more is pending than `StoreOptions::overlay_bytes`: apply has to wait for the flush.
    pub fn is_overlay_full(&self) -> bool {
        self.pending_bytes() >= self.options.overlay_bytes
    }

    /// Everything since the last checkpoint, up to the last finished entry. `None` if there is nothing, or if the last
    /// one was not confirmed with [`Store::checkpoint_written`]; one that cannot be written ends the member.
    pub fn take_checkpoint(&self) -> Option<Checkpoint> {
        let mut pending = self.pending.lock();
        if pending.outstanding || !pending.dirty {
            return None;
        }
        (pending.outstanding, pending.dirty) = (true, false);
        let rows = std::mem::take(&mut pending.rows);
        let deletes = std::mem::take(&mut pending.deletes);
        let small_bytes = std::mem::take(&mut pending.rows_cost);
        let finished = pending.finished_compaction.take();
        let (applied, revision, membership) = (pending.position, pending.revision, pending.membership.clone());
        drop(pending);

        let (mut ops, overlay_bytes) = self.overlay_ops(revision);
        ops.extend(rows.into_iter().map(|((table, key), value)| match value {
            Some(value) => WriteOp::Put { table, key, value },
            None => WriteOp::Delete { table, key },
        }));
        let deleted_rows = deletes.len();
        ops.extend(
            deletes
                .into_iter()
                .map(|key| WriteOp::Delete { table: Table::Revisions, key: Bytes::copy_from_slice(key.as_bytes()) }),
        );
        ops.push(meta::put(meta::APPLIED, meta::encode_position(applied)));
        ops.push(meta::put(meta::REVISION, meta::encode_revision(revision)));
        ops.extend(finished.map(|at| meta::put(meta::FINISHED_COMPACTION, meta::encode_revision(at))));
        let bytes = ops.iter().map(op_bytes).sum();
        let overlay_bytes = overlay_bytes + small_bytes;
        Some(Checkpoint { ops, applied, membership, revision, bytes, overlay_bytes, deleted_rows })
    }

    /// Says that the checkpoint's transaction is durable: its rows leave the overlay, the newest of each key for the
    /// value cache.
    pub fn checkpoint_written(&self, checkpoint: Checkpoint) {
        loop {
            let rows = self.overlay.write().take_front(ROWS_PER_LOCK, checkpoint.revision);
            let last = rows.len() < ROWS_PER_LOCK;
            for row in rows {
                if !row.tombstone && !row.superseded {
                    self.cache.insert(row.revision, row.row);
                }
            }
            if last {
                break;
            }
        }
        let written = checkpoint.overlay_bytes + checkpoint.deleted_rows * DELETE_COST_BYTES;
        let before = self.pending_bytes.fetch_sub(written, Relaxed);
        assert!(before >= written, "a checkpoint holds no more than was pending");
        let mut pending = self.pending.lock();
        assert!(pending.outstanding, "a checkpoint is written once");
        pending.outstanding = false;
    }

    fn overlay_ops(&self, revision: i64) -> (Vec<WriteOp>, usize) {
        let (mut ops, mut cost) = (Vec::new(), 0);
        let mut keys = BytesMut::new();
        loop {
            let start = ops.len();
            let overlay = self.overlay.read();
            keys.reserve(ROWS_PER_LOCK * 18);
            for row in overlay.prefix(start, ROWS_PER_LOCK, revision) {
                cost += row.cost();
                ops.push(row_op(row, &mut keys));
            }
            drop(overlay);
            if ops.len() < start + ROWS_PER_LOCK {
                return (ops, cost);
            }
        }
    }
}

/// What a row that waits for its deletion counts as pending.
pub(crate) const DELETE_COST_BYTES: usize = 32;

fn row_op(row: &OverlayRow, keys: &mut BytesMut) -> WriteOp {
    keys.extend_from_slice(RowKey::new(row.revision, row.tombstone).as_bytes());
    WriteOp::Put { table: Table::Revisions, key: keys.split().freeze(), value: row.row.clone() }
}

fn op_bytes(op: &WriteOp) -> usize {
    match op {
        WriteOp::Put { key, value, .. } => key.len() + value.len(),
        WriteOp::Delete { key, .. } => key.len(),
    }
}
