//! A database file from somebody else: read as it is, and again with the checksums of its metas made right; then as the snapshot that
//! a member is restored from, and by the state machine that comes of it.
//!
//! The first byte of an input chooses: [`PAGES`] says that the rest are chunks, each of which begins a page and is filled up with zeros
//! to whole pages of 1 KiB; else the rest is the file.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use garboard_bolt::Summary;
use garboard_mvcc::backend as mvcc;
use garboard_mvcc::backend::memory::MemoryBackend;
use garboard_node::NodeConfig;
use garboard_node::RestoreConfig;
use garboard_node::Restored;
use garboard_node::SnapshotFileError;
use garboard_node::restore;
use garboard_node::snapshot_status;
use garboard_storage::DataDir;
use garboard_storage::backend as storage;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::MemoryDisk;

use crate::input::Input;
use crate::input::put_chunk;
use crate::state_machine::StateMachine;

/// The first byte of an input that is chunks.
pub const PAGES: u8 = 1;
const PAGE_BYTES: usize = 1024;
/// Longer files say nothing more, and take long.
const FILE_BYTES_MAX: usize = 64 << 10;

/// Where a meta's checksum lies in its page, behind the page's header; it covers what stands before it in the meta.
const META_AT: usize = 16;
const CHECKSUM_AT: usize = META_AT + 56;

/// What came of an input.
pub struct Outcome {
    pub read: Option<Summary>,
    pub restored: Result<Restored, SnapshotFileError>,
    /// The state machine took the restored tables.
    pub opened: bool,
}

/// The file as it is, then with sound checksums.
pub fn run(input: &[u8]) -> Outcome {
    let mut input = Input(input);
    let mut file = if input.byte() & PAGES == 0 { input.0.to_vec() } else { unpack(input) };
    let outcome = read(&file);
    let sealed = file.clone();
    reseal(&mut file);
    if file == sealed { outcome } else { read(&file) }
}

fn unpack(mut input: Input<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    while !input.is_empty() && file.len() < FILE_BYTES_MAX {
        file.extend_from_slice(input.chunk());
        file.resize(file.len().next_multiple_of(PAGE_BYTES), 0);
    }
    file
}

/// The input that unpacks to this file of pages of 1 KiB. The zeros at the end of a page are most of a file, and nothing reads them.
pub fn pack(file: &[u8]) -> Vec<u8> {
    let mut input = vec![PAGES];
    for page in file.chunks(PAGE_BYTES) {
        let used = page.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        put_chunk(&mut input, &page[..used]);
    }
    input
}

/// Gives both metas the checksums of their bytes. The second lies behind a page of the size that the first says.
pub fn reseal(file: &mut [u8]) {
    reseal_meta(file, 0);
    let page_size = file.get(META_AT + 8..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if page_size > 0 {
        reseal_meta(file, page_size as usize);
    }
}

fn reseal_meta(file: &mut [u8], page: usize) {
    let Some(meta) = file.get(page + META_AT..page + CHECKSUM_AT) else { return };
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let checksum = meta.iter().fold(0xcbf2_9ce4_8422_2325, step);
    if let Some(place) = file.get_mut(page + CHECKSUM_AT..page + CHECKSUM_AT + 8) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn read(file: &[u8]) -> Outcome {
    let read = garboard_bolt::read_all(file).ok();
    if let Some(summary) = &read {
        assert!(summary.bytes <= 2 * file.len() as u64, "{summary:?} of a file of {} bytes", file.len());
    }
    let memory = MemoryDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let path = Path::new("/from/snapshot.db");
    disk.create_dir_all(Path::new("/from")).expect("a disk in memory");
    disk.open(path, OpenOptions::create_new()).expect("the disk is empty");
    memory.set_content(path, file.to_vec()).expect("it was just created");
    let status = snapshot_status(&*disk, path);
    if status.is_ok() {
        assert!(read.is_some(), "a status of a file that cannot be read");
    }
    let member = NodeConfig { data_dir: "/to".into(), wal_segment_bytes: 4 << 10, ..NodeConfig::default() };
    let config =
        RestoreConfig { snapshot: path.into(), member, skip_hash_check: true, revision_bump: 1, mark_compacted: false };
    let restored = restore(&config, &disk);
    let mut opened = false;
    if let Ok(restored) = &restored {
        let mut machine = StateMachine::open(tables(&disk)).expect("what was restored is sound");
        assert_eq!(machine.store.revision(), restored.revision, "not the revision that was told");
        machine.touch_everything();
        opened = true;
    }
    Outcome { read, restored, opened }
}

/// The restored tables, copied out of the database.
fn tables(disk: &Arc<dyn Disk>) -> Arc<MemoryBackend> {
    let data_dir = DataDir::open(Arc::clone(disk), Path::new("/to")).expect("it was restored");
    let options = storage::BackendOptions::default();
    let database = storage::Backend::open(Arc::clone(disk), &data_dir.db_path(), options).expect("it was restored");
    let tables = [
        (storage::Table::Revisions, mvcc::Table::Revisions),
        (storage::Table::Meta, mvcc::Table::Meta),
        (storage::Table::Leases, mvcc::Table::Leases),
        (storage::Table::Alarms, mvcc::Table::Alarms),
    ];
    let memory = MemoryBackend::new();
    for (from, to) in tables {
        let mut copy = |key: &[u8], value: &[u8]| {
            memory.set(to, key, &Bytes::copy_from_slice(value));
            std::ops::ControlFlow::Continue(())
        };
        database.scan(from, &[], None, &mut copy).expect("it was just written");
    }
    memory
}
