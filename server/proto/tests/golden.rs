//! The messages of log entries, of rows and between members are these bytes, in `golden/v1.txt`: a line for each, its name and its bytes in
//! hexadecimal. Every later release must read and write them as they are; what is new has lines of its own.

use std::fmt::Debug;
use std::fmt::Write as _;

use garboard_proto::etcdserverpb as etcd;
use garboard_proto::peers;
use garboard_proto::raft;
use garboard_proto::raft::command::Op;
use prost::Message;

const GOLDEN: &str = include_str!("../golden/v1.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// Checks message by message, and writes down what the file would have to be.
#[derive(Default)]
struct Check {
    lines: Vec<String>,
}

impl Check {
    fn message<M: Message + Default + PartialEq + Debug>(&mut self, name: &str, message: &M) {
        if let Some(golden) = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')) {
            assert_eq!(M::decode(&bytes(golden)[..]).as_ref(), Ok(message), "{name} is read as something else");
        }
        self.lines.push(format!("{name} {}", hex(&message.encode_to_vec())));
    }

    fn command(&mut self, name: &str, op: Op) {
        let command = raft::Command { op: Some(op) };
        self.message(name, &raft::Batch { commands: vec![command], origin: 7, sequence: 8 });
    }
}

fn position() -> raft::LogPosition {
    raft::LogPosition { term: 3, index: 70_000 }
}

fn vote() -> peers::Vote {
    peers::Vote { term: 3, voted_for: 0x8e9e_05c5_2164_694d, committed: true }
}

fn node() -> raft::Node {
    raft::Node {
        id: 0x8e9e_05c5_2164_694d,
        name: "default".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        client_urls: vec!["http://localhost:2379".into()],
        is_learner: true,
        incarnation: 11,
        promote: true,
        etcd_version: "3.6.16".into(),
        format: 1,
    }
}

fn membership() -> raft::StoredMembership {
    let voters = raft::VoterSet { ids: vec![1, 2, 3] };
    let membership = raft::Membership { configs: vec![voters], nodes: vec![node()] };
    raft::StoredMembership { at: Some(position()), membership: Some(membership), removed: vec![4, 5] }
}

fn put() -> etcd::PutRequest {
    etcd::PutRequest { key: "k".into(), value: "v".into(), lease: 9, prev_kv: true, ..Default::default() }
}

fn entries(check: &mut Check) {
    check.command("put", Op::Put(put()));
    let delete = etcd::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    check.command("delete_range", Op::DeleteRange(delete));
    let then = etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put())) };
    let compare = etcd::Compare {
        result: 1,
        target: 2,
        key: "k".into(),
        range_end: "l".into(),
        target_union: Some(etcd::compare::TargetUnion::ModRevision(6)),
    };
    let txn = etcd::TxnRequest { compare: vec![compare], success: vec![then.clone()], failure: vec![then] };
    check.command("txn", Op::Txn(txn));
    check.command("compaction", Op::Compaction(etcd::CompactionRequest { revision: 5, physical: true }));
    check.command("lease_grant", Op::LeaseGrant(etcd::LeaseGrantRequest { ttl: 60, id: 9 }));
    check.command("lease_revoke", Op::LeaseRevoke(etcd::LeaseRevokeRequest { id: 9 }));
    let leases = vec![raft::LeaseRemaining { id: 9, remaining_ttl_s: 30 }];
    check.command("lease_checkpoint", Op::LeaseCheckpoint(raft::LeaseCheckpoint { leases }));
    check.command("alarm", Op::Alarm(etcd::AlarmRequest { action: 1, member_id: 7, alarm: 2 }));
    check.command("cluster_version", Op::ClusterVersion(raft::ClusterVersion { version: "3.6.0".into() }));
    check.command("format_version", Op::FormatVersion(raft::FormatVersion { version: 2 }));
    check.command("downgrade", Op::Downgrade(raft::Downgrade { target: "3.5.0".into() }));
    check.message("membership", &membership());
    check.message("lease", &raft::LeaseRecord { id: 9, ttl_s: 60, remaining_ttl_s: 30 });
}

