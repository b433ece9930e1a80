//! The replicated state machine: (state, command) -> (state, reply, events). No clock, no randomness, no async, no I/O
//! of its own: the same commands give the same state and the same replies on every member.
//!
//! [`Applier`] is the one writer, [`Store`] what everybody else reads; [`Backend`] is all it knows of storage.
#![forbid(unsafe_code)]

pub mod backend;
pub mod meta;
pub mod validate;
pub mod watch;

mod alarm;
mod apply;
mod cache;
mod checkpoint;
mod compaction;
mod counters;
mod error;
mod hash;
mod history;
mod index;
mod lease;
mod overlay;
mod range;
mod revision;
mod row;
mod store;
mod txn;

pub use apply::{Applier, Response};
pub use backend::{Backend, BackendError, Checkpoint, Position, Table, WriteOp};
pub use compaction::CompactionStep;
pub use counters::Counters;
pub use error::Error;
pub use hash::HashKv;
pub use lease::{LEASE_TTL_MAX_S, LeaseView};
pub use range::{RangePieces, RangeRows, RangeStream};
pub use revision::{Revision, RowKey};
pub use row::{MalformedRow, RowView};
pub use store::{FIRST_FORMAT, Store, StoreOptions};
