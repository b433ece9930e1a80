//! The client runtimes: N threads, each with a runtime of its own that runs on it alone. Measured 20 to 37 % faster than one runtime over
//! all threads, since a request never changes its thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_runtime::wake;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::listen::Entrance;
use crate::listen::Handler;
use crate::listen::Limits;
use crate::listen::bind::Accepted;
use crate::listen::connection;
use crate::listen::transport::Socket;

/// Threads that a runtime may add for work that blocks (long reads, catch-up of watches).
const BLOCKING_THREADS_MAX: usize = 16;

/// A connection to be served.
pub struct Job {
    pub socket: Accepted,
    pub remote: String,
    pub entrance: Arc<Entrance>,
    /// Turns true when the connection is to end.
    pub stop: watch::Receiver<bool>,
    pub _place: OwnedSemaphorePermit,
    /// Held by clients' connections, which end before those of peers.
    pub _client: Option<mpsc::Sender<()>>,
}

/// The client runtimes.
pub struct Workers {
    workers: Vec<Worker>,
    /// Closes when the last worker's thread is about to end.
    finished: mpsc::Receiver<()>,
}

struct Worker {
    // Not a bounded channel: each job holds a place, and there are `connections_max` places.
    jobs: mpsc::UnboundedSender<Job>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    connections: AtomicUsize,
    idle: Notify,
}

/// Counts as one connection of its worker as long as it lives.
struct Loaded(Arc<Load>);

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

impl Workers {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// A thread or a runtime cannot be had.
    pub fn start<H: Handler>(count: usize, handler: &Arc<H>, limits: &Arc<Limits>) -> io::Result<Workers> {
        assert!(count > 0);
        let (running, finished) = mpsc::channel(1);
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (jobs, queue) = mpsc::unbounded_channel();
            let load = Arc::new(Load::default());
            let runtime = runtime()?;
            let work = work(queue, Arc::clone(&load), Arc::clone(handler), Arc::clone(limits));
            let running = running.clone();
            spawn::thread(&format!("client-{number}"), move || {
                runtime.block_on(async {
                    drop(spawn::task(wake::gather()));
                    work.await;
                });
                runtime.shutdown_background();
                drop(running);
            })?;
            workers.push(Worker { jobs, load });
        }
        Ok(Workers { workers, finished })
    }

    /// Gives a connection to the least loaded worker.
    pub fn deal(&self, job: Job) {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.load.connections.load(Ordering::Relaxed))
        else {
            return;
        };
        worker.load.connections.fetch_add(1, Ordering::AcqRel);
        if worker.jobs.send(job).is_err() {
            drop(Loaded(Arc::clone(&worker.load)));
        }
    }

    /// Takes no more connections; completes when all have ended or their time has run out.
    pub async fn finish(self) {
        let Workers { workers, mut finished } = self;
        drop(workers);
        let _ = finished.recv().await;
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()
}

async fn work<H: Handler>(
    mut queue: mpsc::UnboundedReceiver<Job>,
    load: Arc<Load>,
    handler: Arc<H>,
    limits: Arc<Limits>,
) {
    while let Some(job) = queue.recv().await {
        let loaded = Loaded(Arc::clone(&load));
        drop(spawn::task(serve(job, loaded, Arc::clone(&handler), Arc::clone(&limits))));
    }
    let drained = async {
        while load.connections.load(Ordering::Acquire) > 0 {
            load.idle.notified().await;
        }
    };
    if clock::timeout(limits.drain_timeout, drained).await.is_err() {
        tracing::warn!(connections = load.connections.load(Ordering::Acquire), "connections cut off at shutdown");
    }
}

async fn serve<H: Handler>(job: Job, loaded: Loaded, handler: Arc<H>, limits: Arc<Limits>) {
    let Job { socket, remote, entrance, stop, _place, _client } = job;
    let served = async {
        let socket = Socket::enter(socket)?;
        connection::serve(socket, remote.clone(), &entrance, &limits, handler, stop).await
    };
    if let Err(error) = served.await {
        tracing::debug!(%remote, %error, "connection ended");
    }
    drop(loaded);
}
