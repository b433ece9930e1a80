//! `--force-new-cluster`: one of three goes on alone with all that its log has, whatever membership stands at its end, and whenever it is cut short.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use garboard_node::Inspection;
use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_node::inspect;
use garboard_node::member_id;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft as raftpb;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_storage::Disk;
use garboard_storage::Wal;
use garboard_storage::disk::memory::Failure;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::disk::memory::Survives;
use garboard_storage::wal::LogId;
use garboard_storage::wal::WalEntry;
use garboard_storage::wal::WalOptions;
use prost::Message as _;

const DIR: &str = "/data";
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries in the log of the member that is left.
const WRITES: u64 = 20;
/// As many of them it knows to be committed.
const COMMITTED: u64 = 5;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

fn url(name: &str) -> String {
    // Nobody listens there.
    format!("http://127.0.0.1:{}", name.as_bytes()[0] - b'a' + 1)
}

fn id(name: &str) -> u64 {
    member_id(&[url(name)], "etcd-cluster", None)
}

fn config(force: bool) -> NodeConfig {
    NodeConfig {
        name: "a".into(),
        data_dir: DIR.into(),
        initial_cluster: ["a", "b", "c"].iter().map(|name| ((*name).to_owned(), url(name))).collect(),
        initial_advertise_peer_urls: vec![url("a")],
        force_new_cluster: force,
        wal_segment_bytes: 16 << 10,
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        ..NodeConfig::default()
    }
}

async fn start(disk: &MemoryDisk, force: bool) -> Result<Node, String> {
    let ends = Arc::new(|_: &str| {});
    let registry = prometheus::Registry::new();
    let started = Node::start_with(config(force), Arc::new(disk.clone()), &registry, ends);
    garboard_runtime::clock::timeout(PATIENCE, started)
        .await
        .expect("the start hangs")
        .map_err(|error| error.to_string())
}

async fn start_ready(disk: &MemoryDisk, force: bool) -> Node {
    let node = start(disk, force).await.unwrap();
    garboard_runtime::clock::timeout(PATIENCE, node.ready()).await.expect("never ready").unwrap();
    node
}

fn look(disk: &MemoryDisk) -> Inspection {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    inspect(&disk, Path::new(DIR), None).unwrap()
}

/// Writes entries as a leader's replication would.
fn append(disk: &MemoryDisk, term: u64, entries: Vec<(u8, Vec<u8>)>) {
    let identity = look(disk).identity.unwrap();
    let dir = Path::new(DIR).join("member/wal");
    let options =
        WalOptions { segment_bytes: 16 << 10, ..WalOptions::new(dir, identity.cluster_id, identity.member_id) };
    let (wal, recovered) = Wal::open(Arc::new(disk.clone()), options).unwrap();
    let next = recovered.last.map_or(0, |last| last.index + 1);
    let entry = |(index, (kind, payload)): (u64, (u8, Vec<u8>))| WalEntry {
        log_id: LogId { term, index },
        kind,
        payload: payload.into(),
    };
    wal.save_committed(LogId { term, index: next + COMMITTED - 1 });
    let (tell, told) = mpsc::channel();
    wal.append((next..).zip(entries).map(entry).collect(), Box::new(move |done| tell.send(done).unwrap()));
    told.recv().unwrap().unwrap();
    wal.close();
}

fn puts() -> Vec<(u8, Vec<u8>)> {
    let put = |n: u64| {
        let request = pb::PutRequest { key: format!("k{n}").into(), value: "v".into(), ..pb::PutRequest::default() };
        let commands = vec![Command { op: Some(Op::Put(request)) }];
        (BATCH, raftpb::Batch { commands, ..raftpb::Batch::default() }.encode_to_vec())
    };
    (0..WRITES).map(put).collect()
}

