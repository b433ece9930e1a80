//! The state machine over tables in memory, driven as a member drives it: entries, checkpoints, compaction, restarts, a watch stream.

use std::sync::Arc;

use garboard_mvcc::Applier;
use garboard_mvcc::CompactionStep;
use garboard_mvcc::Error;
use garboard_mvcc::Position;
use garboard_mvcc::Response;
use garboard_mvcc::Store;
use garboard_mvcc::StoreOptions;
use garboard_mvcc::backend::memory::MemoryBackend;
use garboard_mvcc::watch::HubOptions;
use garboard_mvcc::watch::Next;
use garboard_mvcc::watch::WatchStream;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use prost::Message as _;

/// Rows that one step of a compaction drops.
const COMPACTION_ROWS: usize = 3;

pub struct StateMachine {
    pub store: Arc<Store>,
    pub watches: WatchStream,
    backend: Arc<MemoryBackend>,
    applier: Applier,
    index: u64,
}

/// Small bounds, so that a short input meets them.
fn options() -> StoreOptions {
    let watch = HubOptions {
        ring_bytes: 4 << 10,
        stream_queue_bytes: 2 << 10,
        join_bytes: 256,
        fragment_bytes: 256,
        stream_watchers_max: 4,
        stream_answers_max: 8,
        catch_up_revisions: 3,
        catch_up_bytes: 1 << 10,
    };
    StoreOptions { cache_bytes: 1 << 10, overlay_bytes: 64 << 10, watch, compaction_rows_pending: 8 }
}

// === impl StateMachine ===

impl StateMachine {
    /// # Errors
    /// The tables are damaged.
    pub fn open(backend: Arc<MemoryBackend>) -> Result<StateMachine, Error> {
        let (store, applier) = Store::open(backend.clone(), options())?;
        let watches = store.watch_hub().stream(Arc::new(|| {}));
        let index = store.applied().index;
        Ok(StateMachine { store, watches, backend, applier, index })
    }

    /// Applies one command as an entry of its own. An error is its answer.
    pub fn apply(&mut self, op: Op) -> Result<Response, Error> {
        let answer = self.applier.apply(Command { op: Some(op) });
        if let Err(error) = &answer {
            assert!(!error.is_fatal(), "a request ended the member: {error}");
        }
        self.index += 1;
        self.applier.finish_entry(Position { term: 1, index: self.index }, None);
        answer
    }

    /// Writes what is applied into the tables.
    pub fn flush(&self) {
        if let Some(checkpoint) = self.store.take_checkpoint() {
            self.backend.write(&checkpoint);
            self.store.checkpoint_written(checkpoint);
        }
    }

    pub fn compaction_step(&self) {
        match self.store.compaction_step(COMPACTION_ROWS).expect("the tables are sound") {
            CompactionStep::Idle | CompactionStep::More | CompactionStep::Finished(_) => {}
            CompactionStep::Waiting => self.flush(),
        }
    }

    /// A restart after a checkpoint: all state is as it was, but for the watchers.
    pub fn restart(&mut self) {
        self.flush();
        let again = StateMachine::open(self.backend.fork()).expect("what was written is sound");
        assert_eq!(again.store.revision(), self.store.revision(), "the revision changed over a restart");
        assert_eq!(again.store.hash().ok(), self.store.hash().ok(), "the state changed over a restart");
        *self = again;
    }

    /// Takes what the watch stream has, and reads it as a client does.
    pub fn drain_watches(&self) {
        let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 0, raft_term: 3 };
        loop {
            match self.watches.next() {
                Next::Empty => return,
                Next::CatchUp => self.watches.catch_up(),
                Next::Output(output) => {
                    let mut bytes = Vec::new();
                    output.encode(&header, &mut bytes);
                    assert_eq!(bytes.len(), output.encoded_len(&header), "an answer is as long as was said");
                    let answer = pb::WatchResponse::decode(&bytes[..]).expect("an answer is a WatchResponse");
                    assert_eq!(answer.events.len(), output.events.len(), "an event is missing in the answer");
                }
            }
        }
    }

    /// Everything that a client could do to keys that are there: nothing in them may hurt the member.
    pub fn touch_everything(&mut self) {
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let everything = pb::WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision: self.store.compact_revision().max(1),
            prev_kv: true,
            ..Default::default()
        };
        for alarm in self.store.alarms() {
            let action = pb::alarm_request::AlarmAction::Deactivate.into();
            let disarm = pb::AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
            self.apply(Op::Alarm(disarm)).expect("an alarm that is there can be taken back");
        }
        assert!(self.store.alarms().is_empty(), "an alarm stays");
        self.watches.create(&everything);
        self.drain_watches();
        let found = self.store.range(&all).expect("a range over everything");
        let stored = self.store.hash_kv(0).expect("the newest revision");
        assert_eq!(stored.hash_revision, self.store.revision());
        for kv in found.kvs.iter().take(8) {
            let put = pb::PutRequest { key: kv.key.clone(), prev_kv: true, ignore_lease: true, ..Default::default() };
            self.apply(Op::Put(put)).expect("a key that is there can be put");
        }
        for lease in self.store.leases().into_iter().take(4) {
            let revoke = pb::LeaseRevokeRequest { id: lease.id };
            self.apply(Op::LeaseRevoke(revoke)).expect("a lease that is there can be revoked");
        }
        let delete = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
        self.apply(Op::DeleteRange(delete)).expect("all keys can be deleted");
        self.drain_watches();
        let compact = pb::CompactionRequest { revision: self.store.revision(), physical: true };
        // Refused if nothing was written since the last compaction.
        let _ = self.apply(Op::Compaction(compact));
        (0..64).for_each(|_| self.compaction_step());
        self.restart();
    }
}
