//! Emptying the queue: turns between outputs and catch-up, and the splitting into fragments.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Delivery, Item, StreamState};
use crate::watch::output::{Next, WatchOutput};
use crate::watch::range::KeyRange;

/// Outputs after which lagging watchers get a turn although live events still wait.
const OUTPUTS_PER_TURN: u32 = 64;

impl StreamState {
    pub(in crate::watch) fn next(&mut self) -> Next {
        if let Some((delivery, sent)) = self.fragmented.take() {
            return Next::Output(self.next_fragment(delivery, sent));
        }
        let turn = self.lagging > 0 && !self.catching_up;
        if turn && self.outputs_since_catch_up >= OUTPUTS_PER_TURN && self.room_bytes() >= self.queued_bytes {
            self.outputs_since_catch_up = 0;
            return Next::CatchUp;
        }
        self.outputs_since_catch_up += 1;
        match self.queue.pop_front() {
            Some(Item::Answer(answer)) => {
                self.answers -= 1;
                Next::Output(answer)
            }
            Some(Item::Progress { watch_id, revision }) => {
                if let Some(watcher) = self.watchers.get_mut(&watch_id) {
                    watcher.progress_queued = false;
                }
                Next::Output(WatchOutput { header_revision: revision, watch_id, ..WatchOutput::default() })
            }
            Some(Item::Events(delivery)) => Next::Output(self.hand_out(delivery)),
            None if turn => {
                self.outputs_since_catch_up = 0;
                Next::CatchUp
            }
            None => {
                self.outputs_since_catch_up = 0;
                self.armed = true;
                Next::Empty
            }
        }
    }

    fn hand_out(&mut self, mut delivery: Delivery) -> WatchOutput {
        if let Some(watcher) = self.watcher(delivery.watch_id, delivery.generation) {
            watcher.idle = false;
        }
        let mut output = delivery.output();
        if delivery.fragment && delivery.events.len() > 1 {
            let events: usize = delivery.events.iter().map(|event| event.field_len(delivery.with_prev_kv)).sum();
            if output.frame_len_max() + events >= self.options.fragment_bytes {
                return self.next_fragment(delivery, 0);
            }
        }
        self.account_sent(delivery.bytes, delivery.events.len());
        output.events = std::mem::take(&mut delivery.events);
        output
    }

    /// As many events as fit, at least one.
    fn next_fragment(&mut self, delivery: Delivery, sent: usize) -> WatchOutput {
        let mut output = delivery.output();
        let mut len = output.frame_len_max();
        for event in &delivery.events[sent..] {
            len += event.field_len(delivery.with_prev_kv);
            if !output.events.is_empty() && len >= self.options.fragment_bytes {
                break;
            }
            output.events.push(Arc::clone(event));
        }
        assert!(!output.events.is_empty(), "a fragment without events");
        let sent_now = sent + output.events.len();
        output.fragment = sent_now < delivery.events.len();
        self.account_sent(if output.fragment { 0 } else { delivery.bytes }, output.events.len());
        if output.fragment {
            self.fragmented = Some((delivery, sent_now));
        }
        output
    }

    fn account_sent(&mut self, bytes: usize, events: usize) {
        self.queued_bytes -= bytes;
        self.counters.pending_events.sub(events);
        self.counters.events_total.add(events);
    }

    /// Empties a closing stream; returns where its watchers were registered, and what waited.
    pub(in crate::watch) fn close(&mut self) -> (Vec<(i64, KeyRange)>, VecDeque<Item>) {
        let released = self.release();
        if let Some((delivery, sent)) = self.fragmented.take() {
            self.queued_bytes -= delivery.bytes;
            self.counters.pending_events.sub(delivery.events.len() - sent);
        }
        assert!(self.queued_bytes == 0 || std::thread::panicking(), "a closed stream still holds events");
        let mut ranges = Vec::new();
        while let Some((&watch_id, _)) = self.watchers.first_key_value() {
            ranges.extend(self.remove(watch_id).map(|watcher| (watch_id, watcher.range)));
        }
        (ranges, released)
    }
}

impl Delivery {
    fn output(&self) -> WatchOutput {
        WatchOutput {
            header_revision: self.header_revision,
            watch_id: self.watch_id,
            with_prev_kv: self.with_prev_kv,
            ..WatchOutput::default()
        }
    }
}
