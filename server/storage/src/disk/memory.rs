//! A disk in memory that can fail and crash, for tests.
//!
//! Each file is kept as it reads now and as it would read after a power cut, with the writes in between; names likewise, per directory.
//! [`MemoryDisk::crash`] decides what of the unsynced survives and returns the disk that the next start finds; the old one is dead.

mod mirror;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;

use super::Disk;
use super::Entry;
use super::File;
use super::Lock;
use super::OpenOptions;

const SECTOR_BYTES: usize = 512;

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing: power cut, the worst case of a disk with a cache.
    Nothing,
    /// Everything: the process was killed, the machine goes on.
    Everything,
    /// By seed: any subset of the sectors written, one write possibly cut at any byte (one of whole sectors: between two of them), and of each
    /// directory's changes any prefix.
    Some(u64),
}

/// What [`MemoryDisk::fail_at`] does to the call it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This call fails; what a failing sync covered is lost for good, though it still reads back (as on Linux).
    Once,
    /// This call and every later one: the moment before a crash.
    Dead,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

type Names = BTreeMap<PathBuf, u64>;

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: Names,
    durable_names: Names,
    /// In the order made; each belongs to the directory of its (new) name.
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Calls so far that change something or make it durable.
    calls: u64,
    fail: Option<(u64, Failure)>,
    /// As `fail`, counted from when this name is given.
    fail_behind: Option<(PathBuf, u64, Failure)>,
    /// Reads of files so far, and the one to fail.
    reads: u64,
    fail_read: Option<u64>,
    /// Syncs wait while it is set; true once one does.
    stall: Option<bool>,
    dead: bool,
    free_bytes: u64,
    mirror: Option<mirror::Mirror>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The stall began, caught a sync, or ended.
    stall_changed: Condvar,
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    dsync: bool,
    writable: bool,
}

struct MemoryLock(MemoryDisk, PathBuf);

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.0.state.lock().locks.remove(&self.1);
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: not found", path.display()))
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) if *len as usize <= content.len() => content.truncate(*len as usize),
        Change::SetLen(len) => {
            // `Vec::resize` writes a byte at a time in debug builds: seconds for the segments of a log.
            let mut longer = vec![0; *len as usize];
            longer[..content.len()].copy_from_slice(content);
            *content = longer;
        }
    }
}

fn apply_name(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn dir_of(change: &NameChange) -> PathBuf {
    let (NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path)) = change;
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// xorshift64*; enough to choose what survives, and the same for the same seed everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

// === impl State ===

impl State {
    /// Counts a call and lets it fail when it is its turn.
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the disk is gone"));
        }
        self.calls += 1;
        match self.fail {
            Some((at, failure)) if self.calls == at => {
                self.dead = failure == Failure::Dead;
                self.fail = None;
                Err(io::Error::other("injected failure"))
            }
            _ => Ok(()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }
}

impl Inode {
    fn write(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.pending);
        for change in &changes {
            apply(&mut self.durable, change);
        }
        changes
    }

    fn after_crash(&self, survives: Survives, dice: &mut Dice) -> Vec<u8> {
        match survives {
            Survives::Nothing => self.durable.clone(),
            Survives::Everything => self.live.clone(),
            Survives::Some(_) => {
                let mut content = self.durable.clone();
                let mode = dice.below(4);
                let cut = dice.below(self.pending.len() as u64 + 1) as usize;
                for (at, change) in self.pending.iter().enumerate() {
                    match change {
                        // All before one write, that one cut at any byte, nothing after.
                        Change::Write { offset, bytes } if mode == 0 => {
                            let keep = match at.cmp(&cut) {
                                std::cmp::Ordering::Less => bytes.len(),
                                std::cmp::Ordering::Equal => {
                                    let keep = dice.below(bytes.len() as u64 + 1) as usize;
                                    let whole =
                                        bytes.len().is_multiple_of(SECTOR_BYTES) && *offset % SECTOR_BYTES as u64 == 0;
                                    if whole { keep - keep % SECTOR_BYTES } else { keep }
                                }
                                std::cmp::Ordering::Greater => 0,
                            };
                            apply(&mut content, &Change::Write { offset: *offset, bytes: bytes[..keep].to_vec() });
                        }
                        Change::Write { offset, bytes } => {
                            for (start, end) in sectors(*offset, bytes.len()) {
                                if dice.below(4) >= mode {
                                    let part = bytes[start..end].to_vec();
                                    apply(&mut content, &Change::Write { offset: *offset + start as u64, bytes: part });
                                }
                            }
                        }
                        Change::SetLen(_) => apply(&mut content, change),
                    }
                }
                content
            }
        }
    }
}

