//! Group commit: callers queue, one thread writes.
//!
//! Invariants: the queue's order is the disk's order; one group is one write and one sync; callbacks run after the sync, in order, and
//! never with `Ok` after a failure; the queue holds at most `queue_bytes` (or one append that is larger alone).

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::Done;
use super::LogId;
use super::State;
use super::Vote;
use super::WalEntry;
use super::WalError;
use super::WalOptions;
use super::log::Log;
use super::log::Slot;
use super::prepare::Preparer;
use super::record::GROUP_HEADER_BYTES;
use super::record::GroupBuilder;
use super::record::Record;
use super::record::entry_record_bytes;
use super::record::group_bytes;
use super::segment::SEGMENT_BYTES_MAX;
use super::segment::SEGMENT_HEADER_BYTES;
use crate::disk::Disk;
use crate::disk::File;
use crate::disk::Lock;

/// More than this is not gathered into one group, so that one write does not take the whole disk for itself.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// A record of fixed size, at most (state: two log ids more than a vote).
const SMALL_RECORD_BYTES: usize = 96;

/// A segment file, open for reading as long as it is not removed.
#[derive(Clone)]
pub(crate) struct Handle {
    pub seq: u64,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    pub len: u64,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub seq: u64,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    pub salt: u32,
    pub capacity: u64,
    /// Where the next group goes.
    pub offset: u64,
    /// Crc of the last record.
    pub chain: u32,
    /// Number of the next group.
    pub number: u64,
}

impl Active {
    pub(crate) fn handle(&self) -> Handle {
        Handle { seq: self.seq, path: self.path.clone(), file: Arc::clone(&self.file), len: self.capacity }
    }
}

enum Op {
    Append { entries: Vec<WalEntry>, ticket: u64, done: Done },
    Vote { vote: Vote, done: Done },
    Truncate { after: Option<LogId>, done: Done },
    Purge { upto: LogId },
}

impl Op {
    /// Bytes of its records.
    fn record_bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(entry_record_bytes).sum(),
            _ => SMALL_RECORD_BYTES,
        }
    }
}

struct Inner {
    log: Log,
    queue: VecDeque<(Op, usize)>,
    /// Bytes queued or being written.
    queued_bytes: usize,
    next_ticket: u64,
    committed_dirty: bool,
    /// When the group that is being written was taken.
    writing_since: Option<clock::Instant>,
    stopping: bool,
    failed: bool,
    handles: Vec<Handle>,
}

