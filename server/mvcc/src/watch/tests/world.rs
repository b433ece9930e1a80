//! A store in memory, and a client that checks each response against everything that was ever committed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use garboard_proto::etcdserverpb::watch_create_request::FilterType;
use garboard_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use garboard_proto::mvccpb;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;

use crate::watch::{Event, History, HistoryError, Hub, HubOptions, Next, PrevKv, Row, WatchOutput, WatchStream};

/// One change as the model knows it.
#[derive(Clone, Debug)]
pub struct Change {
    pub main: i64,
    pub sub: i64,
    pub deleted: bool,
    pub kv: mvccpb::KeyValue,
    pub prev: Option<mvccpb::KeyValue>,
}

impl Change {
    fn is_create(&self) -> bool {
        !self.deleted && self.kv.create_revision == self.main
    }

    fn event(&self, prev: PrevKv) -> Event {
        let key = self.kv.key.clone();
        if self.deleted {
            return Event::delete(key, self.main, self.sub, prev);
        }
        Event::put(key, self.main, self.sub, Bytes::from(self.kv.encode_to_vec()), self.is_create(), prev)
    }
}

type Hook = Box<dyn FnOnce() + Send>;

/// History in memory; compaction takes rows away as etcd's does.
#[derive(Default)]
pub struct Past {
    rows: RwLock<BTreeMap<(i64, i64), (bool, mvccpb::KeyValue)>>,
    revision: RwLock<i64>,
    compact_revision: RwLock<i64>,
    pub scans: AtomicUsize,
    pub fails: RwLock<Option<String>>,
    /// Runs once, after the next scan has read its rows.
    pub during_scan: Mutex<Option<Hook>>,
}

impl Past {
    fn add(&self, changes: &[Change]) {
        let mut rows = self.rows.write();
        for change in changes {
            rows.insert((change.main, change.sub), (change.deleted, change.kv.clone()));
            *self.revision.write() = change.main;
        }
    }

    pub fn compact(&self, at: i64) {
        *self.compact_revision.write() = at;
        let mut rows = self.rows.write();
        let mut latest = BTreeMap::new();
        for (&revision, (_, kv)) in rows.range(..=(at, i64::MAX)) {
            latest.insert(kv.key.clone(), revision);
        }
        rows.retain(|&revision, (deleted, kv)| {
            revision.0 > at || (latest[&kv.key] == revision && (!*deleted || revision.0 == at))
        });
    }
}

impl History for Past {
    fn revision(&self) -> i64 {
        *self.revision.read()
    }

    fn compact_revision(&self) -> i64 {
        *self.compact_revision.read()
    }

    fn scan(&self, from: i64, to: i64, visit: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>) -> Result<(), HistoryError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        if let Some(reason) = self.fails.read().clone() {
            return Err(HistoryError::Failed(reason));
        }
        if from < self.compact_revision() {
            return Err(HistoryError::Compacted);
        }
        // Row by row, so that a compaction or a commit may come in between, as on disk.
        let mut at = (from, i64::MIN);
        loop {
            let next =
                self.rows.read().range(at..=(to, i64::MAX)).next().map(|(revision, row)| (*revision, row.clone()));
            let hook = self.during_scan.lock().take();
            if let Some(hook) = hook {
                hook();
            }
            let Some(((main, sub), (tombstone, kv))) = next else { return Ok(()) };
            if visit(Row { main, sub, tombstone, kv: &kv.encode_to_vec() }).is_break() {
                return Ok(());
            }
            at = (main, sub + 1);
        }
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, HistoryError> {
        if revision < self.compact_revision() {
            return Ok(None);
        }
        let rows = self.rows.read();
        let newest = rows.range(..=(revision, i64::MAX)).rev().find(|(_, (_, kv))| kv.key == key);
        Ok(newest.and_then(|(_, (deleted, kv))| (!deleted).then(|| Bytes::from(kv.encode_to_vec()))))
    }
}

/// An operation of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Put(&'static str, usize),
    Delete(&'static str),
}

/// A hub on a store.
pub struct World {
    pub hub: Arc<Hub>,
    pub past: Arc<Past>,
    pub log: RwLock<Vec<Change>>,
    live: Mutex<BTreeMap<Bytes, mvccpb::KeyValue>>,
}

impl World {
    pub fn new(options: HubOptions) -> Arc<Self> {
        let past = Arc::new(Past::default());
        *past.revision.write() = 1;
        let hub = Hub::new(options);
        let history: Arc<dyn History> = Arc::clone(&past) as Arc<dyn History>;
        hub.attach(Arc::downgrade(&history));
        Arc::new(Self { hub, past, log: RwLock::default(), live: Mutex::default() })
    }

    pub fn revision(&self) -> i64 {
        self.past.revision()
    }

