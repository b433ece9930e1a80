//! A disk whose files are another's until they are written to: what is written stays in memory, and ends with the process.
//!
//! Invariant: the disk below is only read. So whoever repairs what it opens (a database after a crash) can be pointed at a disk that
//! must stay as it is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Disk;
use super::Entry;
use super::File;
use super::Lock;
use super::OpenOptions;

const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

/// See the module.
pub struct CowDisk {
    below: Arc<dyn Disk>,
    /// Names that were opened for writing, made or removed (`None`) here.
    names: Mutex<BTreeMap<PathBuf, Option<Arc<CowContent>>>>,
}

/// One file's pages.
struct CowContent {
    below: Option<Box<dyn File>>,
    state: Mutex<CowState>,
}

struct CowState {
    len: u64,
    /// From here on nothing is read below any more: the file was shorter once.
    below_len: u64,
    written: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

struct CowFile {
    content: Arc<CowContent>,
    writable: bool,
}

struct CowLock(#[allow(dead_code, reason = "held")] Option<Box<dyn Lock>>);

impl Lock for CowLock {}

// === impl CowDisk ===

impl CowDisk {
    /// A view of `below`.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, names: Mutex::default() }
    }

    fn content(&self, path: &Path) -> io::Result<Option<Arc<CowContent>>> {
        let mut names = self.names.lock();
        if let Some(known) = names.get(path) {
            return Ok(known.clone());
        }
        if !self.below.exists(path)? {
            return Ok(None);
        }
        let content = Arc::new(CowContent::over(Some(self.below.open(path, OpenOptions::read())?))?);
        names.insert(path.to_owned(), Some(Arc::clone(&content)));
        Ok(Some(content))
    }

    fn set(&self, path: &Path, content: Option<Arc<CowContent>>) {
        self.names.lock().insert(path.to_owned(), content);
    }
}

impl Disk for CowDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        let content = match self.content(path)? {
            Some(_) if options.create_new => return Err(named(io::ErrorKind::AlreadyExists, path)),
            Some(content) => content,
            None if options.create || options.create_new => {
                let content = Arc::new(CowContent::over(None)?);
                self.set(path, Some(Arc::clone(&content)));
                content
            }
            None => return Err(named(io::ErrorKind::NotFound, path)),
        };
        if options.truncate {
            content.set_len(0);
        }
        Ok(Box::new(CowFile { content, writable: options.write }))
    }

    /// Directories are where files are.
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let below = if self.below.exists(dir)? { self.below.list(dir)? } else { Vec::new() };
        let mut entries: BTreeMap<String, Entry> = below.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for (path, content) in self.names.lock().iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            match content {
                Some(content) => {
                    let len = content.state.lock().len;
                    entries.insert(name.clone(), Entry { name, len, is_dir: false })
                }
                None => entries.remove(&name),
            };
        }
        Ok(entries.into_values().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.content(from)?.ok_or_else(|| named(io::ErrorKind::NotFound, from))?;
        self.set(from, None);
        self.set(to, Some(content));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.content(path)?.ok_or_else(|| named(io::ErrorKind::NotFound, path))?;
        self.set(path, None);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            let path = path.join(entry.name);
            if entry.is_dir { self.remove_dir_all(&path)? } else { self.set(&path, None) }
        }
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.names.lock().get(path) {
            Some(known) => Ok(known.is_some()),
            None => self.below.exists(path),
        }
    }

    /// As one who reads: nobody else sees what is written here.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(CowLock(self.below.lock_shared(path)?)))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.below.lock_shared(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.below.free_bytes(path)
    }
}

fn named(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind}", path.display()))
}

// === impl CowContent ===

impl CowContent {
    fn over(below: Option<Box<dyn File>>) -> io::Result<Self> {
        let len = below.as_ref().map_or(Ok(0), |file| file.len())?;
        Ok(Self { below, state: Mutex::new(CowState { len, below_len: len, written: BTreeMap::new() }) })
    }

