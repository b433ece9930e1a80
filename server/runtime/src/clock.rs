//! Time: monotonic for deadlines and leases, wall clock only for what people read.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// A point of the monotonic clock.
pub use std::time::Instant;
pub use tokio::time::Interval;
pub use tokio::time::MissedTickBehavior;
pub use tokio::time::error::Elapsed;

/// The monotonic clock now. Never goes back; says nothing of the time of day.
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, as time since the Unix epoch (zero if the machine's clock stands before it).
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Completes after `duration`.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Completes at `deadline`.
pub async fn sleep_until(deadline: Instant) {
    tokio::time::sleep_until(deadline.into()).await;
}

/// Runs `future` for at most `duration`.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(duration, future).await
}

/// Runs `future` until `deadline` at the latest.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout_at(deadline.into(), future).await
}

/// Ticks every `period`, first after one `period`; ticks missed are skipped, not made up for.
pub fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// Stops the calling thread for `duration`. For threads of our own only, never inside a task.
pub fn pause_thread(duration: Duration) {
    std::thread::sleep(duration);
}
