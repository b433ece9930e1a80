//! Watchers on a store: what they get is what happened, from wherever in history they start.

use std::sync::Arc;

use garboard_mvcc::watch::{EventKind, Next, PrevKv, WatchOutput, WatchStream};
use garboard_mvcc::{RowView, Store};
use garboard_proto::etcdserverpb::{PutRequest, WatchCreateRequest};

use crate::member::*;

fn stream(store: &Arc<Store>) -> WatchStream {
    store.watch_hub().stream(Arc::new(|| {}))
}

fn everything(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        start_revision,
        prev_kv: true,
        ..WatchCreateRequest::default()
    }
}

fn drain(stream: &WatchStream) -> Vec<WatchOutput> {
    let mut outputs = Vec::new();
    loop {
        match stream.next() {
            Next::Output(output) => outputs.push(output),
            Next::CatchUp => stream.catch_up(),
            Next::Empty => return outputs,
        }
    }
}

/// Events in few words: `+k@2` a creation, `=k@3(v)` a change of v, `-k@4(v)` a deletion.
fn events(outputs: &[WatchOutput]) -> Vec<String> {
    let mut events = Vec::new();
    for event in outputs.iter().flat_map(|output| &output.events) {
        let sign = match (event.kind(), event.is_create()) {
            (EventKind::Delete, _) => '-',
            (EventKind::Put, true) => '+',
            (EventKind::Put, false) => '=',
        };
        let previous = match event.prev() {
            PrevKv::Known(row) => format!("({})", RowView::parse(row).unwrap().value.escape_ascii()),
            PrevKv::Absent => String::new(),
            PrevKv::Unknown => "(?)".into(),
        };
        events.push(format!("{sign}{}@{}.{}{previous}", text(event.key()), event.main(), event.sub()));
    }
    events
}

fn change(member: &mut Member) {
    member.grant(1, 60).unwrap();
    member.put_with(PutRequest { lease: 1, ..put("b", "1") }).unwrap();
    member.put("a", "1");
    member.put_with(PutRequest { lease: 1, ..put("a", "2") }).unwrap();
    member.txn(then(vec![put_op("c", "1"), delete_op("x", ""), put_op("d", "1")])).unwrap();
    member.delete(delete("x", "z"));
    member.revoke(1).unwrap();
    member.delete(delete("c", "\0"));
    member.put("a", "3");
}

const CHANGES: [&str; 10] =
    ["+b@2.0", "+a@3.0", "=a@4.0(1)", "+c@5.0", "+d@5.1", "-a@6.0(2)", "-b@6.1(1)", "-c@7.0(1)", "-d@7.1(1)", "+a@8.0"];

#[test]
fn a_watcher_from_the_start_sees_every_change() {
    let mut member = Member::new();
    let watcher = stream(&member.store);
    watcher.create(&everything(0));
    change(&mut member);
    assert_eq!(events(&drain(&watcher)), CHANGES);
}

#[test]
fn history_looks_the_same_after_the_fact_and_after_a_restart() {
    let mut member = Member::new();
    change(&mut member);
    let later = stream(&member.store);
    later.create(&everything(1));
    assert_eq!(events(&drain(&later)), CHANGES);
    let reopened = member.flushed_crash();
    let from_disk = stream(&reopened.store);
    from_disk.create(&everything(4));
    let outputs = drain(&from_disk);
    assert_eq!((outputs[0].created, outputs[0].header_revision), (true, 8));
    assert_eq!(events(&outputs), CHANGES[2..]);
}

#[test]
fn watchers_stay_in_step_over_restart_and_compaction() {
    let mut member = Member::new();
    change(&mut member);
    member.compact(6).unwrap();
    member.finish_compaction();
    let mut reopened = member.crash();
    let watcher = stream(&reopened.store);
    watcher.create(&everything(5));
    watcher.create(&everything(6));
    let outputs = drain(&watcher);
    let canceled: Vec<_> = outputs.iter().filter(|output| output.canceled).collect();
    assert_eq!((canceled.len(), canceled[0].compact_revision), (1, 6));
    assert_eq!(
        events(&outputs),
        ["-a@6.0", "-b@6.1", "-c@7.0(1)", "-d@7.1(1)", "+a@8.0"],
        "older values are compacted"
    );
    reopened.put("a", "4");
    assert_eq!(events(&drain(&watcher)), ["=a@9.0(3)"]);
}

#[test]
fn a_new_watcher_starts_behind_what_is_there() {
    let mut member = Member::new();
    change(&mut member);
    let mut reopened = member.flushed_crash();
    let watcher = stream(&reopened.store);
    watcher.create(&everything(0));
    assert_eq!(events(&drain(&watcher)), [""; 0]);
    reopened.put("a", "4");
    assert_eq!(events(&drain(&watcher)), ["=a@9.0(3)"]);
}

#[test]
fn a_previous_value_is_that_of_the_revision_before_and_not_of_the_same_transaction() {
    let mut member = Member::new();
    member.put("a", "1");
    let watcher = stream(&member.store);
    watcher.create(&everything(0));
    member
        .txn(then(vec![txn_op(then(vec![put_op("a", "2")])), delete_op("a", ""), put_op("b", "1"), delete_op("b", "")]))
        .unwrap();
    assert_eq!(events(&drain(&watcher)), ["=a@3.0(1)", "-a@3.1(1)", "+b@3.2", "-b@3.3"]);
}
