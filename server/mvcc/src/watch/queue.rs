//! State of one stream, behind its lock: watchers, and the answers and events that wait to be sent, in order.
//!
//! - A live watcher has everything up to the hub's revision queued or handed out; a lagging one has nothing from its cursor on.
//! - The events that wait are bounded: beyond it all of them are released, and their watchers lag from the first one lost.
//! - Progress never survives the release of events queued before it.

mod sending;
mod watchers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::counters::Counters;
use super::event::Event;
use super::hub::HubOptions;
use super::output::WatchOutput;
use super::range::{Filter, KeyRange};

/// Bookkeeping of a queued batch of events, beside the events.
const ITEM_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub(super) struct Watcher {
    /// Tells it from an earlier watcher with the same id.
    pub generation: u64,
    pub range: KeyRange,
    pub filter: Filter,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
    pub start_revision: i64,
    /// Lagging: the next revision to deliver. Live: nothing below it is delivered.
    pub cursor: i64,
    pub lagging: bool,
    /// Nothing was sent since the last tick.
    pub idle: bool,
    pub progress_queued: bool,
}

#[derive(Debug)]
pub(super) enum Item {
    Answer(WatchOutput),
    Progress { watch_id: i64, revision: i64 },
    Events(Delivery),
}

/// Whole revisions for one watcher.
#[derive(Debug)]
pub(super) struct Delivery {
    watch_id: i64,
    generation: u64,
    header_revision: i64,
    events: Vec<Arc<Event>>,
    bytes: usize,
    with_prev_kv: bool,
    fragment: bool,
}

#[derive(Debug)]
pub(super) struct StreamState {
    options: HubOptions,
    counters: Arc<Counters>,
    pub watchers: BTreeMap<i64, Watcher>,
    next_watch_id: i64,
    next_generation: u64,
    queue: VecDeque<Item>,
    /// A delivery of which some fragments are out, and the number of events in them.
    fragmented: Option<(Delivery, usize)>,
    queued_bytes: usize,
    answers: usize,
    lagging: usize,
    /// The owner has seen the stream empty and waits for one wake-up.
    armed: bool,
    pub catching_up: bool,
    outputs_since_catch_up: u32,
    /// Catch-up begins in turn with the watcher furthest behind and with the one nearest to live.
    nearest_first: bool,
}

impl StreamState {
    pub(super) fn new(options: HubOptions, counters: Arc<Counters>) -> Self {
        Self {
            options,
            counters,
            watchers: BTreeMap::new(),
            next_watch_id: 0,
            next_generation: 0,
            queue: VecDeque::new(),
            fragmented: None,
            queued_bytes: 0,
            answers: 0,
            lagging: 0,
            armed: true,
            catching_up: false,
            outputs_since_catch_up: 0,
            nearest_first: false,
        }
    }

