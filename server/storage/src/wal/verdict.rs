//! Torn tail or corruption: what the bytes behind the last whole group mean.
//!
//! A group is acknowledged only after its sync, and the next group is written only after that. So a group that does not read back was
//! never acknowledged only if nothing later exists AND part of it was visibly never written. Everything else is corruption. The rules
//! are argued in `docs/formats.md`.

use super::record::BlankSectors;
use super::record::GROUP_ALIGN;
use super::record::GROUP_HEADER_BYTES;
use super::record::GroupHeader;
use super::record::SECTOR_BYTES;
use super::record::has_trailer_end;
use super::record::is_zero;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was written here.
    Clean,
    /// One write that never completed; the bytes up to `end` are its remains.
    Torn { end: usize },
    /// Written and synced, and no longer what it was.
    Corrupt { reason: &'static str },
}

/// What a segment's bytes from `at` on mean, where group `number` behind a record with crc `chain` was expected and is not whole.
/// `first` tells that it would be the segment's first group, which is synced before the segment gets its name.
pub(crate) fn judge(segment: &[u8], at: usize, salt: u32, number: u64, chain: u32, first: bool) -> Verdict {
    let Some(end) = used_end(segment, at) else {
        return if first {
            Verdict::Corrupt { reason: "the segment's first group is missing" }
        } else {
            Verdict::Clean
        };
    };
    if first {
        return Verdict::Corrupt { reason: "the segment's first group is damaged" };
    }
    if later_group(segment, at, end, salt, number) {
        return Verdict::Corrupt { reason: "damaged, and a later synced group follows" };
    }
    match GroupHeader::parse(&segment[at..], salt) {
        Some(header) => judge_body(segment, at, end, &header, number, chain),
        None => judge_header(segment, at, end),
    }
}

/// End of what is not zero, rounded up to where a group can begin; `None` when all is zero.
fn used_end(segment: &[u8], at: usize) -> Option<usize> {
    let mut end = segment.len();
    while end > at {
        let begin = end.saturating_sub(64 << 10).max(at);
        if let Some(last) = last_used(&segment[begin..end]) {
            return Some((begin + last + 1).next_multiple_of(GROUP_ALIGN).min(segment.len()));
        }
        end = begin;
    }
    None
}

fn last_used(bytes: &[u8]) -> Option<usize> {
    if is_zero(bytes) { None } else { bytes.iter().rposition(|byte| *byte != 0) }
}

/// A whole header of this segment with a later number proves that group `number` was synced.
fn later_group(segment: &[u8], at: usize, end: usize, salt: u32, number: u64) -> bool {
    (at + GROUP_ALIGN..end)
        .step_by(GROUP_ALIGN)
        .any(|offset| GroupHeader::parse(&segment[offset..], salt).is_some_and(|header| header.number > number))
}

fn judge_body(segment: &[u8], at: usize, end: usize, header: &GroupHeader, number: u64, chain: u32) -> Verdict {
    if header.number != number || header.previous_crc != chain {
        return Verdict::Corrupt { reason: "a whole group that does not follow the one before" };
    }
    let group_end = at.saturating_add(header.total_bytes());
    if group_end > segment.len() {
        return Verdict::Corrupt { reason: "group runs past its segment" };
    }
    if end > group_end {
        return Verdict::Corrupt { reason: "damaged, and something was written behind it" };
    }
    // The write stopped before its last byte.
    if !has_trailer_end(segment, at, header) {
        return Verdict::Torn { end };
    }
    // Sectors are missing inside: more of them read as zero than were zero.
    if header.blank.missing_in(BlankSectors::count(&segment[at..group_end], at)) {
        return Verdict::Torn { end };
    }
    Verdict::Corrupt { reason: "damaged, though every sector of it was written" }
}

fn judge_header(segment: &[u8], at: usize, end: usize) -> Verdict {
    let header_end = (at + GROUP_HEADER_BYTES).min(segment.len());
    // A whole group is longer than its header: the write stopped inside it.
    if end <= header_end {
        return Verdict::Torn { end };
    }
    let cut = (at + SECTOR_BYTES - at % SECTOR_BYTES).min(header_end);
    // Neither part of a header is zero throughout: its sector was never written.
    if is_zero(&segment[at..cut]) || (cut < header_end && is_zero(&segment[cut..header_end])) {
        return Verdict::Torn { end };
    }
    Verdict::Corrupt { reason: "group header damaged" }
}
