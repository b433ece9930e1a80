//! Leases, sentence by sentence.

use garboard_mvcc::{Error, LEASE_TTL_MAX_S, LeaseView, Response};
use garboard_proto::etcdserverpb::PutRequest;
use garboard_proto::raft::command::Op;
use garboard_proto::raft::{LeaseCheckpoint, LeaseRemaining};

use crate::member::*;

fn put_leased(member: &mut Member, key: &str, lease: i64) {
    member.put_with(PutRequest { lease, ..put(key, "v") }).unwrap();
}

fn keys(member: &Member, id: i64) -> Vec<String> {
    member.store.lease(id).unwrap().keys.iter().map(text).collect()
}

#[test]
fn grants_are_checked() {
    let mut member = Member::new();
    assert_eq!(member.grant(0, 60), Err(Error::LeaseNotFound), "the API picks the id");
    assert_eq!(member.grant(1, LEASE_TTL_MAX_S + 1), Err(Error::LeaseTtlTooLarge));
    assert_eq!(member.grant(1, LEASE_TTL_MAX_S), Ok(()));
    assert_eq!(member.grant(1, 60), Err(Error::LeaseExists));
    assert_eq!(member.grant(-7, 60), Ok(()), "ids are any number");
    assert_eq!(member.revision(), 1);
    let ids: Vec<i64> = member.store.leases().iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [-7, 1]);
}

#[test]
fn a_key_follows_its_newest_put() {
    let mut member = Member::new();
    member.grant(1, 60).unwrap();
    member.grant(2, 60).unwrap();
    put_leased(&mut member, "b", 1);
    put_leased(&mut member, "a", 1);
    assert_eq!(keys(&member, 1), ["a", "b"]);
    put_leased(&mut member, "a", 2);
    assert_eq!((keys(&member, 1), keys(&member, 2)), (vec!["b".into()], vec!["a".into()]));
    member.put("b", "v");
    assert_eq!(keys(&member, 1), [""; 0]);
    member.delete(delete("a", ""));
    assert_eq!(keys(&member, 2), [""; 0]);
    put_leased(&mut member, "a", 1);
    let reopened = member.flushed_crash();
    assert_eq!((keys(&reopened, 1), keys(&reopened, 2)), (vec!["a".into()], vec![]));
}

#[test]
fn a_revoked_lease_takes_its_keys_in_one_revision_in_key_order() {
    let mut member = Member::new();
    member.grant(1, 60).unwrap();
    for key in ["c", "a", "d", "b"] {
        put_leased(&mut member, key, 1);
    }
    member.put("d", "kept");
    let revision = member.revision();
    member.revoke(1).unwrap();
    assert_eq!(member.revision(), revision + 1);
    assert_eq!(member.all(), [("d".into(), "kept".into())]);
    member.flush();
    let rows = member.backend.rows(garboard_mvcc::Table::Revisions);
    let tombstones = rows.iter().filter(|(key, _)| key.len() == 18);
    let deleted: Vec<_> = tombstones.map(|(_, row)| garboard_mvcc::RowView::parse(row).unwrap().key.to_vec()).collect();
    assert_eq!(deleted, [b"a", b"b", b"c"]);
    assert_eq!(member.store.lease(1), None);
    assert_eq!(member.revoke(1), Err(Error::LeaseNotFound));
    assert_eq!(member.crash().store.leases(), []);
}

#[test]
fn a_lease_without_keys_goes_without_a_revision() {
    let mut member = Member::new();
    member.grant(1, 60).unwrap();
    member.revoke(1).unwrap();
    assert_eq!(member.revision(), 1);
    assert_eq!(member.grant(1, 60), Ok(()), "the id is free again");
}

#[test]
fn remaining_lifetimes_outlive_a_restart() {
    let mut member = Member::new();
    member.grant(1, 600).unwrap();
    member.flush();
    let leases = vec![LeaseRemaining { id: 1, remaining_ttl_s: 90 }, LeaseRemaining { id: 2, remaining_ttl_s: 5 }];
    assert_eq!(member.apply(Op::LeaseCheckpoint(LeaseCheckpoint { leases })), Ok(Response::LeaseCheckpoint));
    let expected = [LeaseView { id: 1, ttl_s: 600, remaining_ttl_s: 90, keys: vec![] }];
    assert_eq!(member.store.leases(), expected);
    assert_eq!(member.flushed_crash().store.leases(), expected);
}

/// A table that came from elsewhere may name leases that it does not have.
#[test]
fn a_key_of_an_unknown_lease_is_attached_to_nothing() {
    let mut member = Member::new();
    member.grant(1, 60).unwrap();
    put_leased(&mut member, "k", 1);
    member.flush();
    let tables = member.backend.fork();
    let lease_rows = tables.rows(garboard_mvcc::Table::Leases);
    assert_eq!(lease_rows.len(), 1);
    let without = garboard_mvcc::backend::memory::MemoryBackend::new();
    for table in [garboard_mvcc::Table::Revisions, garboard_mvcc::Table::Meta] {
        for (key, value) in tables.rows(table) {
            without.set(table, &key, &value);
        }
    }
    let mut member = Member::open(without, garboard_mvcc::StoreOptions::default());
    assert_eq!(member.store.counters().leased_keys, 0);
    let request = PutRequest { ignore_lease: true, ..put("k", "w") };
    member.put_with(request).unwrap();
    assert_eq!(member.range(get("k")).unwrap().kvs[0].lease, 1);
    assert_eq!(member.revoke(1), Err(Error::LeaseNotFound));
}
