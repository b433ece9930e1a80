//! Transactions, sentence by sentence.

use garboard_mvcc::Error;
use garboard_proto::etcdserverpb::compare::TargetUnion;
use garboard_proto::etcdserverpb::response_op::Response;
use garboard_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, ResponseHeader, TxnRequest, TxnResponse};

use crate::member::*;

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const NOT_EQUAL: i32 = 3;

fn compare(key: &str, range_end: &str, result: i32, target_union: TargetUnion) -> Compare {
    let target = match target_union {
        TargetUnion::Version(_) => 0,
        TargetUnion::CreateRevision(_) => 1,
        TargetUnion::ModRevision(_) => 2,
        TargetUnion::Value(_) => 3,
        TargetUnion::Lease(_) => 4,
    };
    Compare { result, target, key: bytes(key), range_end: bytes(range_end), target_union: Some(target_union) }
}

fn holds(member: &Member, compare: Compare) -> bool {
    let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
    member.store.read_txn(&request).unwrap().succeeded
}

fn value(text: &str) -> TargetUnion {
    TargetUnion::Value(bytes(text))
}

fn ranges(response: &TxnResponse) -> Vec<Vec<String>> {
    let of = |op: &garboard_proto::etcdserverpb::ResponseOp| match op.response.as_ref() {
        Some(Response::ResponseRange(range)) => Some(range.kvs.iter().map(|kv| text(&kv.value)).collect()),
        _ => None,
    };
    response.responses.iter().filter_map(of).collect()
}

#[test]
fn a_missing_key_compares_as_zero_and_never_by_value() {
    let member = Member::new();
    for target in
        [TargetUnion::Version(0), TargetUnion::CreateRevision(0), TargetUnion::ModRevision(0), TargetUnion::Lease(0)]
    {
        for range_end in ["", "z", "\0"] {
            assert!(holds(&member, compare("k", range_end, EQUAL, target.clone())));
            assert!(!holds(&member, compare("k", range_end, NOT_EQUAL, target.clone())));
            assert!(!holds(&member, compare("k", range_end, GREATER, target.clone())));
        }
    }
    for result in [EQUAL, NOT_EQUAL, LESS, GREATER] {
        assert!(!holds(&member, compare("k", "", result, value(""))));
        assert!(!holds(&member, compare("k", "z", result, value("x"))));
    }
}

#[test]
fn a_compare_over_a_range_holds_for_every_key_of_it() {
    let mut member = Member::new();
    member.grant(3, 60).unwrap();
    for key in 0..600 {
        member.put_with(PutRequest { lease: 3, ..put(&format!("k{key:04}"), "v") }).unwrap();
    }
    assert!(holds(&member, compare("k", "l", EQUAL, value("v"))));
    assert!(holds(&member, compare("k", "l", EQUAL, TargetUnion::Lease(3))));
    assert!(holds(&member, compare("k", "l", LESS, TargetUnion::ModRevision(602))));
    member.put("k0400", "w");
    assert!(!holds(&member, compare("k", "l", EQUAL, value("v"))));
    assert!(holds(&member, compare("k", "k0400", EQUAL, value("v"))));
    assert!(!holds(&member, compare("k", "l", EQUAL, TargetUnion::Lease(3))));
    assert!(!holds(&member, compare("k", "l", EQUAL, TargetUnion::Version(1))));
    assert!(holds(&member, compare("k", "l", GREATER, TargetUnion::Version(0))));
}

#[test]
fn reads_see_what_the_transaction_wrote_before_them() {
    let mut member = Member::new();
    member.put("k", "0");
    let response = member
        .txn(then(vec![
            range_op(get("k")),
            put_op("k", "1"),
            range_op(get("k")),
            range_op(RangeRequest { revision: 2, ..get("k") }),
            delete_op("m", ""),
            txn_op(then(vec![range_op(get("k"))])),
        ]))
        .unwrap();
    assert_eq!(ranges(&response), [["0"], ["1"], ["0"]]);
    let revisions: Vec<i64> = response
        .responses
        .iter()
        .map(|op| match op.response.as_ref().unwrap() {
            Response::ResponseRange(range) => range.header.unwrap().revision,
            Response::ResponsePut(put) => put.header.unwrap().revision,
            Response::ResponseDeleteRange(delete) => delete.header.unwrap().revision,
            Response::ResponseTxn(txn) => {
                assert_eq!(ranges(txn), [["1"]]);
                txn.header.unwrap().revision
            }
        })
        .collect();
    assert_eq!(revisions, [2, 3, 3, 3, 3, 0], "the header of a nested transaction is empty");
    assert_eq!(response.header, Some(ResponseHeader { revision: 3, ..ResponseHeader::default() }));
}

