//! Compaction: what it refuses, what it leaves, and that it disturbs nobody.

use std::ops::ControlFlow;
use std::sync::Arc;

use garboard_mvcc::watch::History;
use garboard_mvcc::{CompactionStep, Error, RowKey, StoreOptions, Table};
use garboard_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use garboard_proto::raft::command::Op;

use crate::member::*;

fn rows(member: &Member) -> Vec<String> {
    let name = |(key, _): &(bytes::Bytes, bytes::Bytes)| {
        let (revision, tombstone) = RowKey::decode(key).unwrap();
        format!("{}{}", revision.main, if tombstone { "t" } else { "" })
    };
    member.backend.rows(Table::Revisions).iter().map(name).collect()
}

/// a: 2, 3, deleted 5; b: 4, deleted 6, 7.
fn filled() -> Member {
    let mut member = Member::new();
    member.put("a", "1");
    member.put("a", "2");
    member.put("b", "1");
    member.delete(delete("a", ""));
    member.delete(delete("b", ""));
    member.put("b", "2");
    member.flush();
    member
}

#[test]
fn only_newer_revisions_up_to_the_current_one_are_taken() {
    let mut member = filled();
    assert_eq!(member.compact(-1), Err(Error::Compacted));
    assert_eq!(member.compact(8), Err(Error::FutureRevision));
    assert_eq!(member.compact(4), Ok(()));
    assert_eq!((member.compact(4), member.compact(3)), (Err(Error::Compacted), Err(Error::Compacted)));
    assert_eq!(member.compact(7), Ok(()));
}

#[test]
fn rows_that_etcd_keeps_are_kept() {
    let expected: [(i64, &[&str]); 6] = [
        (2, &["2", "3", "4", "5t", "6t", "7"]),
        (3, &["3", "4", "5t", "6t", "7"]),
        (4, &["3", "4", "5t", "6t", "7"]),
        (5, &["4", "5t", "6t", "7"]),
        (6, &["6t", "7"]),
        (7, &["7"]),
    ];
    for (at, left) in expected {
        let mut member = filled();
        member.compact(at).unwrap();
        member.finish_compaction();
        assert_eq!(rows(&member), left, "compacted at {at}");
        assert_eq!(member.store.finished_compact_revision(), at);
        assert_eq!(member.store.compaction_step(10), Ok(CompactionStep::Idle));
    }
}

#[test]
fn an_interrupted_compaction_goes_on_after_a_restart() {
    let mut member = Member::new();
    for value in 0..50 {
        member.put(&format!("k{}", value % 10), "v");
    }
    member.compact(51).unwrap();
    assert_eq!(member.store.compaction_step(5), Ok(CompactionStep::More));
    let reopened = member.flushed_crash();
    assert_eq!(rows(&reopened).len(), 42, "whole keys of four rows too many went");
    assert_eq!((reopened.store.compact_revision(), reopened.store.finished_compact_revision()), (51, -1));
    reopened.finish_compaction();
    assert_eq!(rows(&reopened).len(), 10);
    assert_eq!(reopened.crash().store.finished_compact_revision(), 51);
    assert_eq!(reopened.store.hash(), member.store.hash());
}

#[test]
fn the_revision_stays_when_compaction_removes_the_newest_rows() {
    let mut member = Member::new();
    member.put("k", "1");
    member.delete(delete("k", ""));
    member.put("l", "1");
    member.delete(delete("l", ""));
    member.compact(5).unwrap();
    member.finish_compaction();
    assert_eq!(rows(&member), ["5t"]);
    let mut reopened = member.crash();
    assert_eq!((reopened.revision(), reopened.store.compact_revision()), (5, 5));
    reopened.put("m", "1");
    assert_eq!(reopened.revision(), 6);
    reopened.compact(6).unwrap();
    reopened.finish_compaction();
    assert_eq!(rows(&reopened), ["6"]);
}

/// Deletions in a checkpoint whose position lies before the command that caused them would be found missing by a replay.
#[test]
fn nothing_is_dropped_before_the_entry_is_finished_that_asked_for_it() {
    let mut member = filled();
    let asked = Op::Compaction(CompactionRequest { revision: 7, physical: false });
    member.apply_open(asked).unwrap();
    assert_eq!(member.store.compaction_step(10), Ok(CompactionStep::Idle));
    assert_eq!(member.range(RangeRequest { revision: 3, ..all() }), Err(Error::Compacted), "but reads obey it");
    member.finish_entry();
    assert_eq!(member.store.compaction_step(10), Ok(CompactionStep::Finished(7)));
}

#[test]
fn deletions_wait_for_the_flush_within_their_bound() {
    let mut member = Member::with(StoreOptions { compaction_rows_pending: 10, ..StoreOptions::default() });
    for value in 0..400 {
        member.put(&format!("k{:03}", value % 100), "v");
    }
    member.compact(401).unwrap();
    let mut waited = 0;
    loop {
        match member.store.compaction_step(5).unwrap() {
            CompactionStep::Waiting => {
                assert!(member.flush());
                waited += 1;
            }
            CompactionStep::Finished(401) => break,
            step => assert_eq!(step, CompactionStep::More),
        }
    }
    assert!(waited > 20, "{waited}");
    member.flush();
    assert_eq!(rows(&member).len(), 100);
}

#[test]
fn a_reader_keeps_the_revisions_that_it_was_granted() {
    let mut member = filled();
    let store = Arc::clone(&member.store);
    let mut seen = Vec::new();
    History::scan(&*store, 2, 7, &mut |row| {
        if seen.is_empty() {
            member.compact(7).unwrap();
            assert_eq!(member.store.compaction_step(100), Ok(CompactionStep::Waiting), "somebody reads");
        }
        seen.push((row.main, row.tombstone));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, [(2, false), (3, false), (4, false), (5, true), (6, true), (7, false)]);
    assert_eq!(member.store.compaction_step(100), Ok(CompactionStep::Finished(7)));
}

#[test]
fn history_is_whole_from_the_compact_revision_on() {
    let mut member = filled();
    member.compact(6).unwrap();
    member.finish_compaction();
    let scan = |from| {
        let mut seen = Vec::new();
        History::scan(&*member.store, from, 100, &mut |row| {
            seen.push((row.main, row.tombstone));
            ControlFlow::Continue(())
        })
        .map(|()| seen)
    };
    assert_eq!(scan(6).unwrap(), [(6, true), (7, false)]);
    assert!(scan(5).is_err());
    assert!(History::value_at(&*member.store, b"b", 7).unwrap().is_some());
    assert_eq!(History::value_at(&*member.store, b"b", 6), Ok(None));
    assert_eq!(History::value_at(&*member.store, b"b", 4), Ok(None), "compacted");
}

/// Rows move from overlay to backend while a scan runs: none is missed, none comes twice.
#[test]
fn a_scan_survives_flushes() {
    let mut member = Member::new();
    for value in 0..3000 {
        member.put("k", &value.to_string());
        if value == 500 {
            member.flush();
        }
    }
    let mut seen = Vec::new();
    History::scan(&*member.store, 2, 3001, &mut |row| {
        if seen.len() % 700 == 600 {
            member.flush();
        }
        seen.push(row.main);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(seen, (2..=3001).collect::<Vec<i64>>());
}
