//! Logs and records as the writer leaves them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use garboard_storage::disk::Disk as _;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Record;
use garboard_storage::wal::State;
use garboard_storage::wal::Vote;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalEntry;
use garboard_storage::wal::WalOptions;
use garboard_storage::wal::forge;

use crate::input::put_chunk;
use crate::wal_segments::NO_CACHE;
use crate::wal_segments::RESEAL;

const VOTE: Vote = Vote { term: 2, node_id: 9, committed: true };

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn entry(term: u64, index: u64, len: usize) -> WalEntry {
    WalEntry { log_id: id(term, index), kind: 1, payload: Bytes::from(vec![index as u8; len]) }
}

pub fn records() -> Vec<(&'static str, Vec<u8>)> {
    let state = State { vote: Some(VOTE), committed: None, purged: Some(id(1, 2)), last: Some(id(1, 3)) };
    let records = [
        ("state", Record::State(state)),
        ("entry", Record::Entry(entry(1, 2, 8))),
        ("vote", Record::Vote(VOTE)),
        ("committed", Record::Committed(id(1, 2))),
        ("truncate", Record::Truncate(Some(id(1, 2)))),
        ("truncate-all", Record::Truncate(None)),
        ("purge", Record::Purge(id(1, 2))),
    ];
    records.map(|(name, record)| (name, forge::encode_record(&record).to_vec())).into()
}

pub fn folders() -> Vec<(&'static str, Vec<u8>)> {
    let one = log(|log| {
        log.append(1, 1..4, 20);
        log.vote();
    });
    let several = log(|log| {
        log.append(1, 1..4, 900);
        log.wal.save_committed(id(1, 3));
        log.wal.purge(id(1, 2));
        log.append(1, 4..6, 900);
    });
    let truncated = log(|log| {
        log.append(1, 1..5, 20);
        log.truncate(id(1, 2));
        log.append(2, 3..6, 20);
    });
    let mut seeds = Vec::new();
    for (name, resealed, folder) in
        [("one", "one-resealed", one), ("several", "several-resealed", several), ("cut", "cut-resealed", truncated)]
    {
        seeds.push((name, input(0, &folder)));
        seeds.push((resealed, input(RESEAL | NO_CACHE, &folder)));
    }
    seeds.push(("none", input(0, &[])));
    seeds
}

/// What `wal_segments` takes: each segment's used bytes, and its zeros in sectors.
fn input(flags: u8, segments: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![flags];
    for segment in segments {
        let used = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let zeros = (segment.len() - used) / 512;
        // The header tells the length: what is not kept as zeros is kept as bytes.
        let kept = segment.len() - zeros * 512;
        put_chunk(&mut input, &segment[..kept]);
        input.push(zeros as u8);
    }
    input
}

struct Log {
    wal: Wal,
}

fn log(write: impl FnOnce(&Log)) -> Vec<Vec<u8>> {
    let disk = MemoryDisk::new();
    let dir = PathBuf::from("/wal");
    let options = WalOptions { segment_bytes: 4096, ..WalOptions::new(dir.clone(), 0xc1, 0x3e) };
    let (wal, _) = Wal::open(Arc::new(disk.clone()), options).expect("an empty disk");
    let log = Log { wal };
    write(&log);
    log.wal.close();
    let names = disk.list(&dir).expect("the log's folder").into_iter().filter(|entry| entry.name.ends_with(".wal"));
    names.map(|entry| disk.content(&dir.join(entry.name)).expect("it was listed")).collect()
}

// === impl Log ===

impl Log {
    fn append(&self, term: u64, indexes: std::ops::Range<u64>, len: usize) {
        indexes.for_each(|index| synced(|done| self.wal.append(vec![entry(term, index, len)], done)));
    }

    fn vote(&self) {
        synced(|done| self.wal.save_vote(VOTE, done));
    }

    fn truncate(&self, after: LogId) {
        synced(|done| self.wal.truncate_after(Some(after), done));
    }
}

fn synced(call: impl FnOnce(garboard_storage::wal::Done)) {
    let (tell, told) = mpsc::channel();
    call(Box::new(move |result| drop(tell.send(result))));
    told.recv().expect("the callback is called").expect("memory takes it");
}
