//! Records and the groups they are written in: bytes to values and back.
//!
//! A group is what one write and one sync carry. Its header proves itself alone (salted with its segment's), so that it can be found
//! behind damage; each record's crc covers the one before, so that none can be missing, moved or stale. `docs/formats.md` draws them.

use bytes::Bytes;
use crc32c::crc32c_append;

use super::LogId;
use super::Vote;
use super::WalEntry;

/// `len u32, type u8, crc u32`.
pub(crate) const RECORD_HEADER_BYTES: usize = 9;
pub(crate) const GROUP_HEADER_BYTES: usize = 32;
pub(crate) const GROUP_TRAILER_BYTES: usize = 8;
/// Groups begin at multiples of this.
pub(crate) const GROUP_ALIGN: usize = 8;
/// The unit that a disk writes as a whole.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Another index must be able to follow each.
const INDEX_MAX: u64 = u64::MAX - 1;
/// An entry's payload follows `term u64, index u64, kind u8`.
pub(crate) const ENTRY_PREFIX_BYTES: usize = 17;

const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"GbGr");
/// The last byte of every group; not zero, so that a write that stopped early shows.
const TRAILER_END: u8 = 0xA5;

const TYPE_STATE: u8 = 1;
const TYPE_ENTRY: u8 = 2;
const TYPE_VOTE: u8 = 3;
const TYPE_COMMITTED: u8 = 4;
const TYPE_TRUNCATE: u8 = 5;
const TYPE_PURGE: u8 = 6;

/// Everything the log knows besides its entries; the first record of each segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// The last entry, or `purged` when there is none behind it.
    pub last: Option<LogId>,
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    State(State),
    Entry(WalEntry),
    Vote(Vote),
    Committed(LogId),
    /// Drops every entry behind this one; all of them for `None`.
    Truncate(Option<LogId>),
    /// Entries up to this one are no longer needed.
    Purge(LogId),
}

// === impl Record ===

impl Record {
    fn tag(&self) -> u8 {
        match self {
            Self::State(_) => TYPE_STATE,
            Self::Entry(_) => TYPE_ENTRY,
            Self::Vote(_) => TYPE_VOTE,
            Self::Committed(_) => TYPE_COMMITTED,
            Self::Truncate(_) => TYPE_TRUNCATE,
            Self::Purge(_) => TYPE_PURGE,
        }
    }

    /// The record's type, as the dump prints it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State(_) => "state",
            Self::Entry(_) => "entry",
            Self::Vote(_) => "vote",
            Self::Committed(_) => "committed",
            Self::Truncate(_) => "truncate",
            Self::Purge(_) => "purge",
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::State(state) => {
                put_vote(out, state.vote);
                put_log_id(out, state.committed);
                put_log_id(out, state.purged);
                put_log_id(out, state.last);
            }
            Self::Entry(entry) => put_entry(out, entry),
            Self::Vote(vote) => put_vote(out, Some(*vote)),
            Self::Committed(id) | Self::Purge(id) => put_log_id(out, Some(*id)),
            Self::Truncate(after) => put_log_id(out, *after),
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Result<Self, &'static str> {
        let mut input = Input(payload);
        let record = match tag {
            TYPE_STATE => Self::State(State {
                vote: input.vote()?,
                committed: input.log_id()?,
                purged: input.log_id()?,
                last: input.log_id()?,
            }),
            TYPE_ENTRY => {
                let log_id = input.position()?;
                let kind = input.u8()?;
                Self::Entry(WalEntry { log_id, kind, payload: Bytes::copy_from_slice(input.rest()) })
            }
            TYPE_VOTE => Self::Vote(input.vote()?.ok_or("vote record without a vote")?),
            TYPE_COMMITTED => Self::Committed(input.log_id()?.ok_or("committed record without a log id")?),
            TYPE_TRUNCATE => Self::Truncate(input.log_id()?),
            TYPE_PURGE => Self::Purge(input.log_id()?.ok_or("purge record without a log id")?),
            _ => return Err("unknown record type"),
        };
        if input.0.is_empty() { Ok(record) } else { Err("record longer than its type") }
    }
}

/// Bytes of an entry's record on disk.
pub(crate) fn entry_record_bytes(entry: &WalEntry) -> usize {
    RECORD_HEADER_BYTES + ENTRY_PREFIX_BYTES + entry.payload.len()
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    out.push(u8::from(id.is_some()));
    let id = id.unwrap_or_default();
    put_u64(out, id.term);
    put_u64(out, id.index);
}

