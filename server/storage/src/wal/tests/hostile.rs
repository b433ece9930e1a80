//! Logs whose checksums are right and whose records are not: each ends in a refusal. Found by fuzzing (`wal_segments`), or beside what was.

use super::record::BlankSectors;
use super::*;

const SEGMENT_BYTES: usize = 4096;

/// A header's fields, by their offset in the file.
const SEQ_AT: usize = 32;
const FIRST_INDEX_AT: usize = 40;
const FIRST_GROUP_AT: usize = 72;
/// The body of the first group's header, and where its records begin.
const BODY_LEN_AT: usize = 512 + 4;
const RECORDS_AT: usize = 512 + 32;

/// One segment whose first group holds these records, with right checksums; its file name.
fn segment(seq: u64, first_group: u64, records: &[Record]) -> (String, Vec<u8>) {
    let disk = MemoryDisk::new();
    let (wal, _) = open(&disk, &options(SEGMENT_BYTES as u64)).unwrap();
    wal.close();
    let mut bytes = disk.content(&segments(&disk)[0]).unwrap();
    bytes[SEQ_AT..SEQ_AT + 8].copy_from_slice(&seq.to_le_bytes());
    bytes[FIRST_INDEX_AT..FIRST_INDEX_AT + 8].fill(0);
    bytes[FIRST_GROUP_AT..FIRST_GROUP_AT + 8].copy_from_slice(&first_group.to_le_bytes());
    let body: Vec<u8> = records.iter().flat_map(forge::encode_record).collect();
    bytes[BODY_LEN_AT..BODY_LEN_AT + 4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[RECORDS_AT..].fill(0);
    bytes[RECORDS_AT..RECORDS_AT + body.len()].copy_from_slice(&body);
    let mut resealed = [bytes];
    let name = forge::reseal(&mut resealed).remove(0);
    let [bytes] = resealed;
    (name, bytes)
}

fn recover(files: &[(String, Vec<u8>)]) -> Result<Recovered, WalError> {
    let disk = MemoryDisk::new();
    crate::disk::Disk::create_dir_all(&disk, &dir()).unwrap();
    for (name, bytes) in files {
        crate::disk::Disk::open(&disk, &dir().join(name), crate::disk::OpenOptions::create_new()).unwrap();
        disk.set_content(&dir().join(name), bytes.clone()).unwrap();
    }
    open(&disk, &options(SEGMENT_BYTES as u64)).map(|(_, recovered)| recovered)
}

fn refusal(records: &[Record]) -> String {
    match recover(&[segment(1, 1, records)]) {
        Err(WalError::Corrupt { reason, .. }) => reason,
        other => panic!("{records:?}: {other:?}"),
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn begun() -> Record {
    Record::State(State::default())
}

#[test]
fn a_forged_log_that_makes_sense_is_taken() {
    let records = [begun(), Record::Entry(entry(1, 1, 3)), Record::Truncate(None), Record::Entry(entry(2, 1, 3))];
    assert_eq!(recover(&[segment(1, 1, &records)]).unwrap().last, Some(id(2, 1)));
}

#[test]
fn a_truncation_must_leave_a_log_that_was_there() {
    let entries = [begun(), Record::Entry(entry(1, 1, 3)), Record::Entry(entry(1, 2, 3))];
    let with = |more: &[Record]| refusal(&[&entries[..], more].concat());
    let wrong = "truncation behind the last entry, or of purged ones";
    assert_eq!(with(&[Record::Truncate(Some(id(1, 3)))]), wrong);
    assert_eq!(with(&[Record::Truncate(Some(id(0, 9)))]), wrong, "an index counts, whatever the term");
    assert_eq!(with(&[Record::Purge(id(1, 2)), Record::Truncate(Some(id(1, 1)))]), wrong);
    assert_eq!(with(&[Record::Purge(id(1, 1)), Record::Truncate(None)]), wrong);
}

#[test]
fn an_index_that_none_can_follow_is_refused() {
    let last = id(1, u64::MAX);
    for record in [
        Record::Entry(WalEntry { log_id: last, kind: 1, payload: Bytes::new() }),
        Record::Truncate(Some(last)),
        Record::Committed(last),
        Record::Purge(last),
    ] {
        let reason = refusal(&[begun(), record]);
        assert!(reason.ends_with("(log index out of range)"), "{reason}");
    }
}

#[test]
fn a_first_segment_begins_with_nothing() {
    let state = State { last: Some(id(1, 5)), ..State::default() };
    assert_eq!(refusal(&[Record::State(state)]), "state that no log begins with");
    let state = State { purged: Some(id(1, 9)), last: Some(id(1, 5)), ..State::default() };
    let later = recover(&[segment(2, 1, &[Record::State(state)])]);
    assert!(matches!(later, Err(WalError::Corrupt { reason, .. }) if reason == "state that no log begins with"));
}

#[test]
fn an_older_purge_changes_nothing() {
    let entries = (1..=4).map(|index| Record::Entry(entry(1, index, 3)));
    let mut records: Vec<Record> = std::iter::once(begun()).chain(entries).collect();
    records.extend([Record::Purge(id(1, 3)), Record::Purge(id(1, 2))]);
    let recovered = recover(&[segment(1, 1, &records)]).unwrap();
    assert_eq!((recovered.purged, recovered.last), (Some(id(1, 3)), Some(id(1, 4))));
}

#[test]
fn numbers_that_cannot_be_counted_on_from_are_refused() {
    let refused = |seq, first_group| match recover(&[segment(seq, first_group, &[begun()])]) {
        Err(WalError::Corrupt { offset, reason, .. }) => (offset, reason),
        other => panic!("{seq} {first_group}: {other:?}"),
    };
    assert_eq!(refused(1, u64::MAX), (72, "group number out of range".to_owned()));
    assert_eq!(refused(u64::MAX, 1), (0, "segment number out of range".to_owned()));
    assert_eq!(refused(u64::from(u32::MAX), 1), (0, "segment number out of range".to_owned()));
}

#[test]
fn a_header_may_claim_any_number_of_blank_sectors() {
    let most = BlankSectors { zero: u32::MAX, one_bit: u32::MAX };
    let none = BlankSectors::default();
    assert!(!most.missing_in(none) && !most.missing_in(most));
    assert!(none.missing_in(BlankSectors { zero: 1, one_bit: u32::MAX }));
    assert!(none.missing_in(most));
    assert!(!BlankSectors { zero: 3, one_bit: 1 }.missing_in(BlankSectors { zero: 4, one_bit: 0 }), "one flipped bit");
}
