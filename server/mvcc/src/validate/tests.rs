use bytes::Bytes;
use garboard_proto::etcdserverpb::{Compare, LeaseGrantRequest};
use garboard_proto::raft;

use prost::Message as _;

use super::*;

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &'static str) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: Bytes::from(key), ..PutRequest::default() }))
}

fn delete_op(key: &'static str, range_end: &'static str) -> RequestOp {
    let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false }))
}

fn range_op(key: &'static str, serializable: bool) -> RequestOp {
    op(Request::RequestRange(RangeRequest { key: Bytes::from(key), serializable, ..RangeRequest::default() }))
}

fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    op(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure }))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

#[test]
fn overlapping_writes_of_a_branch_are_refused() {
    let duplicate = Err(Invalid::DuplicateKey);
    let cases = [
        (vec![put_op("a"), put_op("b")], Ok(())),
        (vec![put_op("a"), put_op("a")], duplicate),
        (vec![delete_op("a", ""), put_op("a")], duplicate),
        (vec![put_op("a"), delete_op("a", "")], duplicate),
        (vec![delete_op("a", "c"), put_op("b")], duplicate),
        (vec![delete_op("a", "c"), put_op("c")], Ok(())),
        (vec![delete_op("a", "c"), delete_op("b", "d")], Ok(())),
        (vec![delete_op("a", "c"), delete_op("b", "f"), delete_op("h", "i"), put_op("e")], duplicate),
        (vec![delete_op("c", "d"), delete_op("a", "b"), delete_op("b", "c"), put_op("bb")], duplicate),
        (vec![put_op("a"), nested(vec![put_op("a")], vec![])], duplicate),
        (vec![nested(vec![put_op("a")], vec![put_op("a")])], Ok(())),
        (vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])], duplicate),
        (vec![delete_op("a", "z"), nested(vec![], vec![put_op("k")])], duplicate),
        (vec![nested(vec![delete_op("a", "")], vec![]), put_op("a")], duplicate),
        (vec![nested(vec![nested(vec![], vec![put_op("x")])], vec![]), put_op("x")], duplicate),
        (vec![nested(vec![delete_op("a", "")], vec![put_op("a")])], Ok(())),
        // etcd does not see these; the state machine has to cope with them.
        (vec![nested(vec![put_op("a")], vec![]), nested(vec![delete_op("a", "")], vec![])], Ok(())),
        (vec![delete_op("a", "\0"), put_op("b")], Ok(())),
        (vec![delete_op("c", "a"), put_op("b")], Ok(())),
    ];
    for (ops, expected) in cases {
        let failure = TxnRequest { failure: ops.clone(), ..TxnRequest::default() };
        assert_eq!(txn(&failure, 128), expected, "{ops:?}");
        assert_eq!(txn(&then(ops), 128), expected);
    }
}

#[test]
fn branches_exclude_each_other() {
    let request = TxnRequest { success: vec![put_op("a")], failure: vec![delete_op("a", "")], compare: vec![] };
    assert_eq!(txn(&request, 128), Ok(()));
}

#[test]
fn nested_transactions_share_the_budget_of_operations() {
    assert_eq!(txn(&then(vec![put_op("a"), put_op("b")]), 2), Ok(()));
    assert_eq!(txn(&then(vec![put_op("a"), put_op("b")]), 1), Err(Invalid::TooManyOps));
    let compare = Compare { key: Bytes::from("k"), ..Compare::default() };
    let compares = TxnRequest { compare: vec![compare; 3], ..TxnRequest::default() };
    assert_eq!(txn(&compares, 2), Err(Invalid::TooManyOps));
    let two_levels = then(vec![nested(vec![put_op("a")], vec![])]);
    assert_eq!(txn(&two_levels, 2), Ok(()));
    assert_eq!(txn(&two_levels, 1), Err(Invalid::TooManyOps));
}

