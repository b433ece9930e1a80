//! One gRPC Watch stream: its requests come in here, its answers and events go out here, in one order.

use std::sync::Arc;

use garboard_proto::etcdserverpb::WatchCreateRequest;

use super::hub::{Aftermath, Hub, HubState, Stream, Target};
use super::output::{NO_WATCH_ID, Next, WatchOutput};
use super::queue::{StreamState, Watcher};
use super::range::{Filter, KeyRange};

const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const TOO_MANY: &str = "mvcc: too many watchers on the WatchStream";

/// Watchers of a closing stream that are unregistered under one lock of the hub.
const WATCHERS_PER_LOCK: usize = 256;

/// A stream of watchers. Shared between its owner and the thread that catches up; dropped, all its watchers are gone.
pub struct WatchStream {
    pub(super) hub: Arc<Hub>,
    pub(super) stream: Arc<Stream>,
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Hub>, stream: Arc<Stream>) -> Self {
        Self { hub, stream }
    }

    /// Creates a watcher, or refuses it; the answer comes out of [`next`](Self::next) in order.
    pub fn create(&self, request: &WatchCreateRequest) {
        if request.start_revision < 0 {
            return self.refuse(NEGATIVE_START);
        }
        let Some(range) = KeyRange::of(request) else { return self.refuse(EMPTY_RANGE) };
        // Read before the locks are taken; what is compacted after this is found when the watcher catches up.
        let compact_revision = if request.start_revision > 0 {
            self.hub.history().map_or(0, |history| history.compact_revision())
        } else {
            0
        };
        self.with_locks(|hub, state| {
            if request.watch_id != 0 && state.watchers.contains_key(&request.watch_id) {
                return state.push_answer(WatchOutput::refused(hub.revision, DUPLICATE_ID));
            }
            if state.watchers.len() >= self.hub.options.stream_watchers_max {
                return state.push_answer(WatchOutput::refused(hub.revision, TOO_MANY));
            }
            let watch_id = if request.watch_id == 0 { state.free_watch_id() } else { request.watch_id };
            let created =
                WatchOutput { watch_id, created: true, header_revision: hub.revision, ..WatchOutput::default() };
            state.push_answer(created);
            if request.start_revision > 0 && request.start_revision < compact_revision {
                return state.push_answer(WatchOutput::compacted(watch_id, compact_revision));
            }
            let target = Target { stream: Arc::clone(&self.stream), prev_kv: request.prev_kv };
            hub.index.insert(&range, (self.stream.number, watch_id), target);
            let generation = state.next_generation();
            state.add(watch_id, Watcher::new(request, range, generation, hub.revision));
        });
    }

    /// Answers a create request that the caller does not allow: created and canceled in one message, watch id -1.
    pub fn refuse(&self, reason: &str) {
        self.with_locks(|hub, state| state.push_answer(WatchOutput::refused(hub.revision, reason)));
    }

    /// Cancels a watcher. An unknown id is not answered.
    pub fn cancel(&self, watch_id: i64) {
        self.with_locks(|hub, state| {
            let Some(watcher) = state.remove(watch_id) else { return };
            hub.index.remove(&watcher.range, &(self.stream.number, watch_id));
            let header_revision = hub.revision;
            state.push_answer(WatchOutput { watch_id, canceled: true, header_revision, ..WatchOutput::default() });
        });
    }

    /// Manual progress: one answer with watch id -1, if there are watchers and all are in step and started; else none.
    pub fn request_progress(&self) {
        self.with_locks(|hub, state| {
            if state.all_in_step(hub.revision) {
                state.push_progress(NO_WATCH_ID, hub.revision);
            }
        });
    }

    /// To be called every progress interval: watchers with `progress_notify` that are in step and were sent nothing since the
    /// last tick get one.
    pub fn progress_tick(&self) {
        self.with_locks(|hub, state| state.tick(hub.revision));
    }

    /// The next thing to do. Cheap; takes no lock but the stream's own.
    #[must_use]
    pub fn next(&self) -> Next {
        self.stream.state.lock().next()
    }

    /// Whether so many answers wait to be sent that no more requests should be read from the client until fewer do.
    #[must_use]
    pub fn is_answer_queue_full(&self) -> bool {
        self.stream.state.lock().answers() >= self.hub.options.stream_answers_max
    }

    /// Runs `change` under the hub's and the stream's lock, and wakes the owner after it.
    fn with_locks(&self, change: impl FnOnce(&mut HubState, &mut StreamState)) {
        let mut after = Aftermath::default();
        {
            let mut hub = self.hub.state.lock();
            let mut state = self.stream.state.lock();
            change(&mut hub, &mut state);
            if state.has_work() {
                after.stirred(&self.stream, &mut state);
            }
        }
        after.settle();
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let (ranges, released) = self.stream.state.lock().close();
        self.hub.state.lock().forget(self.stream.number);
        // Between these turns the applier may still find a watcher in the index; the closed stream ignores it.
        for ranges in ranges.chunks(WATCHERS_PER_LOCK) {
            let mut hub = self.hub.state.lock();
            for (watch_id, range) in ranges {
                hub.index.remove(range, &(self.stream.number, *watch_id));
            }
        }
        self.hub.counters.streams.sub(1);
        drop(released);
    }
}

impl Watcher {
    fn new(request: &WatchCreateRequest, range: KeyRange, generation: u64, revision: i64) -> Self {
        let cursor = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
        Self {
            generation,
            range,
            filter: Filter::of(request),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            start_revision: request.start_revision,
            cursor,
            lagging: cursor <= revision,
            idle: true,
            progress_queued: false,
        }
    }
}
