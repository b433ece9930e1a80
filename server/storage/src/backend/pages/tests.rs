//! A flipped bit anywhere in the database is refused, and never served.

use redb::StorageBackend as _;

use super::super::tests::Rows;
use super::super::tests::all_rows;
use super::super::tests::apply;
use super::super::tests::batch;
use super::super::tests::new_disk;
use super::super::tests::open;
use super::super::tests::path;
use super::*;
use crate::disk::Disk;
use crate::disk::OpenOptions;
use crate::disk::memory::MemoryDisk;

fn pages(disk: &MemoryDisk) -> io::Result<Pages> {
    Pages::open(disk.open(&path(), OpenOptions::create()).unwrap(), &path(), false)
}

#[test]
fn places_and_lengths_agree() {
    for count in [0, 1, 2, GROUP_PAGES - 1, GROUP_PAGES, GROUP_PAGES + 1, 5 * GROUP_PAGES, 5 * GROUP_PAGES + 7] {
        assert_eq!(pages_in(file_len(count)), count);
        if count > 0 {
            assert_eq!(place(count - 1) + PAGE, file_len(count));
        }
    }
    // A file that a crash cut or left at any length never has more pages than it has room for.
    for len in (0..40 * PAGE).step_by(777) {
        assert!(file_len(pages_in(len)) <= len.max(PAGE));
    }
}

#[test]
fn what_is_written_over_the_border_of_groups_reads_back_after_reopening() {
    let disk = new_disk();
    let file = pages(&disk).unwrap();
    file.set_len(3 * GROUP_PAGES * PAGE).unwrap();
    let first = GROUP_PAGES - 3;
    let content: Vec<u8> = (0..(GROUP_PAGES as usize + 9) * PAGE_BYTES).map(|at| (at / 1000) as u8).collect();
    file.write(first * PAGE, &content).unwrap();
    file.sync_data().unwrap();
    let reopened = pages(&disk).unwrap();
    for file in [&file, &reopened] {
        let mut out = vec![0; content.len()];
        file.read(first * PAGE, &mut out).unwrap();
        assert!(out == content);
        file.read(0, &mut out[..2 * PAGE_BYTES]).unwrap();
        assert!(out[..2 * PAGE_BYTES].iter().all(|byte| *byte == 0));
    }
    // Cut off and grown again, its pages are blank.
    reopened.set_len((first + 1) * PAGE).unwrap();
    reopened.set_len(2 * GROUP_PAGES * PAGE).unwrap();
    reopened.sync_data().unwrap();
    let mut out = vec![1; PAGE_BYTES];
    pages(&disk).unwrap().read((first + 1) * PAGE, &mut out).unwrap();
    assert!(out.iter().all(|byte| *byte == 0));
}

#[test]
fn a_page_in_the_place_of_another_is_refused() {
    let disk = new_disk();
    let file = pages(&disk).unwrap();
    file.set_len(4 * PAGE).unwrap();
    file.write(PAGE, &[7; PAGE_BYTES]).unwrap();
    file.write(2 * PAGE, &[8; PAGE_BYTES]).unwrap();
    file.sync_data().unwrap();
    let mut content = disk.content(&path()).unwrap();
    let (one, two) = (place(1) as usize, place(2) as usize);
    content.copy_within(one..one + PAGE_BYTES, two);
    disk.set_content(&path(), content).unwrap();
    let error = pages(&disk).unwrap().read(2 * PAGE, &mut [0; PAGE_BYTES]).unwrap_err().to_string();
    assert!(error.contains("/data/member/db is corrupt at byte 12288"), "{error}");
}

#[test]
fn another_kind_of_file_is_refused() {
    let disk = new_disk();
    disk.open(&path(), OpenOptions::create()).unwrap().pwrite(&[b'x'; 3 * PAGE_BYTES], 0).unwrap();
    let error = pages(&disk).err().unwrap().to_string();
    assert!(error.contains("/data/member/db is corrupt at byte 0"), "{error}");
}

/// Opens the file with that bit flipped and reads all of it: every row as it was, or an error that names the file.
fn survives_flip(disk: &MemoryDisk, bit: usize, rows: &Rows) -> bool {
    let damaged = disk.duplicate();
    damaged.flip(&path(), bit).unwrap();
    let read = || -> Result<Rows, crate::backend::BackendError> {
        let backend = open(&damaged)?;
        let view = backend.read()?;
        let mut found = Rows::new();
        for table in crate::backend::Table::ALL {
            view.scan(table, &[], None, &mut |key, value| {
                found.insert((table, key.to_vec()), value.to_vec());
                std::ops::ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    };
    match read() {
        Ok(found) => {
            assert!(found == *rows, "bit {bit} changed what is read");
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("/data/member/db"), "{text}");
            false
        }
    }
}

#[test]
fn no_flipped_bit_is_served() {
    let disk = new_disk();
    let backend = open(&disk).unwrap();
    let mut rows = Rows::new();
    for main in 1..=30 {
        backend.commit(&batch(main)).unwrap();
        apply(&mut rows, &batch(main));
    }
    assert_eq!(all_rows(&backend.read().unwrap()), rows);
    drop(backend);
    let header = (place(0) as usize * 8..(place(0) as usize + HEADER_BYTES) * 8).step_by(5);
    let header_refused = header.clone().filter(|bit| !survives_flip(&disk, *bit, &rows)).count();
    assert_eq!(header_refused, header.len());
    let file_bits = disk.content(&path()).unwrap().len() * 8;
    let refused =
        (0..file_bits).step_by((file_bits / 1500) | 1).filter(|bit| !survives_flip(&disk, *bit, &rows)).count();
    // Free pages are never read; what is in use is a good part of it.
    assert!(refused > 15, "{refused}");
}

/// Runs of one byte: how many 2, the byte 1.
fn unpack(runs: &[u8]) -> Vec<u8> {
    let run = |[low, high, byte]: &[u8; 3]| vec![*byte; usize::from(u16::from_le_bytes([*low, *high]))];
    runs.as_chunks().0.iter().flat_map(run).collect()
}

/// A database of version 1, closed in order, with a row in each table and some deleted.
#[test]
fn the_golden_database_of_version_1_opens() {
    let content = unpack(include_bytes!("../../../golden/db-v1.runs"));
    let disk = new_disk();
    disk.open(&path(), OpenOptions::create()).unwrap();
    disk.set_content(&path(), content).unwrap();
    let mut rows = Rows::new();
    for main in 1..=7 {
        apply(&mut rows, &batch(main));
    }
    for table in crate::backend::Table::ALL {
        rows.insert((table, b"golden".to_vec()), format!("{table:?}").into_bytes());
    }
    let backend = open(&disk).unwrap();
    assert_eq!(all_rows(&backend.read().unwrap()), rows);
    backend.commit(&batch(8)).unwrap();
}
