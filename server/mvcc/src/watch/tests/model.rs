//! Random commits, watchers, slow consumers, compactions, cancels and progress requests; the client checks every response.

use std::sync::Arc;

use garboard_proto::etcdserverpb::WatchCreateRequest;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::world::{Client, Op, World, watch};
use crate::watch::{HubOptions, Next};

const STREAMS: usize = 2;
const KEYS: [&str; 5] = ["a", "ab", "b", "ba", "c"];

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Op>),
    /// Stored, but the hub is told only of what follows.
    Skip(Vec<Op>),
    /// Stream, request; the start is relative to the current revision, unless 0.
    Create(usize, WatchCreateRequest),
    Cancel(usize, i64),
    /// Stream, responses taken.
    Take(usize, usize),
    Progress(usize),
    Tick(usize),
    /// So many revisions before the current one.
    Compact(i64),
    /// Catches up, and does these while history is read.
    CatchUp(usize, Vec<Step>),
    Reopen(usize),
}

fn commit() -> impl Strategy<Value = Vec<Op>> {
    let key = prop::sample::select(&KEYS[..]);
    let op = (key, any::<bool>(), 1_usize..40).prop_map(|(key, put, len)| match put {
        true => Op::Put(key, len),
        false => Op::Delete(key),
    });
    // etcd refuses a transaction that writes a key twice.
    prop::collection::vec(op, 1..4).prop_map(|ops| {
        let mut once: Vec<Op> = Vec::new();
        for op in ops {
            let key = |op: &Op| match op {
                Op::Put(key, _) | Op::Delete(key) => *key,
            };
            if !once.iter().any(|other| key(other) == key(&op)) {
                once.push(op);
            }
        }
        once
    })
}

