//! Readers beside the writer, the flush and the compaction: each sees one revision, whole.

use std::sync::atomic::{AtomicBool, Ordering};

use garboard_mvcc::{CompactionStep, Error, StoreOptions};
use garboard_proto::etcdserverpb::RangeRequest;

use crate::member::*;

const TRANSFERS: usize = 2000;

/// Every transaction moves one unit between two of ten accounts and rewrites a counter: the sum never changes.
fn transfer(member: &mut Member, balances: &mut [i64; 10], step: usize) {
    let (from, to) = (step % 10, (step * 7 + 3) % 10);
    if from == to {
        return;
    }
    balances[from] -= 1;
    balances[to] += 1;
    let account = |at: usize| put_op(&format!("account/{at}"), &balances[at].to_string());
    member.txn(then(vec![account(from), account(to), delete_op("note", ""), put_op("z", "")])).expect("transfer");
}

fn sum(response: &garboard_proto::etcdserverpb::RangeResponse) -> i64 {
    response.kvs.iter().map(|kv| text(&kv.value).parse::<i64>().expect("a number")).sum()
}

fn read(store: &garboard_mvcc::Store, stop: &AtomicBool) -> usize {
    let (mut reads, mut newest) = (0, 0);
    while !stop.load(Ordering::Relaxed) || reads == 0 {
        let response = store.range(&span("account/", "account0")).expect("the latest is always readable");
        let revision = response.header.expect("a header").revision;
        assert_eq!((response.kvs.len(), response.count, sum(&response)), (10, 10, 1000), "at {revision}");
        assert!(response.kvs.iter().all(|kv| kv.mod_revision <= revision));
        assert!(revision >= newest, "revisions never go back");
        newest = revision;
        let old = RangeRequest { revision: (revision - 20).max(11), ..span("account/", "account0") };
        match store.range(&old) {
            Ok(response) => assert_eq!(sum(&response), 1000, "at the old {}", old.revision),
            Err(error) => assert_eq!(error, Error::Compacted),
        }
        reads += 1;
    }
    reads
}

#[test]
fn readers_see_whole_transactions() {
    let mut member = Member::with(StoreOptions { cache_bytes: 16 * 4000, ..StoreOptions::default() });
    let mut balances = [100; 10];
    for (account, balance) in balances.iter().enumerate() {
        member.put(&format!("account/{account}"), &balance.to_string());
    }
    let stop = AtomicBool::new(false);
    let (store, backend) = (member.store.clone(), member.backend.clone());
    std::thread::scope(|threads| {
        let readers = [(); 2].map(|()| threads.spawn(|| read(&store, &stop)));
        let flusher = threads.spawn(|| {
            let mut finished = 0;
            while !stop.load(Ordering::Relaxed) {
                if let Some(checkpoint) = store.take_checkpoint() {
                    backend.write(&checkpoint);
                    store.checkpoint_written(checkpoint);
                }
                let step = store.compaction_step(4).expect("compaction");
                finished += usize::from(matches!(step, CompactionStep::Finished(_)));
                std::thread::yield_now();
            }
            finished
        });
        for step in 0..TRANSFERS {
            transfer(&mut member, &mut balances, step);
            if step % 50 == 49 {
                member.compact(member.revision() - 5).expect("compaction");
            }
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("no reader saw anything odd") > 0);
        }
        flusher.join().expect("the flush went on");
    });
    member.finish_compaction();
    let reopened = member.flushed_crash();
    assert_eq!(reopened.store.hash(), member.store.hash());
    assert_eq!(sum(&reopened.range(span("account/", "account0")).expect("range")), 1000);
}

/// What an entry adds to what is pending is counted before a checkpoint can take it, be written, and be counted off.
#[test]
fn a_checkpoint_is_written_while_entries_finish() {
    let mut member = Member::new();
    let stop = AtomicBool::new(false);
    let store = member.store.clone();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Nothing is read back: a backend that takes no time finds most.
                if let Some(checkpoint) = store.take_checkpoint() {
                    store.checkpoint_written(checkpoint);
                }
            }
        });
        for id in 1..=100_000 {
            member.grant(id, 60).expect("a lease");
        }
        stop.store(true, Ordering::Relaxed);
    });
    member.flush();
    assert_eq!(member.store.pending_bytes(), 0);
}
