//! When something was wrong with the cluster: written by whoever broke it, in wall-clock time, as histories have clocks of their own.

use serde::Deserialize;

use crate::history::History;
use crate::history::Start;

/// From `begin` to `end`, in nanoseconds of the history's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub begin: i64,
    pub end: i64,
}

#[derive(Deserialize)]
struct Line {
    begin_unix_ns: i64,
    end_unix_ns: i64,
}

impl Start {
    /// The history's time of a moment of the wall clock.
    pub fn time_of(&self, unix_ns: i64) -> i64 {
        unix_ns.saturating_sub(self.unix_ns)
    }
}

/// Windows from JSON lines `{"begin_unix_ns":N,"end_unix_ns":N}`, in which other fields may say more.
///
/// # Errors
/// The number of the line that is none, and why.
pub fn read(history: &History, text: &str) -> Result<Vec<Window>, (usize, serde_json::Error)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let line: Line = serde_json::from_str(line).map_err(|error| (number + 1, error))?;
            Ok(Window {
                begin: history.start.time_of(line.begin_unix_ns),
                end: history.start.time_of(line.end_unix_ns),
            })
        })
        .collect()
}
