//! One member on a real disk: writes, reads, restarts, compaction, leases, quota.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_mvcc::Error as MvccError;
use garboard_mvcc::Response;
use garboard_node::Error;
use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_node::SnapshotStatus;
use garboard_node::snapshot_status;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_storage::RealDisk;
use garboard_storage::disk::Disk as _;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::MemoryDisk;
use tempfile::TempDir;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(dir: &TempDir) -> NodeConfig {
    NodeConfig { data_dir: dir.path().join("data"), wal_segment_bytes: 1 << 20, ..NodeConfig::default() }
}

async fn start(config: NodeConfig) -> Node {
    let node = Node::start(config, Arc::new(RealDisk), &prometheus::Registry::new()).await.unwrap();
    node.ready().await.unwrap();
    node
}

async fn stop(node: Node) {
    node.shutdown().await;
}

fn put(key: &str, value: &str) -> Command {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    Command { op: Some(Op::Put(request)) }
}

fn get(node: &Node, key: &str) -> Option<String> {
    let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let response = node.store().range(&request).unwrap();
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

fn revision_of(response: Response) -> i64 {
    match response {
        Response::Put(r) => r.header.unwrap().revision,
        other => panic!("not a put: {other:?}"),
    }
}

#[tokio::test]
async fn a_member_has_etcds_ids_and_lists_itself() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    assert_eq!(node.member_id(), 0x8e9e_05c5_2164_694d);
    assert_eq!(node.cluster_id(), 0xcdf8_1819_4e3a_8c32);
    let members = node.members();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, "default");
    assert_eq!(members[0].client_ur_ls, ["http://localhost:2379"]);
    assert_eq!(node.status().leader, node.member_id());
    stop(node).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    for n in 0..500 {
        let revision = revision_of(node.propose(put(&format!("k{n}"), "v")).await.unwrap());
        assert_eq!(revision, n + 2);
    }
    stop(node).await;
    let node = start(config(&dir)).await;
    node.linearizable_read().await.unwrap();
    assert_eq!(node.store().revision(), 501);
    assert_eq!(get(&node, "k499").as_deref(), Some("v"));
    assert_eq!(revision_of(node.propose(put("after", "restart")).await.unwrap()), 502);
    stop(node).await;
}

/// Under its old term it would not know what it had acknowledged before, and could read behind it.
#[tokio::test]
async fn a_leader_that_is_restarted_leads_in_a_new_term() {
    let dir = TempDir::new().unwrap();
    let mut before = 0;
    for _ in 0..3 {
        let node = start(config(&dir)).await;
        let term = node.status().raft_term;
        assert!(term > before, "term {term} after {before}");
        before = term;
        stop(node).await;
    }
}

#[tokio::test]
async fn writes_of_many_clients_all_return_their_own_revision() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..50 {
        let node = node.clone();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..40 {
                revisions.push(revision_of(node.propose(put(&format!("{client}/{n}"), "v")).await.unwrap()));
            }
            revisions
        });
    }
    let mut all: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (2..2002).collect::<Vec<_>>());
    stop(node).await;
}

#[tokio::test]
async fn the_identity_stays_when_the_flags_change() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    let id = node.member_id();
    stop(node).await;
    let changed = NodeConfig {
        initial_advertise_peer_urls: vec!["http://other:2380".into()],
        initial_cluster: vec![("default".into(), "http://other:2380".into())],
        advertise_client_urls: vec!["http://other:2379".into()],
        ..config(&dir)
    };
    let node = start(changed).await;
    assert_eq!(node.member_id(), id);
    let mut published = false;
    for _ in 0..200 {
        published = node.members()[0].client_ur_ls == ["http://other:2379"];
        if published {
            break;
        }
        node.propose(put("turn", "over")).await.unwrap();
    }
    assert!(published, "the membership takes the new client URLs: {:?}", node.members());
    stop(node).await;
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    let second = Node::start(config(&dir), Arc::new(RealDisk), &prometheus::Registry::new()).await;
    let text = second.err().expect("two members on one directory").to_string();
    assert!(text.contains("data"), "{text}");
    stop(node).await;
}

