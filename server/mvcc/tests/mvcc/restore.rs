//! Opening the tables: what is damaged is refused, never guessed at.

use std::sync::Arc;

use garboard_mvcc::backend::memory::MemoryBackend;
use garboard_mvcc::{Error, Position, Revision, RowKey, RowView, Store, StoreOptions, Table};
use garboard_proto::raft::LeaseRecord;
use prost::Message as _;

use crate::member::*;

fn tables() -> Arc<MemoryBackend> {
    let mut member = Member::new();
    member.grant(1, 60).unwrap();
    member.put("a", "1");
    member.put("b", "1");
    member.compact(2).unwrap();
    member.flush();
    member.backend.fork()
}

#[test]
fn an_empty_database_is_an_empty_store() {
    let (store, _) = Store::open(MemoryBackend::new(), StoreOptions::default()).unwrap();
    assert_eq!((store.revision(), store.applied(), store.membership()), (1, Position::default(), None));
    assert!(store.take_checkpoint().is_none());
}

#[test]
fn damage_is_refused() {
    let row = RowView { key: b"k", create_revision: 9, mod_revision: 9, version: 1, ..RowView::default() };
    let key = RowKey::new(Revision::new(9, 0), false);
    let first = RowKey::new(Revision::new(2, 0), false);
    let older = RowKey::new(Revision::new(2, 5), false);
    let damage: [(Table, &[u8], &[u8]); 11] = [
        (Table::Revisions, b"short", b""),
        (Table::Revisions, first.as_bytes(), b"\xff"),
        (Table::Revisions, older.as_bytes(), &row.encode()),
        (Table::Revisions, key.as_bytes(), &row.encode()),
        (Table::Meta, b"applied", b"123"),
        (Table::Meta, b"revision", b"123"),
        (Table::Meta, b"revision", &2i64.to_be_bytes()),
        (Table::Meta, b"cluster_version", b"\xff\xff"),
        (Table::Meta, b"format_version", b"\x00\x01"),
        (Table::Meta, b"downgrade", b"\xff\xff"),
        (Table::Leases, b"x", b"\xff"),
    ];
    assert!(Store::open(tables(), StoreOptions::default()).is_ok());
    for (table, key, value) in damage {
        refuses(table, key, value);
    }
}

fn refuses(table: Table, key: &[u8], value: &[u8]) {
    let tables = tables();
    tables.set(table, key, value);
    let error = Store::open(tables, StoreOptions::default()).err();
    let error = error.unwrap_or_else(|| panic!("{table:?} {} opens", key.escape_ascii()));
    assert!(matches!(error, Error::Damaged(_)) && error.is_fatal(), "{error}");
}

/// Numbers that a member would overflow from, or that no put has written. Such a row once got in with a snapshot (found by fuzzing).
#[test]
fn rows_that_nobody_can_have_written_are_refused() {
    const MAX: i64 = i64::MAX;
    for (main, sub, create_revision, version) in [
        (3, 1 << 32, 3, 1),
        (3, MAX, 3, 1),
        (MAX, 0, MAX, 1),
        (3, 1, 0, 1),
        (3, 1, 4, 1),
        (3, 1, -1, 1),
        (3, 1, 3, MAX),
    ] {
        let row = RowView { key: b"k", create_revision, mod_revision: main, version, ..RowView::default() };
        let key = RowKey::new(Revision::new(main, sub), false);
        // What is recorded may not hide it.
        let tables = tables();
        tables.set(Table::Meta, b"revision", &main.to_be_bytes());
        tables.set(Table::Revisions, key.as_bytes(), &row.encode());
        let error = Store::open(tables, StoreOptions::default()).err();
        assert!(matches!(error, Some(Error::Damaged(_))), "{row:?} at {main}.{sub}: {error:?}");
    }
    refuses(Table::Meta, b"revision", &MAX.to_be_bytes());
}

#[test]
fn a_tombstone_with_too_many_changes_before_it_is_refused() {
    let row = RowView { key: b"a", ..RowView::default() };
    refuses(Table::Revisions, RowKey::new(Revision::new(3, 1 << 32), true).as_bytes(), &row.encode());
}

