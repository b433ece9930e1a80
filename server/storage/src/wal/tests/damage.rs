//! Torn tails boot, damage is refused: every bit of a small log, and every way to tear its last write.

use super::*;
use crate::disk::memory::Survives;

/// A log of a few segments, synced, each entry acknowledged.
fn written(entries: u64, len: usize) -> (MemoryDisk, WalOptions) {
    let disk = MemoryDisk::new();
    let options = options(4096);
    let (wal, _) = open(&disk, &options).unwrap();
    for index in 1..=entries {
        append(&wal, vec![entry(1, index, len)]);
    }
    wal.save_committed(LogId { term: 1, index: 1 });
    wal.close();
    (disk.crash(Survives::Everything), options)
}

#[test]
fn one_flipped_bit_anywhere_loses_nothing_or_is_refused() {
    let (disk, options) = written(6, 900);
    assert!(segments(&disk).len() >= 2);
    flip_every_bit(&disk, &options, 6);
}

#[test]
fn one_flipped_bit_that_blanks_a_sector_is_refused() {
    let disk = MemoryDisk::new();
    let options = options(1 << 13);
    let (wal, _) = open(&disk, &options).unwrap();
    let mut payload = vec![0; 3000];
    payload[1500] = 4;
    append(&wal, vec![WalEntry { log_id: LogId { term: 1, index: 1 }, kind: 0, payload: payload.into() }]);
    wal.close();
    flip_every_bit(&disk.crash(Survives::Everything), &options, 1);
}

