//! Random requests over few keys, so that they meet; valid ones, as the API lets them through.

use bytes::Bytes;
use garboard_mvcc::validate;
use garboard_proto::etcdserverpb::compare::TargetUnion;
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::*;
use garboard_proto::raft::command::Op;
use proptest::prelude::*;

/// What happens to a member: a command, or something that only this member knows of.
#[derive(Debug, Clone)]
pub enum Step {
    Apply(Op),
    FinishEntry,
    Flush,
    Compact(usize),
    /// Only in tests that look for it.
    Crash,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "aa", "ab", "b", "c", "d"]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        1 => Just(Bytes::from("\0")),
        2 => prop::sample::select(vec!["ab", "b", "c", "z"]).prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2", "longer than the others"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 2 => 1i64..4]
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 1 => -2i64..1, 3 => 1i64..40]
}

pub fn range() -> impl Strategy<Value = RangeRequest> {
    let filter = || prop_oneof![3 => Just(0i64), 1 => 1i64..30];
    let filters = prop_oneof![2 => Just((0, 0, 0, 0)), 1 => (filter(), filter(), filter(), filter())];
    let limit = prop_oneof![2 => Just(0i64), 3 => 1i64..6, 1 => Just(-1i64)];
    (key(), range_end(), limit, revision(), 0i32..3, 0i32..5, any::<bool>(), prop::bool::weighted(0.15), filters)
        .prop_map(|(key, range_end, limit, revision, sort_order, sort_target, keys_only, count_only, filters)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: false,
                keys_only,
                count_only,
                min_mod_revision: filters.0,
                max_mod_revision: filters.1,
                min_create_revision: filters.2,
                max_create_revision: filters.3,
            }
        })
}

fn put() -> impl Strategy<Value = PutRequest> {
    let rarely = || prop::bool::weighted(0.12);
    (key(), value(), lease(), any::<bool>(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete_range() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    let target = prop_oneof![
        (0i64..3).prop_map(TargetUnion::Version),
        (0i64..20).prop_map(TargetUnion::CreateRevision),
        (0i64..20).prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        lease().prop_map(TargetUnion::Lease),
    ];
    (key(), range_end(), 0i32..4, target).prop_map(|(key, range_end, result, target_union)| {
        let target = match target_union {
            TargetUnion::Version(_) => 0,
            TargetUnion::CreateRevision(_) => 1,
            TargetUnion::ModRevision(_) => 2,
            TargetUnion::Value(_) => 3,
            TargetUnion::Lease(_) => 4,
        };
        Compare { result, target, key, range_end, target_union: Some(target_union) }
    })
}

pub fn txn() -> impl Strategy<Value = TxnRequest> {
    let leaf = prop_oneof![
        3 => put().prop_map(Request::RequestPut),
        2 => delete_range().prop_map(Request::RequestDeleteRange),
        3 => range().prop_map(Request::RequestRange),
    ]
    .prop_map(|request| RequestOp { request: Some(request) });
    let of = |op: BoxedStrategy<RequestOp>| {
        let compares = prop::collection::vec(compare(), 0..3);
        let ops = || prop::collection::vec(op.clone(), 0..4);
        (compares, ops(), ops()).prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let nested = leaf.prop_recursive(2, 12, 3, move |op| {
        of(op).prop_map(|txn| RequestOp { request: Some(Request::RequestTxn(txn)) })
    });
    of(nested.boxed())
        .prop_filter("as validated", |txn| validate::txn(txn, 128).is_ok() && !ignores_deleted(txn, &mut Vec::new()))
}

/// A put that ignores what an earlier delete of the same transaction removed: etcd panics on it, no model is needed.
fn ignores_deleted(txn: &TxnRequest, deleted: &mut Vec<DeleteRangeRequest>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op.request.as_ref().expect("given") {
        Request::RequestDeleteRange(delete) => {
            deleted.push(delete.clone());
            false
        }
        Request::RequestPut(put) => (put.ignore_lease || put.ignore_value) && !deleted.is_empty(),
        Request::RequestTxn(nested) => ignores_deleted(nested, deleted),
        Request::RequestRange(_) => false,
    })
}

pub fn command() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => put().prop_map(Op::Put),
        3 => delete_range().prop_map(Op::DeleteRange),
        6 => txn().prop_map(Op::Txn),
        2 => (1i64..4, 5i64..9).prop_map(|(id, ttl)| Op::LeaseGrant(LeaseGrantRequest { id, ttl })),
        1 => (1i64..4).prop_map(|id| Op::LeaseRevoke(LeaseRevokeRequest { id })),
        2 => (0i64..40).prop_map(|revision| Op::Compaction(CompactionRequest { revision, physical: false })),
    ]
}

pub fn steps(crashes: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => command().prop_map(Step::Apply),
        6 => Just(Step::FinishEntry),
        3 => Just(Step::Flush),
        3 => (1usize..4).prop_map(Step::Compact),
        u32::from(crashes) => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}
