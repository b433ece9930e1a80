//! The rows of the `Meta` table (docs/formats.md): names and encodings. Numbers are big-endian.

use bytes::Bytes;

use crate::backend::{Position, Table, WriteOp};

/// Term and index of the last entry in the tables: 2 x 8 bytes.
pub const APPLIED: &str = "applied";
/// The store's revision at `applied`: it may be newer than the newest row, which compaction can remove.
pub const REVISION: &str = "revision";
/// The membership as the consensus gave it.
pub const MEMBERSHIP: &str = "membership";
/// The compact revision that reads obey.
pub const SCHEDULED_COMPACTION: &str = "scheduled_compaction";
/// The compact revision up to which rows are gone.
pub const FINISHED_COMPACTION: &str = "finished_compaction";
/// The cluster version that the members agreed on.
pub const CLUSTER_VERSION: &str = "cluster_version";
/// The format that the members agreed to write: 4 bytes.
pub const FORMAT_VERSION: &str = "format_version";
/// The version that a downgrade is to reach.
pub const DOWNGRADE: &str = "downgrade";

pub fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

pub fn put(name: &'static str, value: Bytes) -> WriteOp {
    WriteOp::Put { table: Table::Meta, key: key(name), value }
}

pub fn encode_revision(revision: i64) -> Bytes {
    Bytes::copy_from_slice(&revision.to_be_bytes())
}

pub fn decode_revision(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_be_bytes)
}

pub fn encode_position(position: Position) -> Bytes {
    Bytes::from([position.term.to_be_bytes(), position.index.to_be_bytes()].concat())
}

pub fn decode_position(bytes: &[u8]) -> Option<Position> {
    let (term, index) = bytes.split_at_checked(8)?;
    Some(Position {
        term: u64::from_be_bytes(term.try_into().ok()?),
        index: u64::from_be_bytes(index.try_into().ok()?),
    })
}
