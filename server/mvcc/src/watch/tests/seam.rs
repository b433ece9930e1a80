//! Where live and past meet: overflow, the ring, history, and what happens while history is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use garboard_proto::etcdserverpb::WatchCreateRequest;

use super::world::{Client, Op, World, watch};
use crate::watch::{Event, History, Hub, HubOptions, Next, PrevKv};

const NO_RING: HubOptions = HubOptions {
    ring_bytes: 1,
    stream_queue_bytes: 1_000,
    join_bytes: 64,
    fragment_bytes: 1 << 20,
    stream_watchers_max: 10_000,
    stream_answers_max: 1_000,
    catch_up_revisions: 1_000,
    catch_up_bytes: 1 << 20,
};

fn commit(world: &World, count: usize) {
    for _ in 0..count {
        world.commit(&[Op::Put("a", 20)]);
    }
}

fn scans(world: &World) -> usize {
    world.past.scans.load(Ordering::Relaxed)
}

fn received(client: &Client, watch_id: i64) -> usize {
    client.seen[&watch_id].received
}

#[test]
fn overflow_releases_the_queue_and_loses_nothing() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    client.drain();
    commit(&world, 100);
    let counters = world.hub.counters();
    assert_eq!((counters.slow_watchers, counters.pending_events), (1, 0), "what it held is released");
    client.stream.request_progress();
    client.drain();
    client.check_complete();
    assert_eq!((received(&client, 0), client.progress), (100, 0));
    assert_eq!(world.hub.counters().slow_watchers, 0);
}

#[test]
fn a_revision_larger_than_the_bound_goes_through_an_empty_queue_whole() {
    let world = World::new(HubOptions { stream_queue_bytes: 1, catch_up_bytes: 1, ..NO_RING });
    let mut client = Client::new(&world);
    client.create(watch("a", "\0", 0));
    client.drain();
    for _ in 0..3 {
        world.commit(&[Op::Put("a", 5_000), Op::Put("b", 5_000), Op::Put("c", 5_000)]);
    }
    client.drain();
    client.check_complete();
    assert_eq!(received(&client, 0), 9);
}

#[test]
fn progress_queued_behind_released_events_is_released_with_them() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    client.create(WatchCreateRequest { progress_notify: true, ..watch("a", "", 0) });
    client.drain();
    commit(&world, 1);
    client.stream.request_progress();
    client.stream.progress_tick();
    commit(&world, 100);
    client.drain();
    client.check_complete();
    assert_eq!(client.progress, 0);
    client.stream.progress_tick();
    client.stream.progress_tick();
    client.drain();
    assert_eq!(client.progress, 1, "the released one does not block the next");
}

#[test]
fn a_watcher_that_lags_a_little_needs_no_history() {
    let world = World::new(HubOptions { ring_bytes: 1 << 20, ..NO_RING });
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    client.drain();
    commit(&world, 500);
    client.drain();
    client.check_complete();
    assert_eq!((received(&client, 0), scans(&world)), (500, 0));
}

#[test]
fn lagging_watchers_of_a_stream_share_a_scan() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 50);
    for start in 2..40 {
        client.create(watch("a", if start % 2 == 0 { "" } else { "b" }, start));
    }
    client.drain();
    client.check_complete();
    assert_eq!(scans(&world), 1);
}

#[test]
fn a_chunk_is_bounded_and_ends_between_revisions() {
    let world = World::new(HubOptions { catch_up_revisions: 10, ..NO_RING });
    let mut client = Client::new(&world);
    for _ in 0..25 {
        world.commit(&[Op::Put("a", 1), Op::Put("b", 1)]);
    }
    client.create(watch("a", "\0", 2));
    let responses = client.drain();
    let sizes: Vec<usize> = responses.iter().map(|response| response.events.len()).collect();
    assert_eq!(sizes, [0, 20, 20, 10]);
    assert!(responses.iter().all(|r| r.header.unwrap().revision == 26), "the current revision, not the chunk's");
    assert_eq!(scans(&world), 3);
}

