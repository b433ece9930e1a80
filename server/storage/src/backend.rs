//! The checkpoint: redb tables that a restart begins from, behind the WAL and never on the way to an acknowledgement.
//!
//! Invariants: one commit is one transaction, so what belongs together is there together or not at all; one thread commits; reads see
//! whole commits; the sizes told are counted by ourselves in the same transaction, never redb's file length, which doubles as it grows;
//! after a failed write or sync the backend refuses every further commit.

mod adopt;
mod defrag;
mod flush;
mod pages;
mod scan;
mod stats;
mod tables;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::disk::Disk;
pub use defrag::DefragPace;
pub use defrag::DefragStats;
pub use flush::CommitStats;
pub use scan::ReadTxn;
pub use stats::SizeStats;
pub use tables::Table;
pub use tables::VERSION;

use defrag::Tee;
use stats::Sizes;

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { table: Table, key: Bytes, value: Bytes },
    Delete { table: Table, key: Bytes },
}

/// What one commit carries, applied in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    pub ops: Vec<Op>,
}

impl WriteBatch {
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put { table, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete { table, key: key.into() });
    }

    /// Bytes of its keys and values.
    pub fn payload_bytes(&self) -> usize {
        self.ops.iter().map(Op::payload_bytes).sum()
    }
}

impl Op {
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }
}

/// Called with key and value of each row; breaking ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What the backend reports to the metrics.
pub trait BackendObserver: Send + Sync {
    /// One commit took this long.
    fn committed(&self, duration: Duration);
}

/// Reports to nobody.
pub struct NoObserver;

impl BackendObserver for NoObserver {
    fn committed(&self, _: Duration) {}
}

#[derive(Clone)]
pub struct BackendOptions {
    /// redb's own cache of pages.
    pub cache_bytes: usize,
    /// Never syncs: a crash of the machine may lose the whole file.
    pub no_fsync: bool,
    pub observer: Arc<dyn BackendObserver>,
    /// Told of a read that failed: the file is damaged, or its disk. What was asked gets the error too, but whoever holds the backend should
    /// end, since it cannot know what else it would get wrong.
    pub on_unreadable: OnUnreadable,
}

/// See [`BackendOptions::on_unreadable`].
pub type OnUnreadable = Arc<dyn Fn(&BackendError) + Send + Sync>;

impl Default for BackendOptions {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, no_fsync: false, observer: Arc::new(NoObserver), on_unreadable: Arc::new(|_| {}) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("backend: cannot {action} {}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// The file is damaged, or its disk fails.
    #[error("backend: {}: {source}", path.display())]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("backend: {}: format version {found}, this release reads {known}", path.display())]
    Version { path: PathBuf, found: u64, known: u64 },
    #[error("backend: {}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: &'static str },
    /// An earlier commit or swap failed; what the disk holds is unknown until the next start.
    #[error("backend: stopped by an earlier failure")]
    Failed,
    #[error("backend: a defragmentation is already running")]
    Defragmenting,
}

// === impl BackendError ===

impl BackendError {
    /// Whether the file is not what was written to it. A disk that fails is another matter.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Malformed { .. } => true,
            Self::Database { source, .. } => matches!(**source, redb::Error::Corrupted(_)) || self.offset().is_some(),
            Self::Io { .. } => self.offset().is_some(),
            Self::Version { .. } | Self::Failed | Self::Defragmenting => false,
        }
    }

    /// Where the file is damaged, as a byte offset; `None` when that is not known, or it is not damage.
    pub fn offset(&self) -> Option<u64> {
        let source = match self {
            Self::Io { source, .. } => source,
            Self::Database { source, .. } => match &**source {
                redb::Error::Io(source) => source,
                _ => return None,
            },
            _ => return None,
        };
        source.get_ref()?.downcast_ref::<pages::Damage>().map(|damage| damage.offset)
    }
}

/// One redb file, as long as anyone reads it. A defragmentation replaces it.
pub(crate) struct Generation {
    pub db: redb::Database,
    pub path: PathBuf,
    pub on_unreadable: OnUnreadable,
}

impl Generation {
    pub(crate) fn error(&self, source: impl Into<redb::Error>) -> BackendError {
        BackendError::Database { path: self.path.clone(), source: Box::new(source.into()) }
    }

    /// The error of a read.
    pub(crate) fn unreadable(&self, source: impl Into<redb::Error>) -> BackendError {
        let error = self.error(source);
        (self.on_unreadable)(&error);
        error
    }
}

/// The checkpoint of one member.
pub struct Backend {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: BackendOptions,
    current: RwLock<Arc<Generation>>,
    /// Held through a commit, and by a defragmentation for the moments in which no commit may happen.
    commits: Mutex<flush::Commits>,
    committing: AtomicBool,
    defragmenting: AtomicBool,
    failed: AtomicBool,
    tee: Mutex<Option<Tee>>,
    tee_taken: Condvar,
    total_bytes: AtomicU64,
    in_use_bytes: AtomicU64,
}

