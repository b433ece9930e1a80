//! What raised alarms close, as probed on etcd 3.6.16.

use garboard_mvcc::{Error, FIRST_FORMAT, Response};
use garboard_proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, TxnRequest};
use garboard_proto::raft::command::Op;
use garboard_proto::raft::{ClusterVersion, Downgrade, FormatVersion};

use crate::member::*;

const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;

fn alarm(member: &mut Member, action: i32, member_id: u64, alarm: AlarmType) -> Vec<AlarmMember> {
    match member.apply(Op::Alarm(AlarmRequest { action, member_id, alarm: alarm as i32 })) {
        Ok(Response::Alarm(response)) => {
            assert_eq!(response.header.unwrap().revision, member.revision());
            response.alarms
        }
        other => panic!("{other:?}"),
    }
}

fn raised(member_id: u64, alarm: AlarmType) -> AlarmMember {
    AlarmMember { member_id, alarm: alarm as i32 }
}

#[test]
fn alarms_are_kept_by_member_and_type() {
    let mut member = Member::new();
    let (space, corrupt) = (raised(7, AlarmType::Nospace), raised(8, AlarmType::Corrupt));
    assert_eq!(alarm(&mut member, ACTIVATE, 7, AlarmType::Nospace), [space]);
    assert_eq!(alarm(&mut member, ACTIVATE, 7, AlarmType::Nospace), [space], "raising again changes nothing");
    assert_eq!(alarm(&mut member, ACTIVATE, 7, AlarmType::None), []);
    assert_eq!(alarm(&mut member, ACTIVATE, 8, AlarmType::Corrupt), [corrupt]);
    assert_eq!(alarm(&mut member, GET, 0, AlarmType::None), [space, corrupt]);
    assert_eq!(alarm(&mut member, GET, 0, AlarmType::Corrupt), [corrupt]);
    let reopened = member.flushed_crash();
    assert_eq!(reopened.store.alarms(), [space, corrupt]);
    assert_eq!(alarm(&mut member, DEACTIVATE, 8, AlarmType::Nospace), [], "it is member 7 that raised it");
    assert_eq!(alarm(&mut member, DEACTIVATE, 7, AlarmType::Nospace), [space]);
    assert!(!member.store.has_alarm(AlarmType::Nospace) && member.store.has_alarm(AlarmType::Corrupt));
    assert_eq!(member.flushed_crash().store.alarms(), [corrupt]);
}

#[test]
fn no_space_refuses_what_may_grow_the_database() {
    let mut member = Member::new();
    member.put("k", "1");
    member.grant(1, 60).unwrap();
    alarm(&mut member, ACTIVATE, 7, AlarmType::Nospace);
    assert_eq!(member.put_with(put("k", "2")), Err(Error::NoSpace));
    assert_eq!(member.grant(2, 60), Err(Error::NoSpace));
    let put_in_the_other_branch = TxnRequest { failure: vec![put_op("k", "2")], ..TxnRequest::default() };
    assert_eq!(member.txn(put_in_the_other_branch), Err(Error::NoSpace));
    let nested = then(vec![txn_op(then(vec![put_op("k", "2")]))]);
    assert_eq!(member.txn(nested), Err(Error::NoSpace));
    assert!(member.txn(then(vec![range_op(get("k"))])).is_ok());
    assert!(member.txn(then(vec![delete_op("x", "")])).is_ok());
    assert_eq!(member.delete(delete("k", "")).deleted, 1);
    assert_eq!(member.revoke(1), Ok(()));
    assert_eq!(member.compact(2), Ok(()));
    assert!(member.range(all()).is_ok());
    alarm(&mut member, DEACTIVATE, 7, AlarmType::Nospace);
    assert!(member.put_with(put("k", "2")).is_ok());
}

#[test]
fn corrupt_refuses_every_write_but_no_read() {
    let mut member = Member::new();
    member.put("k", "1");
    member.grant(1, 60).unwrap();
    alarm(&mut member, ACTIVATE, 7, AlarmType::Nospace);
    alarm(&mut member, ACTIVATE, 7, AlarmType::Corrupt);
    assert_eq!(member.put_with(put("k", "2")), Err(Error::Corrupt), "before NOSPACE");
    assert_eq!(member.apply(Op::DeleteRange(delete("k", ""))), Err(Error::Corrupt));
    assert_eq!(member.txn(then(vec![delete_op("k", "")])), Err(Error::Corrupt));
    assert_eq!(member.compact(2), Err(Error::Corrupt));
    assert_eq!((member.grant(2, 60), member.revoke(1)), (Err(Error::Corrupt), Err(Error::Corrupt)));
    assert_eq!(member.all().len(), 1);
    assert!(member.store.read_txn(&then(vec![range_op(get("k"))])).is_ok());
    let version = ClusterVersion { version: "3.7.0".into() };
    assert_eq!(member.apply(Op::ClusterVersion(version)), Ok(Response::ClusterVersion));
}

#[test]
fn the_cluster_version_outlives_a_restart() {
    let mut member = Member::new();
    assert_eq!(member.store.cluster_version(), None);
    member.apply(Op::ClusterVersion(ClusterVersion { version: "3.6.0".into() })).unwrap();
    assert_eq!(member.flushed_crash().store.cluster_version().as_deref(), Some("3.6.0"));
}

#[test]
fn the_format_outlives_a_restart_and_never_goes_back() {
    let mut member = Member::new();
    assert_eq!(member.store.format_version(), FIRST_FORMAT);
    member.apply(Op::FormatVersion(FormatVersion { version: 3 })).unwrap();
    member.apply(Op::FormatVersion(FormatVersion { version: 2 })).unwrap();
    assert_eq!(member.store.format_version(), 3);
    assert_eq!(member.flushed_crash().store.format_version(), 3);
}

#[test]
fn a_downgrade_outlives_a_restart_until_it_is_cancelled() {
    let mut member = Member::new();
    member.apply(Op::Downgrade(Downgrade { target: "3.5.0".into() })).unwrap();
    assert_eq!(member.store.downgrade_target().as_deref(), Some("3.5.0"));
    let mut member = member.flushed_crash();
    assert_eq!(member.store.downgrade_target().as_deref(), Some("3.5.0"));
    member.apply(Op::Downgrade(Downgrade::default())).unwrap();
    assert_eq!(member.store.downgrade_target(), None);
    assert_eq!(member.flushed_crash().store.downgrade_target(), None);
}
