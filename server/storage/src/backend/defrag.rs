//! Defragmentation beside the running backend: a dense copy is built, catches up, and takes the file's name.
//!
//! Invariants: before each step the copy holds, of all rows up to the cursor, exactly what the live file held at the step's read
//! transaction; the changes committed since (teed) are applied to rows up to the cursor, those behind it are still to be copied. The
//! name changes hands under the commit lock, with the copy synced before and the directory synced after: no commit is in only one file.

use std::ops::Bound;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use garboard_runtime::clock;

use super::Backend;
use super::BackendError;
use super::Generation;
use super::Op;
use super::ReadTxn;
use super::SizeStats;
use super::Table;
use super::WriteBatch;
use super::flush;
use super::remove_leftover;
use super::stats::Sizes;
use super::take_name;

/// The copy is synced each time it has grown by this much: redb then reuses pages, and the disk is not flooded at the end.
const SYNC_EVERY_BYTES: usize = 64 << 20;

/// How fast a defragmentation copies, so that it leaves disk and processor to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefragPace {
    /// Bytes of rows copied in one step (at least one row).
    pub step_bytes: usize,
    /// Rest after each step.
    pub pause: Duration,
}

impl Default for DefragPace {
    fn default() -> Self {
        Self { step_bytes: 1 << 20, pause: Duration::from_millis(2) }
    }
}

/// What a defragmentation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefragStats {
    pub before: SizeStats,
    pub after: SizeStats,
    pub duration: Duration,
    /// How long commits had to wait for the swap.
    pub swap_duration: Duration,
}

/// Commits wait while more than this awaits the next step.
const TEE_BYTES_MAX: usize = 64 << 20;

/// The changes committed since the last step.
#[derive(Default)]
pub(crate) struct Tee {
    ops: Vec<Op>,
    bytes: usize,
}

impl Tee {
    pub(crate) fn push(&mut self, batch: &WriteBatch) {
        self.bytes += batch.payload_bytes();
        self.ops.extend(batch.ops.iter().cloned());
    }

    fn take(&mut self) -> Vec<Op> {
        self.bytes = 0;
        std::mem::take(&mut self.ops)
    }
}

/// Before a commit takes the lock that the next step needs.
pub(crate) fn wait_for_room(backend: &Backend) {
    let mut tee = backend.tee.lock();
    while tee.as_ref().is_some_and(|tee| tee.bytes > TEE_BYTES_MAX) {
        backend.tee_taken.wait(&mut tee);
    }
}

pub(crate) fn copy_path(path: &Path) -> PathBuf {
    super::beside(path, "defrag.tmp")
}

pub(crate) fn run(backend: &Backend, pace: DefragPace) -> Result<DefragStats, BackendError> {
    if backend.defragmenting.swap(true, Ordering::Acquire) {
        return Err(BackendError::Defragmenting);
    }
    let result = copy_and_swap(backend, pace);
    *backend.tee.lock() = None;
    backend.tee_taken.notify_all();
    backend.defragmenting.store(false, Ordering::Release);
    if result.is_err()
        && let Err(error) = remove_leftover(&*backend.disk, &copy_path(&backend.path))
    {
        tracing::warn!(%error, "cannot remove an unfinished defragmentation");
    }
    result
}

fn copy_and_swap(backend: &Backend, pace: DefragPace) -> Result<DefragStats, BackendError> {
    let started = clock::now();
    let before = backend.size();
    let path = copy_path(&backend.path);
    remove_leftover(&*backend.disk, &path)?;
    let (generation, _) = flush::open_generation(&*backend.disk, &path, &backend.options)?;
    let mut copy = Copy { backend, generation, sizes: Sizes::default(), cursor: Cursor::default(), unsynced_bytes: 0 };
    {
        let _no_commit = backend.commits.lock();
        *backend.tee.lock() = Some(Tee::default());
    }
    while copy.step(pace)? {
        clock::pause_thread(pace.pause);
    }
    // All but the last moment's changes are made durable while commits still go on.
    copy.catch_up()?;
    let swap_duration = copy.swap()?;
    let duration = clock::now().saturating_duration_since(started);
    Ok(DefragStats { before, after: backend.size(), duration, swap_duration })
}