fn put_vote(out: &mut Vec<u8>, vote: Option<Vote>) {
    out.push(u8::from(vote.is_some()));
    let vote = vote.unwrap_or_default();
    put_u64(out, vote.term);
    put_u64(out, vote.node_id);
    out.push(u8::from(vote.committed));
}

fn put_entry(out: &mut Vec<u8>, entry: &WalEntry) {
    put_u64(out, entry.log_id.term);
    put_u64(out, entry.log_id.index);
    out.push(entry.kind);
    out.extend_from_slice(&entry.payload);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("record shorter than its type")?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(self.take::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool, &'static str> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("flag is neither 0 nor 1"),
        }
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn log_id(&mut self) -> Result<Option<LogId>, &'static str> {
        let present = self.flag()?;
        let id = self.position()?;
        Ok(present.then_some(id))
    }

    fn position(&mut self) -> Result<LogId, &'static str> {
        let id = LogId { term: self.u64()?, index: self.u64()? };
        if id.index > INDEX_MAX { Err("log index out of range") } else { Ok(id) }
    }

    fn vote(&mut self) -> Result<Option<Vote>, &'static str> {
        let present = self.flag()?;
        let vote = Vote { term: self.u64()?, node_id: self.u64()?, committed: self.flag()? };
        Ok(present.then_some(vote))
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The crc of a record whose predecessor's is `previous`; `head` is its length and type.
pub(crate) fn chain_crc(previous: u32, head: &[u8], payload: &[u8]) -> u32 {
    crc32c_append(crc32c_append(crc32c_append(0, &previous.to_le_bytes()), head), payload)
}

/// A group under construction.
pub(crate) struct GroupBuilder {
    buf: Vec<u8>,
    chain: u32,
    offset: usize,
}

// === impl GroupBuilder ===

impl GroupBuilder {
    /// A group that will stand at byte `offset` of its segment, behind a record with crc `chain`. Reuses `buf`'s memory.
    pub(crate) fn new(mut buf: Vec<u8>, offset: usize, chain: u32) -> Self {
        debug_assert_eq!(offset % GROUP_ALIGN, 0);
        buf.clear();
        buf.resize(GROUP_HEADER_BYTES, 0);
        Self { buf, chain, offset }
    }

    /// Adds a record; returns (byte offset in the segment, whole length, crc of the record before).
    pub(crate) fn push(&mut self, record: &Record) -> (usize, usize, u32) {
        self.push_with(record.tag(), |out| record.encode_payload(out))
    }

    /// As `push` for an entry, without taking it.
    pub(crate) fn push_entry(&mut self, entry: &WalEntry) -> (usize, usize, u32) {
        self.push_with(TYPE_ENTRY, |out| put_entry(out, entry))
    }

    fn push_with(&mut self, tag: u8, encode: impl FnOnce(&mut Vec<u8>)) -> (usize, usize, u32) {
        let start = self.buf.len();
        self.buf.resize(start + RECORD_HEADER_BYTES, 0);
        encode(&mut self.buf);
        let payload_len = u32::try_from(self.buf.len() - start - RECORD_HEADER_BYTES).unwrap_or(u32::MAX);
        self.buf[start..start + 4].copy_from_slice(&payload_len.to_le_bytes());
        self.buf[start + 4] = tag;
        let previous = self.chain;
        self.chain = chain_crc(previous, &self.buf[start..start + 5], &self.buf[start + RECORD_HEADER_BYTES..]);
        self.buf[start + 5..start + 9].copy_from_slice(&self.chain.to_le_bytes());
        (self.offset + start, self.buf.len() - start, previous)
    }

