//! The operating system's files, by positioned system calls.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::fs::FlockOperation;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::io::retry_on_intr;

use super::Disk;
use super::Entry;
use super::File;
use super::Lock;
use super::OpenOptions;

/// The machine's own disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(OwnedFd);

struct RealLock(#[allow(dead_code, reason = "closing it releases the lock")] OwnedFd);

impl Lock for RealLock {}

/// `error` with the path in its text, since the system's own text does not say which file.
fn at(path: &Path) -> impl Fn(Errno) -> io::Error + '_ {
    move |errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    }
}

fn at_io(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open_fd(path: &Path, options: OpenOptions) -> io::Result<OwnedFd> {
    let mut flags = OFlags::CLOEXEC;
    flags |= if options.write { OFlags::RDWR } else { OFlags::RDONLY };
    flags.set(OFlags::CREATE, options.create || options.create_new);
    flags.set(OFlags::EXCL, options.create_new);
    flags.set(OFlags::TRUNC, options.truncate);
    flags.set(OFlags::DSYNC, options.dsync);
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)).map_err(at(path))
}

fn flock(path: &Path, options: OpenOptions, operation: FlockOperation) -> io::Result<Box<dyn Lock>> {
    let fd = open_fd(path, options)?;
    match retry_on_intr(|| rustix::fs::flock(&fd, operation)) {
        Ok(()) => Ok(Box::new(RealLock(fd))),
        Err(Errno::WOULDBLOCK) => {
            let text = format!("{}: another process holds this lock; only one may use the directory", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, text))
        }
        Err(errno) => Err(at(path)(errno)),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(open_fd(path, options)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> =
            path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(at_io(dir)(error)),
            }
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        // What exists may be no directory.
        if fs::metadata(path).map_err(at_io(path))?.is_dir() { Ok(()) } else { Err(at(path)(Errno::NOTDIR)) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(at_io(dir))? {
            let entry = entry.map_err(at_io(dir))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at_io(&entry.path())(error)),
            };
            let len = if metadata.is_dir() { 0 } else { metadata.len() };
            entries.push(Entry { name, len, is_dir: metadata.is_dir() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        rustix::fs::rename(from, to).map_err(at(from))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        rustix::fs::unlink(path).map_err(at(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(at_io(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let fd = retry_on_intr(|| {
            rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        })
        .map_err(at(dir))?;
        rustix::fs::fsync(fd).map_err(at(dir))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path).map_err(at_io(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        flock(path, OpenOptions::create(), FlockOperation::NonBlockingLockExclusive)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        match flock(path, OpenOptions::read(), FlockOperation::NonBlockingLockShared) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            locked => locked.map(Some),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path).map_err(at(path))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.0)?;
        u64::try_from(stat.st_size).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "negative file length"))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.0, len))?)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            // A file system without it: the length alone must do.
            Err(Errno::OPNOTSUPP) if self.len()? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match retry_on_intr(|| rustix::io::pread(&self.0, &mut buf[done..], offset + done as u64))? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match retry_on_intr(|| rustix::io::pwrite(&self.0, &buf[done..], offset + done as u64))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    // Never repeated, not even on EINTR: a second call after a failed one reports clean pages that were lost.
    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}
