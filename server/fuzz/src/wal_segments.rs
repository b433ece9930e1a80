//! A folder of segments, opened as a member does: damaged at random, and damaged with checksums that are right.
//!
//! Recovery has to end with the entries that the records say, or with a refusal that changes nothing on disk. What it accepted must
//! take another entry and open again.

mod model;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use garboard_storage::disk::Disk as _;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::wal;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Recovered;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalEntry;
use garboard_storage::wal::WalError;
use garboard_storage::wal::WalOptions;
use garboard_storage::wal::forge;

use crate::input::Input;
use model::Model;

/// The first byte of an input: give the segments the checksums of their bytes, and the names of their headers.
pub const RESEAL: u8 = 1;
/// As above: keep no entry in memory, so that all are read from the segments.
pub const NO_CACHE: u8 = 2;

/// An input has no more segments; what follows is not looked at.
const SEGMENTS_MAX: usize = 8;
/// A segment's zeros behind its chunk are counted in these.
const SECTOR_BYTES: usize = 512;
/// Bytes asked for in one read.
const READ_BYTES: usize = 700;

/// Returns what was recovered, or why not.
pub fn run(input: &[u8]) -> Result<Recovered, WalError> {
    let mut input = Input(input);
    let flags = input.byte();
    let files = files(&mut input, flags & RESEAL != 0);
    let disk = MemoryDisk::new();
    for (name, content) in &files {
        write(&disk, &dir().join(name), content);
    }
    let result = open(&disk, flags & NO_CACHE != 0);
    if let Err(error) = &result {
        assert!(!matches!(error, WalError::Io { .. }), "the disk works: {error}");
        for (name, content) in &files {
            let now = disk.content(&dir().join(name)).ok();
            assert_eq!(now.as_ref(), Some(content), "{name} was changed, and then refused: {error}");
        }
    }
    result
}

fn dir() -> PathBuf {
    "/member/wal".into()
}

/// The segment files by name: each a chunk, and a byte that says how many sectors of zeros follow.
fn files(input: &mut Input<'_>, reseal: bool) -> BTreeMap<String, Vec<u8>> {
    let mut segments = Vec::new();
    while !input.is_empty() && segments.len() < SEGMENTS_MAX {
        let mut segment = input.chunk().to_vec();
        let zeros = usize::from(input.byte() % 16) * SECTOR_BYTES;
        segment.resize(segment.len() + zeros, 0);
        segments.push(segment);
    }
    let names = if reseal {
        forge::reseal(&mut segments)
    } else {
        segments.iter().enumerate().map(|(at, segment)| own_name(segment, at)).collect()
    };
    names.into_iter().zip(segments).collect()
}

/// The name that a segment's header asks for: number and first index.
fn own_name(segment: &[u8], at: usize) -> String {
    let word = |offset: usize| segment.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    format!("{:016x}-{:016x}.wal", word(32).unwrap_or(at as u64 + 1), word(40).unwrap_or(0))
}

fn write(disk: &MemoryDisk, path: &Path, content: &[u8]) {
    disk.create_dir_all(&dir()).expect("a disk in memory");
    disk.open(path, OpenOptions::create_new()).expect("names are different");
    disk.set_content(path, content.to_vec()).expect("it was just created");
}

fn open(disk: &MemoryDisk, no_cache: bool) -> Result<Recovered, WalError> {
    let model = Model::read(disk, &dir());
    let (cluster_id, member_id) = wal::identity(disk, &dir())?.unwrap_or((1, 2));
    let options = WalOptions {
        segment_bytes: 4096,
        cache_bytes: if no_cache { 0 } else { 1 << 20 },
        on_fatal: Arc::new(|error| panic!("the log failed on a disk that works: {error}")),
        ..WalOptions::new(dir(), cluster_id, member_id)
    };
    let (log, recovered) = Wal::open(Arc::new(disk.clone()), options.clone())?;
    let mut model = model.unwrap_or_else(|error| panic!("recovered, and not to be dumped: {error}"));
    if recovered.created {
        return Ok(recovered);
    }
    compare(&log, &recovered, &model);
    append(&log, &recovered, &mut model);
    log.close();
    let (log, again) = Wal::open(Arc::new(disk.clone()), options).expect("what was accepted and closed opens again");
    assert_eq!(again.torn, None, "what was torn was cut");
    compare(&log, &again, &model);
    log.close();
    Ok(recovered)
}

fn compare(log: &Wal, recovered: &Recovered, model: &Model) {
    let state = model.state;
    let found = (recovered.vote, recovered.committed, recovered.purged, recovered.last);
    assert_eq!(found, (state.vote, state.committed, state.purged, state.last), "the state is not what the records say");
    let mut expected = model.entries.values();
    let Some((first, _)) = model.entries.first_key_value() else { return };
    let mut next = *first;
    while let entries = log.read(next..u64::MAX, READ_BYTES).expect("entries that were recovered can be read")
        && !entries.is_empty()
    {
        for entry in &entries {
            assert_eq!(Some(entry), expected.next(), "entry {next} is not the one that was written");
            next += 1;
        }
    }
    assert_eq!(expected.next(), None, "entries end before {next}");
}

/// What was recovered can be built upon.
fn append(log: &Wal, recovered: &Recovered, model: &mut Model) {
    let last = recovered.last.unwrap_or_default();
    // The member would never get there by counting.
    let Some(index) = last.index.checked_add(1).filter(|index| *index < u64::MAX) else { return };
    let log_id = LogId { term: last.term, index };
    let entry = WalEntry { log_id, kind: 1, payload: Bytes::from_static(b"appended") };
    let (tell, told) = mpsc::channel();
    log.append(vec![entry.clone()], Box::new(move |done| drop(tell.send(done))));
    told.recv().expect("the callback is called").expect("the disk works");
    model.entry(entry);
}
