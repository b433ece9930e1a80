//! The seam to the disk: every file of the product is opened through [`Disk`].
//!
//! Invariants: positioned reads and writes only (no mmap, no shared cursor); directories are created 0700 and files 0600;
//! a name (create, rename, remove) is durable only after [`Disk::sync_dir`], bytes only after a sync of the file.
//! [`RealDisk`] is the operating system; [`CowDisk`] reads another disk and changes nothing on it; [`memory::MemoryDisk`] can lose,
//! keep or tear whatever was not synced.

mod cow;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod real;

use std::io;
use std::path::Path;

pub use cow::CowDisk;
pub use real::RealDisk;

/// How [`Disk::open`] opens a file. Reading is always allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub write: bool,
    /// Creates the file if it is missing.
    pub create: bool,
    /// Creates the file and fails if it exists.
    pub create_new: bool,
    pub truncate: bool,
    /// Each write returns only when its bytes are durable (O_DSYNC).
    pub dsync: bool,
}

impl OpenOptions {
    /// An existing file, read only.
    pub const fn read() -> Self {
        Self { write: false, create: false, create_new: false, truncate: false, dsync: false }
    }

    /// An existing file, read and write.
    pub const fn write() -> Self {
        Self { write: true, ..Self::read() }
    }

    /// Read and write, created when missing.
    pub const fn create() -> Self {
        Self { create: true, ..Self::write() }
    }

    /// Read and write, and must not exist yet.
    pub const fn create_new() -> Self {
        Self { create_new: true, ..Self::write() }
    }

    /// The same, with every write synced before it returns.
    pub const fn with_dsync(self) -> Self {
        Self { dsync: true, ..self }
    }

    /// The same, emptied when opened.
    pub const fn with_truncate(self) -> Self {
        Self { truncate: true, ..self }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Bytes; 0 for a directory.
    pub len: u64,
    pub is_dir: bool,
}

/// An exclusive lock between processes, held until dropped or until the process ends.
pub trait Lock: Send + Sync {}

/// The file system as the product sees it.
pub trait Disk: Send + Sync + 'static {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>>;

    /// Creates the directory and what is missing above it, mode 0700, each synced into its parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// What is in the directory, by name. Names that are not UTF-8 are skipped: the product never writes one.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Renames atomically, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes the lock file at `path`, creating it.
    ///
    /// # Errors
    /// `WouldBlock`, naming the file, when another process (or another part of this one) holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// The same for who only reads: nothing is created, and others may read too. `None` when there is no lock file.
    ///
    /// # Errors
    /// As [`Disk::lock`].
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Bytes that an unprivileged process can still write to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// The whole file, for small ones: configuration, certificates, keys.
    ///
    /// # Errors
    /// `InvalidData` when it is longer than `max_bytes`.
    fn read(&self, path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenOptions::read())?;
        let mut content = Vec::new();
        let mut chunk = vec![0; max_bytes.min(64 << 10) + 1];
        // By reading, not by the length: pipes and /proc files say 0.
        loop {
            let n = file.pread(&mut chunk, content.len() as u64)?;
            if n == 0 {
                return Ok(content);
            }
            content.extend_from_slice(&chunk[..n]);
            if content.len() > max_bytes {
                let text = format!("{}: longer than the {max_bytes} bytes allowed here", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }

    /// As [`Disk::read`], for text.
    fn read_to_string(&self, path: &Path, max_bytes: usize) -> io::Result<String> {
        String::from_utf8(self.read(path, max_bytes)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{}: not UTF-8", path.display())))
    }
}

/// An open file. Offsets and lengths in bytes.
pub trait File: Send + Sync {
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// New bytes read as zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Grows the file to `len` and reserves the space, so that later writes below it do not run out of it.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf`.
    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the bytes written so far, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// As `sync_data`, with the file's other metadata.
    fn sync_all(&self) -> io::Result<()>;

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn pread_exact(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.pread(buf, offset)? {
            n if n == buf.len() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file ends inside what was to be read")),
        }
    }
}

/// Replaces the small file at `path` as a whole: after a crash it is the old one or the new one.
pub fn write_atomic(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path with a directory and a name is needed"));
    };
    let temporary = dir.join(format!("{}.tmp", name.to_string_lossy()));
    let file = disk.open(&temporary, OpenOptions::create().with_truncate())?;
    file.pwrite(content, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}
