//! Log lines as etcd (zap) writes them: one JSON object a line with `level`, `ts`, `caller`, `msg` and fields.
//!
//! Invariants: logging never waits for whoever reads the log and never holds more than [`writer::PENDING_BYTES_MAX`] of
//! lines; what does not fit is dropped and counted in a line of its own. A panic on any thread is logged and ends the
//! process: a member that lost a thread is worse than one that is down.

mod line;
mod subscriber;
mod writer;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_storage::disk::Disk;
use serde_json::Map;
use serde_json::Value;

use crate::notice::Notice;
use line::Line;
use writer::Writer;

pub use line::Format;

/// How long a process that is about to end waits for its last lines to be taken.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Severity, lowest first, by zap's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

impl Level {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }

    /// Reads a level's name, in capitals or not; the empty one is info, as in zap.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "" | "info" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" => Self::Error,
            "dpanic" | "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stderr,
    Stdout,
    /// Appended to.
    File(std::path::PathBuf),
}

/// What is logged, how and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub level: Level,
    pub format: Format,
    pub targets: Vec<Target>,
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot open the log file {path}: {error}")]
    Open { path: String, error: std::io::Error },
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(std::io::Error),
    #[error("logging has begun already")]
    Twice,
}

struct Logger {
    level: Level,
    format: Format,
    writer: Writer,
}

impl Logger {
    fn write(&self, line: &Line) {
        if line.level >= self.level {
            self.writer.push(&line.encode(self.format));
        }
    }
}

/// Begins logging: lines of this process, from `tracing` and from [`emit`], go where `config` says; panics are logged
/// and abort.
///
/// # Errors
/// A log file cannot be opened, a thread cannot be started, or logging has begun before.
pub fn begin(config: &LogConfig, disk: &Arc<dyn Disk>) -> Result<(), LogError> {
    let outputs = writer::open(&config.targets, &**disk)?;
    let writer = Writer::start(outputs, config.format).map_err(LogError::Thread)?;
    let logger = Logger { level: config.level, format: config.format, writer };
    LOGGER.set(logger).map_err(|_| LogError::Twice)?;
    tracing::subscriber::set_global_default(subscriber::LogSubscriber::new(config.level))
        .map_err(|_| LogError::Twice)?;
    abort_on_panic();
    Ok(())
}

fn log(line: &Line) {
    match LOGGER.get() {
        Some(logger) => logger.write(line),
        // Before logging has begun: little is said then, and all of it to people.
        None => writer::write_stderr(&line.encode(Format::Json)),
    }
}

/// Logs a line with structured fields.
#[track_caller]
pub fn emit(level: Level, message: &str, fields: &Map<String, Value>) {
    let location = Location::caller();
    let mut line = Line::new(level, clock::unix_time(), location.file(), location.line(), message);
    for (key, value) in fields {
        line.json(key, value);
    }
    log(&line);
}

/// Logs what reading the configuration came upon.
#[track_caller]
pub fn notice(notice: &Notice) {
    emit(notice.level, &notice.message, &notice.fields);
}

/// Waits until everything logged so far is written, but not for ever.
pub fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.writer.flush(LAST_LINES_TIMEOUT);
    }
}

fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        let (file, number) = panic.location().map_or(("unknown", 0), |location| (location.file(), location.line()));
        let mut line = Line::new(Level::Panic, clock::unix_time(), file, number, text);
        line.string("thread", std::thread::current().name().unwrap_or("unnamed"));
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            line.string("stacktrace", &backtrace.to_string());
        }
        log(&line);
        flush();
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests;