#[test]
fn large_previous_values_bound_a_chunk_too() {
    let world = World::new(HubOptions { catch_up_bytes: 10_000, stream_queue_bytes: 1 << 20, ..NO_RING });
    let mut client = Client::new(&world);
    for _ in 0..10 {
        world.commit(&[Op::Put("a", 9_000), Op::Put("b", 1)]);
        world.commit(&[Op::Put("a", 1), Op::Put("b", 9_000)]);
    }
    client.create(WatchCreateRequest { prev_kv: true, filters: vec![], ..watch("a", "", 3) });
    let responses = client.drain();
    client.check_complete();
    let largest = responses.iter().map(|r| r.events.iter().map(prost::Message::encoded_len).sum::<usize>());
    assert!(largest.max() < Some(30_000));
    assert_eq!(received(&client, 0), 19);
}

#[test]
fn a_watcher_near_the_end_does_not_wait_for_one_that_reads_all_of_history() {
    let world = World::new(HubOptions { catch_up_revisions: 10, ..NO_RING });
    let mut client = Client::new(&world);
    commit(&world, 500);
    client.create(watch("a", "", 2));
    client.create(watch("a", "", 490));
    let order: Vec<i64> = client.drain().iter().filter(|r| !r.created).map(|r| r.watch_id).collect();
    let last_of_near = order.iter().rposition(|&id| id == 1).unwrap();
    assert!(last_of_near < 6, "{order:?}");
    client.check_complete();
}

#[test]
fn what_is_published_while_history_is_read_comes_once_and_in_order() {
    for published in [1, 5, 300] {
        let world = World::new(HubOptions { ring_bytes: 1 << 20, ..NO_RING });
        // History only: the ring knows nothing of these.
        for _ in 0..20 {
            world.store(&[Op::Put("a", 1)]);
        }
        commit(&world, 1);
        let mut client = Client::new(&world);
        client.create(watch("a", "", 2));
        let busy = Arc::clone(&world);
        *world.past.during_scan.lock() = Some(Box::new(move || commit(&busy, published)));
        client.drain();
        client.check_complete();
        assert_eq!((received(&client, 0), world.hub.counters().slow_watchers), (21 + published, 0));
    }
}

#[test]
fn a_little_published_meanwhile_does_not_keep_a_watcher_lagging() {
    let world = World::new(HubOptions { ring_bytes: 1 << 20, ..NO_RING });
    world.store(&[Op::Put("a", 1)]);
    commit(&world, 1);
    let mut client = Client::new(&world);
    client.create(watch("a", "", 2));
    assert!(client.next().unwrap().created);
    let busy = Arc::clone(&world);
    *world.past.during_scan.lock() = Some(Box::new(move || commit(&busy, 100)));
    client.stream.catch_up();
    assert_eq!(world.hub.counters().slow_watchers, 0);
}

#[test]
fn a_compaction_while_history_is_read_cancels_instead_of_leaving_a_gap() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 50);
    client.create(watch("a", "", 10));
    client.create(watch("a", "", 45));
    let past = Arc::clone(&world.past);
    *world.past.during_scan.lock() = Some(Box::new(move || past.compact(40)));
    let responses = client.drain();
    let canceled: Vec<(i64, i64)> =
        responses.iter().filter(|r| r.canceled).map(|r| (r.watch_id, r.compact_revision)).collect();
    assert_eq!(canceled, [(0, 40)]);
    client.check_complete();
    assert_eq!(received(&client, 1), 7);
}

#[test]
fn a_cancel_while_history_is_read_ends_the_watcher() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 50);
    client.create(WatchCreateRequest { watch_id: 4, ..watch("a", "", 2) });
    assert!(client.next().unwrap().created);
    let stream = Arc::clone(&client.stream);
    client.cancels.push_back(4);
    let again = WatchCreateRequest { watch_id: 4, ..watch("a", "", 40) };
    client.creates.push_back(again.clone());
    *world.past.during_scan.lock() = Some(Box::new(move || {
        stream.cancel(4);
        stream.create(&again);
    }));
    client.drain();
    client.check_complete();
    assert_eq!(received(&client, 4), 12, "the new watcher of the same id has its own start");
}

