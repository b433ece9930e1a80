//! The data directory: one owner at a time, and where what is in it.
//!
//! `<data-dir>/lock`, `member/db` (redb), `member/wal/*.wal`. With `--wal-dir` the segments are elsewhere, under a lock of their own.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::Lock;
use crate::disk::write_atomic;

/// The locked data directory. Dropping it releases the lock.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Option<Box<dyn Lock>>,
}

impl DataDir {
    /// Creates the directory when missing (0700) and locks it.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; `InvalidData` when it is etcd's (its files are not ours to overwrite).
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        disk.create_dir_all(path)?;
        let lock = disk.lock(&path.join("lock"))?;
        let member = path.join("member");
        if disk.exists(&member.join("snap"))? {
            let text = format!(
                "{}: this is a data directory of etcd; start from an empty one and restore an etcd snapshot into it",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        disk.create_dir_all(&member)?;
        disk.sync_dir(path)?;
        Ok(Self { disk, path: path.to_owned(), _lock: Some(lock) })
    }

    /// For looking only: nothing is created, and no member starts on it while this lives.
    ///
    /// # Errors
    /// `WouldBlock` when a process uses it; `NotFound` when it is not there; `InvalidData` when no member of ours wrote it.
    pub fn open_to_read(disk: Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let fail = |kind, why: &str| Err(io::Error::new(kind, format!("{}: {why}", path.display())));
        if !disk.exists(path)? {
            return fail(io::ErrorKind::NotFound, "there is no such directory");
        }
        let lock = disk.lock_shared(&path.join("lock"))?;
        let member = path.join("member");
        if disk.exists(&member.join("snap"))? {
            return fail(io::ErrorKind::InvalidData, "this is a data directory of etcd");
        }
        if !disk.exists(&member)? {
            return fail(io::ErrorKind::InvalidData, "this is no data directory: it has no directory \"member\"");
        }
        Ok(Self { disk, path: path.to_owned(), _lock: lock })
    }

    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn member_dir(&self) -> PathBuf {
        self.path.join("member")
    }

    /// The backend's file.
    pub fn db_path(&self) -> PathBuf {
        self.member_dir().join("db")
    }

    /// The WAL's directory when `--wal-dir` names no other.
    pub fn wal_dir(&self) -> PathBuf {
        self.member_dir().join("wal")
    }

    /// The small files, also for who does not hold the directory but belongs to who does.
    pub fn files(&self) -> MemberFiles {
        MemberFiles { disk: self.disk(), dir: self.member_dir() }
    }
}

/// The small files `member/<name>`.
#[derive(Clone)]
pub struct MemberFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl MemberFiles {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces a file as a whole; durable when it returns.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_atomic(&*self.disk, &self.path(name), content)
    }

    /// A file, if it exists.
    pub fn read(&self, name: &str, max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        if self.disk.exists(&path)? { self.disk.read(&path, max_bytes).map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::disk::OpenOptions;
    use crate::disk::RealDisk;

    #[test]
    fn has_one_owner_and_private_modes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let dir = DataDir::open(Arc::new(RealDisk), &path).unwrap();
        let error = DataDir::open(Arc::new(RealDisk), &path).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("a/b/lock"), "{error}");
        dir.files().write("identity", b"one").unwrap();
        dir.files().write("identity", b"two").unwrap();
        assert_eq!(dir.files().read("identity", 10).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(dir.files().read("identity", 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(dir.files().read("absent", 10).unwrap(), None);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.member_dir())), (0o700, 0o700));
        assert_eq!(mode(&dir.member_dir().join("identity")), 0o600);
        drop(dir);
        DataDir::open(Arc::new(RealDisk), &path).unwrap();
    }

    #[test]
    fn leaves_an_etcd_directory_alone() {
        let home = tempfile::tempdir().unwrap();
        RealDisk.create_dir_all(&home.path().join("member/snap")).unwrap();
        let error = DataDir::open(Arc::new(RealDisk), home.path()).err().unwrap().to_string();
        assert!(error.contains("data directory of etcd"), "{error}");
    }

    #[test]
    fn the_real_disk_reads_writes_lists_and_renames() {
        let home = tempfile::tempdir().unwrap();
        let (disk, path) = (RealDisk, home.path().join("file"));
        assert_eq!(disk.open(&path, OpenOptions::read()).err().unwrap().kind(), io::ErrorKind::NotFound);
        let file = disk.open(&path, OpenOptions::create_new()).unwrap();
        assert!(disk.open(&path, OpenOptions::create_new()).is_err());
        file.preallocate(8192).unwrap();
        file.pwrite(b"hello", 5000).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [1; 10];
        assert_eq!(file.pread(&mut bytes, 4998).unwrap(), 10);
        assert_eq!(&bytes, b"\0\0hello\0\0\0");
        assert_eq!(file.pread(&mut bytes, 8190).unwrap(), 2);
        assert!(file.pread_exact(&mut bytes, 8190).is_err());
        file.set_len(10).unwrap();
        assert_eq!(file.len().unwrap(), 10);
        let other = home.path().join("other");
        disk.rename(&path, &other).unwrap();
        disk.sync_dir(home.path()).unwrap();
        let names: Vec<_> = disk.list(home.path()).unwrap().into_iter().map(|entry| (entry.name, entry.len)).collect();
        assert_eq!(names, [("other".to_owned(), 10)]);
        assert!(disk.free_bytes(home.path()).unwrap() > 0);
        disk.remove(&other).unwrap();
        assert!(!disk.exists(&other).unwrap());
    }
}
