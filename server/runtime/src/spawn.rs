//! Tasks and threads.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::io;

pub use std::thread::JoinHandle as ThreadHandle;
pub use tokio::task::JoinError;
pub use tokio::task::JoinHandle;

/// Starts a task on the current runtime.
pub fn task<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Runs `work`, which may block, on the current runtime's blocking pool.
pub fn blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(work)
}

/// Starts a named thread.
///
/// # Errors
/// The operating system refuses another thread.
pub fn thread<F, R>(name: &str, body: F) -> io::Result<ThreadHandle<R>>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}