#[test]
fn what_is_read_for_a_canceled_watcher_is_not_given_to_a_new_one_of_the_same_id() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 5);
    client.create(WatchCreateRequest { watch_id: 4, ..watch("a", "", 2) });
    assert!(client.next().unwrap().created);
    let stream = Arc::clone(&client.stream);
    client.cancels.push_back(4);
    let other_key = WatchCreateRequest { watch_id: 4, ..watch("b", "", 2) };
    client.creates.push_back(other_key.clone());
    *world.past.during_scan.lock() = Some(Box::new(move || {
        stream.cancel(4);
        stream.create(&other_key);
    }));
    client.drain();
    assert_eq!(received(&client, 4), 0);
}

#[test]
fn what_is_released_of_a_canceled_watcher_does_not_set_a_new_one_of_the_same_id_back() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    client.create(WatchCreateRequest { watch_id: 4, ..watch("a", "", 0) });
    client.create(watch("b", "", 0));
    commit(&world, 1);
    client.cancel(4);
    client.create(WatchCreateRequest { watch_id: 4, ..watch("a", "", 0) });
    for _ in 0..10 {
        world.commit(&[Op::Put("b", 20)]);
    }
    commit(&world, 1);
    client.drain();
    client.check_complete();
    assert_eq!((received(&client, 4), received(&client, 0)), (1, 10));
}

#[test]
fn what_is_read_is_dropped_if_the_watcher_was_set_back_meanwhile() {
    let world = World::new(HubOptions { catch_up_revisions: 2, ..NO_RING });
    let mut client = Client::new(&world);
    commit(&world, 10);
    client.create(watch("a", "", 2));
    client.create(watch("b", "", 0));
    for _ in 0..2 {
        assert!(matches!(client.stream.next(), Next::Output(created) if client.accept(&created).created));
    }
    client.stream.catch_up();
    assert_eq!(world.hub.counters().pending_events, 2);
    let busy = Arc::clone(&world);
    *world.past.during_scan.lock() = Some(Box::new(move || {
        for _ in 0..10 {
            busy.commit(&[Op::Put("b", 20)]);
        }
    }));
    client.stream.catch_up();
    assert_eq!(world.hub.counters().pending_events, 0, "overflow released what was queued before the read");
    client.drain();
    client.check_complete();
}

#[test]
fn a_stream_seen_empty_while_it_catches_up_is_woken_afterwards() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 5);
    client.create(watch("a", "", 2));
    assert!(client.next().unwrap().created);
    let (stream, wakes) = (Arc::clone(&client.stream), Arc::clone(&client.wakes));
    let before = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = Arc::clone(&before);
    *world.past.during_scan.lock() = Some(Box::new(move || {
        assert!(matches!(stream.next(), Next::Empty));
        stream.catch_up();
        seen.store(wakes.load(Ordering::SeqCst), Ordering::SeqCst);
    }));
    client.stream.catch_up();
    assert_eq!(client.wakes.load(Ordering::SeqCst), before.load(Ordering::SeqCst) + 1);
    assert_eq!(scans(&world), 1, "the second call found the first at work");
}

#[test]
fn a_failed_read_cancels_with_the_reason() {
    let world = World::new(NO_RING);
    let mut client = Client::new(&world);
    commit(&world, 5);
    client.create(watch("a", "", 2));
    *world.past.fails.write() = Some("disk on fire".to_owned());
    let responses = client.drain();
    assert!(responses[1].canceled && responses[1].cancel_reason == "disk on fire");
    assert_eq!(world.hub.counters().watchers, 0);
}