    /// Commits one revision and publishes it, as the applier does.
    pub fn commit(&self, ops: &[Op]) -> i64 {
        let changes = self.store(ops);
        if !changes.is_empty() {
            self.publish(&changes);
        }
        self.revision()
    }

    /// Commits one revision that the hub is not told of.
    pub fn store(&self, ops: &[Op]) -> Vec<Change> {
        let main = self.revision() + 1;
        let mut live = self.live.lock();
        let mut changes = Vec::new();
        for op in ops {
            // As in etcd: deleting nothing changes nothing.
            if matches!(op, Op::Delete(key) if !live.contains_key(key.as_bytes())) {
                continue;
            }
            let sub = i64::try_from(changes.len()).unwrap();
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            let key = Bytes::from_static(key.as_bytes());
            let prev = live.get(&key).cloned();
            let change = match op {
                Op::Put(_, len) => {
                    let kv = mvccpb::KeyValue {
                        key: key.clone(),
                        create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
                        mod_revision: main,
                        version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                        value: Bytes::from(vec![b'v'; *len]),
                        lease: 0,
                    };
                    live.insert(key, kv.clone());
                    Change { main, sub, deleted: false, kv, prev }
                }
                Op::Delete(_) => {
                    live.remove(&key);
                    let kv = mvccpb::KeyValue { key, ..Default::default() };
                    Change { main, sub, deleted: true, kv, prev }
                }
            };
            changes.push(change);
        }
        self.log.write().extend(changes.iter().cloned());
        self.past.add(&changes);
        changes
    }

    pub fn publish(&self, changes: &[Change]) {
        let events = changes.iter().map(|change| {
            let prev = match (self.hub.wants_prev_kv(&change.kv.key), &change.prev) {
                (false, _) => PrevKv::Unknown,
                (true, None) => PrevKv::Absent,
                (true, Some(prev)) => PrevKv::Known(Bytes::from(prev.encode_to_vec())),
            };
            change.event(prev)
        });
        self.hub.publish(changes[0].main, events.collect());
    }
}

/// How far a watcher of the model has come.
pub struct Seen {
    pub request: WatchCreateRequest,
    /// First revision it is owed.
    start: i64,
    /// Place in the log up to which everything was received or did not match.
    place: usize,
    pub received: usize,
    fragments: bool,
}

impl Seen {
    fn wants(&self, change: &Change) -> bool {
        let (key, end) = (&self.request.key, &self.request.range_end);
        let refused = if change.deleted { FilterType::Nodelete } else { FilterType::Noput };
        let in_range = match end.as_ref() {
            b"" => change.kv.key == key,
            b"\0" => change.kv.key >= key,
            end => change.kv.key >= key && change.kv.key.as_ref() < end,
        };
        change.main >= self.start && in_range && !self.request.filters.contains(&(refused as i32))
    }

    /// The next change it is owed.
    pub fn owed(&mut self, log: &[Change]) -> Option<usize> {
        while self.place < log.len() && !self.wants(&log[self.place]) {
            self.place += 1;
        }
        (self.place < log.len()).then_some(self.place)
    }
}

/// One stream with a client at its end.
pub struct Client {
    pub world: Arc<World>,
    pub stream: Arc<WatchStream>,
    pub wakes: Arc<AtomicUsize>,
    pub seen: BTreeMap<i64, Seen>,
    pub creates: VecDeque<WatchCreateRequest>,
    pub cancels: VecDeque<i64>,
    pub progress: usize,
    fragmented: Option<WatchResponse>,
}

pub const HEADER: ResponseHeader = ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 0, raft_term: 3 };