/// A membership entry: who votes, in each of its sets, and who only listens.
fn membership(voters: &[&[&str]], learners: &[&str]) -> (u8, Vec<u8>) {
    let node = |name: &&str| raftpb::Node {
        id: id(name),
        name: (*name).to_owned(),
        peer_urls: vec![url(name)],
        is_learner: learners.contains(name),
        ..raftpb::Node::default()
    };
    let mut names: Vec<&str> =
        voters.iter().flat_map(|set| set.iter().copied()).chain(learners.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let configs = voters.iter().map(|set| raftpb::VoterSet { ids: set.iter().map(|name| id(name)).collect() });
    let membership = raftpb::Membership { configs: configs.collect(), nodes: names.iter().map(node).collect() };
    (MEMBERSHIP, membership.encode_to_vec())
}

/// The disk of one of three, the others of which are lost; `tail` stands behind its writes.
async fn left(tail: Vec<(u8, Vec<u8>)>) -> MemoryDisk {
    let disk = MemoryDisk::new();
    // Founds the cluster, which is all that it can do without the others.
    start(&disk, false).await.unwrap().shutdown().await;
    append(&disk, 7, puts().into_iter().chain(tail).collect());
    disk
}

fn check(node: &Node) {
    let everything = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    assert_eq!(node.store().range(&everything).unwrap().kvs.len() as u64, WRITES);
    let members = node.members();
    assert_eq!(members.len(), 1, "{members:?}");
    assert_eq!((members[0].id, members[0].name.as_str(), members[0].is_learner), (id("a"), "a", false));
    assert_eq!(members[0].peer_ur_ls, [url("a")]);
    assert!(node.is_leader() && !node.is_learner());
}

async fn write(node: &Node) {
    let request = pb::PutRequest { key: "more".into(), ..Default::default() };
    node.propose(Command { op: Some(Op::Put(request)) }).await.unwrap();
}

#[tokio::test]
async fn all_of_the_log_is_kept_and_one_member_is_left() {
    let disk = left(Vec::new()).await;
    let before = look(&disk);
    assert_eq!(before.members.as_ref().unwrap().members.len(), 3);
    let node = start_ready(&disk, true).await;
    check(&node);
    assert_eq!(node.cluster_id(), before.identity.unwrap().cluster_id);
    // It says its client URLs, which is the last that becomes of the membership.
    let published = async {
        while node.members()[0].client_ur_ls.is_empty() {
            garboard_runtime::clock::sleep(Duration::from_millis(5)).await;
        }
    };
    garboard_runtime::clock::timeout(PATIENCE, published).await.expect("never published");
    write(&node).await;
    node.shutdown().await;
    let forced = look(&disk);
    let members = forced.members.as_ref().unwrap();
    assert_eq!(members.removed, [id("b"), id("c")].into());
    assert_eq!(forced.identity, before.identity);

    // The flag may stay, and may go.
    for force in [true, true, false, true, false] {
        let node = start_ready(&disk, force).await;
        check(&node);
        write(&node).await;
        node.shutdown().await;
        assert_eq!(look(&disk).members.as_ref(), Some(members), "nothing was to be done");
    }
}

#[tokio::test]
async fn whatever_membership_stands_at_the_end_is_replaced() {
    for tail in [
        // Under way: one voter takes over from another.
        vec![membership(&[&["a", "b", "c"], &["a", "b", "d"]], &[])],
        // A joint one, then more writes that nobody knows to be committed.
        [vec![membership(&[&["a", "b", "c"], &["a", "c"]], &[])], puts()].concat(),
        vec![membership(&[&["a", "b", "c"]], &["d"])],
        // The one that is left was a learner.
        vec![membership(&[&["b", "c"]], &["a"])],
        // Alone with a learner that is lost.
        vec![membership(&[&["a"]], &["d"])],
    ] {
        let disk = left(tail).await;
        let node = start_ready(&disk, true).await;
        check(&node);
        node.shutdown().await;
        let node = start_ready(&disk, false).await;
        check(&node);
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_disk_without_a_cluster_to_go_on_with_is_refused() {
    let nothing = MemoryDisk::new();
    let error = start(&nothing, true).await.err().unwrap();
    assert!(error.contains("/data: --force-new-cluster: there is no member in it"), "{error}");
    assert_eq!(nothing.calls(), 0, "and nothing is founded there");

    let removed = left(vec![membership(&[&["b", "c"]], &[])]).await;
    let error = start(&removed, true).await.err().unwrap();
    assert!(error.contains("by its own log it was removed"), "{error}");
}

/// What cannot be read may be the membership in effect.
#[tokio::test]
async fn a_membership_that_cannot_be_read_is_not_passed_over() {
    let disk = left([vec![(MEMBERSHIP, vec![0xff; 3])], puts()].concat()).await;
    let before = look(&disk);
    let last = before.log.unwrap().last;
    let index = last.unwrap().index - WRITES;
    let error = start(&disk, true).await.err().unwrap();
    assert!(error.contains(&format!("which members there are is not known: entry {index}")), "{error}");
    assert_eq!(look(&disk).log.unwrap().last, last, "nothing is written behind it");

    // Where the database is damaged as well, the log alone tells who the members were.
    disk.set_content(&Path::new(DIR).join("member/db"), vec![0xff; 8192]).unwrap();
    let found = look(&disk);
    assert_eq!(found.members.unwrap().members.len(), 3, "of the one before");
    let told = found.damage.iter().any(|damage| damage.reason.starts_with(&format!("entry {index}: membership")));
    assert!(told, "{:?}", found.damage);
}

/// The flag was forgotten, and the cluster has grown: its other members are not thrown out.
#[tokio::test]
async fn a_cluster_that_has_grown_since_is_left_alone() {
    let disk = left(Vec::new()).await;
    start_ready(&disk, true).await.shutdown().await;
    append(&disk, 99, vec![membership(&[&["a", "d"]], &[])]);
    let before = look(&disk);
    let error = start(&disk, true).await.err().unwrap();
    assert!(error.contains("has grown since"), "{error}");
    assert_eq!(look(&disk).log.unwrap().last, before.log.unwrap().last);
    // The second cluster is lost too: said by a start without the flag.
    start(&disk, false).await.unwrap().shutdown().await;
    let node = start_ready(&disk, true).await;
    check(&node);
    node.shutdown().await;
    assert_eq!(look(&disk).members.unwrap().removed, [id("b"), id("c"), id("d")].into());
}

/// A crash at each call that reaches the disk, then the same start again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_cut_short_anywhere_and_done_again() {
    let sound = left(vec![membership(&[&["a", "b", "c"], &["a", "b", "d"]], &[])]).await;
    let (mut crashes, mut unfinished, mut forced) = (0, 0, 0);
    loop {
        let disk = sound.duplicate();
        crashes += 1;
        disk.fail_at(disk.calls() + crashes, Failure::Dead);
        let fails_at = disk.calls() + crashes;
        if let Ok(node) = start(&disk, true).await {
            if disk.calls() < fails_at {
                let ready = garboard_runtime::clock::timeout(PATIENCE, node.ready()).await;
                // What reaches the disk after the start is the business of `crash.rs`.
                if ready.is_ok_and(|ready| ready.is_ok()) && disk.calls() < fails_at {
                    node.shutdown().await;
                    break;
                }
            }
            node.shutdown().await;
        }
        let survives = [Survives::Nothing, Survives::Some(crashes), Survives::Everything][crashes as usize % 3];
        let left = disk.crash(survives);
        match look(&left).members.unwrap().members.len() {
            1 => forced += 1,
            _ => unfinished += 1,
        }
        let node = start_ready(&left, true).await;
        check(&node);
        node.shutdown().await;
    }
    println!("{crashes} crashes, {unfinished} before it was done, {forced} after");
    assert!(unfinished > 5 && forced > 2, "{unfinished} {forced}");
}
