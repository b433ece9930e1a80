//! Random requests with random flushes, compaction steps and crashes in between, against the model.

use garboard_mvcc::{CompactionStep, Error, Response, StoreOptions};
use garboard_proto::raft::command::Op;
use proptest::prelude::*;

use crate::member::Member;
use crate::model::Model;
use crate::requests::{Step, range, steps};

fn apply_to_model(model: &mut Model, op: &Op) -> Result<Option<Response>, Error> {
    match op {
        Op::Put(request) => model.put(request).map(|response| Some(Response::Put(response))),
        Op::DeleteRange(request) => Ok(Some(Response::DeleteRange(model.delete_range(request)))),
        Op::Txn(request) => model.txn(request).map(|response| Some(Response::Txn(response))),
        Op::LeaseGrant(request) => model.grant(request.id, request.ttl).map(|()| None),
        Op::LeaseRevoke(request) => model.revoke(request.id).map(|()| None),
        Op::Compaction(request) => model.compact(request.revision).map(|()| None),
        other => panic!("not generated: {other:?}"),
    }
}

fn compare(
    member: &Member,
    model: &Model,
    ranges: &[garboard_proto::etcdserverpb::RangeRequest],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(member.revision(), model.revision());
    prop_assert_eq!(member.store.compact_revision(), model.compacted);
    for request in ranges {
        let (found, mut expected) = (member.range(request.clone()), model.range(request));
        if let (Ok(found), Ok(expected)) = (&found, &mut expected)
            && request.sort_target != 0
            && found.kvs.len() == expected.kvs.len()
        {
            // Ties have no order, but each value that is sorted by has its place.
            let sorted_by = |kv: &garboard_proto::mvccpb::KeyValue| match request.sort_target {
                1 => (kv.version, Vec::new()),
                2 => (kv.create_revision, Vec::new()),
                3 => (kv.mod_revision, Vec::new()),
                _ if request.keys_only => (0, Vec::new()),
                _ => (0, kv.value.to_vec()),
            };
            let order = |kvs: &[garboard_proto::mvccpb::KeyValue]| kvs.iter().map(sorted_by).collect::<Vec<_>>();
            prop_assert_eq!(order(&found.kvs), order(&expected.kvs), "{:?}", request);
            expected.kvs = found.kvs.clone();
        }
        prop_assert_eq!(found, expected, "{:?}", request);
    }
    for id in 1..4 {
        let leased = member.store.lease(id).map(|lease| lease.keys);
        prop_assert_eq!(leased, model.leases.contains_key(&id).then(|| model.leased(id)));
    }
    Ok(())
}

/// Small bounds, so that every path is taken: nearly no cache, compaction that has to wait for flushes.
fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 16 * 2000, compaction_rows_pending: 5, ..StoreOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_model(steps in steps(false), ranges in prop::collection::vec(range(), 12)) {
        let (mut member, mut model) = (Member::with(options()), Model::new());
        for step in steps {
            match step {
                Step::Apply(op) => {
                    let expected = apply_to_model(&mut model, &op);
                    let found = member.apply_open(op.clone());
                    match expected {
                        Ok(Some(expected)) => prop_assert_eq!(found.map(untied), Ok(untied(expected)), "{:?}", op),
                        Ok(None) => prop_assert!(found.is_ok(), "{:?}", op),
                        Err(expected) => prop_assert_eq!(found, Err(expected), "{:?}", op),
                    }
                }
                Step::FinishEntry => member.finish_entry(),
                Step::Flush => { member.flush(); }
                Step::Compact(rows) => { member.store.compaction_step(rows).expect("compaction"); }
                Step::Crash => unreachable!("not asked for"),
            }
            compare(&member, &model, &ranges[..2])?;
        }
        compare(&member, &model, &ranges)?;
    }

    #[test]
    fn a_crash_at_any_point_and_a_replay_give_the_same_state(steps in steps(true), ranges in prop::collection::vec(range(), 6)) {
        let (mut member, mut model) = (Member::with(options()), Model::new());
        let mut log: Vec<Vec<Op>> = vec![Vec::new()];
        for step in steps {
            match step {
                Step::Apply(op) => {
                    let _ = apply_to_model(&mut model, &op);
                    let _ = member.apply_open(op.clone());
                    log.last_mut().expect("never empty").push(op);
                }
                Step::FinishEntry => {
                    member.finish_entry();
                    log.push(Vec::new());
                }
                Step::Flush => { member.flush(); }
                Step::Compact(rows) => { member.store.compaction_step(rows).expect("compaction"); }
                Step::Crash => {
                    // The log has the current entry too: it was proposed, or nothing of it was applied.
                    member = member.crash();
                    let applied = usize::try_from(member.store.applied().index).expect("small");
                    let open = log.len() - 1;
                    for (position, entry) in log.iter().enumerate().skip(applied) {
                        for op in entry {
                            let _ = member.apply_open(op.clone());
                        }
                        if position < open {
                            member.finish_entry();
                        }
                    }
                }
            }
            compare(&member, &model, &ranges[..1])?;
        }
        member.finish_entry();
        while member.store.compaction_step(2).expect("compaction") != CompactionStep::Idle {
            member.flush();
        }
        member.flush();
        compare(&member, &model, &ranges)?;
        let reopened = member.crash();
        compare(&reopened, &model, &ranges)?;
        prop_assert_eq!(reopened.store.hash(), member.store.hash());
        prop_assert_eq!(reopened.store.compaction_step(1), Ok(CompactionStep::Idle));
    }
}

/// Ranges in a transaction with their ties in one order.
fn untied(mut response: Response) -> Response {
    fn sort(response: &mut garboard_proto::etcdserverpb::TxnResponse) {
        use garboard_proto::etcdserverpb::response_op::Response;
        for op in &mut response.responses {
            match &mut op.response {
                Some(Response::ResponseRange(range)) if range.more => range.kvs.clear(),
                Some(Response::ResponseRange(range)) => range.kvs.sort_by(|a, b| a.key.cmp(&b.key)),
                Some(Response::ResponseTxn(nested)) => sort(nested),
                _ => {}
            }
        }
    }
    if let Response::Txn(response) = &mut response {
        sort(response);
    }
    response
}
