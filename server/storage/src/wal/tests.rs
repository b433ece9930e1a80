//! The log against a simple model, and against what crashes and damage leave.

mod damage;
mod hostile;
mod model;
mod stop;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::disk::memory::MemoryDisk;

pub(super) const CLUSTER: u64 = 0xc1;
pub(super) const MEMBER: u64 = 0x3e;

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/data/member/wal")
}

pub(super) fn options(segment_bytes: u64) -> WalOptions {
    WalOptions { segment_bytes, on_fatal: Arc::new(|_| {}), ..WalOptions::new(dir(), CLUSTER, MEMBER) }
}

pub(super) fn open(disk: &MemoryDisk, options: &WalOptions) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), options.clone())
}

pub(super) fn entry(term: u64, index: u64, len: usize) -> WalEntry {
    // Half zeros: what looks unwritten must not be taken for it.
    let byte = if index.is_multiple_of(2) { 0 } else { (index % 251) as u8 };
    WalEntry { log_id: LogId { term, index }, kind: (index % 3) as u8, payload: Bytes::from(vec![byte; len]) }
}

/// A callback and where its result arrives.
pub(super) fn done() -> (Done, mpsc::Receiver<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

pub(super) fn append(wal: &Wal, entries: Vec<WalEntry>) {
    let (callback, result) = done();
    wal.append(entries, callback);
    result.recv().unwrap().unwrap();
}

pub(super) fn read_all(wal: &Wal, range: Range<u64>) -> Vec<WalEntry> {
    let mut entries: Vec<WalEntry> = Vec::new();
    loop {
        let start = range.start + entries.len() as u64;
        let more = wal.read(start..range.end, 700).unwrap();
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

pub(super) fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    let entries = crate::disk::Disk::list(disk, &dir()).unwrap();
    entries.into_iter().filter(|entry| entry.name.ends_with(".wal")).map(|entry| dir().join(entry.name)).collect()
}

#[test]
fn reopens_with_everything() {
    let disk = MemoryDisk::new();
    let options = options(1 << 16);
    let (wal, recovered) = open(&disk, &options).unwrap();
    assert!(recovered.created);
    append(&wal, (0..10).map(|index| entry(1, index, 100)).collect());
    let (callback, result) = done();
    let vote = Vote { term: 2, node_id: 7, committed: true };
    wal.save_vote(vote, callback);
    result.recv().unwrap().unwrap();
    wal.save_committed(LogId { term: 1, index: 5 });
    assert_eq!(wal.synced_index(), 9);
    wal.close();
    let (wal, recovered) = open(&disk, &options).unwrap();
    assert_eq!(recovered.vote, Some(vote));
    assert_eq!(recovered.committed, Some(LogId { term: 1, index: 5 }));
    assert_eq!(recovered.last, Some(LogId { term: 1, index: 9 }));
    assert_eq!((recovered.created, recovered.torn), (false, None));
    let expected: Vec<_> = (0..10).map(|index| entry(1, index, 100)).collect();
    assert_eq!(read_all(&wal, 0..100), expected);
    assert_eq!(identity(&disk, &dir()).unwrap(), Some((CLUSTER, MEMBER)));
}

#[test]
fn turns_segments_over_reads_them_and_removes_them() {
    let disk = MemoryDisk::new();
    let options = WalOptions { cache_bytes: 1000, ..options(4096) };
    let (wal, _) = open(&disk, &options).unwrap();
    for index in 1..=200 {
        append(&wal, vec![entry(1, index, 300)]);
    }
    let count = segments(&disk).len();
    assert!(count > 10, "{count} segments");
    let expected: Vec<_> = (1..=200).map(|index| entry(1, index, 300)).collect();
    assert_eq!(read_all(&wal, 1..201), expected);
    assert_eq!(wal.read(50..60, 1).unwrap(), [entry(1, 50, 300)]);
    wal.purge(LogId { term: 1, index: 150 });
    assert!(matches!(wal.read(150..160, 1), Err(WalError::Purged { wanted: 150, purged: 150 })));
    wal.close();
    assert!(segments(&disk).len() < count / 2);
    let (wal, recovered) = open(&disk, &options).unwrap();
    assert_eq!(recovered.purged, Some(LogId { term: 1, index: 150 }));
    assert_eq!(read_all(&wal, 151..201), expected[150..]);
    // A snapshot ahead of the log takes it all.
    wal.purge(LogId { term: 3, index: 500 });
    append(&wal, vec![entry(3, 501, 10)]);
    wal.close();
    let (wal, recovered) = open(&disk, &options).unwrap();
    assert_eq!(recovered.last, Some(LogId { term: 3, index: 501 }));
    assert_eq!(read_all(&wal, 501..600), [entry(3, 501, 10)]);
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn takes_an_entry_larger_than_a_segment() {
    let disk = MemoryDisk::new();
    let options = WalOptions { cache_bytes: 0, ..options(4096) };
    let (wal, _) = open(&disk, &options).unwrap();
    append(&wal, vec![entry(1, 1, 10), entry(1, 2, 50_000), entry(1, 3, 10)]);
    append(&wal, vec![entry(1, 4, 20_000)]);
    wal.close();
    let (wal, _) = open(&disk, &options).unwrap();
    let expected = [entry(1, 1, 10), entry(1, 2, 50_000), entry(1, 3, 10), entry(1, 4, 20_000)];
    assert_eq!(read_all(&wal, 1..5), expected);
}

#[test]
fn another_identity_is_refused() {
    let disk = MemoryDisk::new();
    open(&disk, &options(4096)).unwrap().0.close();
    let other = WalOptions { member_id: MEMBER + 1, ..options(4096) };
    let error = open(&disk, &other).err().unwrap().to_string();
    assert!(error.contains("belongs to member 000000000000003e"), "{error}");
}

#[test]
fn two_cannot_open_one_log() {
    let disk = MemoryDisk::new();
    let (_wal, _) = open(&disk, &options(4096)).unwrap();
    assert!(matches!(open(&disk, &options(4096)), Err(WalError::Io { action: "lock", .. })));
}

#[test]
fn dump_lists_what_was_written() {
    let disk = MemoryDisk::new();
    let (wal, _) = open(&disk, &options(4096)).unwrap();
    for index in 1..=30 {
        append(&wal, vec![entry(1, index, 300)]);
    }
    wal.close();
    let items: Vec<_> = dump::dump(&disk, &dir()).unwrap().map(Result::unwrap).collect();
    let indexes: Vec<u64> = items
        .iter()
        .filter_map(|item| match item {
            dump::Item::Record(placed) => match &placed.record {
                Record::Entry(entry) => Some(entry.log_id.index),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(indexes, (1..=30).collect::<Vec<_>>());
    let headers = items.iter().filter(|item| matches!(item, dump::Item::Segment { .. })).count();
    assert_eq!(headers, segments(&disk).len());
}

/// What version 1 wrote, every later release reads: two segments' used bytes, of a log with each type of record.
#[test]
fn the_golden_log_of_version_1_opens() {
    let disk = MemoryDisk::new();
    crate::disk::Disk::create_dir_all(&disk, &dir()).unwrap();
    let segments: [(&str, &[u8]); 2] = [
        ("0000000000000001-0000000000000000.wal", include_bytes!("../../golden/wal-v1-1.bin")),
        ("0000000000000002-0000000000000004.wal", include_bytes!("../../golden/wal-v1-2.bin")),
    ];
    for (name, used) in segments {
        let path = dir().join(name);
        crate::disk::Disk::open(&disk, &path, crate::disk::OpenOptions::create_new()).unwrap();
        let mut content = used.to_vec();
        content.resize(4096, 0);
        disk.set_content(&path, content).unwrap();
    }
    let (wal, recovered) = open(&disk, &options(4096)).unwrap();
    let expected = Recovered {
        vote: Some(Vote { term: 2, node_id: 7, committed: true }),
        committed: Some(LogId { term: 2, index: 5 }),
        purged: Some(LogId { term: 1, index: 2 }),
        last: Some(LogId { term: 2, index: 6 }),
        cluster_id: CLUSTER,
        member_id: MEMBER,
        created: false,
        torn: None,
    };
    assert_eq!(recovered, expected);
    let entries = [entry(1, 3, 700), entry(2, 4, 900), entry(2, 5, 900), entry(2, 6, 10)];
    assert_eq!(read_all(&wal, 3..100), entries);
}