    /// The finished bytes and the last record's crc. `number` counts groups over all segments, `salt` is the segment's.
    pub(crate) fn finish(mut self, number: u64, salt: u32, first_chain: u32) -> (Vec<u8>, u32) {
        let body_len = (self.buf.len() - GROUP_HEADER_BYTES) as u32;
        let total = group_bytes(body_len as usize);
        self.buf.resize(total - GROUP_TRAILER_BYTES, 0);
        self.buf.extend_from_slice(&trailer(total as u32, number));
        let blank = BlankSectors::count(&self.buf, self.offset);
        self.buf[0..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        self.buf[4..8].copy_from_slice(&body_len.to_le_bytes());
        self.buf[8..16].copy_from_slice(&number.to_le_bytes());
        self.buf[16..20].copy_from_slice(&blank.zero.to_le_bytes());
        self.buf[20..24].copy_from_slice(&blank.one_bit.to_le_bytes());
        self.buf[24..28].copy_from_slice(&first_chain.to_le_bytes());
        let crc = crc32c_append(salt, &self.buf[0..28]);
        self.buf[28..32].copy_from_slice(&crc.to_le_bytes());
        (self.buf, self.chain)
    }
}

/// Whole bytes of a group whose records take `body_len`.
pub(crate) fn group_bytes(body_len: usize) -> usize {
    (GROUP_HEADER_BYTES + body_len).next_multiple_of(GROUP_ALIGN) + GROUP_TRAILER_BYTES
}

pub(crate) fn trailer(total: u32, number: u64) -> [u8; GROUP_TRAILER_BYTES] {
    let (len, count) = (total.to_le_bytes(), number.to_le_bytes());
    [len[0], len[1], len[2], len[3], count[0], count[1], count[2], TRAILER_END]
}

/// The parts of a group, cut at the disk's sectors, that are zero throughout, or all but one bit, and hold none of its header. What
/// a disk left unwritten in a zero-filled segment looks blank; the header says how many parts are meant to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlankSectors {
    pub zero: u32,
    pub one_bit: u32,
}

impl BlankSectors {
    /// Of the group that stands at byte `offset` of its segment.
    pub(crate) fn count(group: &[u8], offset: usize) -> Self {
        let (mut blank, mut start) = (Self::default(), 0);
        while start < group.len() {
            let end = (start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES).min(group.len());
            if start >= GROUP_HEADER_BYTES {
                // Most parts are told by their first bytes.
                let mut bits = group[start..end].iter().map(|byte| byte.count_ones());
                let mut sum = 0;
                while sum < 2
                    && let Some(more) = bits.next()
                {
                    sum += more;
                }
                blank.zero += u32::from(sum == 0);
                blank.one_bit += u32::from(sum == 1);
            }
            start = end;
        }
        blank
    }

    /// Whether parts of a group with these counts are missing in one that reads back with `found`. One flipped bit can blank the part
    /// that had no other: that is not a missing one.
    pub(crate) fn missing_in(self, found: Self) -> bool {
        // By differences: a header can claim any number.
        let more_zero = found.zero.saturating_sub(self.zero);
        more_zero > 0 && !(more_zero == 1 && self.one_bit.checked_sub(found.one_bit) == Some(1))
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // By comparison of blocks, since whole segments are looked at.
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|block| block == &ZEROS[..block.len()])
}

/// What a group's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub body_len: usize,
    pub number: u64,
    pub blank: BlankSectors,
    pub previous_crc: u32,
}

impl GroupHeader {
    /// The header at the start of `bytes`, if there is one of this segment and it is whole.
    pub(crate) fn parse(bytes: &[u8], salt: u32) -> Option<Self> {
        if le_u32(bytes, 0)? != GROUP_MAGIC || le_u32(bytes, 28)? != crc32c_append(salt, bytes.get(0..28)?) {
            return None;
        }
        Some(Self {
            body_len: le_u32(bytes, 4)? as usize,
            number: le_u64(bytes, 8)?,
            blank: BlankSectors { zero: le_u32(bytes, 16)?, one_bit: le_u32(bytes, 20)? },
            previous_crc: le_u32(bytes, 24)?,
        })
    }

    pub(crate) fn total_bytes(&self) -> usize {
        group_bytes(self.body_len)
    }
}

/// A record as it stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub record: Record,
    /// Byte offset of the record in its segment.
    pub offset: u64,
    /// Whole bytes, with the record's own header.
    pub len: u32,
    pub crc: u32,
    pub previous_crc: u32,
}

/// What is wrong, and where in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub offset: usize,
    pub reason: &'static str,
}

/// One record at the start of `bytes`, behind a record with crc `previous`.
pub(crate) fn parse_record(bytes: &[u8], previous: u32) -> Result<(Record, usize, u32), &'static str> {
    let (len, crc) = match (le_u32(bytes, 0), le_u32(bytes, 5)) {
        (Some(len), Some(crc)) => (len as usize, crc),
        _ => return Err("record header cut short"),
    };
    let end = RECORD_HEADER_BYTES.saturating_add(len);
    let payload = bytes.get(RECORD_HEADER_BYTES..end).ok_or("record runs past its group")?;
    if chain_crc(previous, &bytes[0..5], payload) != crc {
        return Err("record crc mismatch");
    }
    Ok((Record::decode(bytes[4], payload)?, end, crc))
}