/// What callers and the writing thread share.
pub(crate) struct Shared {
    pub options: WalOptions,
    inner: Mutex<Inner>,
    work: Condvar,
    space: Condvar,
    synced: Condvar,
    /// Gone once the log is closed, so that another opening may follow while somebody still holds this one.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(log: Log, handles: Vec<Handle>, options: WalOptions, lock: Box<dyn Lock>) -> Self {
        let inner = Inner {
            log,
            queue: VecDeque::new(),
            queued_bytes: 0,
            next_ticket: 1,
            committed_dirty: false,
            writing_since: None,
            stopping: false,
            failed: false,
            handles,
        };
        Self {
            options,
            inner: Mutex::new(inner),
            work: Condvar::new(),
            space: Condvar::new(),
            synced: Condvar::new(),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// Queues what `make` returns, after what it does to the log in memory; both under one lock, so that the orders agree.
    fn queue(&self, bytes: usize, done: Done, make: impl FnOnce(&mut Inner, Done) -> Op) {
        let mut inner = self.inner.lock();
        while inner.queued_bytes > 0
            && inner.queued_bytes + bytes > self.options.queue_bytes
            && !inner.failed
            && !inner.stopping
        {
            self.space.wait(&mut inner);
        }
        if inner.failed || inner.stopping {
            drop(inner);
            return done(Err(stopped()));
        }
        let op = make(&mut inner, done);
        inner.queued_bytes += bytes;
        inner.queue.push_back((op, bytes));
        drop(inner);
        self.work.notify_one();
    }

    pub(crate) fn append(&self, entries: Vec<WalEntry>, done: Done) {
        let bytes = entries.iter().map(entry_record_bytes).sum();
        self.queue(bytes, done, |inner, done| {
            let ticket = inner.next_ticket;
            inner.next_ticket += 1;
            inner.log.append(&entries, ticket);
            Op::Append { entries, ticket, done }
        });
    }

    pub(crate) fn save_vote(&self, vote: Vote, done: Done) {
        self.queue(SMALL_RECORD_BYTES, done, |inner, done| {
            inner.log.state.vote = Some(vote);
            Op::Vote { vote, done }
        });
    }

    pub(crate) fn truncate_after(&self, after: Option<LogId>, done: Done) {
        self.queue(SMALL_RECORD_BYTES, done, |inner, done| {
            inner.log.truncate_after(after);
            Op::Truncate { after, done }
        });
    }

    pub(crate) fn save_committed(&self, committed: LogId) {
        let mut inner = self.inner.lock();
        if inner.log.state.committed != Some(committed) {
            inner.log.state.committed = Some(committed);
            inner.committed_dirty = true;
        }
    }

    pub(crate) fn purge(&self, upto: LogId) {
        // Nobody waits for it; a failure is told by `on_fatal`.
        self.queue(SMALL_RECORD_BYTES, Box::new(|_| {}), |inner, _| {
            inner.log.purge(upto);
            Op::Purge { upto }
        });
    }

    pub(crate) fn state(&self) -> State {
        self.inner.lock().log.state
    }

    pub(crate) fn synced_index(&self) -> u64 {
        self.inner.lock().log.synced_next().saturating_sub(1)
    }

    pub(crate) fn wait_synced(&self, index: u64) -> Result<(), WalError> {
        let mut inner = self.inner.lock();
        while inner.log.synced_next() <= index {
            if inner.failed || (inner.stopping && inner.queued_bytes == 0) {
                return Err(WalError::Stopped);
            }
            self.synced.wait(&mut inner);
        }
        Ok(())
    }

    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let since = self.inner.lock().writing_since?;
        Some(clock::now().saturating_duration_since(since))
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.inner.lock().handles.iter().map(|handle| handle.len).sum()
    }

    pub(crate) fn with_log<R>(&self, look: impl FnOnce(&Log) -> R) -> R {
        look(&self.inner.lock().log)
    }

    pub(crate) fn handle(&self, seq: u64) -> Option<Handle> {
        self.inner.lock().handles.iter().find(|handle| handle.seq == seq).cloned()
    }

    /// Nothing that is not synced yet ever will be: tell the process first, then whoever waits.
    fn fail(&self, error: &WalError, ops: Vec<Op>) {
        let queued = {
            let mut inner = self.inner.lock();
            inner.failed = true;
            inner.queued_bytes = 0;
            std::mem::take(&mut inner.queue)
        };
        (self.options.on_fatal)(error);
        self.space.notify_all();
        self.synced.notify_all();
        for op in ops.into_iter().chain(queued.into_iter().map(|(op, _)| op)) {
            match op {
                Op::Append { done, .. } | Op::Vote { done, .. } | Op::Truncate { done, .. } => {
                    done(Err(io::Error::other(error.to_string())));
                }
                Op::Purge { .. } => {}
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.inner.lock().stopping = true;
        self.work.notify_all();
        self.space.notify_all();
        self.synced.notify_all();
    }
}

impl Shared {
    /// Lets another process or opening have the directory. Only after the threads have ended.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }
}

fn stopped() -> io::Error {
    io::Error::other("the WAL is stopped")
}

/// What one group carries, taken from the queue.
struct Batch {
    ops: Vec<Op>,
    bytes: usize,
    record_bytes: usize,
    committed: Option<LogId>,
}

/// Where the records of one append went.
struct Written {
    first: u64,
    ticket: u64,
    places: Vec<Slot>,
}

/// The one thread that writes.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    active: Active,
    /// The state as the records written so far say it; memory may be ahead.
    on_disk: State,
    prepare: Arc<Preparer>,
    buf: Vec<u8>,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        shared: Arc<Shared>,
        active: Active,
        on_disk: State,
        prepare: Arc<Preparer>,
    ) -> Self {
        Self { disk, shared, active, on_disk, prepare, buf: Vec::new() }
    }

