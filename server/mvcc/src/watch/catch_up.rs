//! Brings the lagging watchers of a stream forward by one bounded chunk, from the ring if it reaches back, else from history.
//!
//! Plan and delivery hold the locks, reading in between holds none. At delivery a watcher counts only if its cursor is still
//! where the plan saw it, and it goes live only under the hub's lock, at the hub's revision: that is the whole seam.

use std::sync::Arc;

use super::gather::{Gathered, Limits, Participant, Participants};
use super::history::{History, HistoryError};
use super::hub::{Aftermath, HubState};
use super::output::WatchOutput;
use super::queue::StreamState;
use super::ring::Batch;
use super::stream::WatchStream;

/// Revisions that are matched under the hub's lock to close the last gap; a busy applier would else stay ahead for ever.
const CLOSING_REVISIONS: usize = 128;

/// Watchers that share a chunk, at most: delivery holds the hub's lock for them.
const PARTICIPANTS_MAX: usize = 1_000;

const STOPPED: &str = "etcdserver: server stopped";

/// What one call will do.
struct Plan {
    participants: Participants,
    from: i64,
    to: i64,
    /// `None`: read history.
    batches: Option<Vec<Arc<Batch>>>,
    limits: Limits,
}

/// Why watchers end in a call.
enum Verdict {
    Compacted(i64),
    Failed(String),
}

impl WatchStream {
    /// Delivers one chunk to the lagging watchers. May block on disk. A second call meanwhile does nothing.
    pub fn catch_up(&self) {
        let history = self.hub.history();
        let Some(plan) = self.plan() else { return };
        let mut gathered = Gathered::new(&plan.participants, plan.from - 1);
        let read = plan.read(history.as_deref(), &mut gathered);
        // Read after the scan: rows below it may have gone while it ran.
        let compact_revision = history.map_or(0, |history| history.compact_revision());
        self.finish(&plan, gathered, read, compact_revision);
    }

    /// Takes the two locks one after the other: a cursor that moves in between is noticed at delivery.
    fn plan(&self) -> Option<Plan> {
        let options = &self.hub.options;
        let (from, room, mut lagging) = {
            let mut state = self.stream.state.lock();
            let room = state.room_bytes();
            let from = if room == 0 { None } else { state.begin_catch_up() }?;
            (from, room, state.lagging_from(from))
        };
        lagging.sort_unstable_by_key(|(_, participant)| participant.cursor);
        lagging.truncate(PARTICIPANTS_MAX);
        let mut participants = Participants::new();
        for (range, participant) in lagging {
            participants.add(&range, participant);
        }
        let limits =
            Limits { revisions: options.catch_up_revisions.max(1), bytes: options.catch_up_bytes.clamp(1, room) };
        let hub = self.hub.state.lock();
        // Nothing to read at all if the hub was told of no revision since.
        let batches = if from > hub.revision { Some(Vec::new()) } else { hub.ring.from(from, limits.revisions) };
        Some(Plan { participants, from, to: hub.revision, batches, limits })
    }

    fn finish(&self, plan: &Plan, mut gathered: Gathered, read: Result<(), HistoryError>, compact_revision: i64) {
        let mut after = Aftermath::default();
        {
            let mut hub = self.hub.state.lock();
            let mut state = self.stream.state.lock();
            state.catching_up = false;
            plan.close_gap(&hub, &mut gathered, read.is_ok());
            for (number, participant) in plan.participants.list.iter().enumerate() {
                let Some(watcher) = state.watcher(participant.watch_id, participant.generation) else { continue };
                if !watcher.lagging || watcher.cursor != participant.cursor {
                    continue;
                }
                match plan.verdict(participant, &read, compact_revision) {
                    Some(verdict) => self.end(&mut hub, &mut state, participant.watch_id, verdict),
                    None if read.is_ok() => advance(&mut state, &hub, participant, number, &gathered),
                    None => {}
                }
            }
            if state.has_work() {
                after.stirred(&self.stream, &mut state);
            }
        }
        after.settle();
    }

    fn end(&self, hub: &mut HubState, state: &mut StreamState, watch_id: i64, verdict: Verdict) {
        let Some(watcher) = state.remove(watch_id) else { return };
        hub.index.remove(&watcher.range, &(self.stream.number, watch_id));
        state.push_answer(match verdict {
            Verdict::Compacted(compact_revision) => WatchOutput::compacted(watch_id, compact_revision),
            Verdict::Failed(cancel_reason) => WatchOutput {
                watch_id,
                canceled: true,
                header_revision: hub.revision,
                cancel_reason,
                ..WatchOutput::default()
            },
        });
    }
}

/// Queues what was gathered for a participant, and lets it go live if that was all there is.
fn advance(state: &mut StreamState, hub: &HubState, participant: &Participant, number: usize, gathered: &Gathered) {
    let events = gathered.events_of(number);
    if events.len() > 0 {
        state.push_events(participant.watch_id, hub.revision, events);
    }
    if let Some(watcher) = state.watcher(participant.watch_id, participant.generation) {
        watcher.cursor = watcher.cursor.max(gathered.through + 1);
        if watcher.cursor > hub.revision {
            state.set_live(participant.watch_id);
        }
    }
}

impl Plan {
    fn read(&self, history: Option<&dyn History>, gathered: &mut Gathered) -> Result<(), HistoryError> {
        let stopped = || HistoryError::Failed(STOPPED.to_owned());
        match &self.batches {
            Some(batches) => gathered.add_batches(&self.participants, batches, self.limits),
            None => gathered.add_history(&self.participants, history.ok_or_else(stopped)?, self.to, self.limits)?,
        }
        if gathered.lacks_prev() { gathered.fill_prev(history.ok_or_else(stopped)?, self.limits.bytes) } else { Ok(()) }
    }

    /// If only a little is missing, adds it under the lock, so that the watchers can go live.
    fn close_gap(&self, hub: &HubState, gathered: &mut Gathered, usable: bool) {
        if !usable || gathered.through >= hub.revision || gathered.bytes >= self.limits.bytes {
            return;
        }
        let Some(batches) = hub.ring.from(gathered.through + 1, CLOSING_REVISIONS + 1) else { return };
        if batches.len() > CLOSING_REVISIONS {
            return;
        }
        let mut rest = Gathered::new(&self.participants, gathered.through);
        rest.add_batches(&self.participants, &batches, self.limits);
        // Previous values are looked up without locks only: the next call does it.
        if !rest.lacks_prev() {
            gathered.append(rest);
        }
    }

    fn verdict(
        &self,
        participant: &Participant,
        read: &Result<(), HistoryError>,
        compact_revision: i64,
    ) -> Option<Verdict> {
        if let Err(HistoryError::Failed(reason)) = read {
            return Some(Verdict::Failed(reason.clone()));
        }
        if self.batches.is_some() {
            return None;
        }
        if participant.cursor < compact_revision {
            return Some(Verdict::Compacted(compact_revision));
        }
        let refused = read.is_err() && participant.cursor == self.from;
        refused.then(|| Verdict::Compacted(compact_revision.max(self.from)))
    }
}
