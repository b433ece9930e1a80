//! The write-ahead log: what makes an entry durable before anyone is told.
//!
//! Invariants: a callback completes with `Ok` only after the sync that covers it; callbacks run in the order of the calls; a failed
//! write or sync is never retried and ends the process through `on_fatal`; vote and truncation are synced like entries; what may have
//! been acknowledged is never cut at recovery. One thread writes: it takes everything queued, writes once, syncs once.

mod append;
pub mod dump;
#[cfg(any(test, feature = "testing"))]
pub mod forge;
mod log;
mod prepare;
mod read;
mod record;
mod recover;
mod segment;
pub mod survey;
#[cfg(test)]
mod tests;
mod verdict;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garboard_runtime::spawn;
use parking_lot::Mutex;

use crate::disk::Disk;
pub use record::Record;
pub use record::State;
pub use recover::Recovered;
pub use recover::TornTail;
pub use recover::identity;
pub use segment::SegmentHeader;

use append::Shared;
use append::Writer;

/// Where an entry stands in the replicated log (Raft paper, section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

/// Raft's hard state: the term, whom this member voted for in it, and whether that one is known to lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    pub term: u64,
    pub node_id: u64,
    pub committed: bool,
}

/// One entry of the log. The payload is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    pub log_id: LogId,
    pub kind: u8,
    pub payload: Bytes,
}

impl WalEntry {
    /// What it counts for in the cache: the payload, and about as much as the entry itself takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.payload.len() + 64
    }
}

/// Called once, after the sync (or with the error that ends the process). Runs on the WAL's own thread: it must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Called once when the WAL can no longer keep its word; production logs and ends the process.
pub type OnFatal = Arc<dyn Fn(&WalError) + Send + Sync>;

/// What the WAL reports to the metrics.
pub trait WalObserver: Send + Sync {
    /// One write and its sync took this long.
    fn synced(&self, duration: Duration);
    /// One group of this many bytes was written.
    fn written(&self, bytes: usize);
}

/// Reports to nobody.
pub struct NoObserver;

impl WalObserver for NoObserver {
    fn synced(&self, _: Duration) {}
    fn written(&self, _: usize) {}
}

#[derive(Clone)]
pub struct WalOptions {
    pub dir: PathBuf,
    /// Size of a segment file; at least 4 KiB, below 4 GiB. A larger group gets a larger segment of its own.
    pub segment_bytes: u64,
    /// Recent entries kept in memory, by bytes. Entries not yet synced are kept besides.
    pub cache_bytes: usize,
    /// What may wait for the disk, by bytes; `append` blocks above it.
    pub queue_bytes: usize,
    pub cluster_id: u64,
    pub member_id: u64,
    /// Never syncs: a crash of the machine loses acknowledged entries.
    pub no_fsync: bool,
    pub on_fatal: OnFatal,
    pub observer: Arc<dyn WalObserver>,
}

