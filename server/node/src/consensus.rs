//! Raft, by openraft. No openraft type leaves this module: the rest of the house proposes commands, asks for reads, and sees
//! [`RaftView`]s.
//!
//! One log entry carries one [`Batch`] of commands, encoded once; the WAL and the peers share its bytes.

mod answer;
mod force;
mod lease;
mod log_store;
mod membership;
mod network;
mod offline;
mod proof;
mod raft;
mod responder;
mod snapshot;
mod state_machine;
mod types;
mod wire;

pub(crate) use force::Force;
pub(crate) use force::ForceError;
pub(crate) use log_store::LogStore;
pub(crate) use membership::Stored as StoredMembership;
pub(crate) use membership::node_from_proto;
pub(crate) use membership::node_to_proto;
pub(crate) use offline::apply_entry;
pub(crate) use offline::membership_of;
pub(crate) use raft::Change;
pub(crate) use raft::Consensus;
pub(crate) use raft::ConsensusConfig;
pub(crate) use raft::ConsensusError;
pub(crate) use raft::Progress;
pub(crate) use raft::RaftView;
pub(crate) use snapshot::Received;
pub(crate) use state_machine::AppliedCommand;
pub(crate) use state_machine::ApplyObserver;
pub(crate) use state_machine::Checkpointed;
pub(crate) use state_machine::Pending;
pub(crate) use state_machine::StateMachine;
pub use types::MemberNode;
pub(crate) use types::Outcome;
