//! Compaction off the apply path: a thread takes bounded steps through index and rows; the deletions travel in the next checkpoints.
//!
//! What was scheduled survives a restart: the store knows from its tables that steps are left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use garboard_mvcc::CompactionStep;
use garboard_mvcc::Store;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use parking_lot::Condvar;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::EndsMember;
use crate::error::Error;

/// How fast compaction goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) rows_per_step: usize,
    pub(crate) pause: Duration,
}

#[derive(Default)]
struct State {
    scheduled: bool,
    stopping: bool,
}

/// The compaction thread's handle.
pub(crate) struct Compactor {
    store: Arc<Store>,
    state: Mutex<State>,
    wake: Condvar,
    finished: watch::Sender<i64>,
    pace: Pace,
    fatal: crate::Fatal,
}

impl Compactor {
    /// Starts the thread; it begins with what an earlier run left.
    pub(crate) fn start(
        store: Arc<Store>,
        pace: Pace,
        fatal: crate::Fatal,
    ) -> io::Result<(Arc<Self>, spawn::ThreadHandle<()>)> {
        let state = Mutex::new(State { scheduled: true, stopping: false });
        let (finished, _) = watch::channel(0);
        let compactor = Arc::new(Self { store, state, wake: Condvar::new(), finished, pace, fatal });
        let body = Arc::clone(&compactor);
        let thread = spawn::thread("compaction", move || body.run())?;
        Ok((compactor, thread))
    }

    /// A compaction has been applied.
    pub(crate) fn scheduled(&self) {
        self.state.lock().scheduled = true;
        self.wake.notify_one();
    }

    /// Ends the thread between two steps.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_one();
    }

    /// Resolves when everything up to `revision` has been compacted.
    pub(crate) async fn wait_finished(&self, revision: i64) -> Result<(), Error> {
        let mut finished = self.finished.subscribe();
        finished.wait_for(|done| *done >= revision).await.map(drop).map_err(|_| Error::Stopped)
    }

    fn run(&self) {
        let _panics = EndsMember { thread: "compaction", fatal: Arc::clone(&self.fatal) };
        while self.wait() {
            if let Err(why) = self.steps() {
                (self.fatal)(&format!("compaction: {why}"));
                return;
            }
        }
    }

    /// True when there is something to do, false when it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.scheduled && !state.stopping {
            self.wake.wait(&mut state);
        }
        state.scheduled = false;
        !state.stopping
    }

    fn steps(&self) -> Result<(), garboard_mvcc::Error> {
        let started = clock::now();
        loop {
            match self.store.compaction_step(self.pace.rows_per_step)? {
                CompactionStep::Idle => return Ok(()),
                // Readers hold an older revision: their rows stay until they are done.
                CompactionStep::More | CompactionStep::Waiting => {}
                CompactionStep::Finished(revision) => {
                    let took = clock::now().saturating_duration_since(started);
                    tracing::info!("compact-revision" = revision, took = ?took, "finished scheduled compaction");
                    self.finished.send_if_modified(|done| {
                        let newer = revision > *done;
                        *done = revision.max(*done);
                        newer
                    });
                }
            }
            if self.state.lock().stopping {
                return Ok(());
            }
            clock::pause_thread(self.pace.pause);
        }
    }
}
