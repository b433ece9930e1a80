//! redb's storage on the [`Disk`](crate::disk::Disk) seam, with a checksum for each page.
//!
//! redb proves its pages only when it repairs; a bit that a disk turns over would be served. So the file is a row of groups, each a block
//! of checksums before the pages it is for; every page read is proved, and every page written is entered (`docs/formats.md`).
//! Invariants: the blocks in memory are the truth while the file is open, and reach the file in the sync that makes their pages durable;
//! a crash leaves stale checksums only for pages that no durable commit refers to, since redb copies on write. The one page it
//! overwrites is its header: that has its checksum in its own sector, which a disk writes as a whole.

mod checksums;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;
use parking_lot::RwLock;

use crate::disk::File;
use checksums::Checksums;
use checksums::HEADER_BYTES;
use checksums::SECTOR_BYTES;
use checksums::proves_header;
use checksums::sealed_header;

/// redb's page, and a block of checksums.
const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;
/// Pages of a group: what one block has room for behind its magic.
const GROUP_PAGES: u64 = 1022;

/// The file that redb reads and writes its pages through. The data directory's lock stands for redb's own.
pub(crate) struct Pages {
    file: Box<dyn File>,
    path: PathBuf,
    no_fsync: bool,
    checksums: RwLock<Checksums>,
    /// One sync at a time: it takes what there is to write.
    syncing: Mutex<()>,
}

/// Where page `page` stands in the file.
fn place(page: u64) -> u64 {
    (page + page / GROUP_PAGES + 1) * PAGE
}

/// Where the block of group `group` stands.
fn block_place(group: usize) -> u64 {
    group as u64 * (GROUP_PAGES + 1) * PAGE
}

/// The file's length for this many pages.
fn file_len(pages: u64) -> u64 {
    (pages + pages.div_ceil(GROUP_PAGES)) * PAGE
}

/// As many pages as a file of this length has.
fn pages_in(len: u64) -> u64 {
    let blocks = len / PAGE;
    let (groups, rest) = (blocks / (GROUP_PAGES + 1), blocks % (GROUP_PAGES + 1));
    groups * GROUP_PAGES + rest.saturating_sub(1)
}

/// A run of pages that is in one piece in the file.
struct Run {
    first: u64,
    /// Of the caller's buffer.
    start: usize,
    end: usize,
}

/// Cuts `len` bytes from `offset` on where groups meet.
fn runs(offset: u64, len: usize) -> io::Result<Vec<Run>> {
    if !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE_BYTES) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{len} bytes at {offset} are no whole pages")));
    }
    let (mut out, mut start) = (Vec::with_capacity(1), 0);
    while start < len {
        let first = (offset + start as u64) / PAGE;
        let until_next_group = (GROUP_PAGES - first % GROUP_PAGES) as usize * PAGE_BYTES;
        let end = len.min(start.saturating_add(until_next_group));
        out.push(Run { first, start, end });
        start = end;
    }
    Ok(out)
}

// === impl Pages ===

impl Pages {
    /// Takes the file over, and reads its checksums: 4 bytes of memory for a page.
    ///
    /// # Errors
    /// `InvalidData` for a file of another kind, or one whose header is not as it was written.
    pub(crate) fn open(file: Box<dyn File>, path: &Path, no_fsync: bool) -> io::Result<Self> {
        let pages = pages_in(file.len()?);
        let mut checksums = Checksums::new(pages);
        for group in 0..checksums.groups() {
            let mut block = [0; PAGE_BYTES];
            let at = block_place(group);
            file.pread_exact(&mut block, at).map_err(|e| damage(path, at, e.kind(), e.to_string()))?;
            // A file that a crash left longer than what was ever written in it has blocks of zeros.
            if !checksums.load(group, &block) && (group == 0 || block.iter().any(|byte| *byte != 0)) {
                return Err(damaged(path, at, "this is no block of checksums"));
            }
        }
        let opened =
            Self { file, path: path.to_owned(), no_fsync, checksums: RwLock::new(checksums), syncing: Mutex::new(()) };
        if pages > 0 {
            let mut sector = [0; SECTOR_BYTES];
            let at = place(0);
            opened.file.pread_exact(&mut sector, at).map_err(|e| damage(path, at, e.kind(), e.to_string()))?;
            if !proves_header(&sector) {
                return Err(damaged(path, place(0), "the header does not have its checksum"));
            }
        }
        Ok(opened)
    }

    fn read_run(&self, run: &Run, out: &mut [u8]) -> io::Result<()> {
        let at = place(run.first);
        self.file.pread_exact(out, at).map_err(|e| damage(&self.path, at, e.kind(), e.to_string()))?;
        let checksums = self.checksums.read();
        for (page, content) in (run.first..).zip(out.chunks_exact(PAGE_BYTES)) {
            if !checksums.proves(page, content) {
                return Err(damaged(&self.path, place(page), "the page does not have its checksum"));
            }
        }
        Ok(())
    }
}

/// Bytes that cannot be read, or are not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{} is corrupt at byte {offset}: {reason}", path.display())]
pub(super) struct Damage {
    path: PathBuf,
    pub(super) offset: u64,
    reason: String,
}

fn damage(path: &Path, offset: u64, kind: io::ErrorKind, reason: String) -> io::Error {
    io::Error::new(kind, Damage { path: path.to_owned(), offset, reason })
}

/// The error that names file and byte.
fn damaged(path: &Path, at: u64, reason: &str) -> io::Error {
    damage(path, at, io::ErrorKind::InvalidData, reason.to_owned())
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

impl redb::StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.checksums.read().pages() * PAGE)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset == 0 && out.len() <= HEADER_BYTES {
            return self.file.pread_exact(out, place(0));
        }
        for run in runs(offset, out.len())? {
            self.read_run(&run, &mut out[run.start..run.end])?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let pages = len.div_ceil(PAGE);
        // First the file: what is entered in memory must be there.
        self.file.set_len(file_len(pages))?;
        self.checksums.write().resize(pages);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _one = self.syncing.lock();
        let blocks = self.checksums.write().take_changed();
        for (group, block) in blocks {
            self.file.pwrite(&block, block_place(group))?;
        }
        if self.no_fsync { Ok(()) } else { self.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() <= HEADER_BYTES {
            return self.file.pwrite(&sealed_header(data), place(0));
        }
        for run in runs(offset, data.len())? {
            let content = &data[run.start..run.end];
            self.file.pwrite(content, place(run.first))?;
            let mut checksums = self.checksums.write();
            for (page, content) in (run.first..).zip(content.chunks_exact(PAGE_BYTES)) {
                checksums.enter(page, content);
            }
        }
        Ok(())
    }
}