/// The parts of a write, cut where the disk's sectors meet.
fn sectors(offset: u64, len: usize) -> Vec<(usize, usize)> {
    let (mut parts, mut start) = (Vec::new(), 0);
    while start < len {
        let end = (start + SECTOR_BYTES - (offset as usize + start) % SECTOR_BYTES).min(len);
        parts.push((start, end));
        start = end;
    }
    parts
}

// === impl MemoryDisk ===

impl MemoryDisk {
    pub fn new() -> Self {
        let disk = Self::default();
        disk.0.state.lock().free_bytes = u64::MAX;
        disk
    }

    /// A disk that begins with the real files, and keeps in them what is durable.
    pub fn mirrored() -> Self {
        let disk = Self::new();
        disk.0.state.lock().mirror = Some(mirror::Mirror::default());
        disk
    }

    /// The disk that the next start finds. This one fails every call from now on.
    pub fn crash(&self, survives: Survives) -> Self {
        let mut old = self.0.state.lock();
        old.dead = true;
        let seed = if let Survives::Some(seed) = survives { seed } else { 0 };
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let names = match survives {
            Survives::Nothing => old.durable_names.clone(),
            Survives::Everything => old.names.clone(),
            Survives::Some(_) => {
                let mut names = old.durable_names.clone();
                let mut kept: BTreeMap<PathBuf, bool> = BTreeMap::new();
                for change in &old.pending_names {
                    let keeps = kept.entry(dir_of(change)).or_insert(true);
                    *keeps = *keeps && dice.below(3) > 0;
                    if *keeps {
                        apply_name(&mut names, change);
                    }
                }
                names
            }
        };
        let mut state = State { free_bytes: old.free_bytes, next_inode: old.next_inode, ..State::default() };
        state.dirs = old.dirs.clone();
        for (path, inode) in names {
            let content = old.inodes.get(&inode).map(|file| file.after_crash(survives, &mut dice)).unwrap_or_default();
            state.inodes.insert(inode, Inode { durable: content.clone(), live: content, pending: Vec::new() });
            state.names.insert(path.clone(), inode);
            state.durable_names.insert(path, inode);
        }
        Self(Arc::new(Shared { state: Mutex::new(state), stall_changed: Condvar::new() }))
    }

    /// Another disk with what this one holds now, all of it durable; this one lives on.
    pub fn duplicate(&self) -> Self {
        let copy = self.crash(Survives::Everything);
        self.0.state.lock().dead = false;
        copy
    }

    /// Calls so far that changed something or made it durable.
    pub fn calls(&self) -> u64 {
        self.0.state.lock().calls
    }

    /// Lets the call number `at` (as [`MemoryDisk::calls`] counts, the next being `calls() + 1`) fail.
    pub fn fail_at(&self, at: u64, failure: Failure) {
        self.0.state.lock().fail = Some((at, failure));
    }

    /// Lets the call number `nth` behind the one that renames a file to `path` fail; 1 is the next.
    pub fn fail_behind(&self, path: &Path, nth: u64, failure: Failure) {
        self.0.state.lock().fail_behind = Some((path.to_owned(), nth, failure));
    }

    /// Reads of files so far.
    pub fn reads(&self) -> u64 {
        self.0.state.lock().reads
    }

    /// Lets the read number `at` (as [`MemoryDisk::reads`] counts, the next being `reads() + 1`) fail.
    pub fn fail_read_at(&self, at: u64) {
        self.0.state.lock().fail_read = Some(at);
    }

    /// From now on syncs, and writes that are synced, do not come back.
    pub fn stall(&self) {
        self.0.state.lock().stall = Some(false);
    }

    /// Waits until a call is held by the stall.
    pub fn wait_stalled(&self) {
        let mut state = self.0.state.lock();
        while state.stall == Some(false) {
            self.0.stall_changed.wait(&mut state);
        }
    }

    /// Ends the stall: the calls it held go on or, if `healthy` is false, fail, as does every later one, whoever comes first.
    pub fn release(&self, healthy: bool) {
        let mut state = self.0.state.lock();
        if !healthy {
            state.fail = Some((state.calls + 1, Failure::Dead));
        }
        state.stall = None;
        self.0.stall_changed.notify_all();
    }

    fn wait_released(&self) {
        let mut state = self.0.state.lock();
        while let Some(caught) = &mut state.stall {
            *caught = true;
            self.0.stall_changed.notify_all();
            self.0.stall_changed.wait(&mut state);
        }
    }