fn flip_every_bit(disk: &MemoryDisk, options: &WalOptions, last: u64) {
    let paths = segments(disk);
    for path in &paths {
        let content = disk.content(path).unwrap();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let is_last = Some(path) == paths.last();
        // Three and eight have no common divisor: every bit of a byte is met, in every field somewhere.
        for bit in (0..used * 8).step_by(3).chain([(used + 100) * 8 + 3, content.len() * 8 - 1]) {
            let damaged = disk.duplicate();
            damaged.flip(path, bit).unwrap();
            match open(&damaged, options) {
                // Only in the zeros behind the last record, where nothing is lost.
                Ok((wal, recovered)) => {
                    assert!(bit >= used * 8, "bit {bit} of {} went unnoticed", path.display());
                    assert_eq!(recovered.last, Some(LogId { term: 1, index: last }));
                    drop(wal);
                    open(&damaged, options).unwrap();
                }
                Err(WalError::Corrupt { path: named, offset, .. }) => {
                    assert_eq!(&named, path, "bit {bit}");
                    assert!(offset as usize <= bit / 8, "bit {bit}: offset {offset} lies behind it");
                    assert!(bit < used * 8 || !is_last);
                }
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
    }
}

#[test]
fn the_refusal_names_file_and_offset_and_changes_nothing() {
    let (disk, options) = written(3, 100);
    let path = segments(&disk).pop().unwrap();
    let content = disk.content(&path).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    disk.flip(&path, (used - 60) * 8).unwrap();
    let damaged = disk.content(&path).unwrap();
    let error = open(&disk, &options).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("corrupt at offset"), "{error}");
    assert_eq!(disk.content(&path).unwrap(), damaged);
    let dumped: Result<Vec<_>, _> = dump::dump(&disk, &dir()).unwrap().collect();
    assert!(matches!(dumped, Err(WalError::Corrupt { .. })));
}

/// A log whose last group, of several sectors and partly zeros, can be torn: its offset and end.
fn with_large_last_group() -> (MemoryDisk, WalOptions, PathBuf, usize, usize) {
    let disk = MemoryDisk::new();
    let options = options(1 << 14);
    let (wal, _) = open(&disk, &options).unwrap();
    append(&wal, vec![entry(1, 1, 50), entry(1, 2, 300)]);
    wal.close();
    let path = segments(&disk).pop().unwrap();
    let start = disk.content(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (wal, _) = open(&disk, &options).unwrap();
    append(&wal, vec![entry(1, 3, 700), entry(1, 4, 1500), entry(1, 5, 600)]);
    wal.close();
    let end = disk.content(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (disk.crash(Survives::Everything), options, path, start, end)
}

fn boots_without_the_last_group(disk: &MemoryDisk, options: &WalOptions, what: &str) {
    let (wal, recovered) = open(disk, options).map_err(|error| format!("{what}: {error}")).unwrap();
    assert_eq!(recovered.last, Some(LogId { term: 1, index: 2 }), "{what}");
    assert_eq!(read_all(&wal, 1..9), [entry(1, 1, 50), entry(1, 2, 300)]);
    // What stands there now is whole again.
    append(&wal, vec![entry(2, 3, 30)]);
    wal.close();
    let (_, recovered) = open(disk, options).unwrap();
    assert_eq!((recovered.last, recovered.torn), (Some(LogId { term: 2, index: 3 }), None), "{what}");
}

#[test]
fn a_last_write_cut_at_any_byte_boots() {
    let (disk, options, path, start, end) = with_large_last_group();
    let content = disk.content(&path).unwrap();
    for cut in start..end {
        let torn = disk.duplicate();
        let mut bytes = content.clone();
        bytes[cut..end].fill(0);
        torn.set_content(&path, bytes).unwrap();
        boots_without_the_last_group(&torn, &options, &format!("cut at {cut} of {start}..{end}"));
    }
}

#[test]
fn a_last_write_that_lacks_any_sectors_boots() {
    let (disk, options, path, start, end) = with_large_last_group();
    let content = disk.content(&path).unwrap();
    let sectors: Vec<usize> = (start / 512..=(end - 1) / 512).collect();
    for lost in 1u32..1 << sectors.len() {
        let torn = disk.duplicate();
        let mut bytes = content.clone();
        for (bit, sector) in sectors.iter().enumerate() {
            if lost & (1 << bit) != 0 {
                bytes[(sector * 512).max(start)..(sector * 512 + 512).min(end)].fill(0);
            }
        }
        // Sectors that are zero anyway are not lost by being so.
        if bytes == content {
            continue;
        }
        torn.set_content(&path, bytes).unwrap();
        boots_without_the_last_group(&torn, &options, &format!("sectors {lost:b}"));
    }
}

#[test]
fn a_missing_or_cut_segment_is_refused() {
    let (disk, options) = written(12, 900);
    let paths = segments(&disk);
    assert!(paths.len() >= 4);
    for path in &paths[..paths.len() - 1] {
        let damaged = disk.duplicate();
        crate::disk::Disk::remove(&damaged, path).unwrap();
        assert!(matches!(open(&damaged, &options), Err(WalError::Corrupt { .. })), "{}", path.display());
    }
    for path in &paths {
        let damaged = disk.duplicate();
        let mut content = damaged.content(path).unwrap();
        content.truncate(content.len() - 8);
        damaged.set_content(path, content).unwrap();
        assert!(matches!(open(&damaged, &options), Err(WalError::Corrupt { .. })), "{}", path.display());
    }
}

#[test]
fn a_payload_that_looks_like_groups_is_no_later_group() {
    let disk = MemoryDisk::new();
    let options = options(1 << 14);
    let (wal, _) = open(&disk, &options).unwrap();
    append(&wal, vec![entry(1, 1, 64)]);
    wal.close();
    let path = segments(&disk).pop().unwrap();
    // Groups of another log, shifted so that some stand aligned.
    let other = disk.content(&path).unwrap()[512..4096].to_vec();
    let victim = MemoryDisk::new();
    let (wal, _) = open(&victim, &options).unwrap();
    append(&wal, vec![entry(1, 1, 10)]);
    let start = victim.content(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut entries = Vec::new();
    for shift in 0..8 {
        let payload = [vec![1; shift], other.clone()].concat();
        entries.push(WalEntry { log_id: LogId { term: 1, index: 2 + shift as u64 }, kind: 0, payload: payload.into() });
    }
    append(&wal, entries[..3].to_vec());
    wal.close();
    let torn = victim.crash(Survives::Everything);
    let mut bytes = torn.content(&path).unwrap();
    let sector = start.next_multiple_of(512);
    bytes[sector..sector + 512].fill(0);
    torn.set_content(&path, bytes).unwrap();
    let (_, recovered) = open(&torn, &options).unwrap();
    assert_eq!(recovered.last, Some(LogId { term: 1, index: 1 }));
    assert!(recovered.torn.is_some());
}

#[test]
fn a_synced_group_that_reads_as_never_written_is_refused() {
    let disk = MemoryDisk::new();
    let options = options(1 << 14);
    let (wal, _) = open(&disk, &options).unwrap();
    let path = segments(&disk).pop().unwrap();
    let mut starts = Vec::new();
    for index in 1..=4 {
        starts.push(disk.content(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1);
        append(&wal, vec![entry(1, index, 1800)]);
    }
    wal.close();
    let disk = disk.crash(Survives::Everything);
    for pair in starts.windows(2) {
        for (start, end) in [(pair[0], pair[1]), (pair[0], pair[0] + 8), (pair[0].next_multiple_of(512), pair[1])] {
            let damaged = disk.duplicate();
            let mut bytes = damaged.content(&path).unwrap();
            bytes[start..end].fill(0);
            damaged.set_content(&path, bytes).unwrap();
            let error = open(&damaged, &options).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("a later synced group follows"), "{start}..{end}: {error}");
        }
    }
}