#[tokio::test]
async fn a_lost_log_is_refused() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    node.propose(put("a", "1")).await.unwrap();
    stop(node).await;
    std::fs::remove_dir_all(dir.path().join("data/member/wal")).unwrap();
    let error =
        Node::start(config(&dir), Arc::new(RealDisk), &prometheus::Registry::new()).await.err().expect("refused");
    assert!(error.to_string().contains("the log ends at 0"), "{error}");
}

#[tokio::test]
async fn a_physical_compaction_returns_when_the_rows_are_gone() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    for n in 0..100 {
        node.propose(put("k", &n.to_string())).await.unwrap();
    }
    let request = pb::CompactionRequest { revision: 90, physical: true };
    node.propose(Command { op: Some(Op::Compaction(request)) }).await.unwrap();
    assert_eq!(node.store().compact_revision(), 90);
    assert_eq!(node.store().counters().compacted_revisions, 88, "revisions 2 to 89");
    let old = pb::RangeRequest { key: "k".into(), revision: 89, ..Default::default() };
    assert_eq!(node.store().range(&old).unwrap_err(), MvccError::Compacted);
    stop(node).await;
}

#[tokio::test]
async fn a_full_quota_raises_the_alarm_and_refuses_puts() {
    let dir = TempDir::new().unwrap();
    let node = start(NodeConfig { quota_backend_bytes: 256 << 10, ..config(&dir) }).await;
    let value = "x".repeat(10_000);
    let mut refused = None;
    for n in 0..100 {
        if let Err(error) = node.propose(put(&format!("k{n}"), &value)).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(Error::NoSpace));
    assert!(node.store().has_alarm(pb::AlarmType::Nospace));
    let delete = pb::DeleteRangeRequest { key: "k0".into(), ..Default::default() };
    node.propose(Command { op: Some(Op::DeleteRange(delete)) }).await.unwrap();
    stop(node).await;
}

#[tokio::test]
async fn an_expired_lease_takes_its_keys_along() {
    let dir = TempDir::new().unwrap();
    let config = NodeConfig {
        election_timeout: Duration::from_millis(100),
        heartbeat_interval: Duration::from_millis(20),
        ..config(&dir)
    };
    let node = start(config).await;
    let lease = node.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.unwrap();
    let request = pb::PutRequest { key: "leased".into(), lease: lease.id, ..Default::default() };
    node.propose(Command { op: Some(Op::Put(request)) }).await.unwrap();
    assert_eq!(node.lease_renew(lease.id).await, Ok(1));
    let deadline = garboard_runtime::clock::now() + Duration::from_secs(10);
    while get(&node, "leased").is_some() {
        assert!(garboard_runtime::clock::now() < deadline, "the lease never expired");
        node.linearizable_read().await.unwrap();
        garboard_runtime::clock::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.lease_renew(lease.id).await, Err(Error::LeaseNotFound));
    assert_eq!(node.lease_time_to_live(lease.id, true).await.unwrap().ttl, -1);
    stop(node).await;
}

#[tokio::test]
async fn reads_and_writes_go_on_during_a_defragmentation() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    for n in 0..2_000 {
        node.propose(put(&format!("k{n}"), "v")).await.unwrap();
    }
    let defragmenting = garboard_runtime::spawn::task({
        let node = node.clone();
        async move { node.defragment().await }
    });
    let mut writes = 0;
    while !defragmenting.is_finished() {
        node.propose(put("during", &writes.to_string())).await.unwrap();
        assert_eq!(get(&node, "k7").as_deref(), Some("v"));
        writes += 1;
    }
    defragmenting.await.unwrap().unwrap();
    stop(node).await;
    let node = start(config(&dir)).await;
    assert_eq!(get(&node, "during"), (writes > 0).then(|| (writes - 1).to_string()));
    stop(node).await;
}