    /// What [`Disk::free_bytes`] tells.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.0.state.lock().free_bytes = bytes;
    }

    /// The file as it reads now.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.state.lock();
        let inode = state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(state.inodes.get(inode).map(|file| file.live.clone()).unwrap_or_default())
    }

    /// Replaces the file's bytes, durably: for damage.
    pub fn set_content(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let inode = *state.names.get(path).ok_or_else(|| not_found(path))?;
        *state.inode(inode) = Inode { live: content.clone(), durable: content, pending: Vec::new() };
        Ok(())
    }

    /// Inverts one bit, durably.
    pub fn flip(&self, path: &Path, bit: usize) -> io::Result<()> {
        let mut content = self.content(path)?;
        let byte = content.get_mut(bit / 8).ok_or_else(|| io::Error::other("no such bit"))?;
        *byte ^= 1 << (bit % 8);
        self.set_content(path, content)
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        let mut state = self.0.state.lock();
        state.alive()?;
        state.learn(path)?;
        path.parent().map_or(Ok(()), |dir| state.learn(dir))?;
        let found = state.names.get(path).copied();
        let inode = match found {
            Some(_) if options.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Some(inode) => inode,
            None if options.create || options.create_new => {
                state.step()?;
                if path.parent().is_some_and(|dir| !state.dirs.contains(dir)) {
                    return Err(not_found(path));
                }
                state.next_inode += 1;
                let inode = state.next_inode;
                state.change_name(NameChange::Link(path.to_owned(), inode));
                inode
            }
            None => return Err(not_found(path)),
        };
        if options.truncate {
            state.step()?;
            state.inode(inode).write(Change::SetLen(0));
        }
        Ok(Box::new(MemoryFile { disk: self.clone(), inode, dsync: options.dsync, writable: options.write }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.step()?;
        state.mirror_dir(path)?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.0.state.lock();
        state.alive()?;
        state.learn_all(dir)?;
        if !state.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let files = state.names.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(path, inode)| {
            let len = state.inodes.get(inode).map_or(0, |file| file.live.len() as u64);
            Entry { name: name(path), len, is_dir: false }
        });
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        let mut entries: Vec<Entry> =
            files.chain(dirs.map(|path| Entry { name: name(path), len: 0, is_dir: true })).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.step()?;
        state.learn(from)?;
        if !state.names.contains_key(from) {
            return Err(not_found(from));
        }
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        if let Some((_, nth, failure)) = state.fail_behind.take_if(|(path, ..)| path == to) {
            state.fail = Some((state.calls + nth, failure));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.step()?;
        state.learn(path)?;
        if !state.names.contains_key(path) {
            return Err(not_found(path));
        }
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.step()?;
        let names: Vec<PathBuf> = state.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in names {
            state.change_name(NameChange::Unlink(name));
        }
        state.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.step()?;
        let (synced, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.pending_names).into_iter().partition(|change| dir_of(change) == dir);
        state.pending_names = rest;
        synced.iter().try_for_each(|change| state.sync_name(change))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.0.state.lock();
        state.alive()?;
        state.learn(path)?;
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.0.state.lock();
        state.alive()?;
        if state.mirror.is_some() {
            return mirror::lock(path);
        }
        if !state.locks.insert(path.to_owned()) {
            let text = format!("{}: another process holds this lock", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        Ok(Box::new(MemoryLock(self.clone(), path.to_owned())))
    }

    /// Exclusive too.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.lock(path).map(Some)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.state.lock().free_bytes)
    }
}

impl MemoryFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.dsync {
            self.disk.wait_released();
        }
        let mut state = self.disk.0.state.lock();
        let step = state.step();
        // A write that fails may still have left something: it stays pending, for a crash to keep or tear.
        if step.is_ok() || matches!(change, Change::Write { .. }) {
            state.inode(self.inode).write(change);
        }
        if step.is_ok() && self.dsync {
            state.sync_content(self.inode)?;
        }
        step
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.0.state.lock();
        state.alive()?;
        Ok(state.inode(self.inode).live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn pread(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.0.state.lock();
        state.alive()?;
        state.reads += 1;
        if state.fail_read == Some(state.reads) {
            state.fail_read = None;
            return Err(io::Error::other("injected failure"));
        }
        let live = &state.inode(self.inode).live;
        let start = (offset as usize).min(live.len());
        let n = buf.len().min(live.len() - start);
        buf[..n].copy_from_slice(&live[start..start + n]);
        Ok(n)
    }

    fn pwrite(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset, bytes: buf.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.wait_released();
        let mut state = self.disk.0.state.lock();
        let dead = state.dead;
        match state.step() {
            Ok(()) => state.sync_content(self.inode),
            Err(error) => {
                // Clean pages that never reached the disk: a second sync would say Ok.
                if !dead && !state.dead {
                    state.inode(self.inode).pending.clear();
                }
                Err(error)
            }
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
