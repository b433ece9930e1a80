//! A publisher, consumers that are too slow for their bounds, and a thread that catches up for some of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::world::{Client, Op, World, watch};
use crate::watch::{HubOptions, Next, WatchStream};

const COMMITS: usize = 6_000;
const KEYS: [&str; 6] = ["a", "aa", "ab", "b", "ba", "c"];
const END: &str = "z";
const END_ID: i64 = 1_000;
/// Longer than any pause of a busy machine: waiting for it means that a wake-up was lost.
const LOST_WAKE: Duration = Duration::from_secs(60);

/// A stream that is to catch up, and whom to tell.
type Job = (Arc<WatchStream>, Sender<()>);

/// Small, fast, and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn key(&mut self) -> &'static str {
        KEYS[usize::try_from(self.below(KEYS.len() as u64)).unwrap()]
    }
}

fn publish_all(world: &World, compact: bool) {
    let mut dice = Dice(7);
    for number in 0..COMMITS {
        let (key, other) = (dice.key(), dice.key());
        let mut ops = vec![if dice.below(4) == 0 { Op::Delete(key) } else { Op::Put(key, 20) }];
        if key != other && dice.below(3) == 0 {
            ops.push(Op::Put(other, 10));
        }
        world.commit(&ops);
        if compact && number % 500 == 499 {
            world.past.compact(world.revision() - 200);
        }
        if number % 64 == 0 {
            thread::yield_now();
        }
    }
    world.commit(&[Op::Put(END, 1)]);
}

fn ask(client: &mut Client, dice: &mut Dice) {
    let back = i64::try_from(dice.below(300)).unwrap();
    let start = if back % 4 == 0 { 0 } else { (client.world.revision() - back).max(1) };
    let mut request = match dice.below(3) {
        0 => watch(dice.key(), "", start),
        1 => watch("a", "b", start),
        _ => watch("b", "\0", start),
    };
    request.prev_kv = dice.below(2) == 0;
    request.fragment = dice.below(3) == 0;
    request.progress_notify = true;
    match dice.below(5) {
        0 | 1 if client.seen.len() < 8 => client.create(request),
        2 => {
            let watch_id = i64::try_from(dice.below(8)).unwrap();
            client.cancel(watch_id);
        }
        3 => client.stream.progress_tick(),
        _ => client.stream.request_progress(),
    }
}

fn consume(world: &Arc<World>, seed: u64, elsewhere: Option<Sender<Job>>) -> Client {
    let mut client = Client::new(world);
    let (wake, woken): (_, Receiver<()>) = channel();
    let stream = world.hub.stream(Arc::new(move || {
        let _ = wake.send(());
    }));
    client.stream = Arc::new(stream);
    let (done, caught_up) = channel();
    let mut jobs = 0;
    let mut dice = Dice(seed);
    client.create(garboard_proto::etcdserverpb::WatchCreateRequest { watch_id: END_ID, ..watch(END, "", 0) });
    loop {
        match client.stream.next() {
            Next::Output(output) => {
                client.accept(&output);
                let asks = client.seen.get(&END_ID).is_none_or(|seen| seen.received == 0);
                if asks && dice.below(10) == 0 {
                    ask(&mut client, &mut dice);
                }
            }
            Next::CatchUp => match &elsewhere {
                // Meanwhile this thread goes on with `next`, until it is told again that there is nothing else to do.
                Some(_) if jobs > 0 => {
                    caught_up.recv_timeout(LOST_WAKE).expect("catch-up did not end");
                    jobs -= 1;
                }
                Some(elsewhere) if dice.below(3) > 0 => {
                    elsewhere.send((Arc::clone(&client.stream), done.clone())).unwrap();
                    jobs += 1;
                }
                _ => client.stream.catch_up(),
            },
            Next::Empty => {
                if client.seen.get(&END_ID).is_some_and(|seen| seen.received == 1) {
                    return client;
                }
                woken.recv_timeout(LOST_WAKE).expect("a wake-up was lost");
            }
        }
    }
}

fn run(options: HubOptions, compact: bool) -> Vec<usize> {
    let world = World::new(options);
    let received = thread::scope(|scope| {
        let (elsewhere, jobs) = channel::<Job>();
        let consumers: Vec<_> = (1..4)
            .map(|seed| {
                let elsewhere = (seed != 1).then(|| elsewhere.clone());
                let world = Arc::clone(&world);
                scope.spawn(move || {
                    let mut client = consume(&world, seed, elsewhere);
                    client.check_complete();
                    client.seen.values().map(|seen| seen.received).sum::<usize>()
                })
            })
            .collect();
        drop(elsewhere);
        scope.spawn(move || {
            for (stream, done) in jobs {
                stream.catch_up();
                // The consumer may be done without having waited for it.
                let _ = done.send(());
            }
        });
        // The end must not come before it is watched.
        while world.hub.counters().watchers < 3 {
            thread::yield_now();
        }
        publish_all(&world, compact);
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    });
    let counters = world.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.slow_watchers, counters.pending_events), (0, 0, 0, 0));
    received
}

#[test]
fn threads_with_room() {
    run(HubOptions::default(), false);
}

#[test]
fn threads_with_tiny_bounds_and_a_ring_that_is_always_too_short() {
    let tiny = HubOptions {
        ring_bytes: 2_000,
        stream_queue_bytes: 1_500,
        join_bytes: 500,
        fragment_bytes: 200,
        catch_up_revisions: 20,
        catch_up_bytes: 3_000,
        ..HubOptions::default()
    };
    run(tiny, false);
    run(tiny, true);
}

#[test]
fn threads_that_catch_up_from_the_ring() {
    let ring = HubOptions { stream_queue_bytes: 1_000, catch_up_revisions: 30, ..HubOptions::default() };
    run(ring, false);
}
