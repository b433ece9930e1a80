//! Runtimes of our own beside the one that the caller runs on.

use std::future::Future;
use std::io;

use tokio::task::JoinHandle;

/// Threads that run tasks. Dropped, it lets go of them without waiting.
#[derive(Debug)]
pub struct Executor {
    runtime: Option<tokio::runtime::Runtime>,
    handle: tokio::runtime::Handle,
}

impl Executor {
    /// `threads` worker threads called `name`.
    ///
    /// # Errors
    /// The operating system refuses threads or the event queue.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .max_blocking_threads(16)
            .thread_name(name)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Starts a task here.
    pub fn task<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
