//! The thread that writes log lines, and the bounded buffer before it.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_storage::disk::Disk;
use garboard_storage::disk::File;
use garboard_storage::disk::OpenOptions;
use parking_lot::Condvar;
use parking_lot::Mutex;

use super::Format;
use super::Level;
use super::Line;
use super::LogError;
use super::Target;

/// Bytes of lines that wait to be written; as many again may be on their way out.
pub const PENDING_BYTES_MAX: usize = 1 << 20;

/// Somewhere lines are written to.
pub trait Output: Send {
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

struct Stderr;

struct Stdout;

struct Appended(Box<dyn File>);

impl Output for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(lines)
    }
}

impl Output for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(lines)?;
        stdout.flush()
    }
}

impl Output for Appended {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        // Asked anew each time, since the file may be truncated from outside.
        self.0.pwrite(lines, self.0.len()?)
    }
}

/// Opens what `targets` name.
pub fn open(targets: &[Target], disk: &dyn Disk) -> Result<Vec<Box<dyn Output>>, LogError> {
    targets
        .iter()
        .map(|target| -> Result<Box<dyn Output>, LogError> {
            Ok(match target {
                Target::Stderr => Box::new(Stderr),
                Target::Stdout => Box::new(Stdout),
                Target::File(path) => {
                    let file = disk.open(path, OpenOptions::create());
                    let path = path.display().to_string();
                    Box::new(Appended(file.map_err(|error| LogError::Open { path, error })?))
                }
            })
        })
        .collect()
}

pub fn write_stderr(line: &[u8]) {
    // Nobody is left to tell when stderr itself fails.
    let _ = Stderr.write(line);
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Lines that found no room since the last ones were taken.
    dropped: u64,
    writing: bool,
    closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.dropped == 0 && !self.writing
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    idle: Condvar,
}

/// Takes lines and returns at once.
pub struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    pub fn start(mut outputs: Vec<Box<dyn Output>>, format: Format) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        // Never joined: it may be stuck on a reader that reads no more.
        spawn::thread("log", move || thread.run(&mut outputs, format))?;
        Ok(Self { shared })
    }

    /// Queues a line; drops and counts it when there is no room.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.shared.state.lock();
        if state.pending.len() + line.len() > PENDING_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.pending.extend_from_slice(line);
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Waits until all lines queued are written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let mut state = self.shared.state.lock();
        self.shared.idle.wait_while_for(&mut state, |state| !state.is_idle(), timeout);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    fn run(&self, outputs: &mut [Box<dyn Output>], format: Format) {
        let mut lines = Vec::new();
        loop {
            let dropped = {
                let mut state = self.state.lock();
                state.writing = false;
                if state.is_idle() {
                    self.idle.notify_all();
                }
                self.filled.wait_while(&mut state, |state| state.is_idle() && !state.closed);
                if state.is_idle() {
                    return;
                }
                state.writing = true;
                std::mem::swap(&mut lines, &mut state.pending);
                std::mem::take(&mut state.dropped)
            };
            if dropped > 0 {
                let text = "log lines were dropped, since the log was not read fast enough";
                let mut line = Line::new(Level::Warn, clock::unix_time(), file!(), line!(), text);
                line.raw("lines", &dropped.to_string());
                lines.extend_from_slice(&line.encode(format));
            }
            for output in outputs.iter_mut() {
                // A log that cannot be written must not stop the store, and there is nowhere else to say it.
                let _ = output.write(&lines);
            }
            lines.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Hands on what is written and waits for leave to return.
    struct Gate {
        written: mpsc::Sender<Vec<u8>>,
        leave: mpsc::Receiver<()>,
    }

    impl Output for Gate {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            let _ = self.written.send(lines.to_vec());
            let _ = self.leave.recv();
            Ok(())
        }
    }

    fn gated() -> (Writer, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (written, received) = mpsc::channel();
        let (leave, wait) = mpsc::channel();
        let writer = Writer::start(vec![Box::new(Gate { written, leave: wait })], Format::Json).unwrap();
        (writer, received, leave)
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_but_neither_time_nor_memory() {
        let (writer, written, leave) = gated();
        writer.push(b"first\n");
        assert_eq!(written.recv_timeout(TIMEOUT).unwrap(), b"first\n");
        // The thread is stuck in its output now.
        let line = [b'x'; 1024];
        for _ in 0..3 * PENDING_BYTES_MAX / line.len() {
            writer.push(&line);
        }
        writer.flush(Duration::from_millis(1));
        assert_eq!(writer.shared.state.lock().pending.len(), PENDING_BYTES_MAX);
        leave.send(()).unwrap();
        let lines = written.recv_timeout(TIMEOUT).unwrap();
        let notice = String::from_utf8_lossy(&lines[PENDING_BYTES_MAX..]).into_owned();
        let notice: serde_json::Value = serde_json::from_str(&notice).unwrap();
        assert_eq!((&notice["level"], &notice["lines"]), (&"warn".into(), &2048.into()));
        // With room again nothing is dropped.
        writer.push(b"last\n");
        leave.send(()).unwrap();
        assert_eq!(written.recv_timeout(TIMEOUT).unwrap(), b"last\n");
        leave.send(()).unwrap();
        writer.flush(TIMEOUT);
        assert!(writer.shared.state.lock().is_idle());
    }

    #[test]
    fn files_are_appended_to_and_may_be_truncated_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let disk = garboard_storage::disk::RealDisk;
        let file = disk.open(&path, OpenOptions::create()).unwrap();
        file.pwrite(b"old\n", 0).unwrap();
        let writer = Writer::start(open(&[Target::File(path.clone())], &disk).unwrap(), Format::Json).unwrap();
        writer.push(b"new\n");
        writer.flush(TIMEOUT);
        assert_eq!(disk.read_to_string(&path, 99).unwrap(), "old\nnew\n");
        file.set_len(0).unwrap();
        writer.push(b"newer\n");
        writer.flush(TIMEOUT);
        assert_eq!(disk.read_to_string(&path, 99).unwrap(), "newer\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let target = Target::File("/nowhere/at/all/log".into());
        let error = open(&[target], &garboard_storage::disk::RealDisk).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("cannot open the log file /nowhere/at/all/log: "), "{error}");
    }
}