fn create() -> impl Strategy<Value = WatchCreateRequest> {
    let range =
        prop::sample::select(vec![("a", ""), ("b", ""), ("a", "b"), ("a", "c"), ("b", "\0"), ("", "\0"), ("c", "a")]);
    let filters = prop::sample::select(vec![vec![], vec![], vec![0], vec![1], vec![0, 1]]);
    let start = prop_oneof![3 => Just(0), 4 => -12_i64..=-1, 1 => 1_i64..4];
    (range, filters, start, any::<[bool; 3]>(), 0_i64..4).prop_map(|((key, end), filters, start, flags, watch_id)| {
        let [prev_kv, fragment, progress_notify] = flags;
        WatchCreateRequest { filters, prev_kv, fragment, progress_notify, watch_id, ..watch(key, end, start) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let simple = || {
        prop_oneof![
            12 => commit().prop_map(Step::Commit),
            1 => commit().prop_map(Step::Skip),
            4 => (0..STREAMS, create()).prop_map(|(stream, request)| Step::Create(stream, request)),
            1 => (0..STREAMS, 0_i64..5).prop_map(|(stream, watch_id)| Step::Cancel(stream, watch_id)),
            6 => (0..STREAMS, 1_usize..6).prop_map(|(stream, count)| Step::Take(stream, count)),
            4 => (0..STREAMS).prop_map(Step::Progress),
            2 => (0..STREAMS).prop_map(Step::Tick),
            1 => (0_i64..10).prop_map(Step::Compact),
        ]
    };
    prop_oneof![
        12 => simple(),
        4 => (0..STREAMS, prop::collection::vec(simple(), 0..8)).prop_map(|(stream, steps)| Step::CatchUp(stream, steps)),
        1 => (0..STREAMS).prop_map(Step::Reopen),
    ]
}

fn options() -> impl Strategy<Value = HubOptions> {
    let sizes = || prop::sample::select(vec![1_usize, 300, 700, 1_000, 2_000, 1 << 20]);
    (sizes(), sizes(), sizes(), prop::sample::select(vec![60_usize, 150, 1 << 20]), 1_usize..6, sizes()).prop_map(
        |(ring_bytes, stream_queue_bytes, join_bytes, fragment_bytes, catch_up_revisions, catch_up_bytes)| HubOptions {
            ring_bytes,
            stream_queue_bytes,
            join_bytes,
            fragment_bytes,
            stream_watchers_max: 6,
            stream_answers_max: 10,
            catch_up_revisions,
            catch_up_bytes,
        },
    )
}

struct Run {
    world: Arc<World>,
    clients: Vec<Mutex<Client>>,
}

impl Run {
    fn step(self: &Arc<Self>, step: Step) {
        match step {
            Step::Commit(ops) => {
                self.world.commit(&ops);
            }
            Step::Skip(ops) => {
                self.world.store(&ops);
            }
            Step::Create(stream, mut request) => {
                if request.start_revision != 0 {
                    request.start_revision = (self.world.revision() + request.start_revision).max(1);
                }
                self.clients[stream].lock().create(request);
            }
            Step::Cancel(stream, watch_id) => self.clients[stream].lock().cancel(watch_id),
            Step::Take(stream, count) => {
                let mut client = self.clients[stream].lock();
                for _ in 0..count {
                    // Does not catch up by itself: laggards stay so until their step comes.
                    let Next::Output(output) = client.stream.next() else { break };
                    client.accept(&output);
                }
            }
            Step::Progress(stream) => self.clients[stream].lock().stream.request_progress(),
            Step::Tick(stream) => self.clients[stream].lock().stream.progress_tick(),
            Step::Compact(back) => {
                let at = self.world.revision() - back;
                if at > crate::watch::History::compact_revision(&*self.world.past) {
                    self.world.past.compact(at);
                }
            }
            Step::CatchUp(stream, steps) => {
                let run = Arc::clone(self);
                *self.world.past.during_scan.lock() =
                    Some(Box::new(move || steps.into_iter().for_each(|s| run.step(s))));
                let stream = Arc::clone(&self.clients[stream].lock().stream);
                stream.catch_up();
                *self.world.past.during_scan.lock() = None;
            }
            Step::Reopen(stream) => *self.clients[stream].lock() = Client::new(&self.world),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_watcher_receives_what_the_model_says(options in options(), steps in prop::collection::vec(step(), 1..80)) {
        let world = World::new(options);
        let clients = (0..STREAMS).map(|_| Mutex::new(Client::new(&world))).collect();
        let run = Arc::new(Run { world, clients });
        // A chunk, what closes its gap, and one revision more than fits of either.
        let bytes_max = options.stream_queue_bytes + 2 * options.catch_up_bytes.min(options.stream_queue_bytes) + 16_384;
        for step in steps {
            run.step(step);
            for client in &run.clients {
                prop_assert!(client.lock().queued_bytes() <= bytes_max);
            }
        }
        // One revision more, so that the hub learns of what was skipped.
        run.world.commit(&[Op::Put("z", 1)]);
        for client in &run.clients {
            let mut client = client.lock();
            client.drain();
            client.check_complete();
            let before = client.progress;
            client.stream.request_progress();
            client.drain();
            let started = |request: &WatchCreateRequest| request.start_revision <= run.world.revision();
            let all_started = client.seen.values().all(|seen| started(&seen.request));
            let answers = usize::from(!client.seen.is_empty() && all_started);
            prop_assert_eq!(client.progress - before, answers, "in step, so progress is answered");
        }
        let counters = run.world.hub.counters();
        let watchers: usize = run.clients.iter().map(|client| client.lock().seen.len()).sum();
        prop_assert_eq!((counters.slow_watchers, counters.pending_events), (0, 0));
        prop_assert_eq!(counters.watchers, watchers as u64);
        for client in &run.clients {
            *client.lock() = Client::new(&World::new(HubOptions::default()));
        }
        let counters = run.world.hub.counters();
        prop_assert_eq!((counters.streams, counters.watchers), (0, 0));
        prop_assert!(run.world.hub.state.lock().index.is_empty(), "a closed stream left watchers behind");
    }
}
