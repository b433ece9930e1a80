//! What a snapshot must not bring in: it is refused by the restore, not found out by the member that is started with it.

use std::path::Path;
use std::sync::Arc;

use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::Writer;
use garboard_mvcc::Revision;
use garboard_mvcc::RowKey;
use garboard_mvcc::RowView;
use garboard_node::NodeConfig;
use garboard_node::RestoreConfig;
use garboard_node::Restored;
use garboard_node::SnapshotFileError;
use garboard_node::restore;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::MemoryDisk;

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

fn restored(file: Vec<u8>) -> (Result<Restored, SnapshotFileError>, MemoryDisk) {
    let memory = MemoryDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    disk.create_dir_all(Path::new("/from")).unwrap();
    disk.open(Path::new("/from/file"), OpenOptions::create_new()).unwrap();
    memory.set_content(Path::new("/from/file"), file).unwrap();
    let member = NodeConfig { data_dir: "/to".into(), wal_segment_bytes: 1 << 20, ..NodeConfig::default() };
    let config = RestoreConfig {
        snapshot: "/from/file".into(),
        member,
        skip_hash_check: true,
        revision_bump: 0,
        mark_compacted: false,
    };
    (restore(&config, &disk), memory)
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
