//! Requests that a client sends, in sequences that reach each part of the state machine.

use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::compare::TargetUnion;
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::watch_request::RequestUnion;
use prost::Message;

use crate::input::put_chunk;
use crate::requests::Kind;

pub fn sequences() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("puts", puts()),
        ("txn", txns()),
        ("leases", leases()),
        ("watch", watches()),
        ("history", history()),
        ("alarms", alarms()),
        ("others", others()),
    ]
}

#[derive(Default)]
struct Sequence(Vec<u8>);

impl Sequence {
    fn ask(mut self, kind: Kind, request: &impl Message) -> Self {
        self.0.push(kind as u8);
        put_chunk(&mut self.0, &request.encode_to_vec());
        self
    }

    fn own(mut self, kind: Kind) -> Self {
        self.0.push(kind as u8);
        put_chunk(&mut self.0, &[]);
        self
    }

    fn put(self, key: &'static str, value: &'static str) -> Self {
        self.ask(Kind::Put, &put(key, value))
    }
}

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: true }
}

fn puts() -> Vec<u8> {
    let sorted = pb::RangeRequest { sort_order: 2, sort_target: 4, limit: 1, ..all() };
    let filtered = pb::RangeRequest { min_mod_revision: 2, max_create_revision: 3, count_only: true, ..all() };
    Sequence::default()
        .put("a", "1")
        .put("b", "2")
        .ask(Kind::Put, &pb::PutRequest { prev_kv: true, ignore_value: true, ..put("a", "") })
        .ask(Kind::Range, &sorted)
        .ask(Kind::Range, &filtered)
        .ask(Kind::Range, &pb::RangeRequest { revision: 2, keys_only: true, ..all() })
        .ask(Kind::RangeStream, &all())
        .ask(Kind::DeleteRange, &delete("a", "b"))
        .ask(Kind::HashKv, &pb::HashKvRequest { revision: 3 })
        .0
}

fn compare(target: pb::compare::CompareTarget, expected: TargetUnion) -> pb::Compare {
    let (result, target) = (pb::compare::CompareResult::Equal.into(), target.into());
    pb::Compare { result, target, key: "a".into(), range_end: "c".into(), target_union: Some(expected) }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn txns() -> Vec<u8> {
    let nested = pb::TxnRequest {
        compare: vec![compare(pb::compare::CompareTarget::Value, TargetUnion::Value("1".into()))],
        success: vec![op(Request::RequestPut(put("d", "4")))],
        failure: vec![op(Request::RequestRange(all()))],
    };
    let txn = pb::TxnRequest {
        compare: vec![
            compare(pb::compare::CompareTarget::Mod, TargetUnion::ModRevision(2)),
            compare(pb::compare::CompareTarget::Lease, TargetUnion::Lease(0)),
        ],
        success: vec![
            op(Request::RequestPut(put("c", "3"))),
            op(Request::RequestDeleteRange(delete("a", ""))),
            op(Request::RequestTxn(nested.clone())),
        ],
        failure: vec![op(Request::RequestTxn(nested.clone()))],
    };
    let reads = pb::TxnRequest { success: vec![op(Request::RequestRange(all()))], ..nested };
    Sequence::default().put("a", "1").ask(Kind::Txn, &txn).ask(Kind::Txn, &reads).ask(Kind::Txn, &txn).0
}

fn leases() -> Vec<u8> {
    Sequence::default()
        .ask(Kind::LeaseGrant, &pb::LeaseGrantRequest { id: 7, ttl: 60 })
        .ask(Kind::Put, &pb::PutRequest { lease: 7, ..put("a", "1") })
        .ask(Kind::Put, &pb::PutRequest { ignore_lease: true, ..put("a", "2") })
        .ask(Kind::LeaseTimeToLive, &pb::LeaseTimeToLiveRequest { id: 7, keys: true })
        .own(Kind::Restart)
        .ask(Kind::LeaseRevoke, &pb::LeaseRevokeRequest { id: 7 })
        .0
}

fn watches() -> Vec<u8> {
    let create = |start_revision, fragment| {
        let request = pb::WatchCreateRequest {
            key: "a".into(),
            range_end: "z".into(),
            start_revision,
            prev_kv: true,
            fragment,
            progress_notify: true,
            ..Default::default()
        };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
    };
    let cancel = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 });
    let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    Sequence::default()
        .put("a", "1")
        .ask(Kind::Watch, &create(0, false))
        .put("a", "2")
        .ask(Kind::Watch, &create(1, true))
        .ask(Kind::DeleteRange, &delete("a", ""))
        .ask(Kind::Watch, &pb::WatchRequest { request_union: Some(progress) })
        .ask(Kind::Watch, &pb::WatchRequest { request_union: Some(cancel) })
        .put("b", "3")
        .0
}

fn history() -> Vec<u8> {
    Sequence::default()
        .put("a", "1")
        .put("a", "2")
        .put("b", "3")
        .own(Kind::Flush)
        .ask(Kind::DeleteRange, &delete("b", ""))
        .ask(Kind::Compact, &pb::CompactionRequest { revision: 4, physical: true })
        .own(Kind::CompactionStep)
        .own(Kind::CompactionStep)
        .ask(Kind::Range, &pb::RangeRequest { revision: 4, ..all() })
        .ask(Kind::HashKv, &pb::HashKvRequest { revision: 0 })
        .own(Kind::Restart)
        .put("b", "4")
        .0
}

fn alarms() -> Vec<u8> {
    let alarm = |action, alarm| pb::AlarmRequest { action, member_id: 1, alarm };
    Sequence::default()
        .ask(Kind::Alarm, &alarm(1, 1))
        .put("a", "1")
        .ask(Kind::Alarm, &alarm(0, 0))
        .ask(Kind::Alarm, &alarm(2, 1))
        .put("a", "1")
        .0
}

fn others() -> Vec<u8> {
    let member = pb::MemberAddRequest { peer_ur_ls: vec!["http://h:1".into()], is_learner: true };
    let user = pb::AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    let mut sequence = Sequence::default();
    for (which, body) in [(2, member.encode_to_vec()), (20, user.encode_to_vec())] {
        sequence.0.push(Kind::Other as u8);
        put_chunk(&mut sequence.0, &[&[which][..], &body].concat());
    }
    sequence.0
}
