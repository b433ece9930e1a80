//! What is durable on a [`MemoryDisk`](super::MemoryDisk), kept in real files: a disk whose unsynced bytes die with the process.
//!
//! A killed process leaves its unsynced writes to the operating system, which goes on: killing a member on real files never loses any. On
//! this disk all of them are gone, as in a power cut. A call that the kill interrupts may have happened in part.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use super::Change;
use super::Inode;
use super::NameChange;
use super::State;
use super::apply_name;
use crate::disk::Disk;
use crate::disk::Lock;
use crate::disk::OpenOptions;
use crate::disk::RealDisk;

/// Ends the name of a file that is being put in place.
const UNFINISHED: &str = ".mirror";

/// Which of the real files are known.
#[derive(Default)]
pub(super) struct Mirror {
    seen: BTreeSet<PathBuf>,
}

fn content_of(path: &Path) -> io::Result<Vec<u8>> {
    let file = RealDisk.open(path, OpenOptions::read())?;
    let mut content = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.pread_exact(&mut content, 0)?;
    Ok(content)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(UNFINISHED);
    name.into()
}

pub(super) fn lock(path: &Path) -> io::Result<Box<dyn Lock>> {
    RealDisk.lock(path)
}

// === impl State ===

impl State {
    /// Takes over what an earlier process left at `path`, the first time it is asked for.
    pub(super) fn learn(&mut self, path: &Path) -> io::Result<()> {
        let Some(mirror) = &mut self.mirror else { return Ok(()) };
        if !mirror.seen.insert(path.to_owned()) || !path.exists() {
            return Ok(());
        }
        if path.is_dir() {
            self.dirs.extend(path.ancestors().map(Path::to_owned));
            return Ok(());
        }
        let content = content_of(path)?;
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode { durable: content.clone(), live: content, pending: Vec::new() });
        for names in [&mut self.names, &mut self.durable_names] {
            names.insert(path.to_owned(), self.next_inode);
        }
        Ok(())
    }

    /// Everything in `dir`.
    pub(super) fn learn_all(&mut self, dir: &Path) -> io::Result<()> {
        self.learn(dir)?;
        if self.mirror.is_some() && dir.is_dir() {
            for entry in RealDisk.list(dir)?.into_iter().filter(|entry| !entry.name.ends_with(UNFINISHED)) {
                self.learn(&dir.join(entry.name))?;
            }
        }
        Ok(())
    }

    pub(super) fn mirror_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.mirror.is_some() { RealDisk.create_dir_all(path) } else { Ok(()) }
    }

    /// Makes a file's bytes durable. One without a durable name is nowhere yet.
    pub(super) fn sync_content(&mut self, inode: u64) -> io::Result<()> {
        let changes = self.inode(inode).sync();
        if self.mirror.is_none() {
            return Ok(());
        }
        for (path, _) in self.durable_names.iter().filter(|(_, named)| **named == inode) {
            let file = RealDisk.open(path, OpenOptions::write())?;
            for change in &changes {
                match change {
                    Change::Write { offset, bytes } => file.pwrite(bytes, *offset)?,
                    Change::SetLen(len) => file.set_len(*len)?,
                }
            }
        }
        Ok(())
    }

    /// Makes a name durable, with what of its file is.
    pub(super) fn sync_name(&mut self, change: &NameChange) -> io::Result<()> {
        if self.mirror.is_some() {
            match change {
                NameChange::Link(path, inode) => {
                    let file = RealDisk.open(&unfinished(path), OpenOptions::create().with_truncate())?;
                    file.pwrite(&self.inode(*inode).durable, 0)?;
                    RealDisk.rename(&unfinished(path), path)?;
                }
                NameChange::Unlink(path) if self.durable_names.contains_key(path) => RealDisk.remove(path)?,
                NameChange::Rename(from, to) if self.durable_names.contains_key(from) => RealDisk.rename(from, to)?,
                // Of a name that never was durable.
                NameChange::Unlink(_) | NameChange::Rename(..) => {}
            }
        }
        apply_name(&mut self.durable_names, change);
        Ok(())
    }
}
