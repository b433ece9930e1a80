//! Backups as files on a volume, and the programs that make, check and remove them. They run in Pods of their own and
//! reach members alone, no API server; what came of one is its termination message, which the operator reads.
//!
//! Invariant: a backup exists when its manifest does, and nothing that exists is written over.

pub mod manifest;
pub mod take;

mod compare;
mod copy;
mod delete;
mod folder;
mod member;
mod pack;
mod sum;
mod unpack;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::future::Future;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::io::Errno;
use serde::Deserialize;
use serde::Serialize;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

pub use compare::Compared;
pub use folder::Folder;
pub use manifest::Manifest;

/// Where kubelet reads what a container said at its end.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Bytes of a message: with the rest of an outcome it stays below what kubelet takes, 4 KiB.
const MESSAGE_MAX: usize = 1024;
/// The exit code that means: not again.
pub const EXIT_USELESS: u8 = 64;

/// What one of the programs is to do.
pub enum Command {
    Take(take::Request),
    /// Writes the raw snapshot into a file.
    Unpack(Folder, PathBuf),
    /// The same, of an archive or a snapshot that somebody names.
    UnpackFile(PathBuf, PathBuf),
    /// Removes what was unpacked.
    Discard(PathBuf),
    /// Copies a folder.
    Copy(PathBuf, PathBuf),
    /// Holds the member at this host, which was started from the snapshot, against the manifest.
    Compare(Folder, String),
    /// Removes the backup; with a uid only if it is of that EtcdBackup.
    Delete(Folder, Option<String>),
}

/// What came of a program that has something to tell.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// There is a backup, or it was unpacked.
    Manifest(Box<Manifest>),
    Compared(Compared),
    #[serde(untagged)]
    Failed(Failure),
}

/// Why there is no backup, or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason:?}: {message}")]
pub struct Failure {
    pub reason: Reason,
    /// At most 1 KiB.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// No member answers.
    Unreachable,
    /// The members that answer do not tell the revision of their snapshot.
    MemberTooOld,
    /// A snapshot did not come whole, or the program was told to end.
    Interrupted,
    Io,
    NoSpace,
    ReadOnly,
    /// There are files of this name that are not this backup.
    NameTaken,
    /// The manifest is of another cluster or backup, or of a format that this release does not know.
    Foreign,
    Missing,
    Damaged,
    /// The restored member is not what the manifest says.
    Mismatch,
}

// === impl Reason ===

impl Reason {
    /// As conditions and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::MemberTooOld => "MemberTooOld",
            Self::Interrupted => "Interrupted",
            Self::Io => "Io",
            Self::NoSpace => "NoSpace",
            Self::ReadOnly => "ReadOnly",
            Self::NameTaken => "NameTaken",
            Self::Foreign => "Foreign",
            Self::Missing => "Missing",
            Self::Damaged => "Damaged",
            Self::Mismatch => "Mismatch",
        }
    }

    /// Whether it is the archive itself that cannot be restored.
    pub fn proves_bad(self) -> bool {
        matches!(self, Self::Foreign | Self::Missing | Self::Damaged | Self::Mismatch)
    }

    /// Whether another try may help.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unreachable | Self::Interrupted | Self::Io)
    }
}

// === impl Failure ===

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        Self { reason, message }
    }

    /// Of a file or folder. Where there is no space it tells how many bytes are free.
    fn io(path: &Path, error: &io::Error) -> Self {
        let said = format!("{}: {error}", path.display());
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                let free = path.parent().and_then(|folder| folder::free(folder).ok());
                let free = free.map_or_else(|| "an unknown number of".to_owned(), |bytes| bytes.to_string());
                Self::new(Reason::NoSpace, format!("{said}: {free} bytes are free"))
            }
            Some(Errno::ROFS) => Self::new(Reason::ReadOnly, said),
            _ => Self::new(Reason::Io, said),
        }
    }

    /// As [`Failure::io`], of a file that was to hold a snapshot of so many bytes, or its archive.
    fn writing(path: &Path, bytes: u64, error: &io::Error) -> Self {
        let failure = Self::io(path, error);
        if failure.reason != Reason::NoSpace {
            return failure;
        }
        Self::new(failure.reason, format!("{}, the snapshot has {bytes}", failure.message))
    }
}

/// Runs one of the programs and tells what came of it.
pub fn run(command: &Command) -> ExitCode {
    let told = |manifest| Some(Outcome::Manifest(Box::new(manifest)));
    let done = match command {
        Command::Take(request) => block_on(take::take(request)).map(told),
        Command::Unpack(folder, to) => unpack::unpack(folder, to).map(told),
        Command::UnpackFile(file, to) => unpack::unpack_file(file, to).map(|manifest| manifest.and_then(told)),
        Command::Discard(file) => unpack::discard(file).map(|()| None),
        Command::Copy(from, to) => copy::copy(from, to).map(|()| None),
        Command::Compare(folder, host) => block_on(compare::compare(folder, host)).map(Outcome::Compared).map(Some),
        Command::Delete(folder, uid) => delete::delete(folder, uid.as_deref()).map(|()| None),
    };
    let (outcome, code) = match done {
        Ok(outcome) => (outcome, ExitCode::SUCCESS),
        Err(failure) => {
            eprintln!("garboard-operator: {failure}");
            let code = if failure.reason.is_passing() { ExitCode::FAILURE } else { ExitCode::from(EXIT_USELESS) };
            (Some(Outcome::Failed(failure)), code)
        }
    };
    if let Some(outcome) = outcome {
        tell(&outcome);
    }
    code
}

/// Ends early at SIGTERM, so that what is half written is removed.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // Files are written on this thread; a second one answers on connections meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let broken = |error: io::Error| Failure::new(Reason::Io, error.to_string());
    runtime.map_err(broken)?.block_on(async {
        let mut ended = signal(SignalKind::terminate()).map_err(broken)?;
        tokio::select! {
            done = work => done,
            _ = ended.recv() => Err(Failure::new(Reason::Interrupted, "ended by SIGTERM")),
        }
    })
}

fn tell(outcome: &Outcome) {
    let text = serde_json::to_string(outcome).unwrap_or_else(|error| error.to_string());
    // Never created: outside of a Pod there is none.
    let log = File::options().write(true).truncate(true).open(TERMINATION_LOG);
    if log.and_then(|mut log| log.write_all(text.as_bytes())).is_err() {
        eprintln!("{text}");
    }
}
