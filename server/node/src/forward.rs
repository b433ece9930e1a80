//! Writes of a follower's clients: the entry goes to the leader, its outcomes come back with the log.
//!
//! A follower's batch carries its member id and a number. When the entry is applied here, on this member, its outcomes are handed to
//! whoever waits under that number; so a client reads its own writes at the member it talks to, as with etcd.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use garboard_proto::peers as pb;
use garboard_proto::peers::propose_response::Result as Proposed;
use garboard_proto::peers::refused::Reason;
use garboard_proto::raft::Batch;
use garboard_runtime::random;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::consensus::Consensus;
use crate::consensus::ConsensusError;
use crate::consensus::Outcome;
use crate::error::Error;
use crate::node::Node;
use crate::peers::Line;
use crate::peers::LinkError;
use crate::peers::Links;
use crate::propose::Reply;

/// Those who wait for the outcomes of entries that this member gave to a leader.
pub(crate) struct Waiting {
    state: Mutex<State>,
    /// The term of the newest entry applied here.
    applied_term: watch::Sender<u64>,
}

struct State {
    /// Begins at random: an entry of this member's life before cannot have a number of this one's.
    next: u64,
    waiting: HashMap<u64, (Vec<Reply>, oneshot::Sender<()>)>,
}

/// What became of a batch that was sent to the leader.
pub(crate) enum Forwarded {
    /// The outcomes come with the log.
    Taken,
    /// It is in no log: to be tried again.
    Refused,
    /// It was in the log of a leader that lost its leadership.
    Lost,
    /// Nothing is known.
    Unknown,
}

impl Waiting {
    /// # Errors
    /// The machine has no randomness.
    pub(crate) fn new() -> std::io::Result<Self> {
        let next = random::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        let applied_term = watch::Sender::new(0);
        Ok(Self { state: Mutex::new(State { next, waiting: HashMap::new() }), applied_term })
    }

    /// Enters those who wait; the receiver completes when they are no longer here.
    pub(crate) fn enter(&self, replies: Vec<Reply>) -> (u64, oneshot::Receiver<()>) {
        let (gone, left) = oneshot::channel();
        let mut state = self.state.lock();
        // 0 is no number: a batch without one has nobody waiting.
        state.next = state.next.wrapping_add(1).max(1);
        let sequence = state.next;
        state.waiting.insert(sequence, (replies, gone));
        (sequence, left)
    }

    /// Takes those who wait under a number.
    pub(crate) fn take(&self, sequence: u64) -> Option<Vec<Reply>> {
        self.state.lock().waiting.remove(&sequence).map(|(replies, _)| replies)
    }

    /// An entry of this term has been applied.
    pub(crate) fn reached(&self, term: u64) {
        self.applied_term.send_if_modified(|applied| std::mem::replace(applied, term) != term);
    }

    /// Completes when an entry of a later term than `term` has been applied: none of the terms before follows it.
    pub(crate) async fn overtaken(&self, term: u64) {
        // The sender is `self`: it cannot be gone.
        let _ = self.applied_term.subscribe().wait_for(|applied| *applied > term).await;
    }

    /// Hands out the outcomes of an entry.
    pub(crate) fn applied(&self, sequence: u64, outcomes: Vec<Outcome>) {
        let Some(replies) = self.take(sequence) else { return };
        assert_eq!(outcomes.len(), replies.len(), "an entry has one outcome for each of its commands");
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A client that has gone away does not want its reply.
            let _ = reply.send(outcome.map_err(Error::Mvcc));
        }
    }
}

