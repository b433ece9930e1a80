//! Why the state machine refuses a command or a read. `garboard-api` gives each its gRPC status and etcd's text.

use crate::backend::BackendError;
use crate::row::MalformedRow;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("required revision has been compacted")]
    Compacted,
    #[error("required revision is a future revision")]
    FutureRevision,
    /// A NOSPACE alarm is raised.
    #[error("database space exceeded")]
    NoSpace,
    /// A CORRUPT alarm is raised.
    #[error("corrupt cluster")]
    Corrupt,
    /// A snapshot has taken the state's place while it was read.
    #[error("the state was replaced by a snapshot meanwhile")]
    Replaced,
    /// The log holds a command of a newer version; going on would part this member from the others.
    #[error("unknown command in the log")]
    UnknownCommand,
    /// A row that the index names is missing or malformed.
    #[error("damaged data: {0}")]
    Damaged(String),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Error {
    /// Whether the member has to end, because its state is damaged, incomplete or cannot be known. Every other error is
    /// an answer, the same on each member.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::UnknownCommand | Error::Damaged(_) | Error::Backend(_))
    }
}

impl From<MalformedRow> for Error {
    fn from(error: MalformedRow) -> Error {
        Error::Damaged(error.to_string())
    }
}