    pub(crate) fn run(mut self) {
        let _end = End { shared: Arc::clone(&self.shared), prepare: Arc::clone(&self.prepare) };
        self.prepare.request();
        while let Some(batch) = self.take() {
            if let Err((error, ops)) = self.write(batch) {
                self.shared.fail(&error, ops);
                break;
            }
        }
    }

    /// Waits for work; `None` when stopping and all is written.
    fn take(&self) -> Option<Batch> {
        let mut inner = self.shared.inner.lock();
        while inner.queue.is_empty() {
            if inner.stopping {
                // A clean stop keeps the committed index, so that the next start has less to ask its peers.
                return self.take_committed(&mut inner).map(|id| Batch {
                    ops: Vec::new(),
                    bytes: 0,
                    record_bytes: SMALL_RECORD_BYTES,
                    committed: Some(id),
                });
            }
            self.shared.work.wait(&mut inner);
        }
        let mut batch = Batch { ops: Vec::new(), bytes: 0, record_bytes: SMALL_RECORD_BYTES, committed: None };
        while let Some((op, bytes)) = inner.queue.pop_front() {
            let record_bytes = op.record_bytes();
            if !batch.ops.is_empty() && !self.fits(batch.record_bytes + record_bytes) {
                inner.queue.push_front((op, bytes));
                break;
            }
            batch.record_bytes += record_bytes;
            batch.bytes += bytes;
            batch.ops.push(op);
        }
        batch.committed = inner.committed_dirty.then_some(inner.log.state.committed).flatten();
        inner.committed_dirty = false;
        inner.writing_since = Some(clock::now());
        Some(batch)
    }

    /// The committed index that a last write should carry, if the entries it names are on disk.
    fn take_committed(&self, inner: &mut Inner) -> Option<LogId> {
        let committed = inner.log.state.committed.filter(|_| inner.committed_dirty && !inner.failed)?;
        inner.committed_dirty = false;
        self.has_on_disk(committed).then_some(committed)
    }

    fn has_on_disk(&self, id: LogId) -> bool {
        self.on_disk.last.is_some_and(|last| last.index >= id.index)
    }

    fn fits(&self, record_bytes: usize) -> bool {
        let room = self.active.capacity - self.active.offset;
        record_bytes <= GROUP_BYTES_MAX && group_bytes(record_bytes) as u64 <= room
    }

    /// Writes and syncs one group, then tells everyone.
    fn write(&mut self, batch: Batch) -> Result<(), (WalError, Vec<Op>)> {
        if group_bytes(batch.record_bytes) as u64 > self.active.capacity - self.active.offset
            && let Err(error) = self.turn_over(batch.record_bytes)
        {
            return Err((error, batch.ops));
        }
        let (written, purged) = match self.write_group(&batch) {
            Ok(done) => done,
            Err(error) => return Err((error, batch.ops)),
        };
        let limit = self.shared.options.cache_bytes;
        let mut removed = Vec::new();
        {
            let mut inner = self.shared.inner.lock();
            for Written { first, ticket, places } in &written {
                inner.log.written(*first, *ticket, places);
            }
            inner.log.trim_cache(limit);
            inner.queued_bytes -= batch.bytes;
            inner.writing_since = None;
            if purged {
                let keep_from = inner.log.oldest_segment().unwrap_or(self.active.seq).min(self.active.seq);
                let gone = inner.handles.iter().take_while(|handle| handle.seq < keep_from).count();
                removed.extend(inner.handles.drain(..gone));
            }
        }
        self.shared.space.notify_all();
        self.shared.synced.notify_all();
        for op in batch.ops {
            match op {
                Op::Append { done, .. } | Op::Vote { done, .. } | Op::Truncate { done, .. } => done(Ok(())),
                Op::Purge { .. } => {}
            }
        }
        self.prepare.remove(removed);
        Ok(())
    }

