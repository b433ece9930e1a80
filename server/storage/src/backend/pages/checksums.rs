//! The checksums of all pages, in memory, and how they and the header's stand in the file.

use crc32c::crc32c;
use crc32c::crc32c_append;

use super::GROUP_PAGES;
use super::PAGE_BYTES;

/// Of redb's header, which it reads and writes alone, at the head of page 0.
pub(super) const HEADER_BYTES: usize = 320;
pub(super) const SECTOR_BYTES: usize = 512;
/// Begins each block.
const MAGIC: &[u8; 8] = b"GarbDB\0\x01";
const ENTRY_BYTES: usize = 4;
/// Entered for a page that was never written and reads as zeros.
const BLANK: u32 = 0;

/// One checksum for each page: crc32c of its number and its bytes, so that a page in another's place is noticed too.
pub(super) struct Checksums {
    entries: Vec<u32>,
    /// By group: not yet in the file as it is here.
    changed: Vec<bool>,
}

fn checksum(page: u64, content: &[u8]) -> u32 {
    match crc32c_append(crc32c(&page.to_le_bytes()), content) {
        BLANK => !BLANK,
        sum => sum,
    }
}

// === impl Checksums ===

impl Checksums {
    /// For a file of this many pages, none of them written.
    pub(super) fn new(pages: u64) -> Self {
        let mut checksums = Self { entries: Vec::new(), changed: Vec::new() };
        checksums.resize(pages);
        checksums.changed.fill(false);
        checksums
    }

    pub(super) fn pages(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn groups(&self) -> usize {
        self.changed.len()
    }

    /// Takes a group's entries from its block; false if it is no such block.
    pub(super) fn load(&mut self, group: usize, block: &[u8; PAGE_BYTES]) -> bool {
        let Some(sums) = block.strip_prefix(MAGIC) else { return false };
        for (entry, bytes) in self.entries_of(group).iter_mut().zip(sums.as_chunks::<ENTRY_BYTES>().0) {
            *entry = u32::from_le_bytes(*bytes);
        }
        true
    }

    fn entries_of(&mut self, group: usize) -> &mut [u32] {
        let start = group * GROUP_PAGES as usize;
        let end = self.entries.len().min(start + GROUP_PAGES as usize);
        &mut self.entries[start..end]
    }

    pub(super) fn resize(&mut self, pages: u64) {
        let first = self.entries.len().min(pages as usize) / GROUP_PAGES as usize;
        self.entries.resize(pages as usize, BLANK);
        self.changed.resize((pages.div_ceil(GROUP_PAGES)) as usize, true);
        // Its block may hold entries of pages that were cut off.
        if let Some(changed) = self.changed.get_mut(first) {
            *changed = true;
        }
    }

    /// A page that is not there is nobody's: redb grows the file before it writes behind its end.
    pub(super) fn enter(&mut self, page: u64, content: &[u8]) {
        if let Some(entry) = self.entries.get_mut(page as usize) {
            *entry = checksum(page, content);
            self.changed[(page / GROUP_PAGES) as usize] = true;
        }
    }

    /// Whether the page reads as it was written.
    pub(super) fn proves(&self, page: u64, content: &[u8]) -> bool {
        match self.entries.get(page as usize) {
            Some(&BLANK) => content.iter().all(|byte| *byte == 0),
            Some(&entry) => checksum(page, content) == entry,
            None => false,
        }
    }

    /// The blocks to write, by group.
    pub(super) fn take_changed(&mut self) -> Vec<(usize, [u8; PAGE_BYTES])> {
        let groups: Vec<usize> = (0..self.changed.len()).filter(|group| self.changed[*group]).collect();
        self.changed.fill(false);
        let mut blocks = Vec::with_capacity(groups.len());
        for group in groups {
            let mut block = [0; PAGE_BYTES];
            let (head, sums) = block.split_at_mut(MAGIC.len());
            head.copy_from_slice(MAGIC);
            for (bytes, entry) in sums.as_chunks_mut::<ENTRY_BYTES>().0.iter_mut().zip(self.entries_of(group)) {
                *bytes = entry.to_le_bytes();
            }
            blocks.push((group, block));
        }
        blocks
    }
}

/// redb's header with its checksum behind it: one whole sector, which a disk writes or does not.
pub(super) fn sealed_header(header: &[u8]) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    sector[..header.len()].copy_from_slice(header);
    let sum = crc32c(&sector[..HEADER_BYTES]).to_le_bytes();
    sector[HEADER_BYTES..HEADER_BYTES + ENTRY_BYTES].copy_from_slice(&sum);
    sector
}

/// Whether the sector is as it was written, or never was.
pub(super) fn proves_header(sector: &[u8; SECTOR_BYTES]) -> bool {
    let sum = crc32c(&sector[..HEADER_BYTES]).to_le_bytes();
    sector[HEADER_BYTES..HEADER_BYTES + ENTRY_BYTES] == sum || sector.iter().all(|byte| *byte == 0)
}