#[test]
fn nested_compares_look_at_the_state_before_the_transaction() {
    let mut member = Member::new();
    let nested = TxnRequest {
        compare: vec![compare("k", "", GREATER, TargetUnion::Version(0))],
        success: vec![put_op("seen", "")],
        failure: vec![put_op("unseen", "")],
    };
    member.txn(then(vec![put_op("k", "1"), txn_op(nested)])).unwrap();
    assert_eq!(member.all().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["k", "unseen"]);
}

#[test]
fn a_transaction_that_fails_leaves_no_trace() {
    let mut member = Member::new();
    member.put("k", "1");
    member.put("k", "2");
    member.compact(3).unwrap();
    let before = (member.revision(), member.store.hash());
    let ignore = PutRequest { ignore_value: true, ..put("missing", "") };
    let failing = [
        (op_put(ignore), Error::KeyNotFound),
        (op_put(PutRequest { lease: 5, ..put("l", "1") }), Error::LeaseNotFound),
        (range_op(RangeRequest { revision: 4, ..get("k") }), Error::FutureRevision),
        (range_op(RangeRequest { revision: 2, ..get("k") }), Error::Compacted),
    ];
    for (failing, error) in failing {
        let plain = then(vec![put_op("a", "1"), failing.clone()]);
        let nested = then(vec![put_op("a", "1"), txn_op(then(vec![put_op("b", "1"), failing.clone()]))]);
        assert_eq!(member.txn(plain), Err(error.clone()));
        assert_eq!(member.txn(nested), Err(error.clone()));
        let read_only = then(vec![range_op(get("k"))]);
        let other_branch = TxnRequest { failure: vec![failing], ..read_only };
        assert!(member.txn(other_branch).is_ok(), "only the branch that is taken counts");
    }
    assert_eq!((member.revision(), member.store.hash()), before);
}

fn op_put(request: PutRequest) -> garboard_proto::etcdserverpb::RequestOp {
    op(garboard_proto::etcdserverpb::request_op::Request::RequestPut(request))
}

#[test]
fn two_deletes_of_one_key_are_legal() {
    let mut member = Member::new();
    member.put("k", "1");
    let response = member.txn(then(vec![delete_op("k", ""), delete_op("a", "z")])).unwrap();
    let deleted: Vec<i64> = response
        .responses
        .iter()
        .map(|op| match op.response.as_ref().unwrap() {
            Response::ResponseDeleteRange(delete) => delete.deleted,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deleted, [1, 0]);
}

/// Validation cannot see these (see `validate::intervals`): they must do something sensible, and the same everywhere.
#[test]
fn what_validation_does_not_see_is_applied_in_order() {
    let mut member = Member::new();
    member.put("k", "1");
    let rebirth = then(vec![delete_op("a", "\0"), put_op("k", "2")]);
    member.txn(rebirth).unwrap();
    let kv = member.range(get("k")).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.version, text(&kv.value)), (3, 1, "2".into()));
    let ignoring = PutRequest { ignore_value: true, ..put("k", "") };
    member.txn(then(vec![delete_op("a", "\0"), op_put(ignoring)])).unwrap();
    assert_eq!(member.all(), [("k".into(), "".into())], "nothing is left to take the value from");
    member.txn(then(vec![txn_op(then(vec![put_op("k", "3")])), txn_op(then(vec![delete_op("k", "")]))])).unwrap();
    assert_eq!(member.all(), []);
    member.put("k", "4");
    for revision in 2..=member.revision() {
        member.compact(revision).unwrap();
        member.finish_compaction();
        assert_eq!(member.flushed_crash().store.hash(), member.store.hash());
    }
    assert_eq!(member.all(), [("k".into(), "4".into())]);
}

#[test]
fn read_only_transactions_need_no_log() {
    let mut member = Member::new();
    member.put("k", "1");
    let request = TxnRequest {
        compare: vec![compare("k", "", EQUAL, value("1"))],
        success: vec![range_op(get("k")), range_op(get("none"))],
        failure: vec![],
    };
    let response = member.store.read_txn(&request).unwrap();
    assert_eq!(Ok(&response), member.txn(request).as_ref());
    let future = then(vec![range_op(RangeRequest { revision: 9, ..get("k") })]);
    assert_eq!(member.store.read_txn(&future), Err(Error::FutureRevision));
}
