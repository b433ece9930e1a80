//! What a member answers when it cannot do what was asked.

use garboard_mvcc::Error as MvccError;

use crate::consensus::ConsensusError;

/// Why a request failed. `api` turns each into etcd's code and text, in one place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The state machine refused it.
    #[error(transparent)]
    Mvcc(#[from] MvccError),
    /// The marshalled command is larger than `--max-request-bytes`.
    #[error("request is too large")]
    RequestTooLarge,
    /// More is under way than the member takes.
    #[error("too many requests")]
    TooManyRequests,
    /// The quota is reached.
    #[error("database space exceeded")]
    NoSpace,
    /// No leader is known.
    #[error("no leader")]
    NoLeader,
    /// Another member leads.
    #[error("not leader")]
    NotLeader,
    /// The leader changed meanwhile: the request may or may not take effect.
    #[error("leader changed")]
    LeaderChanged,
    /// The request timeout (5 s + two election timeouts) has passed.
    #[error("request timed out")]
    Timeout,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
    /// The lease does not exist, or has expired.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Leadership cannot go there.
    #[error("bad leader transferee")]
    BadLeaderTransferee,
    /// A fault that has no name in etcd's table.
    #[error("{0}")]
    Internal(String),
}

impl From<ConsensusError> for Error {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::NoLeader | ConsensusError::LeaseExpired => Self::NoLeader,
            ConsensusError::NotLeader { .. } => Self::NotLeader,
            ConsensusError::LeaderChanged => Self::LeaderChanged,
            ConsensusError::Stopped(_) => Self::Stopped,
        }
    }
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error("the write-ahead log cannot be opened: {0}")]
    Wal(#[from] garboard_storage::wal::WalError),
    /// The database cannot be opened.
    #[error("the database cannot be opened: {0}")]
    Backend(#[from] garboard_storage::backend::BackendError),
    /// The state machine cannot be rebuilt from the database.
    #[error("the state cannot be rebuilt from the database: {0}")]
    Store(#[from] MvccError),
    /// Log and database do not belong together.
    #[error("data directory {dir}: {why}")]
    Inconsistent {
        /// The data directory.
        dir: String,
        /// What does not fit.
        why: String,
    },
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Config(String),
    /// Raft did not start.
    #[error("consensus did not start: {0}")]
    Consensus(String),
}
