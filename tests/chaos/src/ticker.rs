//! Something done again and again in a thread of its own until the handle is dropped.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// Dropping it waits for the turn under way and then stops.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

// === impl Ticker ===

impl Ticker {
    /// The first turn is at once; `turn` is told its number.
    pub fn new(period: Duration, mut turn: impl FnMut(u64) + Send + 'static) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                turn(number);
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A turn that panicked has printed why; here is nothing left to stop.
            let _ = thread.join();
        }
    }
}
