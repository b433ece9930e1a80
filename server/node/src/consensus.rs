//! Raft, by openraft. No openraft type leaves this module: the rest of the house proposes commands, asks for reads, and sees
//! [`RaftView`]s.
//!
//! One log entry carries one [`Batch`] of commands, encoded once; the WAL and (later) the peers share its bytes.

mod log_store;
mod membership;
mod network;
mod raft;
mod responder;
mod state_machine;
mod types;

pub(crate) use log_store::LogStore;
pub(crate) use membership::decode_stored as decode_stored_membership;
pub(crate) use raft::Consensus;
pub(crate) use raft::ConsensusConfig;
pub(crate) use raft::ConsensusError;
pub(crate) use state_machine::AppliedCommand;
pub(crate) use state_machine::ApplyObserver;
pub(crate) use state_machine::Checkpointed;
pub(crate) use state_machine::Pending;
pub(crate) use state_machine::StateMachine;
pub use types::MemberNode;
pub(crate) use types::Outcome;