impl Client {
    pub fn new(world: &Arc<World>) -> Self {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let stream = world.hub.stream(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        Self {
            world: Arc::clone(world),
            stream: Arc::new(stream),
            wakes,
            seen: BTreeMap::new(),
            creates: VecDeque::new(),
            cancels: VecDeque::new(),
            progress: 0,
            fragmented: None,
        }
    }

    pub fn create(&mut self, request: WatchCreateRequest) {
        self.stream.create(&request);
        self.creates.push_back(request);
    }

    pub fn cancel(&mut self, watch_id: i64) {
        self.cancels.push_back(watch_id);
        self.stream.cancel(watch_id);
    }

    /// The next response if one is ready, catching up as needed; checked and, if fragmented, as it came.
    pub fn next(&mut self) -> Option<WatchResponse> {
        loop {
            match self.stream.next() {
                Next::Output(output) => return Some(self.accept(&output)),
                Next::CatchUp => self.stream.catch_up(),
                Next::Empty => return None,
            }
        }
    }

    pub fn drain(&mut self) -> Vec<WatchResponse> {
        std::iter::from_fn(|| self.next()).collect()
    }

    pub fn queued_bytes(&self) -> usize {
        self.stream.stream.state.lock().queued_bytes()
    }

    /// Nothing that is owed is missing.
    pub fn check_complete(&mut self) {
        let log = self.world.log.read();
        for (watch_id, seen) in &mut self.seen {
            let owed = seen.owed(&log).map(|place| &log[place]);
            assert!(owed.is_none(), "watcher {watch_id} was never sent {owed:?}");
        }
        assert!(self.creates.is_empty(), "a create was never answered");
        assert!(self.fragmented.is_none(), "the last fragment is missing");
    }

    pub fn accept(&mut self, output: &WatchOutput) -> WatchResponse {
        let mut bytes = Vec::new();
        output.encode(&HEADER, &mut bytes);
        assert_eq!(bytes.len(), output.encoded_len(&HEADER));
        let response = WatchResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(response.encode_to_vec(), bytes, "not the bytes a protobuf library writes");
        assert!(response.header.is_some_and(|h| h.revision <= self.world.revision() && h.cluster_id == u64::MAX));
        if response.created {
            self.accept_created(&response);
        } else if response.canceled {
            self.accept_canceled(&response);
        } else if response.events.is_empty() {
            self.accept_progress(&response);
        } else {
            self.accept_events(&response);
        }
        response
    }

    fn accept_created(&mut self, response: &WatchResponse) {
        let request = self.creates.pop_front().expect("an answer to no create");
        let header = response.header.unwrap().revision;
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            assert!(!response.cancel_reason.is_empty());
            return;
        }
        assert!(request.watch_id == 0 || request.watch_id == response.watch_id);
        let start = if request.start_revision == 0 { header + 1 } else { request.start_revision };
        let fragments = request.fragment;
        let seen = Seen { request, start, place: 0, received: 0, fragments };
        assert!(self.seen.insert(response.watch_id, seen).is_none(), "a watch id twice");
    }

    fn accept_canceled(&mut self, response: &WatchResponse) {
        let seen = self.seen.remove(&response.watch_id).expect("canceled before it was created");
        if response.compact_revision != 0 {
            assert_eq!(response.header.unwrap().revision, 0);
            assert!(seen.start < response.compact_revision, "canceled as compacted although it starts after that");
            return;
        }
        if response.cancel_reason.is_empty() {
            while let Some(watch_id) = self.cancels.pop_front() {
                if watch_id == response.watch_id {
                    return;
                }
            }
            panic!("canceled without being asked");
        }
    }

    fn accept_progress(&mut self, response: &WatchResponse) {
        let revision = response.header.unwrap().revision;
        let log = self.world.log.read();
        let named = |watch_id: i64| response.watch_id == -1 || response.watch_id == watch_id;
        for (watch_id, seen) in self.seen.iter_mut().filter(|(id, _)| named(**id)) {
            if let Some(owed) = seen.owed(&log).map(|place| &log[place]) {
                assert!(owed.main > revision, "progress {revision} while watcher {watch_id} is owed {owed:?}");
            }
            assert!(seen.request.start_revision <= revision, "progress {revision} of a watcher that has not started");
            assert!(response.watch_id == -1 || seen.request.progress_notify, "progress that nobody asked for");
        }
        self.progress += 1;
    }

    fn accept_events(&mut self, response: &WatchResponse) {
        let seen = self.seen.get_mut(&response.watch_id).expect("events before created or after canceled");
        let log = self.world.log.read();
        let compact_revision = self.world.past.compact_revision();
        for event in &response.events {
            let place = seen.owed(&log).unwrap_or_else(|| panic!("owed nothing, got {event:?}"));
            let change = &log[place];
            seen.place += 1;
            seen.received += 1;
            let mut kv = change.kv.clone();
            kv.mod_revision = change.main;
            assert_eq!(event.kv.as_ref(), Some(&kv), "sub {}", change.sub);
            assert_eq!(event.r#type, i32::from(change.deleted));
            match &event.prev_kv {
                Some(prev) => {
                    assert!(seen.request.prev_kv && !change.is_create());
                    assert_eq!(Some(prev), change.prev.as_ref());
                }
                None => {
                    let gone = change.main - 1 < compact_revision;
                    let excused = !seen.request.prev_kv || change.prev.is_none() || gone;
                    assert!(excused, "prev_kv is missing: {event:?}");
                }
            }
        }
        if response.fragment {
            assert!(seen.fragments, "a fragment nobody asked for");
            assert!(self.fragmented.as_ref().is_none_or(|last| last.watch_id == response.watch_id));
            self.fragmented = Some(response.clone());
            return;
        }
        if let Some(last) = self.fragmented.take() {
            assert_eq!((last.watch_id, last.header), (response.watch_id, response.header), "fragments were mixed");
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref()).unwrap().mod_revision;
        let next = seen.owed(&log).map(|place| log[place].main);
        assert!(next != Some(last), "revision {last} was split");
        assert!(response.header.unwrap().revision >= last);
    }
}

/// A create request for `[key, end)`; `end` as on the wire.
pub fn watch(key: &'static str, end: &'static str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        start_revision,
        ..Default::default()
    }
}
