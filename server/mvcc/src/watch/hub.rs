//! Where the applier meets the streams: the newest revision, the ring, and the index of who watches what, behind one lock.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::counters::{Counters, WatchCounters};
use super::event::Event;
use super::history::History;
use super::index::Index;
use super::queue::{Item, StreamState};
use super::ring::{Batch, Ring};
use super::stream::WatchStream;

/// Bounds of the hub. All are per stream but `ring_bytes`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HubOptions {
    /// Recent events kept in memory for watchers that lag a little.
    pub ring_bytes: usize,
    /// Events that may wait in a stream; beyond it they are released and the watchers catch up.
    pub stream_queue_bytes: usize,
    /// Revisions of one watcher that wait in a row share a response up to about this size.
    pub join_bytes: usize,
    /// A response of a watcher that asked for fragments is split at this encoded size. etcd: max-request-bytes + 512 KiB.
    pub fragment_bytes: usize,
    /// Watchers of one stream; more are refused.
    pub stream_watchers_max: usize,
    /// Unsent answers from which on the api must stop reading requests of the stream.
    pub stream_answers_max: usize,
    /// Revisions with matching events that one `catch_up` call delivers, at most.
    pub catch_up_revisions: usize,
    /// Event bytes that one `catch_up` call delivers, up to one revision more.
    pub catch_up_bytes: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            stream_queue_bytes: 4 << 20,
            join_bytes: 64 << 10,
            fragment_bytes: 2 << 20,
            stream_watchers_max: 10_000,
            stream_answers_max: 1_024,
            catch_up_revisions: 1_000,
            catch_up_bytes: 1 << 20,
        }
    }
}

/// A stream as the hub and its owner share it.
pub(super) struct Stream {
    pub number: u64,
    pub wake: Arc<dyn Fn() + Send + Sync>,
    pub state: Mutex<StreamState>,
}

/// A registered watcher.
pub(super) struct Target {
    pub stream: Arc<Stream>,
    pub prev_kv: bool,
}

/// (stream number, watch id)
pub(super) type WatcherKey = (u64, i64);

pub(super) struct HubState {
    /// Newest revision; live watchers have everything up to it queued.
    pub revision: i64,
    pub ring: Ring,
    pub index: Index<WatcherKey, Target>,
    streams: BTreeMap<u64, Arc<Stream>>,
    next_stream: u64,
    history: Option<Weak<dyn History>>,
}

/// The hub of a member.
pub struct Hub {
    pub(super) options: HubOptions,
    pub(super) counters: Arc<Counters>,
    pub(super) state: Mutex<HubState>,
}

/// What is done after the locks are gone: streams to wake, memory to free.
#[derive(Default)]
pub(super) struct Aftermath {
    wakes: Vec<Arc<Stream>>,
    released: Vec<VecDeque<Item>>,
}

impl Aftermath {
    /// Remembers to wake the stream if its owner waits.
    pub(super) fn stirred(&mut self, stream: &Arc<Stream>, state: &mut StreamState) {
        if state.disarm() {
            self.wakes.push(Arc::clone(stream));
        }
    }

    fn release(&mut self, items: VecDeque<Item>) {
        if !items.is_empty() {
            self.released.push(items);
        }
    }

    pub(super) fn settle(self) {
        for stream in &self.wakes {
            (stream.wake)();
        }
        drop(self.released);
    }
}

impl Hub {
    /// A hub that knows no revision yet.
    #[must_use]
    pub fn new(options: HubOptions) -> Arc<Self> {
        let state = HubState {
            revision: 0,
            ring: Ring::new(options.ring_bytes),
            index: Index::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            history: None,
        };
        Arc::new(Self { options, counters: Arc::default(), state: Mutex::new(state) })
    }

    /// Gives the hub its history and takes the newest revision from it. A later call, with the store that a snapshot put
    /// in the old one's place, sends every live watcher to catch up from it.
    pub fn attach(&self, history: Weak<dyn History>) {
        let revision = history.upgrade().map(|history| history.revision());
        let mut after = Aftermath::default();
        {
            let mut state = self.state.lock();
            state.history = Some(history);
            if let Some(revision) = revision {
                state.skip_to(revision, &mut after);
            }
        }
        after.settle();
    }

