//! Segment files: their names and their header.
//!
//! `<seq:016x>-<first index:016x>.wal`. A file gets that name only after its header and first group are synced, so a named segment
//! always has both. The header says where the segment before ended: nothing can be missing there.

use std::io;
use std::path::Path;

use crc32c::crc32c;

use super::LogId;
use super::WalError;
use super::record::is_zero;
use crate::disk::Disk;

/// The header takes one sector.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 512;
pub(crate) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"GarbWAL\x01";
const CRC_AT: usize = 96;
/// Offsets in the index of entries are 32 bits wide.
pub(crate) const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;
/// In the index of entries they are 32 bits wide, and another segment must be able to follow.
const SEQ_MAX: u64 = u32::MAX as u64 - 1;
/// No log gets there; counting on from any number below it cannot overflow.
const GROUP_NUMBER_MAX: u64 = 1 << 62;
/// The file a segment is made in when none was prepared in time.
pub(crate) const FRESH_NAME: &str = "fresh.tmp";
/// Files with it are not segments yet; removed at start.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Counts segments from 1.
    pub seq: u64,
    /// Index of the first entry that can stand in it.
    pub first_index: u64,
    /// The last entry when the segment began.
    pub previous_last: Option<LogId>,
    /// Where the segment before ended, in bytes; 0 for the first.
    pub previous_end: u64,
    /// Crc of the last record of the segment before; 0 for the first.
    pub previous_crc: u32,
    /// Number of the first group.
    pub first_group: u64,
    /// Random, so that nothing written by a client, and nothing of another segment, passes for a group of this one.
    pub salt: u64,
    /// Length of the file.
    pub segment_bytes: u32,
}

// === impl SegmentHeader ===

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        let last = self.previous_last.unwrap_or_default();
        out[0..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&u32::from(self.previous_last.is_some()).to_le_bytes());
        let words = [
            self.cluster_id,
            self.member_id,
            self.seq,
            self.first_index,
            last.term,
            last.index,
            self.previous_end,
            self.first_group,
            self.salt,
        ];
        for (at, word) in words.into_iter().enumerate() {
            out[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        out[88..92].copy_from_slice(&self.previous_crc.to_le_bytes());
        out[92..96].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header at the start of `segment`; the error is (byte offset, reason).
    pub(crate) fn decode(segment: &[u8]) -> Result<Self, (usize, String)> {
        let Some(bytes) = segment.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err((segment.len(), "file ends inside the segment header".to_owned()));
        };
        let half = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk));
        if &bytes[0..8] != MAGIC {
            return Err((0, "not a WAL segment (magic mismatch)".to_owned()));
        }
        if half(CRC_AT) != crc32c(&bytes[..CRC_AT]) {
            return Err((0, "segment header crc mismatch".to_owned()));
        }
        if half(8) != VERSION {
            return Err((8, format!("WAL version {}, this release reads {VERSION}", half(8))));
        }
        if !is_zero(&bytes[CRC_AT + 4..]) {
            return Err((CRC_AT + 4, "segment header is not zero behind its fields".to_owned()));
        }
        let header = Self::fields(bytes);
        if header.seq > SEQ_MAX {
            return Err((32, "segment number out of range".to_owned()));
        }
        if header.first_group > GROUP_NUMBER_MAX {
            return Err((72, "group number out of range".to_owned()));
        }
        Ok(header)
    }

    /// The fields of a header that was checked.
    pub(crate) fn fields(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Self {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        let half = |at: usize| bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk));
        let previous_last = LogId { term: word(48), index: word(56) };
        Self {
            cluster_id: word(16),
            member_id: word(24),
            seq: word(32),
            first_index: word(40),
            previous_last: (half(12) == 1).then_some(previous_last),
            previous_end: word(64),
            first_group: word(72),
            salt: word(80),
            previous_crc: half(88),
            segment_bytes: half(92),
        }
    }

    /// What the crc of each group header starts from.
    pub(crate) fn group_salt(&self) -> u32 {
        crc32c(&self.encode())
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{:016x}-{:016x}.wal", self.seq, self.first_index)
    }
}

/// A segment's file, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub seq: u64,
    pub first_index: u64,
    pub file_name: String,
    pub len: u64,
}

/// The segments in `dir` by number, and the leftovers of segments that never got a name.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<(Vec<SegmentName>, Vec<String>), WalError> {
    let mut damage = Vec::new();
    let found = find_segments(disk, dir, &mut damage)?;
    match damage.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// The same, with what is wrong with the names beside.
pub(crate) fn find_segments(
    disk: &dyn Disk,
    dir: &Path,
    damage: &mut Vec<WalError>,
) -> Result<(Vec<SegmentName>, Vec<String>), WalError> {
    let io = |source: io::Error| WalError::Io { path: dir.to_owned(), action: "list", source };
    let (mut segments, mut leftovers) = (Vec::new(), Vec::new());
    for entry in disk.list(dir).map_err(io)? {
        if entry.name.ends_with(TEMPORARY_SUFFIX) {
            leftovers.push(entry.name);
        } else if let Some(stem) = entry.name.strip_suffix(".wal") {
            match parse_stem(stem) {
                None => damage.push(WalError::corrupt(dir.join(&entry.name), 0, "name is not <seq>-<first index>.wal")),
                Some((seq, _)) if seq > SEQ_MAX => {
                    damage.push(WalError::corrupt(dir.join(&entry.name), 0, "segment number out of range"));
                }
                Some((seq, first_index)) => {
                    segments.push(SegmentName { seq, first_index, file_name: entry.name, len: entry.len });
                }
            }
        }
    }
    segments.sort();
    for pair in segments.windows(2) {
        if pair[1].seq != pair[0].seq + 1 {
            let reason = format!("segment {:016x} is missing or double before this one", pair[0].seq + 1);
            damage.push(WalError::corrupt(dir.join(&pair[1].file_name), 0, reason));
        }
    }
    Ok((segments, leftovers))
}

fn parse_stem(stem: &str) -> Option<(u64, u64)> {
    let (seq, first_index) = stem.split_once('-')?;
    let lower_hex = |text: &str| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower_hex(seq) || !lower_hex(first_index) {
        return None;
    }
    Some((u64::from_str_radix(seq, 16).ok()?, u64::from_str_radix(first_index, 16).ok()?))
}
