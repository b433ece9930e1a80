//! Committing: one batch, one transaction.
//!
//! redb opens at once after a crash only if its last durable commit also saved its allocator state ("quick repair"), which costs time
//! by the size of the file. So every durable commit is such a one, and on a large file the commits between are not durable: a crash
//! falls back to the last durable one, and the WAL, trimmed only to there, replays the rest.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_runtime::clock;
use redb::CursorError;
use redb::Database;
use redb::Durability;
use redb::ReadableTable;
use redb::WriteTransaction;

use super::Backend;
use super::BackendError;
use super::BackendOptions;
use super::Generation;
use super::Op;
use super::WriteBatch;
use super::defrag;
use super::io_error;
use super::pages::Pages;
use super::stats::Sizes;
use super::stats::row_bytes;
use super::tables::STORE;
use super::tables::STORE_IN_USE;
use super::tables::STORE_TOTAL;
use super::tables::STORE_VERSION;
use super::tables::Table;
use super::tables::VERSION;
use crate::disk::Disk;
use crate::disk::OpenOptions;

/// A durable commit is due when this part of the file has been written since the last: about 1 ms a GB each time, against
/// file / 1024 bytes of rows, stays below a twentieth of the time those take.
const DURABLE_EVERY_PART: u64 = 1024;
/// And at the latest after this many bytes, since a restart replays them.
const DURABLE_EVERY_BYTES_MAX: u64 = 256 << 20;

/// What one commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Bytes of keys and values.
    pub bytes: usize,
    pub duration: Duration,
    /// It, and all before it, survive a crash. When false, the WAL must keep what it carries.
    pub durable: bool,
}

/// What the committing side keeps.
pub(crate) struct Commits {
    pub sizes: Sizes,
    /// Bytes since the last durable commit.
    pub undurable_bytes: u64,
}

impl Commits {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self { sizes, undurable_bytes: 0 }
    }

    fn durable_due(&self, bytes: u64) -> bool {
        let limit = (self.sizes.total / DURABLE_EVERY_PART).min(DURABLE_EVERY_BYTES_MAX);
        self.undurable_bytes + bytes >= limit
    }
}

/// Opens or creates the redb file at `path`; all tables exist afterwards.
pub(crate) fn open_generation(
    disk: &dyn Disk,
    path: &Path,
    options: &BackendOptions,
) -> Result<(Generation, Sizes), BackendError> {
    let file = disk.open(path, OpenOptions::create()).map_err(io_error(path, "open"))?;
    let pages = Pages::open(file, path, options.no_fsync).map_err(io_error(path, "open"))?;
    let db = Database::builder()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(pages)
        .map_err(|error| BackendError::Database { path: path.to_owned(), source: Box::new(error.into()) })?;
    let on_unreadable = Arc::clone(&options.on_unreadable);
    let generation = Generation { db, path: path.to_owned(), on_unreadable };
    let sizes = initialise(&generation)?;
    Ok((generation, sizes))
}

/// Creates what is missing and reads the counters.
fn initialise(generation: &Generation) -> Result<Sizes, BackendError> {
    let failed = |error: redb::Error| generation.error(error);
    let mut txn = begin(generation, true)?;
    let sizes = {
        let mut store = txn.open_table(STORE).map_err(|error| failed(error.into()))?;
        let row = |name| -> Result<Option<u64>, BackendError> {
            Ok(store.get(name).map_err(|error| failed(error.into()))?.map(|value| value.value()))
        };
        match row(STORE_VERSION)? {
            Some(VERSION) => {
                let counters = (row(STORE_IN_USE)?, row(STORE_TOTAL)?);
                let (Some(in_use), Some(total)) = counters else {
                    let reason = "the size counters are missing";
                    return Err(BackendError::Malformed { path: generation.path.clone(), reason });
                };
                Some(Sizes { in_use, total })
            }
            Some(found) => {
                return Err(BackendError::Version { path: generation.path.clone(), found, known: VERSION });
            }
            None => {
                drop(store.insert(STORE_VERSION, VERSION).map_err(|error| failed(error.into()))?);
                None
            }
        }
    };
    if let Some(sizes) = sizes {
        drop(txn);
        return Ok(sizes);
    }
    for table in Table::ALL {
        txn.open_table(table.definition()).map_err(|error| failed(error.into()))?;
    }
    write_sizes(generation, &mut txn, Sizes::default())?;
    txn.commit().map_err(|error| failed(error.into()))?;
    Ok(Sizes::default())
}

/// A write transaction; a durable one is repairable at once after a crash.
pub(crate) fn begin(generation: &Generation, durable: bool) -> Result<WriteTransaction, BackendError> {
    let mut txn = generation.db.begin_write().map_err(|error| generation.error(error))?;
    let durability = if durable { Durability::Immediate } else { Durability::None };
    txn.set_durability(durability).map_err(|error| generation.error(error))?;
    txn.set_quick_repair(durable);
    Ok(txn)
}