    /// Whether some watcher of `key` wants previous values; the applier looks them up only then.
    #[must_use]
    pub fn wants_prev_kv(&self, key: &[u8]) -> bool {
        if self.counters.prev_kv_watchers.get() == 0 {
            return false;
        }
        let wants = |target: &Target| if target.prev_kv { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        self.state.lock().index.stab(key, &mut |_, target| wants(target)).is_break()
    }

    /// Hands a revision to the watchers it matches. Called by the applier only, in revision order, once readers can see the
    /// revision; costs what it matches and waits for no stream. A revision that was left out is caught up from history.
    pub fn publish(&self, revision: i64, events: Vec<Event>) {
        let batch = Arc::new(Batch::new(revision, events));
        let mut after = Aftermath::default();
        {
            let mut state = self.state.lock();
            assert!(revision > state.revision, "revision {revision} published after {}", state.revision);
            if revision > state.revision + 1 {
                state.skip_to(revision - 1, &mut after);
            }
            state.revision = revision;
            state.ring.push(Arc::clone(&batch));
            state.deliver(&batch, &mut after);
        }
        after.settle();
    }

    /// Opens a stream. `wake` is called without locks when `next` may have something new, at most once until `next` has
    /// said `Empty` again.
    #[must_use]
    pub fn stream(self: &Arc<Self>, wake: Arc<dyn Fn() + Send + Sync>) -> WatchStream {
        let mut state = self.state.lock();
        state.next_stream += 1;
        let number = state.next_stream;
        let queue = StreamState::new(self.options, Arc::clone(&self.counters));
        let stream = Arc::new(Stream { number, wake, state: Mutex::new(queue) });
        state.streams.insert(number, Arc::clone(&stream));
        self.counters.streams.add(1);
        WatchStream::new(Arc::clone(self), stream)
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> WatchCounters {
        self.counters.read()
    }

    pub(super) fn history(&self) -> Option<Arc<dyn History>> {
        let history = self.state.lock().history.clone();
        history.and_then(|history| history.upgrade())
    }
}

impl HubState {
    fn deliver(&self, batch: &Batch, after: &mut Aftermath) {
        if self.index.is_empty() {
            return;
        }
        if let [event] = batch.events.as_slice() {
            let _ = self.index.stab(event.key(), &mut |&(_, watch_id), target| {
                deliver_to(&target.stream, watch_id, batch.revision, std::iter::once(event), after);
                ControlFlow::Continue(())
            });
            return;
        }
        // A watcher gets all of its events of the revision at once.
        let mut hits = Vec::new();
        for (place, event) in batch.events.iter().enumerate() {
            let _ = self.index.stab(event.key(), &mut |&watcher, target| {
                hits.push((watcher, place, &target.stream));
                ControlFlow::Continue(())
            });
        }
        hits.sort_unstable_by_key(|&(watcher, place, _)| (watcher, place));
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            let ((_, watch_id), _, stream) = hits[0];
            let events = hits.iter().map(|&(_, place, _)| &batch.events[place]);
            deliver_to(stream, watch_id, batch.revision, events, after);
        }
    }

    /// The hub was not told the revisions up to `revision`: the ring starts anew and live watchers catch up.
    fn skip_to(&mut self, revision: i64, after: &mut Aftermath) {
        let known = self.revision;
        assert!(revision >= known, "the newest revision went from {known} back to {revision}");
        self.ring.clear();
        self.revision = revision;
        for stream in self.streams.values() {
            let mut state = stream.state.lock();
            state.set_all_lagging(known + 1, revision);
            if state.has_lagging() {
                after.stirred(stream, &mut state);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn streams_are_free(&self) -> bool {
        self.streams.values().all(|stream| stream.state.try_lock().is_some())
    }

    /// Forgets a closed stream.
    pub(super) fn forget(&mut self, number: u64) {
        self.streams.remove(&number);
    }
}

fn deliver_to<'a>(
    stream: &Arc<Stream>,
    watch_id: i64,
    revision: i64,
    events: impl Iterator<Item = &'a Arc<Event>> + Clone,
    after: &mut Aftermath,
) {
    let mut state = stream.state.lock();
    if let Some(released) = state.deliver_live(watch_id, revision, events) {
        after.release(released);
        after.stirred(stream, &mut state);
    }
}