/// All records of the group at `offset`, whose header has been parsed and fits the segment; the last one's crc.
pub(crate) fn parse_group(
    segment: &[u8],
    offset: usize,
    header: &GroupHeader,
    out: &mut Vec<Placed>,
) -> Result<u32, Fault> {
    let end = offset + GROUP_HEADER_BYTES + header.body_len;
    let (mut at, mut chain) = (offset + GROUP_HEADER_BYTES, header.previous_crc);
    while at < end {
        let (record, len, crc) =
            parse_record(&segment[at..end], chain).map_err(|reason| Fault { offset: at, reason })?;
        out.push(Placed { record, offset: at as u64, len: len as u32, crc, previous_crc: chain });
        at += len;
        chain = crc;
    }
    let total_end = offset + header.total_bytes();
    let last = total_end - GROUP_TRAILER_BYTES;
    if !is_zero(&segment[end..last]) || segment[last..total_end] != trailer(header.total_bytes() as u32, header.number)
    {
        return Err(Fault { offset: end, reason: "group trailer mismatch" });
    }
    Ok(chain)
}

/// Whether the group's last byte was written.
pub(crate) fn has_trailer_end(segment: &[u8], offset: usize, header: &GroupHeader) -> bool {
    segment.get(offset + header.total_bytes() - 1).is_some_and(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let id = LogId { term: 3, index: 9 };
        let vote = Vote { term: 4, node_id: 5, committed: true };
        let entry = WalEntry { log_id: id, kind: 7, payload: Bytes::from_static(b"payload") };
        vec![
            Record::State(State { vote: Some(vote), committed: None, purged: Some(id), last: Some(id) }),
            Record::Entry(entry),
            Record::Vote(vote),
            Record::Vote(Vote { committed: false, ..vote }),
            Record::Committed(id),
            Record::Truncate(None),
            Record::Truncate(Some(id)),
            Record::Purge(id),
        ]
    }

    /// The bytes, and where each record stands in them.
    fn group(records: &[Record]) -> (Vec<u8>, Vec<(usize, usize)>) {
        let mut group = GroupBuilder::new(Vec::new(), 0, 11);
        let places = records.iter().map(|record| group.push(record)).map(|(offset, len, _)| (offset, len)).collect();
        (group.finish(1, 22, 11).0, places)
    }

    fn parse(bytes: &[u8]) -> Result<Vec<Record>, Fault> {
        let header = GroupHeader::parse(bytes, 22).ok_or(Fault { offset: 0, reason: "header" })?;
        let mut placed = Vec::new();
        parse_group(bytes, 0, &header, &mut placed)?;
        Ok(placed.into_iter().map(|placed| placed.record).collect())
    }

    #[test]
    fn every_record_comes_back() {
        let (bytes, _) = group(&records());
        assert_eq!(parse(&bytes), Ok(records()));
        assert_eq!(GroupHeader::parse(&bytes, 23), None, "a header of another segment");
    }

    #[test]
    fn records_cannot_change_places() {
        let (mut bytes, places) = group(&records());
        let ((first, len), (second, _)) = (places[2], places[3]);
        let moved = bytes[first..first + len].to_vec();
        bytes.copy_within(second..second + len, first);
        bytes[second..second + len].copy_from_slice(&moved);
        assert_eq!(parse(&bytes), Err(Fault { offset: first, reason: "record crc mismatch" }));
    }

    /// Wire formats do not drift: version 1 is these bytes.
    #[test]
    fn version_1_is_these_bytes() {
        let (bytes, _) = group(&[Record::Entry(WalEntry {
            log_id: LogId { term: 1, index: 2 },
            kind: 3,
            payload: Bytes::from_static(b"ab"),
        })]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let header =
            "47624772".to_owned() + "1c000000" + "0100000000000000" + "00000000" + "00000000" + "0b000000" + "75f90797";
        let record =
            "13000000".to_owned() + "02" + "3049235d" + "0100000000000000" + "0200000000000000" + "03" + "6162";
        assert_eq!(hex, header + &record + "00000000" + "48000000" + "010000" + "a5");
    }
}
