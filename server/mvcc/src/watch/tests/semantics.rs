//! One test per sentence of what etcd's clients rely on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use garboard_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::world::{Client, Op, World, watch};
use crate::watch::{HubOptions, Next};

fn world() -> (Arc<World>, Client) {
    let world = World::new(HubOptions::default());
    let client = Client::new(&world);
    (world, client)
}

fn put(key: &'static str) -> [Op; 1] {
    [Op::Put(key, 3)]
}

fn header_revision(response: &WatchResponse) -> i64 {
    response.header.unwrap().revision
}

fn revisions(responses: &[WatchResponse]) -> Vec<i64> {
    let events = responses.iter().flat_map(|response| &response.events);
    events.map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

fn keys(responses: &[WatchResponse]) -> Vec<Bytes> {
    responses.iter().flat_map(|response| &response.events).map(|event| event.kv.as_ref().unwrap().key.clone()).collect()
}

#[test]
fn created_comes_first_then_events_by_revision() {
    let (world, mut client) = world();
    client.create(watch("a", "", 0));
    world.commit(&put("a"));
    world.commit(&put("b"));
    world.commit(&[Op::Delete("a")]);
    let responses = client.drain();
    assert!(responses[0].created && responses[0].events.is_empty() && header_revision(&responses[0]) == 1);
    assert_eq!(revisions(&responses), [2, 4]);
    let deleted = &responses.last().unwrap().events.last().unwrap();
    let kv = deleted.kv.as_ref().unwrap();
    assert_eq!((deleted.r#type, kv.version, kv.create_revision, kv.value.len()), (1, 0, 0, 0));
    client.check_complete();
}

#[test]
fn start_revision_zero_means_the_next_one() {
    let (world, mut client) = world();
    world.commit(&put("a"));
    client.create(watch("a", "", 0));
    world.commit(&put("a"));
    assert_eq!(revisions(&client.drain()), [3]);
}

#[test]
fn a_past_start_revision_delivers_from_it() {
    let (world, mut client) = world();
    for _ in 0..5 {
        world.commit(&put("a"));
    }
    client.create(watch("a", "", 3));
    let responses = client.drain();
    assert_eq!(revisions(&responses), [3, 4, 5, 6]);
    assert_eq!(world.hub.counters().slow_watchers, 0);
}

#[test]
fn the_header_of_a_catch_up_batch_carries_the_current_revision() {
    let (world, mut client) = world();
    world.commit(&put("a"));
    world.commit(&put("b"));
    world.commit(&put("b"));
    client.create(watch("a", "", 2));
    let responses = client.drain();
    assert_eq!((revisions(&responses), header_revision(&responses[1])), (vec![2], 4));
    world.commit(&put("a"));
    assert_eq!(header_revision(&client.next().unwrap()), 5);
}

#[test]
fn a_future_start_revision_delivers_nothing_until_then() {
    let (world, mut client) = world();
    client.create(WatchCreateRequest { progress_notify: true, ..watch("a", "", 4) });
    assert_eq!(client.drain().len(), 1);
    for _ in 0..2 {
        world.commit(&put("a"));
        client.stream.progress_tick();
        client.stream.request_progress();
        assert!(client.drain().is_empty());
    }
    world.commit(&put("a"));
    assert_eq!(revisions(&client.drain()), [4]);
    client.stream.request_progress();
    assert_eq!(header_revision(&client.next().unwrap()), 4);
}

#[test]
fn a_negative_start_revision_is_refused_as_compacted() {
    let (world, mut client) = world();
    world.commit(&put("a"));
    client.create(watch("a", "", -1));
    let refused = client.next().unwrap();
    assert!(refused.created && refused.canceled);
    assert_eq!((refused.watch_id, refused.compact_revision, header_revision(&refused)), (-1, 0, 2));
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    assert!(client.next().is_none());
}

#[test]
fn a_start_below_compaction_is_created_then_canceled() {
    let (world, mut client) = world();
    for _ in 0..4 {
        world.commit(&put("a"));
    }
    world.past.compact(4);
    client.create(watch("a", "", 3));
    let responses = client.drain();
    assert_eq!(responses.len(), 2);
    assert!(responses[0].created && !responses[0].canceled && header_revision(&responses[0]) == 5);
    assert!(!responses[1].created && responses[1].canceled && responses[1].cancel_reason.is_empty());
    assert_eq!((responses[1].compact_revision, header_revision(&responses[1])), (4, 0));
    assert_eq!(responses[0].watch_id, responses[1].watch_id);
    assert_eq!(world.hub.counters().watchers, 0);
    client.create(watch("a", "", 4));
    assert_eq!(revisions(&client.drain()), [4, 5], "the compacted revision itself can be watched");
}

#[test]
fn a_slow_watcher_that_falls_behind_compaction_is_canceled() {
    let world = World::new(HubOptions { ring_bytes: 1, stream_queue_bytes: 1, ..HubOptions::default() });
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    assert!(client.next().unwrap().created);
    for _ in 0..5 {
        world.commit(&put("a"));
    }
    world.past.compact(5);
    let canceled = client.next().unwrap();
    assert_eq!((canceled.canceled, canceled.compact_revision, header_revision(&canceled)), (true, 5, 0));
    client.create(watch("a", "", 0));
    world.commit(&put("a"));
    assert_eq!(revisions(&client.drain()), [7], "the stream lives on");
}

#[test]
fn compaction_does_not_touch_a_watcher_in_step() {
    let (world, mut client) = world();
    client.create(watch("a", "", 1));
    for _ in 0..5 {
        world.commit(&put("b"));
    }
    client.drain();
    world.past.compact(6);
    world.commit(&put("a"));
    assert_eq!(revisions(&client.drain()), [7]);
}

#[test]
fn refusals_are_created_and_canceled_with_watch_id_minus_one_and_the_stream_lives_on() {
    let (world, mut client) = world();
    client.create(watch("b", "a", 0));
    client.create(watch("b", "b", 0));
    for _ in 0..2 {
        let refused = client.next().unwrap();
        assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
        assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    }
    client.creates.push_back(watch("a", "", 0));
    client.stream.refuse("etcdserver: permission denied");
    assert_eq!(client.next().unwrap().cancel_reason, "etcdserver: permission denied");
    client.create(watch("a", "", 0));
    world.commit(&put("a"));
    assert_eq!(revisions(&client.drain()), [2]);
}

#[test]
fn a_watch_id_in_use_is_refused() {
    let (_world, mut client) = world();
    client.create(WatchCreateRequest { watch_id: 5, ..watch("a", "", 0) });
    client.create(WatchCreateRequest { watch_id: 5, ..watch("b", "", 0) });
    let responses = client.drain();
    assert_eq!((responses[0].watch_id, responses[0].canceled), (5, false));
    assert_eq!((responses[1].watch_id, responses[1].canceled), (-1, true));
    assert_eq!(responses[1].cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    client.cancel(5);
    client.create(WatchCreateRequest { watch_id: 5, ..watch("b", "", 0) });
    let responses = client.drain();
    assert!(responses[0].canceled && responses[1].created && responses[1].watch_id == 5);
}

#[test]
fn watch_id_zero_means_the_lowest_free_counter() {
    let (_world, mut client) = world();
    client.create(WatchCreateRequest { watch_id: 1, ..watch("a", "", 0) });
    client.create(watch("a", "", 0));
    client.create(watch("a", "", 0));
    client.cancel(0);
    client.create(watch("a", "", 0));
    let responses = client.drain();
    let created: Vec<i64> = responses.iter().filter(|r| r.created).map(|r| r.watch_id).collect();
    assert_eq!(created, [1, 0, 2, 3], "the counter never goes back");
}

#[test]
fn too_many_watchers_are_refused_with_a_reason() {
    let world = World::new(HubOptions { stream_watchers_max: 1, ..HubOptions::default() });
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    client.create(watch("a", "", 0));
    let responses = client.drain();
    assert!(!responses[0].canceled && responses[1].canceled && responses[1].watch_id == -1);
    client.cancel(0);
    client.create(watch("a", "", 0));
    assert!(!client.drain()[1].canceled);
}

#[test]
fn cancel_is_answered_once_and_an_unknown_id_not_at_all() {
    let (world, mut client) = world();
    client.create(watch("a", "", 0));
    client.drain();
    world.commit(&put("b"));
    client.stream.cancel(9);
    assert!(client.next().is_none());
    client.cancel(0);
    client.cancel(0);
    let canceled = client.next().unwrap();
    assert!(canceled.canceled && canceled.cancel_reason.is_empty() && canceled.compact_revision == 0);
    assert_eq!(header_revision(&canceled), 2);
    world.commit(&put("a"));
    assert!(client.next().is_none());
}

#[test]
fn ranges_keys_and_everything_from_a_key() {
    let (world, mut client) = world();
    let requests = [("b", ""), ("a", "b"), ("b", "\0"), ("", "\0"), ("", ""), ("\0", "\0")];
    for (key, end) in requests {
        client.create(watch(key, end, 0));
    }
    for key in ["a", "ab", "b", "ba", "c"] {
        world.commit(&put(key));
    }
    let responses = client.drain();
    let of = |watch_id: i64| -> Vec<Bytes> {
        keys(&responses.iter().filter(|r| r.watch_id == watch_id).cloned().collect::<Vec<_>>())
    };
    assert_eq!(of(0), ["b"]);
    assert_eq!(of(1), ["a", "ab"]);
    assert_eq!(of(2), ["b", "ba", "c"]);
    assert_eq!(of(3), ["a", "ab", "b", "ba", "c"]);
    assert!(of(4).is_empty(), "no key means the key of one zero byte");
    assert_eq!(of(5), of(3));
}

#[test]
fn a_transaction_is_one_response_in_order_of_its_operations() {
    let (world, mut client) = world();
    world.commit(&put("d"));
    client.create(watch("a", "\0", 0));
    world.commit(&[Op::Put("c", 1), Op::Put("a", 1), Op::Delete("d"), Op::Put("b", 1)]);
    let responses = client.drain();
    assert_eq!(responses.len(), 2);
    assert_eq!(keys(&responses), ["c", "a", "d", "b"]);
}

#[test]
fn filters_drop_puts_or_deletes_and_all_filtered_sends_nothing() {
    let (world, mut client) = world();
    for filters in [vec![0], vec![1], vec![0, 1]] {
        client.create(WatchCreateRequest { filters, ..watch("a", "", 0) });
    }
    world.commit(&put("a"));
    world.commit(&[Op::Delete("a")]);
    let responses = client.drain().split_off(3);
    let seen: Vec<(i64, i32)> = responses.iter().map(|r| (r.watch_id, r.events[0].r#type)).collect();
    assert_eq!(seen, [(1, 0), (0, 1)]);
}

#[test]
fn prev_kv_is_the_value_before_and_never_set_for_creates() {
    let (world, mut client) = world();
    world.commit(&put("a"));
    world.commit(&put("a"));
    client.create(WatchCreateRequest { prev_kv: true, ..watch("a", "", 2) });
    client.create(watch("a", "", 2));
    world.commit(&[Op::Delete("a")]);
    let responses = client.drain();
    let of = |watch_id: i64| -> Vec<Option<i64>> {
        let events = responses.iter().filter(|r| r.watch_id == watch_id).flat_map(|r| &r.events);
        events.map(|event| event.prev_kv.as_ref().map(|prev| prev.mod_revision)).collect()
    };
    assert_eq!(of(0), [None, Some(2), Some(3)]);
    assert_eq!(of(1), [None, None, None]);
}

#[test]
fn prev_kv_is_absent_if_compacted() {
    let world = World::new(HubOptions { ring_bytes: 1, ..HubOptions::default() });
    let mut client = Client::new(&world);
    for _ in 0..3 {
        world.commit(&put("a"));
    }
    world.past.compact(3);
    client.create(WatchCreateRequest { prev_kv: true, ..watch("a", "", 3) });
    let prevs: Vec<_> = client.drain()[1].events.iter().map(|e| e.prev_kv.as_ref().map(|p| p.mod_revision)).collect();
    assert_eq!(prevs, [None, Some(3)]);
}

#[test]
fn previous_values_are_asked_for_only_where_someone_wants_them() {
    let (world, mut client) = world();
    client.create(watch("a", "\0", 0));
    assert!(!world.hub.wants_prev_kv(b"b"));
    client.create(WatchCreateRequest { prev_kv: true, ..watch("b", "c", 0) });
    assert!(world.hub.wants_prev_kv(b"b") && !world.hub.wants_prev_kv(b"a"));
    client.cancel(1);
    assert!(!world.hub.wants_prev_kv(b"b"));
}

#[test]
fn progress_notify_goes_to_idle_watchers_in_step_that_asked_for_it() {
    let (world, mut client) = world();
    client.create(WatchCreateRequest { progress_notify: true, ..watch("a", "", 0) });
    client.create(watch("a", "", 0));
    client.drain();
    world.commit(&put("b"));
    client.stream.progress_tick();
    let responses = client.drain();
    assert_eq!(responses.len(), 1);
    assert_eq!((responses[0].watch_id, header_revision(&responses[0])), (0, 2));
    assert!(!responses[0].created && !responses[0].canceled);
    world.commit(&put("a"));
    assert_eq!(client.drain().len(), 2);
    client.stream.progress_tick();
    assert!(client.drain().is_empty(), "an update counts as progress");
    client.stream.progress_tick();
    assert_eq!(client.drain().len(), 1, "idle for a whole interval");
    for _ in 0..10 {
        client.stream.progress_tick();
    }
    assert_eq!(client.drain().len(), 1, "ticks do not pile up in a stream that does not read");
}

#[test]
fn manual_progress_is_one_answer_for_all_or_none_at_all() {
    let (world, mut client) = world();
    client.stream.request_progress();
    assert!(client.next().is_none(), "no watchers");
    world.commit(&put("a"));
    client.create(watch("a", "", 0));
    client.create(watch("b", "", 0));
    client.drain();
    client.stream.request_progress();
    let progress = client.next().unwrap();
    assert_eq!((progress.watch_id, header_revision(&progress), progress.events.len()), (-1, 2, 0));
    assert!(client.next().is_none());
    client.create(watch("a", "", 2));
    client.stream.request_progress();
    assert!(client.drain().iter().all(|r| r.created || !r.events.is_empty()), "one watcher was not in step");
    client.stream.request_progress();
    assert_eq!(client.drain().len(), 1);
}

#[test]
fn progress_follows_the_events_it_speaks_of() {
    let (world, mut client) = world();
    client.create(watch("a", "", 0));
    world.commit(&put("a"));
    client.stream.request_progress();
    world.commit(&put("a"));
    client.stream.request_progress();
    let kinds: Vec<(usize, i64)> = client.drain()[1..].iter().map(|r| (r.events.len(), header_revision(r))).collect();
    assert_eq!(kinds, [(1, 2), (0, 2), (1, 3), (0, 3)]);
}

#[test]
fn requests_for_progress_do_not_pile_up() {
    let (_world, mut client) = world();
    client.create(watch("a", "", 0));
    for _ in 0..1_000 {
        client.stream.request_progress();
    }
    assert_eq!(client.drain().len(), 2);
}

#[test]
fn a_revision_is_split_only_for_a_watcher_that_asked_for_fragments() {
    let world = World::new(HubOptions { fragment_bytes: 200, ..HubOptions::default() });
    let mut client = Client::new(&world);
    client.create(WatchCreateRequest { fragment: true, ..watch("a", "\0", 0) });
    client.create(watch("a", "\0", 0));
    client.drain();
    world.commit(&[Op::Put("a", 90), Op::Put("b", 90), Op::Put("c", 90), Op::Put("d", 500), Op::Put("e", 1)]);
    let responses = client.drain();
    let shape: Vec<(i64, usize, bool)> = responses.iter().map(|r| (r.watch_id, r.events.len(), r.fragment)).collect();
    assert_eq!(shape, [(0, 1, true), (0, 1, true), (0, 1, true), (0, 1, true), (0, 1, false), (1, 5, false)]);
    world.commit(&[Op::Put("a", 10), Op::Put("b", 10)]);
    assert_eq!(client.drain().iter().map(|r| r.fragment).collect::<Vec<_>>(), [false, false], "it fits");
}

#[test]
fn several_revisions_may_share_a_response() {
    let (world, mut client) = world();
    client.create(watch("a", "", 0));
    for _ in 0..3 {
        world.commit(&put("a"));
    }
    let responses = client.drain();
    assert_eq!((responses.len(), header_revision(&responses[1])), (2, 4));
    assert_eq!(revisions(&responses), [2, 3, 4]);
}

#[test]
fn wakes_once_until_the_stream_was_seen_empty() {
    let (world, mut client) = world();
    let wakes = || client.wakes.load(Ordering::SeqCst);
    assert_eq!(wakes(), 0);
    client.stream.create(&watch("a", "", 0));
    world.commit(&put("a"));
    world.commit(&put("a"));
    assert_eq!(wakes(), 1);
    assert!(matches!(client.stream.next(), Next::Output(_)));
    world.commit(&put("a"));
    assert_eq!(wakes(), 1, "it has not been seen empty");
    while let Next::Output(_) = client.stream.next() {}
    world.commit(&put("b"));
    assert_eq!(wakes(), 1, "nothing for this stream");
    world.commit(&put("a"));
    assert_eq!(wakes(), 2);
    client.creates.clear();
}

#[test]
fn wakes_without_locks() {
    let world = World::new(HubOptions { ring_bytes: 1, stream_queue_bytes: 1, ..HubOptions::default() });
    let (hub, free) = (Arc::downgrade(&world.hub), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&free);
    let stream = world.hub.stream(Arc::new(move || {
        let hub = hub.upgrade().unwrap();
        let state = hub.state.try_lock().expect("woken under the hub's lock");
        assert!(state.streams_are_free(), "woken under a stream's lock");
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let drain = || while !matches!(stream.next(), Next::Empty) {};
    stream.create(&watch("a", "", 0));
    drain();
    world.commit(&put("a"));
    drain();
    stream.request_progress();
    drain();
    stream.cancel(0);
    assert_eq!(free.load(Ordering::SeqCst), 4);
}

#[test]
fn unsent_answers_stop_the_reading_of_requests() {
    let world = World::new(HubOptions { stream_answers_max: 3, ..HubOptions::default() });
    let mut client = Client::new(&world);
    for _ in 0..2 {
        client.create(watch("a", "", 0));
    }
    assert!(!client.stream.is_answer_queue_full());
    client.create(watch("a", "", 0));
    assert!(client.stream.is_answer_queue_full());
    client.drain();
    assert!(!client.stream.is_answer_queue_full());
}

#[test]
fn counters_tell_streams_watchers_and_events() {
    let (world, mut client) = world();
    let other = Client::new(&world);
    client.create(watch("a", "", 0));
    client.create(watch("a", "b", 0));
    world.commit(&put("a"));
    let counters = world.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.pending_events, counters.events_total), (2, 2, 2, 0));
    client.drain();
    drop(other);
    let counters = world.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.pending_events, counters.events_total), (1, 2, 0, 2));
    world.commit(&put("a"));
    drop(client);
    let counters = world.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.pending_events, counters.events_total), (0, 0, 0, 2));
}