    /// Whether the owner must be woken: true once after it saw the stream empty.
    pub(super) fn disarm(&mut self) -> bool {
        std::mem::take(&mut self.armed)
    }

    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    pub(super) fn has_lagging(&self) -> bool {
        self.lagging > 0
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether `next` has something for the owner.
    pub(super) fn has_work(&self) -> bool {
        self.fragmented.is_some() || !self.queue.is_empty() || (self.lagging > 0 && !self.catching_up)
    }

    /// Bytes of events that still fit; never 0 for an empty queue.
    pub(super) fn room_bytes(&self) -> usize {
        if self.queued_bytes == 0 {
            return usize::MAX;
        }
        self.options.stream_queue_bytes.saturating_sub(self.queued_bytes)
    }

    pub(super) fn push_answer(&mut self, answer: WatchOutput) {
        self.answers += 1;
        self.queue.push_back(Item::Answer(answer));
    }

    /// Queues progress. Two in a row for the same watcher are one, so that asking cannot fill the queue.
    pub(super) fn push_progress(&mut self, watch_id: i64, revision: i64) {
        if let Some(Item::Progress { watch_id: last, revision: known }) = self.queue.back_mut()
            && *last == watch_id
        {
            *known = revision;
            return;
        }
        self.queue.push_back(Item::Progress { watch_id, revision });
    }

    /// Queues progress for each watcher that asked for it and was idle since the last tick.
    pub(super) fn tick(&mut self, revision: i64) {
        let mut due = Vec::new();
        for (watch_id, watcher) in &mut self.watchers {
            if !watcher.progress_notify {
                continue;
            }
            let in_step = !watcher.lagging && watcher.start_revision <= revision;
            if std::mem::replace(&mut watcher.idle, true) && in_step && !watcher.progress_queued {
                watcher.progress_queued = true;
                due.push(*watch_id);
            }
        }
        for watch_id in due {
            self.push_progress(watch_id, revision);
        }
    }

    /// Offers the events of a just published revision to a watcher they match. `None` if nothing came of it, else what the
    /// queue had to release.
    pub(super) fn deliver_live<'a>(
        &mut self,
        watch_id: i64,
        revision: i64,
        events: impl Iterator<Item = &'a Arc<Event>> + Clone,
    ) -> Option<VecDeque<Item>> {
        let watcher = self.watchers.get(&watch_id)?;
        if watcher.lagging || revision < watcher.cursor {
            return None;
        }
        let filter = watcher.filter;
        let wanted = events.filter(|event| filter.passes(event.kind()));
        if watcher.prev_kv && wanted.clone().any(|event| event.lacks_prev()) {
            // It was created after the applier had asked who wants previous values.
            self.set_lagging(watch_id, revision);
            return Some(VecDeque::new());
        }
        let bytes: usize = wanted.clone().map(|event| event.held_bytes()).sum();
        if bytes == 0 {
            return None;
        }
        if bytes + ITEM_OVERHEAD_BYTES > self.room_bytes() {
            let released = self.release();
            self.set_lagging(watch_id, revision);
            return Some(released);
        }
        self.push_events(watch_id, revision, wanted.cloned());
        Some(VecDeque::new())
    }

    /// Queues whole revisions for a watcher, joined with what waits for it at the end of the queue.
    pub(super) fn push_events(
        &mut self,
        watch_id: i64,
        header_revision: i64,
        events: impl Iterator<Item = Arc<Event>>,
    ) {
        let Some(watcher) = self.watchers.get(&watch_id) else { return };
        let room = self.options.join_bytes;
        let joined = matches!(self.queue.back(), Some(Item::Events(last))
            if last.watch_id == watch_id && last.generation == watcher.generation && last.bytes < room);
        if !joined {
            self.queued_bytes += ITEM_OVERHEAD_BYTES;
            self.queue.push_back(Item::Events(Delivery {
                watch_id,
                generation: watcher.generation,
                header_revision,
                events: Vec::new(),
                bytes: ITEM_OVERHEAD_BYTES,
                with_prev_kv: watcher.prev_kv,
                fragment: watcher.fragment,
            }));
        }
        let Some(Item::Events(delivery)) = self.queue.back_mut() else { return };
        let (count, bytes) = (delivery.events.len(), delivery.bytes);
        let newest = delivery.events.last().map_or((0, 0), |event| (event.main(), event.sub()));
        delivery.events.extend(events);
        let added = &delivery.events[count..];
        let after = added.first().map_or((i64::MAX, 0), |event| (event.main(), event.sub()));
        assert!(newest < after, "events of a watcher out of order");
        delivery.bytes += added.iter().map(|event| event.held_bytes()).sum::<usize>();
        delivery.header_revision = header_revision;
        self.queued_bytes += delivery.bytes - bytes;
        self.counters.pending_events.add(delivery.events.len() - count);
    }

    /// Takes all events and all progress out of the queue; the watchers they were for lag from the first one on.
    fn release(&mut self) -> VecDeque<Item> {
        let (kept, released): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(|item| matches!(item, Item::Answer(_)));
        self.queue = kept;
        for item in &released {
            match item {
                Item::Answer(_) => {}
                Item::Progress { watch_id, .. } => {
                    if let Some(watcher) = self.watchers.get_mut(watch_id) {
                        watcher.progress_queued = false;
                    }
                }
                Item::Events(delivery) => {
                    self.queued_bytes -= delivery.bytes;
                    self.counters.pending_events.sub(delivery.events.len());
                    let first = delivery.events.first().map(|event| event.main());
                    if let Some(first) = first
                        && self.watcher(delivery.watch_id, delivery.generation).is_some()
                    {
                        self.set_lagging(delivery.watch_id, first);
                    }
                }
            }
        }
        released
    }
}
