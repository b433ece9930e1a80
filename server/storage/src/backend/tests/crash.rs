//! A crash at every call of a commit and of a defragmentation: what was durable is there, and nothing is there by half.

use super::*;
use crate::disk::memory::Failure;
use crate::disk::memory::Survives;

fn survivals(seed: u64) -> [Survives; 4] {
    [Survives::Nothing, Survives::Everything, Survives::Some(seed), Survives::Some(seed + 77)]
}

/// The rows are those of `mains` commits, `at_least` of them or one more.
fn check(disk: &MemoryDisk, at_least: u64, what: &str) {
    let backend = open(disk).map_err(|error| format!("{what}: {error}")).unwrap();
    let view = backend.read().unwrap();
    let applied = view.get(Table::Meta, b"applied").unwrap();
    let applied = applied.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    assert!((at_least..=at_least + 1).contains(&applied), "{what}: {applied} of {at_least} commits");
    let mut rows = Rows::new();
    for main in 1..=applied {
        apply(&mut rows, &batch(main));
    }
    assert_eq!(all_rows(&view), rows, "{what}");
    drop(view);
    backend.commit(&batch(applied + 1)).unwrap();
    assert!(!disk.exists(&defrag::copy_path(&path())).unwrap());
}

#[test]
fn at_every_call_of_opening_and_committing() {
    let mut step = 0;
    loop {
        step += 1;
        let disk = new_disk();
        disk.fail_at(disk.calls() + step, Failure::Dead);
        let mut committed = 0;
        if let Ok(backend) = open(&disk) {
            while committed < 3 && backend.commit(&batch(committed + 1)).is_ok() {
                committed += 1;
            }
        }
        for survives in survivals(step) {
            check(&disk.crash(survives), committed, &format!("step {step}, {survives:?}"));
        }
        if committed == 3 {
            assert!(step > 20);
            return;
        }
    }
}

#[test]
fn at_every_call_of_a_defragmentation() {
    let mut step = 0;
    loop {
        step += 1;
        let disk = new_disk();
        let backend = open(&disk).unwrap();
        for main in 1..=12 {
            backend.commit(&batch(main)).unwrap();
        }
        disk.fail_at(disk.calls() + step, Failure::Dead);
        let finished = backend.defragment(fast()).is_ok();
        for survives in survivals(step) {
            check(&disk.crash(survives), 12, &format!("step {step}, {survives:?}"));
        }
        if finished {
            assert!(step > 20);
            return;
        }
    }
}

#[test]
fn at_every_call_of_a_defragmentation_by_kill_and_then_power_cut() {
    let mut step = 0;
    loop {
        step += 1;
        let disk = new_disk();
        let backend = open(&disk).unwrap();
        backend.commit(&batch(1)).unwrap();
        disk.fail_at(disk.calls() + step, Failure::Dead);
        let finished = backend.defragment(fast()).is_ok();
        let disk = disk.crash(Survives::Everything);
        open(&disk).unwrap().commit(&batch(2)).unwrap();
        check(&disk.crash(Survives::Nothing), 2, &format!("step {step}"));
        if finished {
            return;
        }
    }
}

#[test]
fn a_failed_call_of_a_defragmentation_leaves_the_backend_at_work_or_stopped() {
    let mut step = 0;
    loop {
        step += 1;
        let disk = new_disk();
        let backend = open(&disk).unwrap();
        for main in 1..=6 {
            backend.commit(&batch(main)).unwrap();
        }
        disk.fail_at(disk.calls() + step, Failure::Once);
        let finished = backend.defragment(fast()).is_ok();
        let committed = 6 + u64::from(backend.commit(&batch(7)).is_ok());
        assert!(committed == 7 || !finished);
        check(&disk.crash(Survives::Nothing), committed, &format!("step {step}"));
        if finished {
            return;
        }
    }
}

#[test]
fn a_failed_sync_stops_the_backend() {
    let mut step = 0;
    loop {
        step += 1;
        let disk = new_disk();
        let backend = open(&disk).unwrap();
        backend.commit(&batch(1)).unwrap();
        disk.fail_at(disk.calls() + step, Failure::Once);
        if backend.commit(&batch(2)).is_ok() {
            return;
        }
        assert!(matches!(backend.commit(&batch(2)), Err(BackendError::Failed)));
        drop(backend);
        check(&disk.crash(Survives::Nothing), 1, &format!("step {step}"));
    }
}

#[test]
fn commits_that_were_not_durable_fall_back_to_one_that_was() {
    for seed in 0..12 {
        let disk = new_disk();
        let backend = open(&disk).unwrap();
        backend.commit(&batch(1)).unwrap();
        // As on a file of terabytes.
        backend.commits.lock().sizes.total = 1 << 44;
        for main in 2..=6 {
            assert!(!backend.commit(&batch(main)).unwrap().durable);
        }
        assert!(backend.commit_durable(&batch(7)).unwrap().durable);
        for main in 8..=9 {
            assert!(!backend.commit(&batch(main)).unwrap().durable);
        }
        let survives = survivals(seed)[seed as usize % 4];
        check_exactly(&disk.crash(survives), 7, &format!("{survives:?}"));
    }
}

fn check_exactly(disk: &MemoryDisk, mains: u64, what: &str) {
    let mut rows = Rows::new();
    for main in 1..=mains {
        apply(&mut rows, &batch(main));
    }
    assert_eq!(all_rows(&open(disk).unwrap().read().unwrap()), rows, "{what}");
}