#[test]
fn without_history_a_lagging_watcher_is_canceled_not_kept_spinning() {
    let hub = Hub::new(HubOptions { ring_bytes: 1, ..HubOptions::default() });
    let stream = hub.stream(Arc::new(|| {}));
    let event = |main| Event::put("a".into(), main, 0, "".into(), true, PrevKv::Absent);
    hub.publish(1, vec![event(1)]);
    stream.create(&watch("a", "", 1));
    assert!(matches!(stream.next(), Next::Output(created) if created.created));
    assert!(matches!(stream.next(), Next::CatchUp));
    stream.catch_up();
    assert!(matches!(stream.next(), Next::Output(end) if end.canceled && end.cancel_reason.contains("stopped")));
    assert!(matches!(stream.next(), Next::Empty));
}

#[test]
fn a_watcher_that_wants_prev_kv_too_late_for_the_applier_still_gets_it() {
    for ring_bytes in [1, 1 << 20] {
        let world = World::new(HubOptions { ring_bytes, ..NO_RING });
        let mut client = Client::new(&world);
        commit(&world, 1);
        let changes = world.store(&[Op::Put("a", 7)]);
        // The applier has asked who wants previous values; nobody did.
        let event =
            Event::put("a".into(), 3, 0, prost::Message::encode_to_vec(&changes[0].kv).into(), false, PrevKv::Unknown);
        client.create(WatchCreateRequest { prev_kv: true, ..watch("a", "", 0) });
        assert!(client.next().unwrap().created);
        world.hub.publish(3, vec![event]);
        let response = client.next().unwrap();
        assert_eq!(response.events[0].prev_kv, changes[0].prev);
    }
}

#[test]
fn revisions_the_hub_was_not_told_of_come_from_history() {
    let world = World::new(HubOptions { ring_bytes: 1 << 20, ..NO_RING });
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    client.create(watch("a", "", 6));
    commit(&world, 2);
    world.store(&[Op::Put("a", 1)]);
    world.store(&[Op::Put("a", 1)]);
    commit(&world, 2);
    client.drain();
    client.check_complete();
    assert_eq!((received(&client, 0), received(&client, 1)), (6, 2));
}

#[test]
fn a_store_put_in_the_place_of_the_old_one_sends_watchers_to_catch_up() {
    let world = World::new(HubOptions { ring_bytes: 1 << 20, ..NO_RING });
    let mut client = Client::new(&world);
    client.create(watch("a", "", 0));
    client.drain();
    commit(&world, 2);
    for _ in 0..3 {
        world.store(&[Op::Put("a", 1)]);
    }
    let history: Arc<dyn History> = Arc::clone(&world.past) as Arc<dyn History>;
    world.hub.attach(Arc::downgrade(&history));
    client.drain();
    assert_eq!(received(&client, 0), 5);
    client.check_complete();
}

#[test]
fn a_lagging_watcher_gets_its_turn_although_live_events_keep_coming() {
    let world = World::new(HubOptions { stream_queue_bytes: 1 << 20, ..NO_RING });
    let mut client = Client::new(&world);
    commit(&world, 3);
    client.create(watch("b", "", 0));
    client.create(watch("a", "", 2));
    for _ in 0..300 {
        world.commit(&[Op::Put("b", 1)]);
        client.next();
        if received(&client, 0) > 0 && client.seen.get(&1).is_some_and(|seen| seen.received > 0) {
            return;
        }
        world.commit(&[Op::Put("b", 1)]);
    }
    panic!("starved");
}

#[test]
fn a_rare_key_does_not_hold_a_scan_open_for_all_of_history() {
    let world = World::new(HubOptions { catch_up_revisions: 5, ..NO_RING });
    let mut client = Client::new(&world);
    commit(&world, 200);
    world.commit(&[Op::Put("rare", 1)]);
    client.create(watch("rare", "", 2));
    client.drain();
    client.check_complete();
    assert_eq!(received(&client, 0), 1);
    assert!(scans(&world) >= 5, "{} scans", scans(&world));
}
