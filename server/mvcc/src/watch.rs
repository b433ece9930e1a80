//! The watch hub: every event reaches every watcher that asked for it, once, in revision order.
//!
//! - One delivery path: a watcher owes nothing below its cursor. Live publishing and catch-up meet by revision, under the
//!   hub's lock, never by time.
//! - A revision is delivered whole (fragments only when asked for).
//! - Progress is queued behind everything up to its revision, in the same stream.
//! - Publishing never waits for a stream: a full queue is released and its watchers catch up from the ring or from history.
//! - Locks are taken hub, then stream; none is held while history is read or a stream is woken.

mod catch_up;
mod counters;
mod event;
mod gather;
mod history;
mod hub;
mod index;
mod output;
mod queue;
mod range;
mod ring;
mod stream;

#[cfg(test)]
mod tests;

pub use counters::WatchCounters;
pub use event::{Event, EventKind, PrevKv};
pub use history::{History, HistoryError, Row};
pub use hub::{Hub, HubOptions};
pub use output::{Next, WatchOutput};
pub use stream::WatchStream;
