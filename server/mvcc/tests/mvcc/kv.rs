//! Put and DeleteRange, sentence by sentence of what clients rely on.

use garboard_mvcc::Error;
use garboard_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, ResponseHeader};

use crate::member::*;

fn revision(header: Option<ResponseHeader>) -> i64 {
    let header = header.expect("every response has a header");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (0, 0, 0), "the API adds these");
    header.revision
}

#[test]
fn an_empty_store_is_at_revision_1() {
    let member = Member::new();
    assert_eq!((member.revision(), member.store.compact_revision()), (1, -1));
    assert_eq!(revision(member.range(get("k")).unwrap().header), 1);
}

#[test]
fn each_write_request_that_changes_something_is_one_revision() {
    let mut member = Member::new();
    assert_eq!(revision(member.put("a", "1").header), 2);
    assert_eq!(revision(member.put("b", "1").header), 3);
    assert_eq!(revision(member.delete(delete("a", "z")).header), 4);
    assert_eq!(revision(member.delete(delete("a", "z")).header), 4, "nothing was there to delete");
    let response = member.txn(then(vec![put_op("a", "2"), put_op("b", "2")])).unwrap();
    assert_eq!(revision(response.header), 5);
    let response = member.txn(then(vec![range_op(get("a"))])).unwrap();
    assert_eq!(revision(response.header), 5, "a transaction that writes nothing");
    let response = member.txn(then(vec![delete_op("x", "")])).unwrap();
    assert_eq!((revision(response.header), member.revision()), (5, 5));
}

#[test]
fn create_revision_and_version_begin_anew_after_a_delete() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    let kv = member.range(get("k")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    member.delete(delete("k", ""));
    member.put("k", "3");
    let kv = member.range(get("k")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn ignored_values_and_leases_are_taken_from_the_key_as_it_is() {
    let mut member = Member::new();
    member.grant(7, 60).unwrap();
    member.put_with(PutRequest { lease: 7, ..put("k", "1") }).unwrap();
    member.put_with(PutRequest { ignore_value: true, ..put("k", "") }).unwrap();
    let kv = member.range(get("k")).unwrap().kvs.remove(0);
    assert_eq!((text(&kv.value), kv.lease), ("1".into(), 0), "a put without lease detaches");
    member.put_with(PutRequest { lease: 7, ..put("k", "2") }).unwrap();
    member.put_with(PutRequest { ignore_lease: true, ..put("k", "3") }).unwrap();
    let kv = member.range(get("k")).unwrap().kvs.remove(0);
    assert_eq!((text(&kv.value), kv.lease, kv.version), ("3".into(), 7, 4));
}

#[test]
fn puts_that_cannot_be_are_refused_without_a_trace() {
    let mut member = Member::new();
    member.put("k", "1");
    let before = member.store.hash();
    for request in [
        PutRequest { ignore_value: true, ..put("missing", "") },
        PutRequest { ignore_lease: true, ..put("missing", "") },
    ] {
        assert_eq!(member.put_with(request), Err(Error::KeyNotFound));
    }
    assert_eq!(member.put_with(PutRequest { lease: 9, ..put("k", "2") }), Err(Error::LeaseNotFound));
    assert_eq!((member.revision(), member.store.hash()), (2, before));
}

#[test]
fn previous_values_come_when_asked_for() {
    let mut member = Member::new();
    let request = PutRequest { prev_kv: true, ..put("k", "1") };
    assert_eq!(member.put_with(request).unwrap().prev_kv, None);
    assert_eq!(member.put("k", "2").prev_kv, None);
    member.flush();
    let previous = member.put_with(PutRequest { prev_kv: true, ..put("k", "3") }).unwrap().prev_kv.unwrap();
    assert_eq!((text(&previous.value), previous.mod_revision, previous.version), ("2".into(), 3, 2));
    member.put("l", "1");
    let response = member.delete(DeleteRangeRequest { prev_kv: true, ..delete("k", "\0") });
    assert_eq!(response.deleted, 2);
    assert_eq!(response.prev_kvs.iter().map(|kv| text(&kv.value)).collect::<Vec<_>>(), ["3", "1"]);
    assert!(member.delete(DeleteRangeRequest { prev_kv: true, ..delete("k", "\0") }).prev_kvs.is_empty());
}

#[test]
fn a_large_range_is_deleted_in_one_revision() {
    let mut member = Member::new();
    for key in 0..2500 {
        member.put(&format!("k{key:05}"), "v");
    }
    member.put("l", "v");
    let revision = member.revision();
    let response = member.delete(DeleteRangeRequest { prev_kv: true, ..delete("k", "l") });
    assert_eq!((response.deleted, response.prev_kvs.len()), (2500, 2500));
    assert!(response.prev_kvs.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(member.revision(), revision + 1);
    assert_eq!(member.all(), [("l".into(), "v".into())]);
    let reopened = member.flushed_crash();
    assert_eq!((reopened.all(), reopened.revision()), (member.all(), revision + 1));
    assert_eq!(reopened.store.counters().keys, 1);
}

#[test]
fn rows_are_read_from_overlay_cache_and_backend_alike() {
    let mut member = Member::new();
    member.put("k", "old");
    member.put("k", "new");
    let old = || garboard_proto::etcdserverpb::RangeRequest { revision: 2, ..get("k") };
    let range = |member: &Member, request| member.store.range(&request).unwrap().kvs;
    let read = |member: &Member| (range(member, old()), range(member, get("k")));
    let expected = read(&member);
    assert_eq!(member.store.counters().overlay_hits, 2);
    member.flush();
    assert_eq!(read(&member), expected);
    let counters = member.store.counters();
    assert_eq!((counters.cache_hits, counters.cache_misses), (1, 1), "only the newest of a key goes to the cache");
    assert_eq!(read(&member), expected);
    assert_eq!(member.store.counters().cache_misses, 1, "what was read is kept");
    assert_eq!(read(&member.crash()), expected);
}
