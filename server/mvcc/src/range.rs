//! Range: which keys, in which order, how many; with etcd's rules, odd ones included.
//!
//! Filters, limit and every order but by value are decided from the index alone; rows are fetched for what is returned.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use garboard_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use garboard_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use prost::Message as _;

use crate::counters::add;
use crate::error::Error;
use crate::index::{KeyRange, KeyVersion};
use crate::revision::Revision;
use crate::row::{self, RowView};
use crate::store::{Store, View};

pub use stream::RangeStream;

mod stream;

/// Enough for the borders of any range.
const ROWS_LOOKED_AT: usize = 1000;

/// About the size of a piece, and rows that are not worth being copied into one.
const PIECE_BYTES: usize = 64 << 10;
const COPIED_ROW_BYTES: usize = 16 << 10;
/// Rows that stand for all of a large range.
const SAMPLED_ROWS: usize = 32;

/// A header with the revision only; `garboard-api` fills in the rest.
pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Whether the answer comes in the index's own order. As in etcd, order NONE counts as that for every target.
pub(crate) fn has_default_order(request: &RangeRequest) -> bool {
    let ascends_by_key =
        request.sort_target == SortTarget::Key as i32 && request.sort_order == SortOrder::Ascend as i32;
    request.sort_order == SortOrder::None as i32 || ascends_by_key
}

pub(crate) fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

impl Store {
    /// Serves a range from the state as it is now; whoever wants it linearizable sees to it that the state is recent
    /// enough. Fails with `Compacted` and `FutureRevision`.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.read(|view| range(view, request, Total::Counted))
    }

    /// As [`Store::range`], with the keys as they are stored.
    pub fn range_rows(&self, request: &RangeRequest) -> Result<RangeRows, Error> {
        self.read(|view| rows(view, request, Total::Counted))
    }

    /// About how many bytes a row of the range has, by its first ones; 0 for an empty range.
    pub fn average_row_bytes(&self, request: &RangeRequest) -> Result<u64, Error> {
        self.read(|view| {
            let at = view.resolve(request.revision)?;
            let mut revisions = Vec::with_capacity(SAMPLED_ROWS);
            view.visit(KeyRange::new(&request.key, &request.range_end), at, &mut |_, version| {
                revisions.push(version.revision);
                if revisions.len() < SAMPLED_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let rows = view.rows(&revisions)?;
            let bytes: usize = rows.iter().map(Bytes::len).sum();
            Ok(bytes.div_ceil(rows.len().max(1)) as u64)
        })
    }

    /// How many keys the answer to a range would have rows of, at most, and without looking long: a range at
    /// an older revision is taken as it is now.
    pub fn expected_keys(&self, request: &RangeRequest) -> u64 {
        if request.count_only {
            return 0;
        }
        let range = KeyRange::new(&request.key, &request.range_end);
        let keys = self.index.read().keys.count(range, i64::MAX, ROWS_LOOKED_AT).unwrap_or(usize::MAX) as u64;
        match u64::try_from(request.limit) {
            Ok(limit) if limit > 0 => keys.min(limit),
            _ => keys,
        }
    }
}

/// Whether keys past the limit are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    Counted,
    Skipped,
}

/// The answer to a range with its keys as they are stored, marshalled `KeyValue`s: what a client gets is a copy of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRows {
    /// The store's revision.
    pub revision: i64,
    pub rows: Vec<Bytes>,
    pub more: bool,
    pub count: i64,
}

const TAG_HEADER: u8 = 0x0a;
const TAG_KVS: u8 = 0x12;
const TAG_MORE: u8 = 0x18;
const TAG_COUNT: u8 = 0x20;

impl RangeRows {
    /// Bytes of the `RangeResponse` with this header.
    pub fn encoded_len(&self, header: &ResponseHeader) -> usize {
        let message = |len: usize| 1 + row::varint_len(len as u64) + len;
        let kvs: usize = self.rows.iter().map(|row| message(row.len())).sum();
        let count = if self.count == 0 { 0 } else { 1 + row::varint_len(self.count as u64) };
        message(header.encoded_len()) + kvs + 2 * usize::from(self.more) + count
    }

    /// The `RangeResponse` in pieces, behind `lead`; made one by one as they are asked for.
    pub fn pieces(self, header: &ResponseHeader, lead: &[u8]) -> RangePieces {
        let mut head = BytesMut::with_capacity(lead.len() + self.encoded_len(header).min(PIECE_BYTES));
        head.put_slice(lead);
        head.put_u8(TAG_HEADER);
        row::put_varint(&mut head, header.encoded_len() as u64);
        header.encode_raw(&mut head);
        RangePieces {
            gathered: head,
            whole: None,
            rows: self.rows.into_iter(),
            more: self.more,
            count: self.count,
            ended: false,
        }
    }

    /// The message, its keys and values slices of the rows.
    pub fn into_response(self) -> Result<RangeResponse, Error> {
        let kvs = self.rows.iter().map(row::key_value).collect::<Result<_, _>>()?;
        Ok(RangeResponse { header: header(self.revision), kvs, more: self.more, count: self.count })
    }
}

/// See [`RangeRows::pieces`].
pub struct RangePieces {
    gathered: BytesMut,
    /// A row that follows what was gathered as it is.
    whole: Option<Bytes>,
    rows: vec::IntoIter<Bytes>,
    more: bool,
    count: i64,
    ended: bool,
}