#[test]
fn leases_and_alarms_must_be_as_they_are_written() {
    let lease = |id, ttl_s, remaining_ttl_s| LeaseRecord { id, ttl_s, remaining_ttl_s }.encode_to_vec();
    let key = 7i64.to_be_bytes();
    let tables = tables();
    tables.set(Table::Leases, &key, &lease(7, 60, 30));
    assert!(Store::open(tables, StoreOptions::default()).is_ok());
    for value in [lease(7, i64::MAX, 0), lease(7, 60, i64::MAX), lease(8, 60, 0), lease(0, 60, 0)] {
        refuses(Table::Leases, &key, &value);
    }
    // The fields the other way round.
    refuses(Table::Alarms, b"\x10\x01\x08\x01", b"");
    refuses(Table::Alarms, b"\xff", b"");
}

/// The index names a row that is gone: an answer without it would be a lie.
#[test]
fn a_missing_row_is_an_error() {
    let tables = tables();
    let member = Member::open(tables.clone(), StoreOptions { cache_bytes: 0, ..StoreOptions::default() });
    assert!(member.range(get("a")).is_ok());
    tables.write(&checkpoint_that_deletes(&tables));
    assert!(matches!(member.range(get("a")), Err(Error::Damaged(_))));
}

fn checkpoint_that_deletes(tables: &MemoryBackend) -> garboard_mvcc::Checkpoint {
    let mut member = Member::new();
    member.put("x", "");
    let mut checkpoint = member.store.take_checkpoint().unwrap();
    let rows = tables.rows(Table::Revisions).into_iter();
    checkpoint.ops = rows.map(|(key, _)| garboard_mvcc::WriteOp::Delete { table: Table::Revisions, key }).collect();
    checkpoint
}

#[test]
fn a_checkpoint_is_cut_at_whole_entries() {
    let mut member = Member::new();
    member.apply_open(garboard_proto::raft::command::Op::Put(put("a", "1"))).unwrap();
    assert!(member.store.take_checkpoint().is_none(), "the entry is not finished");
    assert!(member.store.pending_bytes() > 0);
    member.finish_entry();
    member.apply_open(garboard_proto::raft::command::Op::Put(put("b", "1"))).unwrap();
    let checkpoint = member.store.take_checkpoint().unwrap();
    assert_eq!((checkpoint.applied, checkpoint.revision), (Position { term: 1, index: 1 }, 2));
    assert!(member.store.take_checkpoint().is_none(), "one at a time");
    member.backend.write(&checkpoint);
    member.store.checkpoint_written(checkpoint);
    assert_eq!(member.crash().all(), [("a".into(), "1".into())]);
    assert_eq!(member.all().len(), 2);
    member.finish_entry();
    assert!(member.flush());
    assert_eq!(member.crash().all(), member.all());
    assert_eq!(member.store.pending_bytes(), 0);
    assert!(!member.flush());
}

#[test]
fn membership_travels_with_the_position() {
    let backend = MemoryBackend::new();
    let (store, mut applier) = Store::open(backend.clone(), StoreOptions::default()).unwrap();
    applier.finish_entry(Position { term: 3, index: 1 }, Some(bytes("three members")));
    applier.finish_entry(Position { term: 3, index: 2 }, None);
    let checkpoint = store.take_checkpoint().unwrap();
    assert_eq!(checkpoint.membership, Some(bytes("three members")));
    backend.write(&checkpoint);
    store.checkpoint_written(checkpoint);
    let (store, _) = Store::open(backend.fork(), StoreOptions::default()).unwrap();
    assert_eq!(store.applied(), Position { term: 3, index: 2 });
    assert_eq!(store.membership(), Some(bytes("three members")));
}

#[test]
fn the_overlay_says_when_it_is_full() {
    let mut member = Member::with(StoreOptions { overlay_bytes: 1000, ..StoreOptions::default() });
    assert!(!member.store.is_overlay_full());
    member.put("k", &"v".repeat(1000));
    assert!(member.store.is_overlay_full());
    member.flush();
    assert!(!member.store.is_overlay_full());
}