/// Whatever is done with the database's file next waits for its end.
#[tokio::test]
async fn a_defragmentation_whose_caller_goes_away_keeps_its_turn() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    let large = "v".repeat(1 << 20);
    for n in 0..16 {
        node.propose(put(&format!("k{n}"), &large)).await.unwrap();
    }
    let mut given_up = 0;
    for ms in [1, 5, 10, 20] {
        let waited = garboard_runtime::clock::timeout(Duration::from_millis(ms), node.defragment()).await;
        given_up += u32::from(waited.is_err());
        node.defragment().await.unwrap();
    }
    assert!(given_up > 0, "it is done too soon to be left alone");
    stop(node).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_refuses_what_adds_data_until_there_is_space() {
    let disk = MemoryDisk::new();
    let config = NodeConfig { data_dir: "/data".into(), wal_segment_bytes: 1 << 20, ..NodeConfig::default() };
    let node = Node::start(config, Arc::new(disk.clone()), &prometheus::Registry::new()).await.unwrap();
    node.ready().await.unwrap();
    node.propose(put("a", "1")).await.unwrap();
    let taken = async |wanted: bool| {
        while node.propose(put("b", "1")).await.is_ok() != wanted {
            tokio::task::yield_now().await;
        }
    };
    disk.set_free_bytes((66 << 20) - 1);
    garboard_runtime::clock::timeout(PATIENCE, taken(false)).await.expect("never refused");
    assert!(matches!(node.propose(put("b", "1")).await, Err(Error::NoSpace)));
    assert!(node.status().errors.iter().any(|error| error.contains("disk space")), "{:?}", node.status().errors);
    assert_eq!(get(&node, "a").as_deref(), Some("1"));
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    node.propose(Command { op: Some(Op::DeleteRange(delete)) }).await.unwrap();
    let compact = pb::CompactionRequest { revision: 2, physical: true };
    node.propose(Command { op: Some(Op::Compaction(compact)) }).await.unwrap();
    disk.set_free_bytes(66 << 20);
    garboard_runtime::clock::timeout(PATIENCE, taken(true)).await.expect("never taken again");
    assert!(node.status().errors.is_empty(), "{:?}", node.status().errors);
    stop(node).await;
}

/// Writes go on while snapshots are taken: each file ends at the revision that is told of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_tells_the_revision_of_its_own_file() {
    let dir = TempDir::new().unwrap();
    let node = start(config(&dir)).await;
    let (done, writer) = (Arc::new(AtomicBool::new(false)), node.clone());
    let ended = done.clone();
    let mut writes = tokio::task::JoinSet::new();
    writes.spawn(async move {
        let mut last = 0;
        while last < 20 || !ended.load(Ordering::Relaxed) {
            last = revision_of(writer.propose(put("k", "v")).await.unwrap());
        }
        last
    });
    let mut told = Vec::new();
    for n in 0..20 {
        let mut snapshot = node.snapshot().await.unwrap();
        let mut file = Vec::new();
        while let Some(blob) = snapshot.blobs.recv().await {
            file.extend_from_slice(&blob.unwrap());
        }
        let status = status_of(file);
        // An empty store has no row that could tell.
        assert_eq!(status.revision.max(1), snapshot.revision, "snapshot {n}");
        told.push(snapshot.revision);
    }
    done.store(true, Ordering::Relaxed);
    let last = writes.join_next().await.unwrap().unwrap();
    assert!(told.is_sorted() && told.last() <= Some(&last), "{told:?}, then {last}");
    let snapshot = node.snapshot().await.unwrap();
    assert_eq!(snapshot.revision, last);
    stop(node).await;
}

fn status_of(file: Vec<u8>) -> SnapshotStatus {
    let (disk, path) = (MemoryDisk::new(), Path::new("/to/snapshot"));
    disk.create_dir_all(Path::new("/to")).unwrap();
    disk.open(path, OpenOptions::create_new()).unwrap();
    disk.set_content(path, file).unwrap();
    snapshot_status(&disk, path).unwrap()
}
