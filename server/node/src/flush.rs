//! The checkpoint: a thread of its own writes what has been applied to redb, one transaction at a time, behind the acknowledgements.
//!
//! It never runs ahead of the own WAL's synced index, and a write that fails ends the process (an unknown part of it may be on disk).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use garboard_mvcc::Checkpoint;
use garboard_mvcc::Store;
use garboard_runtime::spawn;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendError;
use garboard_storage::backend::WriteBatch;
use garboard_storage::wal::Wal;
use parking_lot::Condvar;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::oneshot;

use crate::EndsMember;
use crate::backend;
use crate::consensus::Checkpointed;
use crate::consensus::StoredMembership;

/// Bytes of applied rows that start a flush before its time.
const FLUSH_BYTES: usize = 8 << 20;
/// Bytes of applied rows at which applying waits for the flush.
const HIGH_WATER_BYTES: usize = 64 << 20;

struct State {
    /// Flushes asked for: the log index to reach, and whom to tell.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
    poked: bool,
    stopping: bool,
    /// What a durable transaction covers.
    checkpointed: Checkpointed,
    /// What is in the database, durable or not.
    written: Option<Checkpointed>,
}

/// The flush thread's handle.
pub(crate) struct Flusher {
    store: Arc<Store>,
    wal: Arc<Wal>,
    backend: Arc<Backend>,
    state: Mutex<State>,
    /// Held while a checkpoint is written, and while a snapshot takes the place of everything. Taken before `state`.
    writing: Mutex<()>,
    wake: Condvar,
    room: Notify,
    fatal: crate::Fatal,
    interval: Duration,
}

impl Flusher {
    /// Starts the thread. `interval` is how long applied rows wait at most.
    pub(crate) fn start(
        store: Arc<Store>,
        wal: Arc<Wal>,
        backend: Arc<Backend>,
        checkpointed: Checkpointed,
        interval: Duration,
        fatal: crate::Fatal,
    ) -> io::Result<(Arc<Self>, spawn::ThreadHandle<()>)> {
        let state = State { waiters: Vec::new(), poked: false, stopping: false, checkpointed, written: None };
        let flusher = Arc::new(Self {
            store,
            wal,
            backend,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            wake: Condvar::new(),
            room: Notify::new(),
            fatal,
            interval,
        });
        let body = Arc::clone(&flusher);
        let thread = spawn::thread("flush", move || body.run())?;
        Ok((flusher, thread))
    }

    /// Called after each entry: wakes the thread early when much has piled up.
    pub(crate) fn applied(&self) {
        if self.store.pending_bytes() >= FLUSH_BYTES {
            let mut state = self.state.lock();
            if !state.poked {
                state.poked = true;
                self.wake.notify_one();
            }
        }
    }

    /// Whether applying may go on at once.
    pub(crate) fn has_room(&self) -> bool {
        self.store.pending_bytes() < HIGH_WATER_BYTES
    }

    /// Resolves when applying may go on.
    pub(crate) async fn wait_room(&self) {
        loop {
            let notified = self.room.notified();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// How far the durable checkpoint reaches.
    pub(crate) fn checkpointed(&self) -> Checkpointed {
        self.state.lock().checkpointed.clone()
    }

    /// Flushes everything applied so far.
    pub(crate) async fn barrier(self: Arc<Self>) -> io::Result<Checkpointed> {
        let target = self.store.applied().index;
        let (done, reached) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.stopping {
                return Err(io::Error::other("the flush thread is stopping"));
            }
            state.waiters.push((target, done));
            self.wake.notify_one();
        }
        reached.await.map_err(|_| io::Error::other("the flush thread has ended"))?;
        Ok(self.checkpointed())
    }

    /// Lets `replace` put other content into the database, to which `checkpointed` is where it stands then. No checkpoint is under way
    /// meanwhile; whoever waits for one has it with this.
    ///
    /// # Errors
    /// What `replace` says.
    pub(crate) fn replace(
        &self,
        checkpointed: Checkpointed,
        replace: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let _no_checkpoint = self.writing.lock();
        replace()?;
        {
            let mut state = self.state.lock();
            state.checkpointed = checkpointed;
            state.written = None;
        }
        self.tell_waiters();
        self.room.notify_waiters();
        Ok(())
    }

    /// Flushes what is left and ends the thread.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_one();
    }

    fn run(&self) {
        let _panics = EndsMember { thread: "flush", fatal: Arc::clone(&self.fatal) };
        loop {
            let stopping = self.wait();
            while self.flush_once() {
                if self.store.pending_bytes() < FLUSH_BYTES && !stopping {
                    break;
                }
            }
            if stopping {
                return;
            }
        }
    }

    /// Waits for the interval, a poke, or somebody who needs a flush; true when it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if state.waiters.is_empty() && !state.poked && !state.stopping {
            self.wake.wait_for(&mut state, self.interval);
        }
        state.poked = false;
        state.stopping
    }

    /// Writes one checkpoint; false when there was nothing to write.
    fn flush_once(&self) -> bool {
        let _alone = self.writing.lock();
        let durable = {
            let state = self.state.lock();
            state.stopping || !state.waiters.is_empty()
        };
        let checkpoint = self.store.take_checkpoint();
        let wrote = checkpoint.is_some();
        let result = match checkpoint {
            Some(checkpoint) => self.write(checkpoint, durable),
            None if durable => self.make_durable(),
            None => Ok(()),
        };
        if let Err(why) = result {
            (self.fatal)(&why);
            return false;
        }
        self.tell_waiters();
        wrote
    }

    fn write(&self, checkpoint: Checkpoint, durable: bool) -> Result<(), String> {
        let position = checkpoint.applied;
        let failed = |e: &dyn std::fmt::Display| format!("checkpoint at entry {}: {e}", position.index);
        self.wal.wait_synced(position.index).map_err(|e| failed(&e))?;
        let membership = match &checkpoint.membership {
            Some(bytes) => StoredMembership::decode(bytes).map_err(|e| failed(&e))?,
            None => self.state.lock().checkpointed.membership.clone(),
        };
        let durable = self.commit(&backend::write_batch(&checkpoint), durable).map_err(|e| failed(&e))?;
        self.store.checkpoint_written(checkpoint);
        let written = Checkpointed { position: Some(position), membership };
        let mut state = self.state.lock();
        if durable {
            state.checkpointed = written;
            state.written = None;
        } else {
            state.written = Some(written);
        }
        drop(state);
        self.room.notify_waiters();
        Ok(())
    }

    /// Makes the last transaction durable when it was not.
    fn make_durable(&self) -> Result<(), String> {
        let Some(written) = self.state.lock().written.take() else { return Ok(()) };
        self.commit(&WriteBatch::default(), true).map_err(|e| format!("checkpoint: {e}"))?;
        self.state.lock().checkpointed = written;
        Ok(())
    }

    fn commit(&self, batch: &WriteBatch, durable: bool) -> Result<bool, BackendError> {
        let stats = if durable { self.backend.commit_durable(batch)? } else { self.backend.commit(batch)? };
        Ok(stats.durable)
    }

    fn tell_waiters(&self) {
        let mut state = self.state.lock();
        let reached = state.checkpointed.position.map_or(0, |p| p.index);
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.waiters).into_iter().partition(|w| w.0 <= reached);
        state.waiters = later;
        drop(state);
        for (_, done) in due {
            // Whoever asked may have given up waiting.
            let _ = done.send(());
        }
    }
}