    fn set_len(&self, len: u64) {
        let mut state = self.state.lock();
        state.below_len = state.below_len.min(len);
        if len < state.len {
            drop(state.written.split_off(&len.div_ceil(PAGE)));
            if let Some(page) = state.written.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        state.len = len;
    }

    /// What the disk below has there, zeros behind it.
    fn read_below(&self, buf: &mut [u8], offset: u64, below_len: u64) -> io::Result<()> {
        let have = below_len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (read, behind) = buf.split_at_mut(have);
        behind.fill(0);
        match &self.below {
            Some(below) if have > 0 => below.pread_exact(read, offset),
            _ => Ok(()),
        }
    }
}

impl File for CowFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.state.lock().len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content.set_len(len);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.content.state.lock();
        state.len = state.len.max(len);
        Ok(())
    }

    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.content.state.lock();
        let len = state.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let next = state.written.range(at / PAGE..).next();
            done += match next.filter(|(page, _)| **page == at / PAGE) {
                Some((_, page)) => {
                    let start = (at % PAGE) as usize;
                    let some = (PAGE_BYTES - start).min(len - done);
                    buf[done..done + some].copy_from_slice(&page[start..start + some]);
                    some
                }
                None => {
                    let until = next.map_or(u64::MAX, |(page, _)| page * PAGE);
                    let some = (until - at).min((len - done) as u64) as usize;
                    self.content.read_below(&mut buf[done..done + some], at, state.below_len)?;
                    some
                }
            };
        }
        Ok(len)
    }

    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.content.state.lock();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (page, start) = (at / PAGE, (at % PAGE) as usize);
            let some = (PAGE_BYTES - start).min(buf.len() - done);
            if !state.written.contains_key(&page) {
                let mut bytes = Box::new([0; PAGE_BYTES]);
                self.content.read_below(&mut *bytes, page * PAGE, state.below_len)?;
                state.written.insert(page, bytes);
            }
            if let Some(bytes) = state.written.get_mut(&page) {
                bytes[start..start + some].copy_from_slice(&buf[done..done + some]);
            }
            done += some;
        }
        state.len = state.len.max(offset + buf.len() as u64);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    fn content(disk: &dyn Disk, path: &str) -> Vec<u8> {
        disk.read(Path::new(path), 1 << 20).unwrap()
    }

    #[test]
    fn reads_what_is_below_and_changes_nothing_there() {
        let below = MemoryDisk::new();
        below.create_dir_all(Path::new("/d")).unwrap();
        let file = below.open(Path::new("/d/a"), OpenOptions::create()).unwrap();
        file.pwrite(&[7; 10_000], 0).unwrap();
        let calls = below.calls();

        let cow = CowDisk::new(Arc::new(below.clone()));
        let file = cow.open(Path::new("/d/a"), OpenOptions::write()).unwrap();
        file.pwrite(&[8; 100], 4090).unwrap();
        let mut expected = vec![7; 10_000];
        expected[4090..4190].fill(8);
        assert_eq!(content(&cow, "/d/a"), expected);
        // What was cut off does not come back.
        file.set_len(4100).unwrap();
        file.set_len(9000).unwrap();
        expected.truncate(4100);
        expected.resize(9000, 0);
        assert_eq!(content(&cow, "/d/a"), expected);
        let read_only = cow.open(Path::new("/d/a"), OpenOptions::read()).unwrap();
        assert!(read_only.pwrite(b"x", 0).is_err());

        cow.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        cow.open(Path::new("/d/c"), OpenOptions::create_new()).unwrap().pwrite(b"new", 2).unwrap();
        let names: Vec<_> = cow.list(Path::new("/d")).unwrap().into_iter().map(|e| (e.name, e.len)).collect();
        assert_eq!(names, [("b".to_owned(), 9000), ("c".to_owned(), 5)]);
        assert!(!cow.exists(Path::new("/d/a")).unwrap());
        cow.remove_dir_all(Path::new("/d")).unwrap();
        assert!(cow.list(Path::new("/d")).unwrap().is_empty());

        assert_eq!(content(&below, "/d/a"), vec![7; 10_000]);
        assert_eq!(below.calls(), calls, "calls that change the disk below");
    }
}
