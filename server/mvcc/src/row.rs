//! Rows: the values of the `Revisions` table, marshalled `mvccpb.KeyValue`s as etcd writes them (fields in tag order,
//! zero values left out; HashKV covers the bytes). The only module that knows the encoding.
//!
//! A row is encoded once, at apply; keys and values of replies are slices of it.

use bytes::{BufMut, Bytes};
use garboard_proto::mvccpb::KeyValue;

const TAG_KEY: u8 = 0x0a;
const TAG_CREATE_REVISION: u8 = 0x10;
const TAG_MOD_REVISION: u8 = 0x18;
const TAG_VERSION: u8 = 0x20;
const TAG_VALUE: u8 = 0x2a;
const TAG_LEASE: u8 = 0x30;

/// A row that does not parse: the disk, or a snapshot from elsewhere, is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed row")]
pub struct MalformedRow;

/// The fields of a row, borrowed from its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowView<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn bytes_field_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() }
}

fn int_field_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value as u64) }
}

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_int_field(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.put_u8(tag);
        put_varint(out, value as u64);
    }
}

fn take_varint(input: &mut &[u8]) -> Result<u64, MalformedRow> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(MalformedRow)?;
        *input = rest;
        if shift == 63 && byte > 1 {
            return Err(MalformedRow);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(MalformedRow)
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], MalformedRow> {
    let len = usize::try_from(take_varint(input)?).map_err(|_| MalformedRow)?;
    let (bytes, rest) = input.split_at_checked(len).ok_or(MalformedRow)?;
    *input = rest;
    Ok(bytes)
}

impl<'a> RowView<'a> {
    pub fn encode(&self) -> Bytes {
        let len = bytes_field_len(self.key)
            + int_field_len(self.create_revision)
            + int_field_len(self.mod_revision)
            + int_field_len(self.version)
            + bytes_field_len(self.value)
            + int_field_len(self.lease);
        let mut out = Vec::with_capacity(len);
        put_bytes_field(&mut out, TAG_KEY, self.key);
        put_int_field(&mut out, TAG_CREATE_REVISION, self.create_revision);
        put_int_field(&mut out, TAG_MOD_REVISION, self.mod_revision);
        put_int_field(&mut out, TAG_VERSION, self.version);
        put_bytes_field(&mut out, TAG_VALUE, self.value);
        put_int_field(&mut out, TAG_LEASE, self.lease);
        assert_eq!(out.len(), len, "a row is as long as was computed");
        Bytes::from(out)
    }

    /// Fails on anything but the six fields of a `KeyValue`: nothing else has ever been written.
    pub fn parse(mut input: &'a [u8]) -> Result<RowView<'a>, MalformedRow> {
        let mut row = RowView::default();
        while let Some((&tag, rest)) = input.split_first() {
            input = rest;
            match tag {
                TAG_KEY => row.key = take_bytes(&mut input)?,
                TAG_CREATE_REVISION => row.create_revision = take_varint(&mut input)? as i64,
                TAG_MOD_REVISION => row.mod_revision = take_varint(&mut input)? as i64,
                TAG_VERSION => row.version = take_varint(&mut input)? as i64,
                TAG_VALUE => row.value = take_bytes(&mut input)?,
                TAG_LEASE => row.lease = take_varint(&mut input)? as i64,
                _ => return Err(MalformedRow),
            }
        }
        if row.key.is_empty() {
            return Err(MalformedRow);
        }
        Ok(row)
    }
}

/// The `KeyValue` of a row; its key and value are slices of the row and keep it alive.
pub fn key_value(row: &Bytes) -> Result<KeyValue, MalformedRow> {
    let view = RowView::parse(row)?;
    Ok(KeyValue {
        key: row.slice_ref(view.key),
        create_revision: view.create_revision,
        mod_revision: view.mod_revision,
        version: view.version,
        value: if view.value.is_empty() { Bytes::new() } else { row.slice_ref(view.value) },
        lease: view.lease,
    })
}

/// The key of a row that `encode` made of a key of that length, as a slice of the row.
pub fn key_slice(row: &Bytes, key_len: usize) -> Bytes {
    let start = 1 + varint_len(key_len as u64);
    row.slice(start..start + key_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_the_protobuf_key_value(
            key in prop::collection::vec(any::<u8>(), 1..300),
            value in prop::collection::vec(any::<u8>(), 0..300),
            numbers in prop::array::uniform4(prop_oneof![Just(0i64), 0i64..300, any::<i64>()]),
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let view = RowView { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let row = view.encode();
            let expected = KeyValue {
                key: key.clone().into(), create_revision, mod_revision, version, value: value.clone().into(), lease,
            };
            prop_assert_eq!(&row[..], &expected.encode_to_vec()[..]);
            prop_assert_eq!(RowView::parse(&row), Ok(view));
            prop_assert_eq!(key_value(&row), Ok(expected));
            prop_assert_eq!(&key_slice(&row, key.len())[..], &key[..]);
        }

        #[test]
        fn damaged_rows_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(view) = RowView::parse(&bytes) {
                prop_assert!(!view.key.is_empty());
            }
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for bytes in [&b""[..], b"\x2a\x01v", b"\x0a\x05abc", b"\x0a\x01k\x7a\x01x", b"\x0a\x01k\x10\xff"] {
            assert_eq!(RowView::parse(bytes), Err(MalformedRow), "{bytes:?}");
        }
        let overlong = [b"\x0a\x01k\x10".as_slice(), &[0xff; 9], &[0x02]].concat();
        assert_eq!(RowView::parse(&overlong), Err(MalformedRow));
    }
}
