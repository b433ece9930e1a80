//! The backend against maps, under concurrency, and over crashes at every durable step.

mod crash;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use garboard_runtime::spawn;
use redb::ReadableDatabase as _;

use super::*;
use crate::disk::OpenOptions;
use crate::disk::memory::MemoryDisk;

pub(super) type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

pub(super) fn path() -> PathBuf {
    PathBuf::from("/data/member/db")
}

pub(super) fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new("/data/member")).unwrap();
    disk
}

pub(super) fn open(disk: &MemoryDisk) -> Result<Backend, BackendError> {
    let options = BackendOptions { cache_bytes: 4 << 20, ..BackendOptions::default() };
    Backend::open(Arc::new(disk.clone()), &path(), options)
}

pub(super) fn all_rows(view: &ReadTxn) -> Rows {
    let mut rows = Rows::new();
    for table in Table::ALL {
        view.scan(table, &[], None, &mut |key, value| {
            rows.insert((table, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    rows
}

pub(super) fn revision_key(main: u64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &0u64.to_be_bytes()[..]].concat()
}

/// Revision `main`: a row, the applied index with it, and now and then a delete of an old one.
pub(super) fn batch(main: u64) -> WriteBatch {
    let mut batch = WriteBatch::default();
    batch.put(Table::Revisions, revision_key(main), vec![main as u8; 200 + main as usize % 5000]);
    batch.put(Table::Meta, &b"applied"[..], main.to_be_bytes().to_vec());
    if main.is_multiple_of(3) {
        batch.delete(Table::Revisions, revision_key(main / 2));
    }
    batch
}

pub(super) fn apply(rows: &mut Rows, batch: &WriteBatch) {
    for op in &batch.ops {
        match op {
            Op::Put { table, key, value } => rows.insert((*table, key.to_vec()), value.to_vec()),
            Op::Delete { table, key } => rows.remove(&(*table, key.to_vec())),
        };
    }
}

fn fast() -> DefragPace {
    DefragPace { step_bytes: 4096, pause: Duration::ZERO }
}

#[test]
fn commits_are_there_after_reopening_and_sizes_with_them() {
    let disk = new_disk();
    let backend = open(&disk).unwrap();
    let mut rows = Rows::new();
    for main in 1..=50 {
        let stats = backend.commit(&batch(main)).unwrap();
        assert!(stats.durable && stats.bytes > 200);
        apply(&mut rows, &batch(main));
    }
    assert_eq!(all_rows(&backend.read().unwrap()), rows);
    let size = backend.size();
    drop(backend);
    let backend = open(&disk).unwrap();
    assert_eq!(all_rows(&backend.read().unwrap()), rows);
    assert_eq!(backend.size(), size);
    let keys = [&revision_key(50)[..], &revision_key(51)[..]];
    let values = backend.get_many(Table::Revisions, &keys).unwrap();
    assert_eq!(values[0].as_deref(), rows.get(&(Table::Revisions, revision_key(50))).map(Vec::as_slice));
    assert_eq!(values[1], None);
}

#[test]
fn scans_take_bounds_and_stop_when_told() {
    let backend = open(&new_disk()).unwrap();
    let mut rows = WriteBatch::default();
    for key in 0..10u8 {
        rows.put(Table::Leases, vec![key], vec![key]);
    }
    backend.commit(&rows).unwrap();
    let scan = |start: &[u8], end: Option<&[u8]>, limit: usize| {
        let mut keys = Vec::new();
        backend
            .scan(Table::Leases, start, end, &mut |key, _| {
                keys.push(key[0]);
                if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        keys
    };
    assert_eq!(scan(&[3], Some(&[6]), 100), [3, 4, 5]);
    assert_eq!(scan(&[8], None, 100), [8, 9]);
    assert_eq!(scan(&[], None, 2), [0, 1]);
    assert_eq!(scan(&[6], Some(&[3]), 100), [0u8; 0]);
    assert_eq!(scan(&[3], Some(&[3]), 100), [0u8; 0]);
}

#[test]
fn out_of_order_revisions_and_overwrites_count_once() {
    let backend = open(&new_disk()).unwrap();
    let mut first = WriteBatch::default();
    for main in [5u64, 6, 3, 9, 6, 10, 11, 2] {
        first.put(Table::Revisions, revision_key(main), vec![1; 100]);
    }
    backend.commit(&first).unwrap();
    let expected: u64 = 7 * (17 + 100 + 8);
    let empty = open(&new_disk()).unwrap().size().in_use_bytes;
    assert_eq!(backend.size().in_use_bytes - empty, expected);
    let mut second = WriteBatch::default();
    second.put(Table::Revisions, revision_key(5), vec![1; 50]);
    second.delete(Table::Revisions, revision_key(9));
    second.delete(Table::Revisions, revision_key(99));
    backend.commit(&second).unwrap();
    assert_eq!(backend.size().in_use_bytes - empty, expected - 50 - 125);
    assert_eq!(backend.size().total_bytes - empty, expected);
    backend.defragment(fast()).unwrap();
    assert_eq!(backend.size().total_bytes, backend.size().in_use_bytes);
}

#[test]
fn sizes_stay_near_what_redb_allocates() {
    let backend = open(&new_disk()).unwrap();
    for (rows, len) in [(3000u64, 300usize), (300, 3000), (100, 9000)] {
        let mut all = WriteBatch::default();
        for main in 0..rows {
            all.put(Table::Revisions, revision_key(len as u64 * 1_000_000 + main), vec![7; len]);
        }
        backend.commit(&all).unwrap();
    }
    let ours = backend.size().in_use_bytes as f64;
    let generation = Arc::clone(&backend.current.read());
    let stats = generation.db.begin_write().unwrap().stats().unwrap();
    let theirs = (stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes()) as f64;
    let pages = (stats.leaf_pages() + stats.branch_pages()) as f64 * 4096.0;
    assert!(ours < theirs && ours > pages * 0.5, "ours {ours}, rows' pages {pages}, file {theirs}");
    drop(generation.db.begin_read().unwrap());
}

#[test]
fn a_large_file_is_synced_in_intervals_and_on_demand() {
    let backend = open(&new_disk()).unwrap();
    backend.commits.lock().sizes = Sizes { in_use: 0, total: 1 << 30 };
    let durable: Vec<bool> = (0..10)
        .map(|main| {
            let mut batch = WriteBatch::default();
            batch.put(Table::Revisions, revision_key(main), vec![0; 300 << 10]);
            backend.commit(&batch).unwrap().durable
        })
        .collect();
    assert_eq!(durable, [false, false, false, true, false, false, false, true, false, false]);
    assert!(backend.commit_durable(&WriteBatch::default()).unwrap().durable);
}

#[test]
fn defragmentation_runs_beside_reads_and_commits() {
    let disk = new_disk();
    let backend = Arc::new(open(&disk).unwrap());
    let mut rows = Rows::new();
    for main in 1..=400 {
        backend.commit(&batch(main)).unwrap();
        apply(&mut rows, &batch(main));
    }
    let old_view = backend.read().unwrap();
    let old_rows = all_rows(&old_view);
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, reader) = (Arc::clone(&backend), Arc::clone(&backend));
    let (stop_writer, stop_reader) = (Arc::clone(&stop), Arc::clone(&stop));
    let writing = spawn::thread("writer", move || {
        let mut main = 400;
        while !stop_writer.load(Ordering::Relaxed) {
            main += 1;
            writer.commit(&batch(main)).unwrap();
        }
        main
    })
    .unwrap();
    let reading = spawn::thread("reader", move || {
        let mut seen = 0;
        while !stop_reader.load(Ordering::Relaxed) {
            // The applied index and its row stand together, and neither goes back.
            let view = reader.read().unwrap();
            let applied = view.get(Table::Meta, b"applied").unwrap().unwrap();
            let applied = u64::from_be_bytes(applied[..].try_into().unwrap());
            assert!(applied >= seen);
            seen = applied;
            assert!(view.get(Table::Revisions, &revision_key(applied)).unwrap().is_some());
            assert!(view.get(Table::Revisions, &revision_key(applied + 1)).unwrap().is_none());
        }
    })
    .unwrap();
    for _ in 0..3 {
        let stats = backend.defragment(fast()).unwrap();
        assert!(stats.after.total_bytes <= stats.before.total_bytes + (1 << 20));
    }
    stop.store(true, Ordering::Relaxed);
    let last = writing.join().unwrap();
    reading.join().unwrap();
    for main in 401..=last {
        apply(&mut rows, &batch(main));
    }
    assert_eq!(all_rows(&backend.read().unwrap()), rows);
    // A view taken before still sees what it saw.
    assert_eq!(all_rows(&old_view), old_rows);
    drop(old_view);
    drop(backend);
    assert_eq!(all_rows(&open(&disk).unwrap().read().unwrap()), rows);
    assert!(!disk.exists(&defrag::copy_path(&path())).unwrap());
}

/// A snapshot that is received while a defragmentation runs is such a file.
#[test]
fn a_file_beside_has_leftovers_of_its_own() {
    let disk = new_disk();
    let copy = defrag::copy_path(&path());
    let other = path().with_extension("incoming");
    drop(open(&disk).unwrap());
    disk.open(&copy, OpenOptions::create_new()).unwrap();
    drop(Backend::open(Arc::new(disk.clone()), &other, BackendOptions::default()).unwrap());
    assert!(disk.exists(&copy).unwrap());
    Backend::remove(&disk, &other).unwrap();
    assert!(disk.exists(&copy).unwrap() && disk.exists(&path()).unwrap() && !disk.exists(&other).unwrap());
    drop(open(&disk).unwrap());
    assert!(!disk.exists(&copy).unwrap());
}

#[test]
fn a_later_format_is_refused() {
    let disk = new_disk();
    let backend = open(&disk).unwrap();
    let generation = Arc::clone(&backend.current.read());
    let txn = flush::begin(&generation, true).unwrap();
    txn.open_table(tables::STORE).unwrap().insert(tables::STORE_VERSION, 2).unwrap();
    txn.commit().unwrap();
    drop((generation, backend));
    assert!(matches!(open(&disk), Err(BackendError::Version { found: 2, known: 1, .. })));
}