impl Iterator for RangePieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.gathered.is_empty()
            && let Some(row) = self.whole.take()
        {
            return Some(row);
        }
        while self.whole.is_none() && self.gathered.len() < PIECE_BYTES {
            let Some(row) = self.rows.next() else { break };
            if self.gathered.capacity() == 0 {
                self.gathered.reserve(PIECE_BYTES);
            }
            self.gathered.put_u8(TAG_KVS);
            row::put_varint(&mut self.gathered, row.len() as u64);
            if row.len() < COPIED_ROW_BYTES {
                self.gathered.put_slice(&row);
            } else {
                self.whole = Some(row);
            }
        }
        if self.whole.is_none() && self.rows.len() == 0 && !std::mem::replace(&mut self.ended, true) {
            if self.more {
                self.gathered.put_slice(&[TAG_MORE, 1]);
            }
            if self.count != 0 {
                self.gathered.put_u8(TAG_COUNT);
                row::put_varint(&mut self.gathered, self.count as u64);
            }
        }
        // Split off, not copied; the next piece begins anew.
        let piece = std::mem::take(&mut self.gathered).freeze();
        (!piece.is_empty()).then_some(piece)
    }
}

pub(crate) fn range(view: &View<'_>, request: &RangeRequest, total: Total) -> Result<RangeResponse, Error> {
    rows(view, request, total)?.into_response()
}

fn rows(view: &View<'_>, request: &RangeRequest, total: Total) -> Result<RangeRows, Error> {
    add(&view.store.tally.ranges, 1);
    let at = view.resolve(request.revision)?;
    let (mut hits, count) = collect(view, request, at, total);
    let mut answer = RangeRows { revision: view.current, rows: Vec::new(), more: false, count };
    if request.count_only {
        return Ok(answer);
    }
    if has_revision_filters(request) {
        hits.retain(|hit| passes_filters(request, hit));
    }
    // Values are not in the index: this one order needs the rows before the limit can count.
    let by_value = request.sort_target == SortTarget::Value as i32;
    if !by_value {
        sort(request, &mut hits, |a, b| compare_by_index(request.sort_target, a, b));
        answer.more = apply_limit(request, &mut hits);
    }
    let revisions: Vec<Revision> = hits.iter().map(|hit| hit.revision).collect();
    answer.rows = view.rows(&revisions)?;
    if by_value {
        sort_by_value(request, &mut answer.rows)?;
        answer.more = apply_limit(request, &mut answer.rows);
    }
    if request.keys_only {
        for row in &mut answer.rows {
            *row = RowView { value: &[], ..RowView::parse(row)? }.encode();
        }
    }
    Ok(answer)
}

/// The keys of the range at `at`, and how many there are regardless of limit and filters.
fn collect(view: &View<'_>, request: &RangeRequest, at: i64, total: Total) -> (Vec<KeyVersion>, i64) {
    let range = KeyRange::new(&request.key, &request.range_end);
    if range.is_single() {
        let hit = view.get(range.start, at);
        let count = i64::from(hit.is_some());
        return (hit.filter(|_| !request.count_only).into_iter().collect(), count);
    }
    let enough = if request.count_only {
        0
    } else if request.limit > 0 && has_default_order(request) && !has_revision_filters(request) {
        // One more than asked for shows whether there are more.
        usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1)
    } else {
        usize::MAX
    };
    let mut hits = Vec::new();
    if enough > 0 {
        view.visit(range, at, &mut |_, version| {
            hits.push(version);
            if hits.len() < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    let beyond = hits.len() >= enough && (total == Total::Counted || request.count_only);
    let count = if beyond { view.count(range, at) } else { hits.len() };
    (hits, count as i64)
}

fn passes_filters(request: &RangeRequest, hit: &KeyVersion) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(hit.revision.main, request.min_mod_revision, request.max_mod_revision)
        && within(hit.created, request.min_create_revision, request.max_create_revision)
}

fn compare_by_index(target: i32, a: &KeyVersion, b: &KeyVersion) -> Ordering {
    match SortTarget::try_from(target) {
        Ok(SortTarget::Version) => a.version.cmp(&b.version),
        Ok(SortTarget::Create) => a.created.cmp(&b.created),
        Ok(SortTarget::Mod) => a.revision.main.cmp(&b.revision.main),
        // By key they already are; by value they are sorted elsewhere.
        Ok(SortTarget::Key | SortTarget::Value) | Err(_) => Ordering::Equal,
    }
}

fn sort<T>(request: &RangeRequest, items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let by_key = request.sort_target == SortTarget::Key as i32;
    match (by_key, request.sort_order == SortOrder::Descend as i32) {
        (true, true) => items.reverse(),
        (true, false) => {}
        (false, true) => items.sort_by(|a, b| compare(b, a)),
        // As in etcd, NONE ascends for every target but the key.
        (false, false) => items.sort_by(|a, b| compare(a, b)),
    }
}

fn sort_by_value(request: &RangeRequest, rows: &mut [Bytes]) -> Result<(), Error> {
    for row in rows.iter() {
        RowView::parse(row)?;
    }
    let value = |row: &Bytes| RowView::parse(row).map(|view| row.slice_ref(view.value)).unwrap_or_default();
    sort(request, rows, |a, b| value(a).cmp(&value(b)));
    Ok(())
}

/// Cuts to the limit; returns whether anything was cut.
fn apply_limit<T>(request: &RangeRequest, items: &mut Vec<T>) -> bool {
    match usize::try_from(request.limit) {
        Ok(limit) if limit > 0 && items.len() > limit => {
            items.truncate(limit);
            true
        }
        _ => false,
    }
}