fn calls(check: &mut Check) {
    let last = Some(position());
    check.message("vote", &peers::VoteRequest { vote: Some(vote()), last, leadership_transfer: true });
    check.message("vote_answer", &peers::VoteResponse { vote: Some(vote()), granted: true, last });
    let entry = peers::Entry { term: 3, index: 70_001, kind: 1, payload: vec![1, 2].into() };
    let append = peers::AppendRequest { vote: Some(vote()), previous: last, entries: vec![entry], committed: last };
    check.message("append", &append);
    for (name, result) in [
        ("appended", peers::append_response::Result::Appended(peers::Appended { last })),
        ("append_conflict", peers::append_response::Result::Conflict(position())),
        ("append_higher_vote", peers::append_response::Result::HigherVote(vote())),
    ] {
        check.message(name, &peers::AppendResponse { result: Some(result) });
    }
    check.message("transfer", &peers::TransferLeaderRequest { from: Some(vote()), to: 7, last });
    check.message("transfer_answer", &peers::TransferLeaderResponse { refused: "no".into() });
    let point = peers::SnapshotPoint { rows: 9, crc32c: 0xdead_beef };
    let head = peers::SnapshotHead {
        vote: Some(vote()),
        last,
        membership: Some(membership()),
        id: 0x0123_4567_89ab_cdef,
        from: Some(point),
    };
    let rows = peers::SnapshotRows { table: 1, keys: vec!["k".into()], values: vec!["v".into()], crc32c: 0xdead_beef };
    for (name, part) in [
        ("snapshot_head", peers::snapshot_part::Part::Head(head)),
        ("snapshot_rows", peers::snapshot_part::Part::Rows(rows)),
        ("snapshot_end", peers::snapshot_part::Part::End(peers::SnapshotEnd { rows: 1 })),
    ] {
        check.message(name, &peers::SnapshotPart { part: Some(part) });
    }
    check.message("snapshot_answer", &peers::SnapshotResponse { vote: Some(vote()) });
    check.message("snapshot_held", &peers::SnapshotHeldRequest { id: 0x0123_4567_89ab_cdef });
    use peers::snapshot_held_response::Held;
    for (name, held) in [
        ("snapshot_point", Held::Point(point)),
        ("snapshot_taken", Held::Taken(peers::SnapshotResponse { vote: Some(vote()) })),
    ] {
        check.message(name, &peers::SnapshotHeldResponse { held: Some(held) });
    }
    check.message("propose", &peers::ProposeRequest { batch: vec![1, 2].into() });
    let refused = peers::Refused { reason: 2, leader: 7 };
    for (name, result) in [
        ("proposed", peers::propose_response::Result::Proposed(peers::Proposed {})),
        ("propose_refused", peers::propose_response::Result::Refused(refused)),
        ("propose_lost", peers::propose_response::Result::Lost(peers::Lost {})),
    ] {
        check.message(name, &peers::ProposeResponse { result: Some(result) });
    }
    for (name, result) in [
        ("read_index", peers::read_index_response::Result::Index(70_000)),
        ("read_index_refused", peers::read_index_response::Result::Refused(refused)),
    ] {
        check.message(name, &peers::ReadIndexResponse { result: Some(result) });
    }
    check.message("lease_renew", &peers::LeaseRenewRequest { id: 9 });
    check.message("lease_renew_answer", &peers::LeaseRenewResponse { ttl_s: 60 });
    use peers::member_change::Change;
    for (name, change) in [
        ("member_add", Change::Add(etcd::MemberAddRequest { peer_ur_ls: vec!["http://a:1".into()], is_learner: true })),
        ("member_remove", Change::Remove(etcd::MemberRemoveRequest { id: 7 })),
        ("member_update", Change::Update(etcd::MemberUpdateRequest { id: 7, peer_ur_ls: vec!["http://a:1".into()] })),
        ("member_promote", Change::Promote(etcd::MemberPromoteRequest { id: 7 })),
        ("member_publish", Change::Publish(node())),
    ] {
        check.message(name, &peers::MemberChange { change: Some(change) });
    }
    check.message("members_changed", &peers::MemberChanged { members: vec![node()], added: 7 });
    let members = peers::MembersResponse {
        cluster_id: 6,
        member_id: 7,
        members: vec![node()],
        cluster_version: "3.6.0".into(),
        format: 1,
    };
    check.message("members", &members);
}

#[test]
fn the_messages_of_format_1_are_these_bytes() {
    let mut check = Check::default();
    entries(&mut check);
    calls(&mut check);
    let missing: Vec<&String> =
        check.lines.iter().filter(|line| !GOLDEN.lines().any(|golden| golden == *line)).collect();
    assert!(missing.is_empty(), "a line that has changed is another format; what is new is to be added: {missing:#?}");
    assert_eq!(check.lines.len(), GOLDEN.lines().count(), "a message of format 1 is no longer checked");
}
