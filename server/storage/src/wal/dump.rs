//! The log's records one after the other, for `garboard wal dump`. Reads only; needs no lock and no identity.

use std::path::Path;
use std::path::PathBuf;

use super::SegmentHeader;
use super::WalError;
use super::record::GroupHeader;
pub use super::record::Placed;
use super::record::parse_group;
use super::segment::SEGMENT_BYTES_MAX;
use super::segment::SEGMENT_HEADER_BYTES;
use super::segment::SegmentName;
use super::segment::list_segments;
use super::verdict::Verdict;
use super::verdict::judge;
use crate::disk::Disk;

/// What a dump prints, in the order it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Segment {
        path: PathBuf,
        header: SegmentHeader,
    },
    /// One write and sync: its number, byte offset and count of records, which follow.
    Group {
        number: u64,
        offset: u64,
        records: usize,
    },
    Record(Placed),
    /// A write that never completed, at the end of the last segment.
    Torn {
        path: PathBuf,
        offset: u64,
        bytes: u64,
    },
}

/// Iterates over everything in a WAL directory. Ends after the first error.
pub struct Dump<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    names: std::vec::IntoIter<SegmentName>,
    items: std::vec::IntoIter<Result<Item, WalError>>,
    failed: bool,
}

/// Opens the segments in `dir` for a dump.
pub fn dump<'a>(disk: &'a dyn Disk, dir: &Path) -> Result<Dump<'a>, WalError> {
    let (names, _) = list_segments(disk, dir)?;
    Ok(Dump { disk, dir: dir.to_owned(), names: names.into_iter(), items: Vec::new().into_iter(), failed: false })
}

impl Iterator for Dump<'_> {
    type Item = Result<Item, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.failed {
                return None;
            }
            if let Some(item) = self.items.next() {
                self.failed = item.is_err();
                return Some(item);
            }
            let name = self.names.next()?;
            let is_last = self.names.len() == 0;
            let mut items = Vec::new();
            if let Err(error) = segment(self.disk, &self.dir, &name, is_last, &mut items) {
                items.push(Err(error));
            }
            self.items = items.into_iter();
        }
    }
}

fn segment(
    disk: &dyn Disk,
    dir: &Path,
    name: &SegmentName,
    is_last: bool,
    items: &mut Vec<Result<Item, WalError>>,
) -> Result<(), WalError> {
    let path = dir.join(&name.file_name);
    let bytes = disk.read(&path, SEGMENT_BYTES_MAX as usize).map_err(WalError::io(&path, "read"))?;
    let header = SegmentHeader::decode(&bytes)
        .map_err(|(offset, reason)| WalError::corrupt(path.clone(), offset as u64, reason))?;
    items.push(Ok(Item::Segment { path: path.clone(), header }));
    let salt = header.group_salt();
    let (mut at, mut number, mut chain) = (SEGMENT_HEADER_BYTES, header.first_group, header.previous_crc);
    while at < bytes.len() {
        let group = GroupHeader::parse(&bytes[at..], salt)
            .filter(|group| group.number == number && group.total_bytes() <= bytes.len() - at);
        let mut records = Vec::new();
        let parsed = group.map(|group| (group, parse_group(&bytes, at, &group, &mut records)));
        if let Some((group, Ok(last))) = parsed
            && group.previous_crc == chain
        {
            items.push(Ok(Item::Group { number, offset: at as u64, records: records.len() }));
            items.extend(records.into_iter().map(|record| Ok(Item::Record(record))));
            (at, number, chain) = (at + group.total_bytes(), number + 1, last);
            continue;
        }
        let offset = at as u64;
        match judge(&bytes, at, salt, number, chain, at == SEGMENT_HEADER_BYTES) {
            Verdict::Clean => {}
            Verdict::Torn { end } if is_last => {
                items.push(Ok(Item::Torn { path, offset, bytes: (end - at) as u64 }));
            }
            Verdict::Torn { .. } => {
                return Err(WalError::corrupt(path, offset, "damaged, and a later segment follows"));
            }
            Verdict::Corrupt { reason } => return Err(WalError::corrupt(path, offset, reason)),
        }
        break;
    }
    Ok(())
}
