//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use garboard_mvcc::Error as MvccError;
use garboard_mvcc::Position;
use garboard_mvcc::Response;

use super::responder::Reply;

/// What became of one command: its reply, or why it changed nothing.
pub(crate) type Outcome = Result<Response, MvccError>;

/// A marshalled `garboardraft.Batch`, as the log carries it.
#[derive(Clone)]
pub(crate) struct BatchBytes(pub(crate) Bytes);

impl fmt::Debug for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The outcomes of one batch, command by command.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

/// What the membership says of a member: the member list that clients see is derived from it and from nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberNode {
    /// Human-readable name (`--name`).
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether clients see it as a learner.
    pub is_learner: bool,
    /// The number of its data directory; 0 until the member has said it.
    pub incarnation: u64,
    /// Whether the leader makes it a voter once it has caught up.
    pub promote: bool,
    /// The etcd release that it stands for; empty until the member has said it.
    pub etcd_version: String,
    /// The latest format that it would write; 0 until the member has said it.
    pub format: u32,
}

/// openraft's type parameters. The leader id is the term alone, as in the Raft paper: one leader a term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<BatchBytes, u64, MemberNode>;
pub(crate) type Membership = openraft::Membership<u64, MemberNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = BatchBytes;
    type R = Outcomes;
    type NodeId = u64;
    type Node = MemberNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = openraft::alias::DefaultEntryOf<Self>;
    type Responder<T>
        = Reply<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type ErrorSource = openraft::AnyError;
}

/// An openraft log id for the rest of the house.
pub(crate) fn position(id: &LogId) -> Position {
    Position { term: id.leader_id.term, index: id.index }
}

/// openraft's log id of a term and an index.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId as _;
    LogId::new(LeaderId::new(term, 0).to_committed(), index)
}
