//! Waiting for what must come true.

use std::time::Duration;
use std::time::Instant;

use anyhow::bail;

/// Enough for an election and what follows it, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks: twice as long as a look took (kubectl, asked again and again, would take a third of a small machine), within these.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Asks until there is an answer, at most for `limit`.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("no {what} within {limit:?}");
        }
        std::thread::sleep((asked.elapsed() * 2).clamp(PAUSE, LONGEST_PAUSE));
    }
}
