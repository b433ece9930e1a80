//! What was done to the cluster and when: JSON lines beside the history, in the time of the wall clock as all programs of a run share it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use serde_json::json;

pub struct Timeline {
    start: Instant,
    notes: Mutex<File>,
    faults: Mutex<File>,
}

/// Everything that happened, line by line.
pub const NOTES: &str = "timeline.jsonl";
/// From when to when each fault was in force, for the judge of the history.
pub const FAULTS: &str = "faults.jsonl";

// === impl Timeline ===

impl Timeline {
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let create = |name: &str| File::create(dir.join(name)).with_context(|| format!("create {name}"));
        Ok(Self { start: Instant::now(), notes: Mutex::new(create(NOTES)?), faults: Mutex::new(create(FAULTS)?) })
    }

    /// Seconds since the run began.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// One line: when, what (`inject`, `heal`, ...), of which fault, to which members, and more in words.
    pub fn note(&self, what: &str, fault: &str, members: &[usize], text: &str) {
        let unix_ns = unix_ns();
        let seconds = self.seconds();
        let line = json!({
            "seconds": (seconds * 1000.0).round() / 1000.0, "unix_ns": unix_ns,
            "what": what, "fault": fault, "members": members, "text": text,
        });
        // A timeline that cannot be written must not end the run that it describes; what is printed tells the same.
        let _ = writeln!(self.notes.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        println!("{seconds:8.3}  {what:<8} {fault:<16} {members:?} {text}");
    }

    /// A fault was in force from `begin_unix_ns` until now.
    pub fn window(&self, begin_unix_ns: u64, fault: &str) {
        let line = json!({ "begin_unix_ns": begin_unix_ns, "end_unix_ns": unix_ns(), "fault": fault });
        let _ = writeln!(self.faults.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }
}

pub fn unix_ns() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
}
