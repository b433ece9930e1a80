//! openraft's log over the WAL: an append returns at once and completes when the WAL has synced it; the vote and a truncation are
//! synced before they return; a purge is memory-only here, the WAL unlinks segments behind.

use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::ops::Range;
use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;
use garboard_storage::wal;
use garboard_storage::wal::Wal;
use openraft::RaftLogReader;
use openraft::entry::RaftEntry as _;
use openraft::storage::IOFlushed;
use openraft::storage::LogState;
use openraft::storage::RaftLogStorage;
use tokio::sync::oneshot;

use super::membership;
use super::types::BatchBytes;
use super::types::Entry;
use super::types::LeaderId;
use super::types::LogId;
use super::types::Payload;
use super::types::TypeConfig;
use super::types::Vote;
use super::types::log_id;

/// At most this many bytes of entries go into one answer to a reader that can take a part (replication, apply).
const READ_CHUNK_BYTES: usize = 1 << 20;

/// What an entry's payload is, in the WAL's `kind` byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// A new leader's first entry.
    Blank = 0,
    /// A `garboardraft.Batch`.
    Batch = 1,
    /// A `garboardraft.Membership`.
    Membership = 2,
}

/// The WAL as openraft sees it.
#[derive(Clone)]
pub(crate) struct LogStore {
    wal: Arc<Wal>,
    member_id: u64,
}

impl LogStore {
    pub(crate) fn new(wal: Arc<Wal>, member_id: u64) -> Self {
        Self { wal, member_id }
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let entries = self.wal.read(range, max_bytes).map_err(io::Error::other)?;
        entries.into_iter().map(from_wal).collect()
    }
}

/// The half-open range of indexes that `range` names.
fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(n) => *n,
        Bound::Excluded(n) => n.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(n) => n.saturating_add(1),
        Bound::Excluded(n) => *n,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// The kind and the bytes of an entry's payload, in the log and between members.
pub(super) fn encode_payload(payload: &Payload) -> (u8, Bytes) {
    let (kind, bytes) = match payload {
        Payload::Blank => (EntryKind::Blank, Bytes::new()),
        Payload::Normal(batch) => (EntryKind::Batch, batch.0.clone()),
        Payload::Membership(m) => (EntryKind::Membership, membership::encode(m)),
    };
    (kind as u8, bytes)
}

/// The reverse of [`encode_payload`]; `index` is for the error.
pub(super) fn decode_payload(kind: u8, bytes: Bytes, index: u64) -> io::Result<Payload> {
    match kind {
        k if k == EntryKind::Blank as u8 => Ok(Payload::Blank),
        k if k == EntryKind::Batch as u8 => Ok(Payload::Normal(BatchBytes(bytes))),
        k if k == EntryKind::Membership as u8 => Ok(Payload::Membership(membership::decode(&bytes)?)),
        k => {
            let text = format!("entry {index} of the log has the unknown kind {k}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

fn to_wal(entry: Entry) -> wal::WalEntry {
    let (kind, payload) = encode_payload(&entry.payload);
    wal::WalEntry { log_id: to_wal_id(&entry.log_id()), kind, payload }
}

fn from_wal(entry: wal::WalEntry) -> io::Result<Entry> {
    let payload = decode_payload(entry.kind, entry.payload, entry.log_id.index)?;
    Ok(Entry::new(log_id(entry.log_id.term, entry.log_id.index), payload))
}

fn to_wal_id(id: &LogId) -> wal::LogId {
    wal::LogId { term: id.leader_id.term, index: id.index }
}

fn from_wal_id(id: wal::LogId) -> LogId {
    log_id(id.term, id.index)
}

/// A callback for the WAL and the future that it completes.
fn synced() -> (wal::Done, impl Future<Output = io::Result<()>>) {
    let (tx, rx) = oneshot::channel();
    let done = Box::new(move |result| {
        // The receiver is gone only when openraft itself is being torn down.
        let _ = tx.send(result);
    });
    let wait = async move { rx.await.unwrap_or_else(|_| Err(io::Error::other("the WAL writer has ended"))) };
    (done, wait)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(half_open(&range), usize::MAX)
    }

    /// Read once, at the start. A leader that was restarted does not lead on under its old vote, as openraft would have it: it no longer knows
    /// what it had committed and acknowledged, and with no entry of this life in its term its ReadIndex could be behind that. It has to be
    /// elected anew, and commits an entry of the new term before anything is read.
    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.wal.state().vote;
        Ok(vote.map(|v| {
            let led = v.node_id == self.member_id;
            let leader_id = LeaderId { term: v.term, voted_for: v.node_id };
            Vote { leader_id, committed: v.committed && !led }
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_CHUNK_BYTES)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.wal.state();
        let last_purged_log_id = state.purged.map(from_wal_id);
        let last_log_id = state.last.map(from_wal_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let id = vote.leader_id();
        let vote = wal::Vote { term: id.term, node_id: id.voted_for, committed: vote.is_committed() };
        let (done, wait) = synced();
        self.wal.save_vote(vote, done);
        wait.await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.wal.save_committed(to_wal_id(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.state().committed.map(from_wal_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(to_wal).collect();
        self.wal.append(entries, Box::new(move |result| callback.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let (done, wait) = synced();
        self.wal.truncate_after(last.as_ref().map(to_wal_id), done);
        wait.await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.wal.purge(to_wal_id(&upto));
        Ok(())
    }
}