    /// Lays the group out, writes it and syncs; returns where entries went and whether a purge was among it.
    fn write_group(&mut self, batch: &Batch) -> Result<(Vec<Written>, bool), WalError> {
        let (offset, first_chain) = (self.active.offset as usize, self.active.chain);
        let mut group = GroupBuilder::new(std::mem::take(&mut self.buf), offset, first_chain);
        let (mut written, mut purged) = (Vec::new(), false);
        let seq = u32::try_from(self.active.seq).unwrap_or(u32::MAX);
        for op in &batch.ops {
            match op {
                Op::Append { entries, ticket, .. } => {
                    let mut places = Vec::with_capacity(entries.len());
                    for entry in entries {
                        let (offset, len, previous_crc) = group.push_entry(entry);
                        places.push(Slot::Written { seq, offset: offset as u32, len: len as u32, previous_crc });
                        self.on_disk.last = Some(entry.log_id);
                    }
                    if let Some(first) = entries.first() {
                        written.push(Written { first: first.log_id.index, ticket: *ticket, places });
                    }
                }
                Op::Vote { vote, .. } => {
                    group.push(&Record::Vote(*vote));
                    self.on_disk.vote = Some(*vote);
                }
                Op::Truncate { after, .. } => {
                    group.push(&Record::Truncate(*after));
                    self.on_disk.last = *after;
                }
                Op::Purge { upto } => {
                    group.push(&Record::Purge(*upto));
                    self.on_disk.purged = self.on_disk.purged.max(Some(*upto));
                    self.on_disk.last = self.on_disk.last.max(Some(*upto));
                    purged = true;
                }
            }
        }
        match batch.committed {
            Some(id) if self.has_on_disk(id) => {
                group.push(&Record::Committed(id));
                self.on_disk.committed = Some(id);
            }
            // Known committed by others before it is written here: it rides with a later group.
            Some(_) => self.shared.inner.lock().committed_dirty = true,
            None => {}
        }
        let active = &mut self.active;
        let (bytes, chain) = group.finish(active.number, active.salt, first_chain);
        let started = clock::now();
        active.file.pwrite(&bytes, active.offset).map_err(WalError::io(&active.path, "write"))?;
        if !self.shared.options.no_fsync {
            active.file.sync_data().map_err(WalError::io(&active.path, "sync"))?;
        }
        self.shared.options.observer.synced(clock::now().saturating_duration_since(started));
        self.shared.options.observer.written(bytes.len());
        active.offset += bytes.len() as u64;
        active.chain = chain;
        active.number += 1;
        self.buf = bytes;
        Ok((written, purged))
    }

    /// Goes on in a new segment with room for a group of `record_bytes`.
    fn turn_over(&mut self, record_bytes: usize) -> Result<(), WalError> {
        let first_group = group_bytes(SMALL_RECORD_BYTES + GROUP_HEADER_BYTES);
        let needed = (SEGMENT_HEADER_BYTES + first_group + group_bytes(record_bytes)) as u64;
        let capacity = self.shared.options.segment_bytes.max(needed.next_multiple_of(4096));
        if capacity > SEGMENT_BYTES_MAX {
            return Err(WalError::Options(format!(
                "one append of {record_bytes} bytes is larger than a segment can be"
            )));
        }
        self.active = self.prepare.next_segment(&*self.disk, &self.active, self.on_disk, capacity)?;
        self.shared.inner.lock().handles.push(self.active.handle());
        self.prepare.request();
        Ok(())
    }
}

/// The end of the writing thread. A panic is a failure like any other: nobody may go on waiting for it.
struct End {
    shared: Arc<Shared>,
    prepare: Arc<Preparer>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.prepare.stop();
        if std::thread::panicking() {
            self.shared.fail(&WalError::Panicked, Vec::new());
        }
    }
}

/// The parent of a segment's path.
pub(crate) fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}