pub(crate) fn write_sizes(
    generation: &Generation,
    txn: &mut WriteTransaction,
    sizes: Sizes,
) -> Result<(), BackendError> {
    let mut store = txn.open_table(STORE).map_err(|error| generation.error(error))?;
    for (name, value) in [(STORE_IN_USE, sizes.in_use), (STORE_TOTAL, sizes.total)] {
        drop(store.insert(name, value).map_err(|error| generation.error(error))?);
    }
    Ok(())
}

pub(crate) fn commit(backend: &Backend, batch: &WriteBatch, durable: bool) -> Result<CommitStats, BackendError> {
    assert!(!backend.committing.swap(true, Ordering::Acquire), "two threads commit to the backend at once");
    let result = commit_one(backend, batch, durable);
    if result.is_err() {
        backend.failed.store(true, Ordering::Release);
    }
    backend.committing.store(false, Ordering::Release);
    result
}

fn commit_one(backend: &Backend, batch: &WriteBatch, durable: bool) -> Result<CommitStats, BackendError> {
    let started = clock::now();
    defrag::wait_for_room(backend);
    let mut commits = backend.commits.lock();
    if backend.failed.load(Ordering::Acquire) {
        return Err(BackendError::Failed);
    }
    let generation = Arc::clone(&backend.current.read());
    let bytes = batch.payload_bytes();
    let durable = durable || commits.durable_due(bytes as u64);
    let mut txn = begin(&generation, durable)?;
    let mut sizes = commits.sizes;
    apply(&generation, &txn, &batch.ops, &mut sizes)?;
    write_sizes(&generation, &mut txn, sizes)?;
    txn.commit().map_err(|error| generation.error(error))?;
    commits.sizes = sizes;
    commits.undurable_bytes = if durable { 0 } else { commits.undurable_bytes + bytes as u64 };
    if let Some(tee) = backend.tee.lock().as_mut() {
        tee.push(batch);
    }
    backend.set_sizes(sizes);
    drop(commits);
    let duration = clock::now().saturating_duration_since(started);
    backend.options.observer.committed(duration);
    Ok(CommitStats { bytes, duration, durable })
}

/// Applies the changes in order, table by table (tables do not see each other).
pub(crate) fn apply<'a>(
    generation: &Generation,
    txn: &WriteTransaction,
    ops: impl IntoIterator<Item = &'a Op>,
    sizes: &mut Sizes,
) -> Result<(), BackendError> {
    let mut by_table: [Vec<&Op>; Table::ALL.len()] = Default::default();
    for op in ops {
        let (Op::Put { table, .. } | Op::Delete { table, .. }) = op;
        by_table[*table as usize].push(op);
    }
    for (table, ops) in Table::ALL.into_iter().zip(by_table) {
        if !ops.is_empty() {
            apply_table(txn, table, &ops, sizes).map_err(|error| generation.error(error))?;
        }
    }
    Ok(())
}

fn apply_table(txn: &WriteTransaction, table: Table, ops: &[&Op], sizes: &mut Sizes) -> Result<(), redb::Error> {
    let mut open = txn.open_table(table.definition())?;
    let mut rest = ops;
    while let Some((op, behind)) = rest.split_first() {
        // Revisions come in order and behind the last: by a cursor, page by page. Everything else finds its place by itself.
        let appended = if table == Table::Revisions { append_run(&mut open, rest, sizes)? } else { 0 };
        if appended > 0 {
            rest = &rest[appended..];
            continue;
        }
        match op {
            Op::Put { key, value, .. } => {
                if let Some(old) = open.insert(&key[..], &value[..])? {
                    sizes.subtract(row_bytes(key, old.value().len()));
                }
                sizes.add(row_bytes(key, value.len()));
            }
            Op::Delete { key, .. } => {
                if let Some(old) = open.remove(&key[..])? {
                    sizes.subtract(row_bytes(key, old.value().len()));
                }
            }
        }
        rest = behind;
    }
    Ok(())
}

type WriteTable<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// Appends the puts at the head of `ops` that stand in order behind the table's last row; how many those were.
fn append_run(table: &mut WriteTable<'_>, ops: &[&Op], sizes: &mut Sizes) -> Result<usize, redb::Error> {
    if !matches!(ops.first(), Some(Op::Put { .. })) {
        return Ok(0);
    }
    let mut cursor = table.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    let mut count = 0;
    for op in ops {
        let Op::Put { key, value, .. } = op else { break };
        match cursor.insert_before(&key[..], &value[..]) {
            Ok(()) => sizes.add(row_bytes(key, value.len())),
            Err(CursorError::UnorderedKey) => break,
            Err(error) => return Err(error.into()),
        }
        count += 1;
    }
    cursor.close()?;
    Ok(count)
}
