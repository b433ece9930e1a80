//! A snapshot file: ours, etcd's, or a database file copied out of an etcd member. Nothing in it is believed unread.

use std::io;
use std::path::Path;

use garboard_bolt::ReadAt;
use garboard_storage::disk::Disk;
use garboard_storage::disk::File;
use garboard_storage::disk::OpenOptions;
use sha2::Digest as _;
use sha2::Sha256;

const HASH_BYTES: u64 = 32;
/// Pages are multiples of this, so that a length tells whether a hash stands behind them (etcd).
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 1 << 20;

/// Why a snapshot is not read or not restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The file system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The file has no hash behind its pages.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    /// The file is not what was hashed.
    #[error("expected sha256 {expected}, got {found}")]
    Hash {
        /// What the file says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The file is no sound bbolt database.
    #[error("snapshot file: {0}")]
    Bolt(#[from] garboard_bolt::ReadError),
    /// The database is none of etcd's.
    #[error("snapshot file: {0}")]
    Content(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// The new database cannot be written.
    #[error("the database cannot be written: {0}")]
    Backend(#[from] garboard_storage::backend::BackendError),
    /// The new log cannot be written.
    #[error("the write-ahead log cannot be written: {0}")]
    Wal(#[from] garboard_storage::wal::WalError),
}

/// An open snapshot.
pub(super) struct SnapshotFile {
    file: Box<dyn File>,
    len: u64,
}

// === impl SnapshotFile ===

impl SnapshotFile {
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotFileError> {
        let failed = |source| io_error("opening", path, source);
        let file = disk.open(path, OpenOptions::read()).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        Ok(Self { file, len })
    }

    /// Whether the bytes are those that were hashed when the snapshot was made.
    pub(super) fn check_hash(&self) -> Result<(), SnapshotFileError> {
        if self.len % SECTOR_BYTES != HASH_BYTES {
            return Err(SnapshotFileError::NoHash);
        }
        let failed = |source| SnapshotFileError::Io { what: "reading the snapshot".into(), source };
        let end = self.len - HASH_BYTES;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; READ_BYTES];
        let mut at = 0;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
            self.file.pread_exact(&mut chunk[..length], at).map_err(failed)?;
            hash.update(&chunk[..length]);
            at += length as u64;
        }
        let mut expected = [0; HASH_BYTES as usize];
        self.file.pread_exact(&mut expected, end).map_err(failed)?;
        let found = hash.finalize();
        if found[..] == expected {
            return Ok(());
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(SnapshotFileError::Hash { expected: hex(&expected), found: hex(&found) })
    }

    /// Bytes of the database, without the hash.
    pub(super) fn database_len(&self) -> u64 {
        if self.len % SECTOR_BYTES == HASH_BYTES { self.len - HASH_BYTES } else { self.len }
    }
}

impl ReadAt for SnapshotFile {
    fn file_len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.pread_exact(buf, offset)
    }
}

pub(super) fn io_error(doing: &str, path: &Path, source: io::Error) -> SnapshotFileError {
    SnapshotFileError::Io { what: format!("{doing} {}", path.display()), source }
}
