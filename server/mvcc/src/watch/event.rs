//! One change of one key. The `KeyValue` stays in the bytes it was stored as; an event only frames them.

use bytes::{BufMut, Bytes};
use garboard_proto::mvccpb;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint, encoded_len_varint};

/// Bookkeeping of an event in a queue, beside its bytes.
const EVENT_OVERHEAD_BYTES: usize = 128;
/// Field 11 of `WatchResponse`, length-delimited.
const EVENTS_TAG: u8 = 0x5a;
const TYPE_TAG: u8 = 0x08;
const KV_TAG: u8 = 0x12;
const PREV_KV_TAG: u8 = 0x1a;

/// What happened to the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted, by a client or by its lease.
    Delete,
}

/// The value the change replaced, as a marshalled `KeyValue`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PrevKv {
    /// Nobody asked for it when the event was made; catch-up looks it up for a watcher that does.
    Unknown,
    /// There was none, or it is compacted.
    Absent,
    /// It was this.
    Known(Bytes),
}

/// One change. Shared by all streams; immutable.
#[derive(Clone, Debug)]
pub struct Event {
    key: Bytes,
    main: i64,
    sub: i64,
    kind: EventKind,
    create: bool,
    kv: Bytes,
    prev: PrevKv,
}

impl Event {
    /// A put; `kv` is the marshalled `KeyValue` as stored. `create` if its create and mod revision are the same; then
    /// there is no previous value, whatever `prev` says.
    #[must_use]
    pub fn put(key: Bytes, main: i64, sub: i64, kv: Bytes, create: bool, prev: PrevKv) -> Self {
        let prev = if create { PrevKv::Absent } else { prev };
        Self { key, main, sub, kind: EventKind::Put, create, kv, prev }
    }

    /// A deletion. Clients see a `KeyValue` with key and mod revision only.
    #[must_use]
    pub fn delete(key: Bytes, main: i64, sub: i64, prev: PrevKv) -> Self {
        let shown = mvccpb::KeyValue { key: key.clone(), mod_revision: main, ..Default::default() };
        let kv = Bytes::from(shown.encode_to_vec());
        Self { key, main, sub, kind: EventKind::Delete, create: false, kv, prev }
    }

    /// The changed key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Main revision.
    #[must_use]
    pub fn main(&self) -> i64 {
        self.main
    }

    /// Place within the revision.
    #[must_use]
    pub fn sub(&self) -> i64 {
        self.sub
    }

    /// Put or delete.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Whether the put created the key.
    #[must_use]
    pub fn is_create(&self) -> bool {
        self.create
    }

    /// What was there before, as far as it was looked up.
    #[must_use]
    pub fn prev(&self) -> &PrevKv {
        &self.prev
    }

    pub(super) fn with_prev(&self, prev: PrevKv) -> Self {
        Self { prev, ..self.clone() }
    }

    pub(super) fn lacks_prev(&self) -> bool {
        self.prev == PrevKv::Unknown
    }

    /// What a queue or the ring counts for it.
    pub(super) fn held_bytes(&self) -> usize {
        let prev = if let PrevKv::Known(prev) = &self.prev { prev.len() } else { 0 };
        self.key.len() + self.kv.len() + prev + EVENT_OVERHEAD_BYTES
    }

    /// Length of the `events` field that carries it, tag included.
    pub(super) fn field_len(&self, with_prev_kv: bool) -> usize {
        let body = self.body_len(with_prev_kv);
        1 + encoded_len_varint(body as u64) + body
    }

    pub(super) fn encode_field(&self, with_prev_kv: bool, buf: &mut impl BufMut) {
        buf.put_u8(EVENTS_TAG);
        encode_varint(self.body_len(with_prev_kv) as u64, buf);
        if self.kind == EventKind::Delete {
            buf.put_slice(&[TYPE_TAG, mvccpb::event::EventType::Delete as u8]);
        }
        put_bytes_field(KV_TAG, &self.kv, buf);
        if let (true, PrevKv::Known(prev)) = (with_prev_kv, &self.prev) {
            put_bytes_field(PREV_KV_TAG, prev, buf);
        }
    }

    fn body_len(&self, with_prev_kv: bool) -> usize {
        let kind = if self.kind == EventKind::Delete { 2 } else { 0 };
        let prev = match (with_prev_kv, &self.prev) {
            (true, PrevKv::Known(prev)) => bytes_field_len(prev),
            _ => 0,
        };
        kind + bytes_field_len(&self.kv) + prev
    }
}

fn bytes_field_len(value: &[u8]) -> usize {
    1 + encoded_len_varint(value.len() as u64) + value.len()
}

fn put_bytes_field(tag: u8, value: &[u8], buf: &mut impl BufMut) {
    buf.put_u8(tag);
    encode_varint(value.len() as u64, buf);
    buf.put_slice(value);
}

/// What catch-up needs of a stored `KeyValue`, read in place.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct StoredKv<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
}

impl<'a> StoredKv<'a> {
    /// `None` if the bytes are no `KeyValue`.
    pub(super) fn parse(kv: &'a [u8]) -> Option<Self> {
        let mut found = Self::default();
        let mut rest = kv;
        while !rest.is_empty() {
            let (tag, wire) = decode_key(&mut rest).ok()?;
            match wire {
                WireType::Varint => {
                    let number = decode_varint(&mut rest).ok()?;
                    if tag == 2 {
                        found.create_revision = number.cast_signed();
                    }
                }
                WireType::LengthDelimited => {
                    let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                    let (value, after) = rest.split_at_checked(len)?;
                    if tag == 1 {
                        found.key = value;
                    }
                    rest = after;
                }
                WireType::SixtyFourBit => rest = rest.get(8..)?,
                WireType::ThirtyTwoBit => rest = rest.get(4..)?,
                WireType::StartGroup | WireType::EndGroup => return None,
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_key_value_is_read_in_place() {
        let kv = mvccpb::KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 300,
            mod_revision: 301,
            version: 2,
            value: Bytes::from_static(b"value"),
            lease: -7,
        };
        let bytes = kv.encode_to_vec();
        assert_eq!(StoredKv::parse(&bytes), Some(StoredKv { key: b"k", create_revision: 300 }));
        for cut in 1..bytes.len() {
            // A cut either fails or ends between two fields; it never reads past the end.
            if let Some(found) = StoredKv::parse(&bytes[..cut]) {
                assert!(found.key == b"k" || found.key.is_empty());
            }
        }
        assert_eq!(StoredKv::parse(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
    }
}