/// Sends a marshalled batch to `leader`.
pub(crate) async fn forward(links: &Arc<Links>, leader: u64, batch: &Bytes, sequence: u64) -> Forwarded {
    // Fields of a message may follow each other in any order: the origin is put behind the commands.
    let origin = Batch { commands: Vec::new(), origin: links.roster().own().member_id, sequence };
    let mut marked = Vec::with_capacity(batch.len() + origin.encoded_len());
    marked.extend_from_slice(batch);
    marked.extend_from_slice(&origin.encode_to_vec());
    let mut client = links.client(leader, Line::Log);
    let request = links.request(leader, pb::ProposeRequest { batch: Bytes::from(marked) });
    let result = client.propose(request).await;
    match links.answer(leader, result).await {
        Ok(pb::ProposeResponse { result: Some(Proposed::Proposed(_)) }) => Forwarded::Taken,
        Ok(pb::ProposeResponse { result: Some(Proposed::Refused(_)) }) => Forwarded::Refused,
        Ok(pb::ProposeResponse { result: Some(Proposed::Lost(_)) }) => Forwarded::Lost,
        Ok(pb::ProposeResponse { result: None }) => Forwarded::Unknown,
        Err(LinkError::NotSent(_) | LinkError::Refused(_)) => Forwarded::Refused,
        Err(LinkError::Stranger(_) | LinkError::Failed(_)) => Forwarded::Unknown,
    }
}

/// A refusal in the words of the protocol; `None` when it is not known whether something was done.
pub(crate) fn refused(error: &ConsensusError) -> Option<pb::Refused> {
    let (reason, leader) = match error {
        ConsensusError::NoLeader => (Reason::NoLeader, 0),
        ConsensusError::NotLeader { leader } => (Reason::NotLeader, *leader),
        ConsensusError::LeaseExpired => (Reason::LeaseExpired, 0),
        ConsensusError::Stopped(_) => (Reason::Stopping, 0),
        ConsensusError::LeaderChanged | ConsensusError::InProgress => return None,
    };
    Some(pb::Refused { reason: reason.into(), leader })
}

async fn propose(consensus: &Consensus, batch: Bytes) -> Result<(), ConsensusError> {
    let (tell, told) = oneshot::channel();
    let deliver = move |result: Result<Vec<Outcome>, ConsensusError>| {
        // Whoever asked may have given up.
        let _ = tell.send(result.map(drop));
    };
    consensus.propose(batch, deliver).await?;
    // Dropped without a word: openraft has ended, and what became of the entry is not known.
    told.await.unwrap_or(Err(ConsensusError::LeaderChanged))
}

impl Node {
    /// Puts another member's batch into the log, as the leader.
    pub(crate) async fn propose_for(&self, batch: Bytes) -> Proposed {
        match propose(self.consensus(), batch).await {
            Ok(()) => Proposed::Proposed(pb::Proposed {}),
            Err(error) => refused(&error).map_or(Proposed::Lost(pb::Lost {}), Proposed::Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_find_who_waits_for_them_and_nobody_else() {
        let waiting = Waiting::new().expect("randomness");
        let (first, mut answered) = oneshot::channel();
        let (second, mut open) = oneshot::channel();
        let (one, mut left) = waiting.enter(vec![first]);
        let (two, _) = waiting.enter(vec![second]);
        assert_ne!(one, two);
        waiting.applied(one, vec![Ok(garboard_mvcc::Response::ClusterVersion)]);
        assert_eq!(answered.try_recv().expect("an answer"), Ok(garboard_mvcc::Response::ClusterVersion));
        assert!(open.try_recv().is_err());
        assert!(left.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        // An entry of an earlier life, or one that was given up.
        waiting.applied(one, vec![]);
        assert_eq!(waiting.take(two).map(|replies| replies.len()), Some(1));
    }

    #[tokio::test]
    async fn what_a_lost_leader_had_is_overtaken_by_the_first_entry_of_the_next() {
        let waiting = Waiting::new().expect("randomness");
        waiting.reached(3);
        let mut overtaken = std::pin::pin!(waiting.overtaken(3));
        assert!(futures_util::poll!(&mut overtaken).is_pending());
        waiting.reached(4);
        assert!(futures_util::poll!(&mut overtaken).is_ready());
        // Also for who asks later.
        assert!(futures_util::poll!(std::pin::pin!(waiting.overtaken(3))).is_ready());
    }

    #[test]
    fn the_origin_joins_the_commands_of_a_batch() {
        let batch = Batch { commands: vec![Default::default(), Default::default()], origin: 0, sequence: 0 };
        let mut bytes = batch.encode_to_vec();
        bytes.extend(Batch { commands: Vec::new(), origin: 7, sequence: 9 }.encode_to_vec());
        let joined = Batch::decode(&bytes[..]).expect("a batch");
        assert_eq!((joined.commands.len(), joined.origin, joined.sequence), (2, 7, 9));
    }
}