#[test]
fn malformed_operations_are_refused() {
    assert_eq!(range(&RangeRequest::default()), Err(Invalid::EmptyKey));
    assert_eq!(delete_range(&DeleteRangeRequest::default()), Err(Invalid::EmptyKey));
    assert_eq!(txn(&then(vec![RequestOp { request: None }]), 128), Err(Invalid::KeyNotFound));
    assert_eq!(txn(&then(vec![put_op("")]), 128), Err(Invalid::EmptyKey));
    assert_eq!(txn(&then(vec![nested(vec![], vec![range_op("", false)])]), 128), Err(Invalid::EmptyKey));
    let compare = TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() };
    assert_eq!(txn(&compare, 128), Err(Invalid::EmptyKey));
    let key = Bytes::from("k");
    let sorted =
        |sort_order, sort_target| RangeRequest { key: key.clone(), sort_order, sort_target, ..Default::default() };
    assert_eq!(range(&sorted(2, 4)), Ok(()));
    assert_eq!(range(&sorted(3, 0)), Err(Invalid::InvalidSortOption));
    assert_eq!(range(&sorted(0, 5)), Err(Invalid::InvalidSortOption));
    let value = PutRequest { key: key.clone(), value: key.clone(), ignore_value: true, ..Default::default() };
    assert_eq!(put(&value), Err(Invalid::ValueProvided));
    let lease = PutRequest { key: key.clone(), lease: 1, ignore_lease: true, ..Default::default() };
    assert_eq!(put(&lease), Err(Invalid::LeaseProvided));
}

#[test]
fn streams_take_the_index_order_only() {
    let request = RangeRequest { key: Bytes::from("k"), ..Default::default() };
    assert_eq!(range_stream(&request), Ok(()));
    assert_eq!(range_stream(&RangeRequest { sort_order: 1, ..request.clone() }), Ok(()));
    let by_value = range_stream(&RangeRequest { sort_target: SortTarget::Value as i32, ..request.clone() });
    assert_eq!(by_value, Err(Invalid::StreamSortOrder), "NONE sorts, too, when it is not by the key");
    assert_eq!(range_stream(&RangeRequest { sort_order: 2, ..request.clone() }), Err(Invalid::StreamSortOrder));
    let filtered = RangeRequest { min_create_revision: 1, ..request };
    assert_eq!(range_stream(&filtered), Err(Invalid::StreamRevisionFilters));
}

#[test]
fn costs_are_those_of_etcd() {
    let command = |op| Command { op: Some(op) };
    let put = PutRequest { key: Bytes::from("key"), value: Bytes::from("value"), ..Default::default() };
    assert_eq!(cost(&command(Op::Put(put))), 264);
    assert_eq!(cost(&command(Op::LeaseGrant(LeaseGrantRequest::default()))), 64);
    assert_eq!(cost(&command(Op::DeleteRange(DeleteRangeRequest::default()))), 0);
    let two_branches = TxnRequest {
        compare: Vec::new(),
        success: vec![delete_op("a", ""), range_op("a", false)],
        failure: vec![put_op("ab"), nested(vec![put_op("abc")], vec![put_op("a")])],
    };
    assert_eq!(cost(&command(Op::Txn(two_branches))), 258 + 259);
    assert_eq!(cost(&command(Op::Txn(then(vec![delete_op("a", "")])))), 0);
}

#[test]
fn knows_what_needs_no_log() {
    assert!(is_read_only(&TxnRequest::default()));
    let request = then(vec![range_op("a", true), range_op("b", true)]);
    assert!(is_read_only(&request) && is_serializable(&request));
    let request = then(vec![range_op("a", true), range_op("b", false)]);
    assert!(is_read_only(&request) && !is_serializable(&request));
    let request = TxnRequest { failure: vec![delete_op("a", "")], ..TxnRequest::default() };
    assert!(!is_read_only(&request) && !is_serializable(&request));
    let request = then(vec![nested(vec![range_op("a", true)], vec![])]);
    assert!(!is_read_only(&request) && !is_serializable(&request));
}

#[test]
fn what_is_nested_as_deep_as_allowed_can_be_read_from_the_log() {
    let deep = |levels| {
        let mut request = TxnRequest { success: vec![put_op("k")], ..Default::default() };
        for _ in 0..levels {
            request = TxnRequest { success: vec![nested(request.success, vec![])], ..Default::default() };
        }
        request
    };
    assert_eq!(txn(&deep(NESTED_MAX + 1), 128), Err(Invalid::TooManyOps));
    assert_eq!(txn(&deep(NESTED_MAX), 128), Ok(()));
    let command = raft::Command { op: Some(raft::command::Op::Txn(deep(NESTED_MAX))) };
    let batch = raft::Batch { commands: vec![command], ..raft::Batch::default() };
    assert_eq!(raft::Batch::decode(&batch.encode_to_vec()[..]), Ok(batch));
}
