//! Damaged logs whose checksums are right, for fuzzing: what stands behind the checksums must not trust them either.
//!
//! A crc tells an accident from what was written; it does not tell who wrote. Nothing here is part of the product.

use bytes::Bytes;
use crc32c::crc32c_append;

use super::record::GROUP_HEADER_BYTES;
use super::record::GROUP_TRAILER_BYTES;
use super::record::GroupBuilder;
use super::record::RECORD_HEADER_BYTES;
use super::record::Record;
use super::record::chain_crc;
use super::record::group_bytes;
use super::record::parse_record;
use super::record::trailer;
use super::segment::SEGMENT_HEADER_BYTES;
use super::segment::SegmentHeader;

/// Decodes one record, `len u32, type u8, crc u32, payload`, after giving it the crc of its bytes; its length, too.
///
/// # Errors
/// What is wrong with it.
pub fn decode_record(bytes: &[u8]) -> Result<(Record, usize), &'static str> {
    let mut sealed = bytes.to_vec();
    let _ = reseal_record(&mut sealed, 0);
    parse_record(&sealed, 0).map(|(record, len, _)| (record, len))
}

/// The record as it stands in a segment behind one with crc 0.
pub fn encode_record(record: &Record) -> Bytes {
    let mut group = GroupBuilder::new(Vec::new(), 0, 0);
    let (start, len, _) = group.push(record);
    let (bytes, _) = group.finish(1, 0, 0);
    Bytes::copy_from_slice(&bytes[start..start + len])
}

/// Makes the segments of one log, the oldest first, pass every checksum and follow on each other, wherever their lengths allow it: what
/// they say is left alone. Returns their file names.
pub fn reseal(segments: &mut [Vec<u8>]) -> Vec<String> {
    let mut before = None;
    segments.iter_mut().map(|segment| reseal_segment(segment, &mut before)).collect()
}

/// Where the segment before ended: byte offset, crc of its last record, number of its last group.
type Ending = (usize, u32, u64);

fn reseal_segment(segment: &mut [u8], before: &mut Option<Ending>) -> String {
    let len = segment.len();
    let Some(place) = segment.first_chunk_mut() else { return "short.wal".to_owned() };
    let mut header = SegmentHeader { segment_bytes: len as u32, ..SegmentHeader::fields(place) };
    if let Some((end, chain, number)) = *before {
        header = SegmentHeader { previous_end: end as u64, previous_crc: chain, first_group: number, ..header };
    }
    *place = header.encode();
    let salt = header.group_salt();
    let (mut at, mut chain, mut number) = (SEGMENT_HEADER_BYTES, header.previous_crc, header.first_group);
    while let Some(len) = reseal_group(&mut segment[at..], &mut chain, number, salt) {
        at += len;
        number = number.wrapping_add(1);
    }
    *before = Some((at, chain, number));
    header.file_name()
}

/// Reseals the group at the start of `bytes` and returns its length; `None` if there is none that fits.
fn reseal_group(bytes: &mut [u8], chain: &mut u32, number: u64, salt: u32) -> Option<usize> {
    let body_len = u32::from_le_bytes(*bytes.get(4..8)?.first_chunk()?) as usize;
    let total = group_bytes(body_len);
    if body_len == 0 || total > bytes.len() {
        return None;
    }
    bytes[0..4].copy_from_slice(b"GbGr");
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[24..28].copy_from_slice(&chain.to_le_bytes());
    let crc = crc32c_append(salt, &bytes[0..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let (mut at, end) = (GROUP_HEADER_BYTES, GROUP_HEADER_BYTES + body_len);
    while let Some(len) = reseal_record(&mut bytes[at..end], *chain) {
        *chain = u32::from_le_bytes(*bytes[at + 5..].first_chunk()?);
        at += len;
    }
    bytes[end..total - GROUP_TRAILER_BYTES].fill(0);
    bytes[total - GROUP_TRAILER_BYTES..total].copy_from_slice(&trailer(total as u32, number));
    Some(total)
}

/// Reseals the record at the start of `bytes` and returns its length; `None` if there is none that fits.
fn reseal_record(bytes: &mut [u8], previous: u32) -> Option<usize> {
    let len = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let end = RECORD_HEADER_BYTES.checked_add(len)?;
    let payload = bytes.get(RECORD_HEADER_BYTES..end)?;
    let crc = chain_crc(previous, &bytes[0..5], payload);
    bytes[5..9].copy_from_slice(&crc.to_le_bytes());
    Some(end)
}