/// The path of what is made for the file at `path`: no other file's is the same.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

// === impl Backend ===

impl Backend {
    /// Removes the file at `path`, which nobody has open, and what an interruption has left of its making.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(disk: &dyn Disk, path: &Path) -> Result<(), BackendError> {
        [path.to_owned(), defrag::copy_path(path), beside(path, "new.tmp")]
            .iter()
            .try_for_each(|path| remove_leftover(disk, path))
    }

    /// Opens the file at `path`, creating it when missing; removes what an interrupted defragmentation left.
    ///
    /// # Errors
    /// `Database` when redb finds it damaged; `Version` when a later release wrote it.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: BackendOptions) -> Result<Self, BackendError> {
        let fresh = beside(path, "new.tmp");
        remove_leftover(&*disk, &defrag::copy_path(path))?;
        remove_leftover(&*disk, &fresh)?;
        let (generation, sizes) = if exists(&*disk, path)? {
            // A process killed between a swap and this sync left a name that a power cut could still take back.
            let dir = path.parent().unwrap_or(Path::new("."));
            disk.sync_dir(dir).map_err(io_error(dir, "sync"))?;
            flush::open_generation(&*disk, path, &options)?
        } else {
            // A crash amid its creation leaves what redb does not open: the name comes last.
            let (generation, sizes) = flush::open_generation(&*disk, &fresh, &options)?;
            take_name(&*disk, &fresh, path)?;
            (Generation { path: path.to_owned(), ..generation }, sizes)
        };
        Ok(Self {
            disk,
            path: path.to_owned(),
            options,
            current: RwLock::new(Arc::new(generation)),
            commits: Mutex::new(flush::Commits::new(sizes)),
            committing: AtomicBool::new(false),
            defragmenting: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            tee: Mutex::new(None),
            tee_taken: Condvar::new(),
            total_bytes: AtomicU64::new(sizes.total_bytes()),
            in_use_bytes: AtomicU64::new(sizes.in_use_bytes()),
        })
    }

    /// Applies the batch in ONE transaction and returns when it is in the file.
    ///
    /// On a large file not every commit is synced, since redb's repairable commits cost time by the size of the file:
    /// [`CommitStats::durable`] tells. Only what a durable commit covers may be trimmed from the WAL.
    ///
    /// # Errors
    /// Any error is final: later commits fail with `Failed`, and the process should end.
    ///
    /// # Panics
    /// Two threads commit at once.
    pub fn commit(&self, batch: &WriteBatch) -> Result<CommitStats, BackendError> {
        flush::commit(self, batch, false)
    }

    /// As [`Backend::commit`], and durable for certain: before a shutdown, or before a snapshot is vouched for.
    pub fn commit_durable(&self, batch: &WriteBatch) -> Result<CommitStats, BackendError> {
        flush::commit(self, batch, true)
    }

    /// The values of `keys`, in their order, as of one moment.
    pub fn get_many(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, BackendError> {
        self.read()?.get_many(table, keys)
    }

    /// Visits the rows from `start` up to but without `end` (to the table's end for `None`) in key order, as of one moment.
    pub fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), BackendError> {
        self.read()?.scan(table, start, end, visit)
    }

    /// A consistent view that stays as it is while commits go on. Pages it sees are not reused while it lives: keep it short, or bound
    /// its age.
    pub fn read(&self) -> Result<ReadTxn, BackendError> {
        ReadTxn::begin(Arc::clone(&self.current.read()))
    }

    /// Bytes of the rows as stored. `total` falls only by a defragmentation, `in_use` with every delete. Costs two loads.
    pub fn size(&self) -> SizeStats {
        stats::size(self)
    }

    /// Builds a dense file beside the live one and swaps it in. Reads and commits go on; a crash at any moment leaves the old file or
    /// the new one, each with every durable commit.
    ///
    /// # Errors
    /// `Defragmenting` when one runs already. A failure before the swap leaves the backend as it was; one in the swap is final.
    pub fn defragment(&self, pace: DefragPace) -> Result<DefragStats, BackendError> {
        defrag::run(self, pace)
    }

    fn set_sizes(&self, sizes: Sizes) {
        stats::publish(self, sizes);
    }
}

/// Removes a file that never got its name. One that took it before a crash is the file itself.
pub(crate) fn remove_leftover(disk: &dyn Disk, path: &Path) -> Result<(), BackendError> {
    if exists(disk, path)? {
        disk.remove(path).map_err(io_error(path, "remove"))?;
    }
    Ok(())
}

/// Gives the synced file at `from` the name `to`, for good.
pub(crate) fn take_name(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), BackendError> {
    disk.rename(from, to).map_err(io_error(from, "rename"))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(io_error(dir, "sync"))
}

pub(crate) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, BackendError> {
    disk.exists(path).map_err(io_error(path, "look for"))
}

pub(crate) fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> BackendError {
    let path = path.to_owned();
    move |source| BackendError::Io { path, action, source }
}