/// How far the copy has come: everything up to and with `key` of the table, and all of the tables before it.
#[derive(Default)]
struct Cursor {
    table: usize,
    key: Option<Bytes>,
}

impl Cursor {
    fn covers(&self, op: &Op) -> bool {
        let (Op::Put { table, key, .. } | Op::Delete { table, key }) = op;
        let table = *table as usize;
        table < self.table || (table == self.table && self.key.as_ref().is_some_and(|reached| key <= reached))
    }
}

struct Copy<'a> {
    backend: &'a Backend,
    generation: Generation,
    sizes: Sizes,
    cursor: Cursor,
    unsynced_bytes: usize,
}

// === impl Copy ===

impl Copy<'_> {
    /// Takes the changes since the last step and a view of the live file as of the same moment.
    fn tee_and_view(&self) -> Result<(Vec<Op>, ReadTxn), BackendError> {
        let _no_commit = self.backend.commits.lock();
        let ops = self.backend.tee.lock().as_mut().map(Tee::take).unwrap_or_default();
        self.backend.tee_taken.notify_all();
        Ok((ops, self.backend.read()?))
    }

    /// Copies the next rows; false when there are none left.
    fn step(&mut self, pace: DefragPace) -> Result<bool, BackendError> {
        let (mut ops, view) = self.tee_and_view()?;
        ops.retain(|op| self.cursor.covers(op));
        let Some(table) = Table::ALL.get(self.cursor.table).copied() else {
            self.write(&ops, false)?;
            return Ok(false);
        };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let start = self.cursor.key.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        view.scan_bounds(table, (start, Bound::Unbounded), &mut |key, value| {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            bytes += key.len() + value.len();
            rows.push(Op::Put { table, key, value });
            if bytes < pace.step_bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        drop(view);
        let reached = rows.last().map(|row| match row {
            Op::Put { key, .. } | Op::Delete { key, .. } => key.clone(),
        });
        ops.append(&mut rows);
        self.write(&ops, false)?;
        self.cursor = match reached {
            Some(key) => Cursor { table: self.cursor.table, key: Some(key) },
            None => Cursor { table: self.cursor.table + 1, key: None },
        };
        Ok(true)
    }

    fn catch_up(&mut self) -> Result<(), BackendError> {
        let (ops, _) = self.tee_and_view()?;
        self.write(&ops, true)
    }

    fn write(&mut self, ops: &[Op], durable: bool) -> Result<(), BackendError> {
        self.unsynced_bytes += ops.iter().map(Op::payload_bytes).sum::<usize>();
        let durable = durable || self.unsynced_bytes >= SYNC_EVERY_BYTES;
        let mut txn = flush::begin(&self.generation, durable)?;
        flush::apply(&self.generation, &txn, ops, &mut self.sizes)?;
        // The copy is dense: nothing freed is kept in it.
        self.sizes.total = self.sizes.in_use;
        flush::write_sizes(&self.generation, &mut txn, self.sizes)?;
        txn.commit().map_err(|error| self.generation.error(error))?;
        if durable {
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// The last changes, then the name. Commits wait; reads do not.
    fn swap(mut self) -> Result<Duration, BackendError> {
        let backend = self.backend;
        let mut commits = backend.commits.lock();
        let started = clock::now();
        if backend.failed.load(Ordering::Acquire) {
            return Err(BackendError::Failed);
        }
        let ops = backend.tee.lock().take().map(|tee| tee.ops).unwrap_or_default();
        self.write(&ops, true)?;
        let Sizes { in_use, .. } = commits.sizes;
        if self.sizes.in_use != in_use {
            let reason = "the defragmented copy does not count the same rows";
            return Err(BackendError::Malformed { path: self.generation.path.clone(), reason });
        }
        let renamed = take_name(&*backend.disk, &self.generation.path, &backend.path);
        if let Err(error) = renamed {
            // Which file has the name is unknown: no commit may follow.
            backend.failed.store(true, Ordering::Release);
            return Err(error);
        }
        let generation = Generation { path: backend.path.clone(), ..self.generation };
        *backend.current.write() = Arc::new(generation);
        *commits = flush::Commits::new(self.sizes);
        backend.set_sizes(self.sizes);
        Ok(clock::now().saturating_duration_since(started))
    }
}
