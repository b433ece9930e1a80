//! A disk that fails ends the log: nobody is told Ok, nothing is tried again.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::*;
use crate::disk::memory::Failure;
use crate::disk::memory::Survives;

#[test]
fn a_failed_write_or_sync_is_fatal_and_acknowledges_nothing() {
    // The append is one write and one sync; fail the one, then the other.
    for call in 1..=2 {
        let disk = MemoryDisk::new();
        let fatal = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&fatal);
        let hook: OnFatal = Arc::new(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let options = WalOptions { on_fatal: hook, ..options(1 << 16) };
        let (wal, _) = open(&disk, &options).unwrap();
        append(&wal, vec![entry(1, 1, 10)]);
        wait_for_prepared(&disk);
        disk.fail_at(disk.calls() + call, Failure::Once);
        let (callback, result) = done();
        wal.append(vec![entry(1, 2, 10)], callback);
        assert!(result.recv().unwrap().is_err());
        assert_eq!(fatal.load(Ordering::SeqCst), 1);
        // The disk works again, the log does not.
        let (callback, result) = done();
        wal.append(vec![entry(1, 3, 10)], callback);
        assert!(result.recv().unwrap().is_err());
        assert!(matches!(wal.wait_synced(2), Err(WalError::Stopped)));
        assert_eq!((wal.synced_index(), fatal.load(Ordering::SeqCst)), (1, 1));
        wal.close();
        let (_, recovered) = open(&disk.crash(Survives::Nothing), &options).unwrap();
        assert_eq!(recovered.last, Some(LogId { term: 1, index: 1 }));
    }
}

/// The background thread has finished the next segment: its calls no longer mix with the counted ones.
fn wait_for_prepared(disk: &MemoryDisk) {
    loop {
        let calls = disk.calls();
        let entries = crate::disk::Disk::list(disk, &dir()).unwrap();
        let ready = entries.iter().any(|entry| entry.name.ends_with(".tmp") && entry.len == 1 << 16);
        // open, length, one step of zeros, its sync
        if ready && calls >= 14 {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn acknowledged_means_synced_whatever_the_crash() {
    for calls in 1..60 {
        let disk = MemoryDisk::new();
        let options = options(4096);
        let (wal, _) = open(&disk, &options).unwrap();
        disk.fail_at(disk.calls() + calls, Failure::Dead);
        let mut acknowledged = 0;
        for index in 1..=12 {
            let (callback, result) = done();
            wal.append(vec![entry(1, index, 700)], callback);
            if result.recv().unwrap().is_err() {
                break;
            }
            acknowledged = index;
        }
        drop(wal);
        for survives in [Survives::Nothing, Survives::Everything, Survives::Some(calls), Survives::Some(calls + 1000)] {
            let (wal, recovered) = open(&disk.crash(survives), &options).unwrap();
            let last = recovered.last.map_or(0, |last| last.index);
            assert!(last >= acknowledged, "{calls} {survives:?}: {last} of {acknowledged}");
            let expected: Vec<_> = (1..=last).map(|index| entry(1, index, 700)).collect();
            assert_eq!(read_all(&wal, 1..100), expected);
        }
    }
}

#[test]
fn callbacks_run_in_order_and_waiting_wakes() {
    let disk = MemoryDisk::new();
    let (wal, _) = open(&disk, &options(1 << 16)).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 1..=100 {
        let sender = sender.clone();
        wal.append(
            vec![entry(1, index, 200)],
            Box::new(move |result| {
                result.unwrap();
                sender.send(index).unwrap();
            }),
        );
        assert_eq!(wal.read(index..index + 1, 1).unwrap(), [entry(1, index, 200)]);
    }
    wal.wait_synced(100).unwrap();
    assert_eq!(receiver.iter().take(100).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_holds_callers_back_and_lets_them_go() {
    let disk = MemoryDisk::new();
    let options = WalOptions { queue_bytes: 500, cache_bytes: 0, ..options(1 << 16) };
    let (wal, _) = open(&disk, &options).unwrap();
    for index in 1..=50 {
        wal.append(vec![entry(1, index, 400)], Box::new(|result| result.unwrap()));
    }
    wal.wait_synced(50).unwrap();
    assert_eq!(read_all(&wal, 1..51).len(), 50);
}

#[test]
fn acknowledged_means_synced_over_a_kill_and_a_power_cut() {
    for calls in 1..40 {
        let disk = MemoryDisk::new();
        let options = options(4096);
        let (wal, _) = open(&disk, &options).unwrap();
        disk.fail_at(disk.calls() + calls, Failure::Dead);
        for index in 1..=8 {
            wal.append(vec![entry(1, index, 700)], Box::new(|_| {}));
        }
        drop(wal);
        // The process is killed there and starts again; then the power goes.
        let disk = disk.crash(Survives::Everything);
        let (wal, recovered) = open(&disk, &options).unwrap();
        let next = recovered.last.map_or(1, |last| last.index + 1);
        append(&wal, vec![entry(2, next, 700)]);
        let disk = disk.crash(Survives::Nothing);
        drop(wal);
        let (wal, recovered) = open(&disk, &options).unwrap();
        assert_eq!(recovered.last, Some(LogId { term: 2, index: next }), "call {calls}");
        assert_eq!(read_all(&wal, 1..100).len() as u64, next);
    }
}

#[test]
fn a_panic_while_writing_is_fatal() {
    struct Panics;
    impl WalObserver for Panics {
        fn synced(&self, _: Duration) {
            panic!("observer");
        }
        fn written(&self, _: usize) {}
    }
    let (sender, fatal) = mpsc::channel();
    let hook: OnFatal = Arc::new(move |error| sender.send(error.to_string()).unwrap());
    let options = WalOptions { on_fatal: hook, observer: Arc::new(Panics), ..options(4096) };
    let (wal, _) = open(&MemoryDisk::new(), &options).unwrap();
    wal.append(vec![entry(1, 1, 10)], Box::new(|result| assert!(result.is_err())));
    let told = fatal.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(told, WalError::Panicked.to_string());
    assert!(wal.wait_synced(1).is_err());
}

#[test]
#[should_panic(expected = "truncation")]
fn what_is_committed_is_never_truncated() {
    let (wal, _) = open(&MemoryDisk::new(), &options(4096)).unwrap();
    append(&wal, vec![entry(1, 1, 10), entry(1, 2, 10)]);
    wal.save_committed(LogId { term: 1, index: 2 });
    wal.truncate_after(Some(LogId { term: 1, index: 1 }), Box::new(|_| {}));
}
