//! What a snapshot must not bring in: it is refused by the restore, not found out by the member that is started with it. And a restore that is
//! cut short.

use std::path::Path;
use std::sync::Arc;

use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::Writer;
use garboard_mvcc::Revision;
use garboard_mvcc::RowKey;
use garboard_mvcc::RowView;
use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_node::RestoreConfig;
use garboard_node::Restored;
use garboard_node::SnapshotFileError;
use garboard_node::restore;
use garboard_node::resume;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::Failure;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::disk::memory::Survives;
use prometheus::Registry;

/// A database file of etcd's with this one row of history.
fn snapshot(key: &[u8], row: &[u8]) -> Vec<u8> {
    let mut measure = Measure::new(PageSize::DEFAULT);
    measure.bucket(b"key").unwrap();
    measure.row(key.len(), row.len()).unwrap();
    let mut writer = Writer::new(Vec::new(), measure.finish().unwrap()).unwrap();
    writer.bucket(b"key").unwrap();
    writer.row(key, row).unwrap();
    writer.finish().unwrap()
}

fn disk_with(file: Vec<u8>) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let path = Path::new("/from/file");
    disk.create_dir_all(Path::new("/from")).unwrap();
    disk.open(path, OpenOptions::create_new()).unwrap();
    disk.set_content(path, file).unwrap();
    disk.sync_dir(Path::new("/from")).unwrap();
    disk
}

fn config() -> RestoreConfig {
    RestoreConfig {
        snapshot: "/from/file".into(),
        member: NodeConfig { data_dir: "/to".into(), wal_segment_bytes: 16 << 10, ..NodeConfig::default() },
        skip_hash_check: true,
        revision_bump: 0,
        mark_compacted: false,
    }
}

fn on(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn restored(file: Vec<u8>) -> (Result<Restored, SnapshotFileError>, MemoryDisk) {
    let disk = disk_with(file);
    (restore(&config(), &on(&disk)), disk)
}

/// The revision of a member that is started there.
async fn started(disk: &MemoryDisk) -> Result<i64, String> {
    let ends = Arc::new(|_: &str| {});
    let node = Node::start_with(config().member, on(disk), &Registry::new(), ends).await;
    let node = node.map_err(|error| error.to_string())?;
    node.ready().await.map_err(|error| error.to_string())?;
    let revision = node.store().revision();
    node.shutdown().await;
    Ok(revision)
}

fn row(version: i64) -> Vec<u8> {
    RowView { key: b"k", create_revision: 2, mod_revision: 5, version, ..RowView::default() }.encode().to_vec()
}

fn key(main: i64, sub: i64) -> Vec<u8> {
    RowKey::new(Revision::new(main, sub), false).as_bytes().to_vec()
}

#[test]
fn a_sound_row_is_restored() {
    let (result, _) = restored(snapshot(&key(5, 0), &row(3)));
    let restored = result.unwrap();
    assert_eq!((restored.revision, restored.rows), (5, 1));
}

#[test]
fn a_row_that_no_member_would_start_with_is_refused() {
    for (key, row) in
        [(key(5, 0), vec![0xff]), (key(5, 1 << 32), row(3)), (key(5, 0), row(i64::MAX)), (key(6, 0), row(3))]
    {
        let (result, disk) = restored(snapshot(&key, &row));
        assert!(matches!(result, Err(SnapshotFileError::Content(_))), "{}: {result:?}", row.escape_ascii());
        // Without an identity the directory does not start.
        let names = disk.list(Path::new("/to/member")).unwrap().into_iter().map(|entry| entry.name);
        assert!(names.eq(["db".to_owned()]), "only the database is there");
    }
}

/// What is left is refused by a member, or whole; and the same restore again makes it whole. `None`: nothing is left.
async fn cut_short(left: &MemoryDisk) -> Option<bool> {
    let mut whole = None;
    if left.exists(Path::new("/to/restoring")).unwrap() || left.exists(Path::new("/to/member")).unwrap() {
        let begun = started(&left.duplicate()).await;
        whole = Some(begun.is_ok());
        match begun {
            Ok(revision) => assert_eq!(revision, 5, "a member of half a restore"),
            Err(why) => assert!(why.contains("exists, but the file that says which member this is does not"), "{why}"),
        }
    }
    let again = resume(&config(), &on(left)).unwrap();
    assert!(again.is_none_or(|restored| (restored.revision, restored.rows) == (5, 1)), "{again:?}");
    assert_eq!(resume(&config(), &on(left)).unwrap(), None, "restored twice");
    assert!(!left.exists(Path::new("/to/restoring")).unwrap());
    assert_eq!(started(left).await, Ok(5));
    whole
}

/// A crash at each call that reaches the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_can_be_cut_short_anywhere_and_done_again() {
    let sound = disk_with(snapshot(&key(5, 0), &row(3)));
    let (mut crashes, mut uncut, mut halves) = (0, 0, 0);
    // The log's own thread makes calls of its own: not every restore has as many.
    while uncut < 10 {
        crashes += 1;
        let disk = sound.duplicate();
        let fails_at = disk.calls() + crashes;
        disk.fail_at(fails_at, Failure::Dead);
        let cut = resume(&config(), &on(&disk));
        if cut.is_ok() && disk.calls() < fails_at {
            uncut += 1;
            continue;
        }
        let ways = [Survives::Nothing, Survives::Some(crashes), Survives::Everything];
        halves += u32::from(cut_short(&disk.crash(ways[crashes as usize % 3])).await == Some(false));
    }
    println!("{crashes} crashes, {halves} of them left half a restore");
    assert!(halves > 5, "{halves}");
}

/// A crash at each call behind the one that makes it whole, which a count of all calls can pass over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_cut_short_behind_its_identity_is_whole() {
    let sound = disk_with(snapshot(&key(5, 0), &row(3)));
    let mut crashes = 0;
    loop {
        let disk = sound.duplicate();
        disk.fail_behind(Path::new("/to/member/identity"), crashes + 1, Failure::Dead);
        if resume(&config(), &on(&disk)).is_ok() {
            break;
        }
        crashes += 1;
        for survives in [Survives::Nothing, Survives::Some(crashes)] {
            cut_short(&disk.crash(survives)).await;
        }
        assert_eq!(cut_short(&disk.crash(Survives::Everything)).await, Some(true), "cut at call {crashes}");
    }
    assert_eq!(crashes, 3, "the identity's directory is synced, the mark removed, and its directory synced");
}

/// Only what a restore has begun is removed.
#[tokio::test]
async fn a_directory_that_is_in_use_is_neither_resumed_nor_removed() {
    let disk = disk_with(snapshot(&key(5, 0), &row(3)));
    resume(&config(), &on(&disk)).unwrap().unwrap();
    let mut other = config();
    other.member.initial_cluster_token = "other".into();
    let refused = resume(&other, &on(&disk)).unwrap_err().to_string();
    assert!(refused.contains("is the directory of member"), "{refused}");
    disk.remove(Path::new("/to/member/identity")).unwrap();
    let refused = resume(&config(), &on(&disk)).unwrap_err().to_string();
    assert!(refused.contains("not empty"), "{refused}");
    assert!(disk.exists(Path::new("/to/member/db")).unwrap());
}
