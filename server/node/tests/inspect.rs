//! Looking at disks: it tells what a start would find, finds every damage that a start refuses, and changes nothing.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_node::InspectError;
use garboard_node::Inspection;
use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_node::inspect;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_storage::Disk;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::disk::memory::Survives;

const DIR: &str = "/data";
const WRITES: usize = 60;

fn config() -> NodeConfig {
    NodeConfig {
        data_dir: DIR.into(),
        wal_segment_bytes: 16 << 10,
        // Nothing reaches the database but what is asked for.
        backend_batch_interval: Duration::from_secs(3600),
        ..NodeConfig::default()
    }
}

async fn start(disk: &MemoryDisk) -> Result<Node, String> {
    let failed = Arc::new(|_: &str| {});
    let started = Node::start_with(config(), Arc::new(disk.clone()), &prometheus::Registry::new(), failed).await;
    let node = started.map_err(|error| error.to_string())?;
    node.ready().await.map_err(|error| error.to_string())?;
    Ok(node)
}

fn put(n: usize) -> Command {
    let request = pb::PutRequest {
        key: format!("k{}", n % 17).into(),
        value: "v".repeat(300 + n).into(),
        ..pb::PutRequest::default()
    };
    Command { op: Some(Op::Put(request)) }
}

/// A disk after a crash: a third of the writes is in the database, the others in the log alone.
async fn crashed() -> (MemoryDisk, [garboard_mvcc::HashKv; 2]) {
    let disk = MemoryDisk::new();
    let node = start(&disk).await.unwrap();
    for n in 0..WRITES / 3 {
        node.propose(put(n)).await.unwrap();
    }
    let compaction = pb::CompactionRequest { revision: 7, physical: false };
    node.propose(Command { op: Some(Op::Compaction(compaction)) }).await.unwrap();
    let flushed = node.hash_kv(0).await.unwrap();
    for n in WRITES / 3..WRITES {
        node.propose(put(n)).await.unwrap();
    }
    let last = node.store().hash_kv(0).unwrap();
    let left = disk.crash(Survives::Nothing);
    node.shutdown().await;
    (left, [flushed, last])
}

fn look(disk: &MemoryDisk) -> Inspection {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    inspect(&disk, Path::new(DIR), None).unwrap()
}

#[tokio::test]
async fn it_tells_what_the_member_had_and_changes_nothing() {
    let (disk, [flushed, last]) = crashed().await;
    let calls = disk.calls();
    let found = look(&disk);
    assert!(found.damage.is_empty(), "{:?}", found.damage);
    let (applied, ended) = (found.applied.unwrap(), found.last.unwrap());
    assert_eq!((applied.revision, applied.compact_revision, applied.hash), (flushed.revision, 7, Some(flushed.hash)));
    assert_eq!((ended.revision, ended.compact_revision, ended.hash), (last.revision, 7, Some(last.hash)));
    assert_eq!(ended.keys, Some(17));
    let log = found.log.as_ref().unwrap();
    assert!(applied.at < found.committed.unwrap().at && found.committed.unwrap().at <= ended.at, "{found:?}");
    assert_eq!((log.first.unwrap().index, log.last), (0, Some(ended.at)));
    let identity = found.identity.unwrap();
    let vote = log.vote.unwrap();
    assert_eq!((vote.node_id, vote.committed), (identity.member_id, true));
    let members = found.members.as_ref().unwrap();
    assert!(members.committed && members.members[&identity.member_id].name == "default", "{members:?}");

    let again = look(&disk);
    assert_eq!(format!("{again:?}"), format!("{found:?}"));
    assert_eq!(disk.calls(), calls, "calls that change the disk");
    let node = start(&disk).await.unwrap();
    assert_eq!(node.hash_kv(0).await.unwrap(), last, "and a start finds the same");
    node.shutdown().await;
}

#[tokio::test]
async fn a_directory_in_use_or_none_is_refused() {
    let disk = MemoryDisk::new();
    let node = start(&disk).await.unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let refused = inspect(&shared, Path::new(DIR), None).unwrap_err();
    assert!(matches!(refused, InspectError::DataDir(_)) && refused.to_string().contains("/data/lock"), "{refused}");
    node.shutdown().await;
    inspect(&shared, Path::new(DIR), None).unwrap();
    let refused = inspect(&shared, Path::new("/elsewhere"), None).unwrap_err();
    assert!(refused.to_string().contains("/elsewhere: there is no such directory"), "{refused}");
}

/// What a start makes of the disk, and what is told of it, agree; damage has a file and mostly a place in it.
async fn compare(disk: &MemoryDisk, path: &Path, at: usize) -> bool {
    let found = look(disk);
    let what = format!("byte {at} of {}: {:?}", path.display(), found.damage);
    match start(disk).await {
        Ok(node) => {
            let hash = node.hash_kv(0).await;
            assert!(found.damage.is_empty() || hash.is_err(), "a start takes it, {what}");
            if let Ok(hash) = hash {
                assert_eq!(found.last.and_then(|last| last.hash), Some(hash.hash), "{what}");
            }
            node.shutdown().await;
        }
        Err(why) => assert!(!found.damage.is_empty(), "a start refuses it: {why}, {what}"),
    }
    if let Some(damage) = found.damage.first() {
        assert_eq!(damage.path, path, "{what}");
        assert!(damage.offset.is_some_and(|offset| offset <= at as u64), "{what}");
        let log = found.log.as_ref();
        assert!(log.is_some_and(|log| log.vote.is_some()) && found.identity.is_some(), "{what}");
    }
    !found.damage.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_is_found_when_a_start_would_refuse_it() {
    let (disk, _) = crashed().await;
    let mut paths: Vec<PathBuf> = vec![Path::new(DIR).join("member/db")];
    let wal = Path::new(DIR).join("member/wal");
    paths.extend(disk.list(&wal).unwrap().into_iter().filter(|e| e.name.ends_with(".wal")).map(|e| wal.join(e.name)));
    assert!(paths.len() > 2);
    for path in paths {
        let content = disk.content(&path).unwrap();
        let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let mut damaged = 0;
        for at in used.iter().copied().step_by(used.len().div_ceil(60)) {
            let copy = disk.duplicate();
            copy.flip(&path, at * 8 + at % 8).unwrap();
            damaged += usize::from(compare(&copy, &path, at).await);
        }
        assert!(damaged > 3, "{damaged} times {}", path.display());
    }
}
