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
use garboard_storage::wal::WalError;
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
}

/// What the WAL has read.
fn entries(read: Result<Vec<wal::WalEntry>, WalError>) -> io::Result<Vec<Entry>> {
    read.map_err(io::Error::other)?.into_iter().map(from_wal).collect()
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
        entries(self.wal.read(half_open(&range), usize::MAX))
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

    /// For replication alone. Of one who leads no more, a stream to another member may ask for what the next leader's snapshot has just taken the
    /// place of: openraft takes nothing for an answer, and then looks whether it still leads. A leader keeps what its streams have yet to send.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        match self.wal.read(start..end, READ_CHUNK_BYTES) {
            Err(WalError::Purged { .. }) => Ok(Vec::new()),
            read => entries(read),
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use garboard_storage::disk::memory::MemoryDisk;
    use garboard_storage::wal::WalOptions;

    use super::*;

    /// Who applies must have it; who replicates is told by openraft that it leads no more.
    #[tokio::test]
    async fn what_a_snapshot_has_taken_the_place_of_is_nothing_to_send_and_an_error_to_apply() {
        let options = WalOptions { segment_bytes: 4096, ..WalOptions::new(Path::new("/wal").into(), 1, 2) };
        let wal = Arc::new(Wal::open(Arc::new(MemoryDisk::default()), options).unwrap().0);
        let mut log = LogStore::new(Arc::clone(&wal), 2);
        let (done, appended) = synced();
        wal.append((1..=3).map(|index| to_wal(Entry::new(log_id(1, index), Payload::Blank))).collect(), done);
        appended.await.unwrap();
        assert_eq!(log.limited_get_log_entries(1, 4).await.unwrap().len(), 3);
        log.purge(log_id(2, 7)).await.unwrap();
        assert!(log.limited_get_log_entries(2, 4).await.unwrap().is_empty());
        let error = log.try_get_log_entries(2..4).await.unwrap_err();
        assert!(error.to_string().contains("entries from 2 are gone"), "{error}");
        wal.close();
    }
}
