//! The files of one backup, in the folder of its cluster.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::Failure;
use super::Reason;
use super::manifest::Compression;
use crate::cluster::random_suffix;

/// Pods that restore have the volume's group, and may be another user's.
const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    backup: String,
    /// Somebody has put the files there: its name need not be a cluster's.
    moved: bool,
}

/// A file on its way to its name. It is gone when this goes, unless it has got that name.
pub struct Temporary {
    pub path: PathBuf,
    pub file: File,
}

/// Bytes that this user may still write where `path` is.
pub fn free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io(path, &error)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub fn sync(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Failure::io(folder, &error))
}

// === impl Temporary ===

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed, it is no longer there.
        let _ = std::fs::remove_file(&self.path);
    }
}

// === impl Folder ===

impl Folder {
    pub fn new(path: PathBuf, backup: String) -> Self {
        Self { path, backup, moved: false }
    }

    /// Of an archive that somebody names; `None` for what cannot be one: it has no manifest beside it.
    pub fn of(archive: &Path) -> Result<Option<Self>, Failure> {
        let Some((path, name)) = archive.parent().zip(archive.file_name().and_then(OsStr::to_str)) else {
            return Ok(None);
        };
        let packed = name.strip_suffix(".db.zst");
        let Some(backup) = packed.or_else(|| name.strip_suffix(".db")) else { return Ok(None) };
        let folder = Self { path: path.to_owned(), backup: backup.to_owned(), moved: true };
        let manifest = folder.manifest();
        let there = manifest.try_exists().map_err(|error| Failure::io(&manifest, &error))?;
        // What is packed is nothing without it.
        Ok((there || packed.is_some()).then_some(folder))
    }

    pub fn backup(&self) -> &str {
        &self.backup
    }

    /// Whose folder it is: its name.
    pub fn cluster(&self) -> Option<&OsStr> {
        self.path.file_name().filter(|_| !self.moved)
    }

    pub fn manifest(&self) -> PathBuf {
        self.path.join(format!("{}.json", self.backup))
    }

    pub fn archive(&self, compression: Compression) -> PathBuf {
        self.path.join(self.archive_name(compression))
    }

    pub fn archive_name(&self, compression: Compression) -> String {
        let ending = match compression {
            Compression::Zstd => "db.zst",
            Compression::None => "db",
        };
        format!("{}.{ending}", self.backup)
    }

    pub fn exists(&self) -> Result<bool, Failure> {
        self.path.try_exists().map_err(|error| Failure::io(&self.path, &error))
    }

    pub fn create(&self) -> Result<(), Failure> {
        let created = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.path);
        created.map_err(|error| Failure::io(&self.path, &error))
    }

    /// What compression will leave of a snapshot is not known yet: a sixteenth is asked for.
    ///
    /// # Errors
    /// `NoSpace`; the disk.
    pub fn has_room(&self, raw_bytes: u64, compression: Compression) -> Result<(), Failure> {
        let needed = match compression {
            Compression::Zstd => raw_bytes / 16,
            Compression::None => raw_bytes,
        };
        let free = free(&self.path).map_err(|error| Failure::io(&self.path, &error))?;
        if free >= needed {
            return Ok(());
        }
        let folder = self.path.display();
        Err(Failure::new(Reason::NoSpace, format!("{folder}: {free} bytes are free, {needed} are needed at least")))
    }

    pub fn temporary(&self) -> Result<Temporary, Failure> {
        let path = self.path.join(format!("{}{}.tmp", self.temporary_prefix(), random_suffix()));
        let file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(|error| Failure::io(&path, &error))?;
        Ok(Temporary { path, file })
    }

    fn temporary_prefix(&self) -> String {
        format!(".{}.", self.backup)
    }

    /// Temporary files of this backup, by whomever.
    pub fn temporaries(&self) -> Result<Vec<PathBuf>, Failure> {
        let prefix = self.temporary_prefix();
        let is_one = |name: &str| {
            // A backup's name may go on behind a dot where this one's ends.
            name.strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix(".tmp"))
                .is_some_and(|random| random.len() == 5 && !random.contains('.'))
        };
        let mut found = Vec::new();
        let failed = |error| Failure::io(&self.path, &error);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(is_one) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Gives a file that has been synced its name, for good.
    ///
    /// # Errors
    /// `NameTaken`; the disk.
    pub fn place(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        // NFS and CephFS know no rename that replaces nothing, SMB no hard links. A first name that stays goes with its `Temporary`.
        let placed = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => std::fs::hard_link(from, to),
            renamed => renamed.map_err(io::Error::from),
        };
        match placed {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::new(Reason::NameTaken, format!("there is a {}", to.display())))
            }
            Err(error) => Err(Failure::io(to, &error)),
        }
    }

    pub fn sync(&self) -> Result<(), Failure> {
        sync(&self.path)
    }

    /// Removes those of these that there are.
    pub fn remove(&self, paths: impl IntoIterator<Item = PathBuf>) -> Result<(), Failure> {
        paths.into_iter().try_for_each(|path| remove(&path))?;
        self.sync()
    }
}