impl WalOptions {
    /// Defaults for a log in `dir`: 64 MiB segments, 64 MiB of cache and of queue; a failure aborts the process.
    pub fn new(dir: PathBuf, cluster_id: u64, member_id: u64) -> Self {
        Self {
            dir,
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            cluster_id,
            member_id,
            no_fsync: false,
            on_fatal: Arc::new(|error| {
                tracing::error!(%error, "the WAL failed; what it holds is unknown until the next start");
                std::process::exit(1);
            }),
            observer: Arc::new(NoObserver),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("WAL: cannot {action} {}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// Bytes that were synced are not what was written. Never cut, never skipped.
    #[error("WAL: {} is corrupt at offset {offset}: {reason}", path.display())]
    Corrupt { path: PathBuf, offset: u64, reason: String },
    #[error("WAL: {} belongs to member {found_member:016x} of cluster {found_cluster:016x}, not to member {member:016x} of cluster {cluster:016x}", path.display())]
    Identity { path: PathBuf, found_cluster: u64, found_member: u64, cluster: u64, member: u64 },
    #[error("WAL: entries from {wanted} are gone, the log begins behind {purged}")]
    Purged { wanted: u64, purged: u64 },
    #[error("WAL: closed, or stopped by an earlier failure")]
    Stopped,
    #[error("WAL: the writing thread panicked")]
    Panicked,
    #[error("WAL: {0}")]
    Options(String),
}

impl WalError {
    pub(crate) fn corrupt(path: PathBuf, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path, offset, reason: reason.into() }
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// The log of one member. Shared by reference; all methods may be called from any thread.
pub struct Wal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<spawn::ThreadHandle<()>>>,
}

// === impl Wal ===

impl Wal {
    /// Opens the log in `options.dir`, creating it when there is none, and starts its threads.
    ///
    /// # Errors
    /// `Corrupt` names file and byte offset; nothing is changed on disk then. A torn tail is no error: it is cut and reported.
    pub fn open(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        recover::check_options(&options)?;
        let start = recover::open(&disk, &options)?;
        let dir = options.dir.clone();
        let shared = Arc::new(Shared::new(start.log, start.handles, options, start.lock));
        let prepare = prepare::Preparer::new(Arc::clone(&disk), &shared.options);
        let writer = Writer::new(disk, Arc::clone(&shared), start.active, start.state, Arc::clone(&prepare));
        let spawned = |result: io::Result<_>| result.map_err(WalError::io(&dir, "start a thread for"));
        let files = spawned(spawn::thread("wal-files", move || prepare.run()))?;
        let append = spawned(spawn::thread("wal-append", move || writer.run()))?;
        Ok((Self { shared, threads: Mutex::new(vec![append, files]) }, start.recovered))
    }

    /// Adds entries behind the last. `read` sees them at once; `done` is called after they are synced. Blocks while more than
    /// `queue_bytes` wait for the disk.
    ///
    /// # Panics
    /// An entry that does not follow the one before (index + 1, term not lower): the caller's state is broken, and what it would
    /// write with it is worse than stopping.
    pub fn append(&self, entries: Vec<WalEntry>, done: Done) {
        self.shared.append(entries, done);
    }

    /// Records the vote; synced before `done`.
    pub fn save_vote(&self, vote: Vote, done: Done) {
        self.shared.save_vote(vote, done);
    }

    /// Drops every entry behind `after` (all for `None`): `read` no longer sees them at once; synced before `done`.
    ///
    /// # Panics
    /// `after` is below what was purged or committed: those entries may be applied and cannot be taken back. Or it is behind the last entry.
    pub fn truncate_after(&self, after: Option<LogId>, done: Done) {
        self.shared.truncate_after(after, done);
    }

    /// Notes the committed entry. Rides along with the next write; a crash may forget it.
    pub fn save_committed(&self, committed: LogId) {
        self.shared.save_committed(committed);
    }

    /// Entries up to `upto` are no longer needed (it may lie ahead of the last one, after a snapshot). In memory at once; segments
    /// wholly below it are unlinked in the background, after the record of it is synced.
    pub fn purge(&self, upto: LogId) {
        self.shared.purge(upto);
    }

    /// Entries from `range`, in order and without gaps, up to `max_bytes` of payload; at least one if there is one at
    /// `range.start`. Fewer when the log ends before.
    ///
    /// # Errors
    /// `Purged` when `range.start` is; `Corrupt` when the disk no longer holds what was written.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<WalEntry>, WalError> {
        read::read(&self.shared, range, max_bytes)
    }

    /// Vote, committed, purged and last as the calls so far left them, synced or not.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// The last entry such that it and all before it are synced; 0 when there is none.
    pub fn synced_index(&self) -> u64 {
        self.shared.synced_index()
    }

    /// Waits until the entry at `index` is synced.
    ///
    /// # Errors
    /// `Stopped` when it never will be.
    pub fn wait_synced(&self, index: u64) -> Result<(), WalError> {
        self.shared.wait_synced(index)
    }

    /// How long the write and sync that are under way have taken so far; `None` when nothing is.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.shared.stalled_for()
    }

    /// Bytes in segment files.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes()
    }

    /// Writes what is queued, calls every callback, stops the threads and releases the directory. Nothing is taken afterwards.
    pub fn close(&self) {
        self.stop();
    }

    fn stop(&self) {
        self.shared.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a WAL thread panicked");
            }
        }
        self.shared.unlock();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop();
    }
}
