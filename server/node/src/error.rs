//! What a member answers when it cannot do what was asked.

use std::ops::RangeInclusive;

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
    /// Leadership did not get there in time.
    #[error("request timed out, leader transfer took too long")]
    TransferTimeout,
    /// There is no such member.
    #[error("member not found")]
    MemberNotFound,
    /// Another member has that peer URL.
    #[error("peer URL exists")]
    PeerUrlExists,
    /// Only learners are promoted.
    #[error("can only promote a learner member")]
    MemberNotLearner,
    /// The learner has yet to catch up.
    #[error("the learner is not in sync with the leader")]
    LearnerNotReady,
    /// `--max-learners` is reached.
    #[error("too many learners")]
    TooManyLearners,
    /// The change would leave too few members that were ever started.
    #[error("not enough started members")]
    NotEnoughStarted,
    /// The change would leave too few members that answer.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// What a downgrade is to reach is no version.
    #[error("wrong downgrade target version format")]
    WrongDowngradeVersionFormat,
    /// A downgrade goes one minor version back.
    #[error("invalid downgrade target version")]
    InvalidDowngradeTarget,
    /// A downgrade is under way.
    #[error("cluster has a downgrade job in progress")]
    DowngradeInProcess,
    /// The members have agreed on no version yet.
    #[error("cluster version not found during downgrade")]
    ClusterVersionUnavailable,
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
            ConsensusError::InProgress => Self::Timeout,
            ConsensusError::Stopped(_) => Self::Stopped,
        }
    }
}

/// The errors that go from member to member by name; any other goes as text.
const NAMED: &[(Error, &str)] = &[
    (Error::TooManyRequests, "too-many-requests"),
    (Error::NoLeader, "no-leader"),
    (Error::NotLeader, "not-leader"),
    (Error::LeaderChanged, "leader-changed"),
    (Error::Timeout, "timeout"),
    (Error::Stopped, "stopped"),
    (Error::LeaseNotFound, "lease-not-found"),
    (Error::MemberNotFound, "member-not-found"),
    (Error::PeerUrlExists, "peer-url-exists"),
    (Error::MemberNotLearner, "member-not-learner"),
    (Error::LearnerNotReady, "learner-not-ready"),
    (Error::TooManyLearners, "too-many-learners"),
    (Error::NotEnoughStarted, "not-enough-started"),
    (Error::Unhealthy, "unhealthy"),
    (Error::Mvcc(MvccError::Compacted), "compacted"),
    (Error::Mvcc(MvccError::FutureRevision), "future-revision"),
    (Error::Mvcc(MvccError::Corrupt), "corrupt"),
];
const NAME: &str = "garboard-error";

impl Error {
    /// As it goes to another member.
    pub(crate) fn to_peer(&self) -> tonic::Status {
        let mut status = tonic::Status::unknown(self.to_string());
        if let Some((_, name)) = NAMED.iter().find(|(error, _)| error == self) {
            status.metadata_mut().insert(NAME, tonic::metadata::MetadataValue::from_static(name));
        }
        status
    }

    /// The error that another member has sent; `None` when it has sent none, as when the connection broke.
    pub(crate) fn from_peer(status: &tonic::Status) -> Option<Self> {
        let name = status.metadata().get(NAME)?.to_str().ok()?;
        NAMED.iter().find(|(_, known)| *known == name).map(|(error, _)| error.clone())
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
    /// The data directory is new, or was wiped, and the cluster knows this member by another.
    #[error(
        "data directory {dir}: the cluster knows member {member_id:x} by another data directory; a member that has lost its data is to be \
         removed and added anew"
    )]
    Wiped {
        /// The data directory.
        dir: String,
        /// The member's id.
        member_id: u64,
    },
    /// The member was removed from its cluster.
    #[error("data directory {dir}: member {member_id:x} has been permanently removed from its cluster")]
    Removed {
        /// The data directory.
        dir: String,
        /// The member's id.
        member_id: u64,
    },
    /// What the cluster writes, this release cannot read.
    #[error(
        "data directory {dir}: the cluster writes a format that this release does not read (it reads {} to {}): a release that does is \
         to be started", reads.start(), reads.end()
    )]
    Outdated {
        /// The data directory.
        dir: String,
        /// The formats that this release reads.
        reads: RangeInclusive<u32>,
    },
    /// `--force-new-cluster` cannot or must not be obeyed.
    #[error("data directory {dir}: --force-new-cluster: {why}")]
    NotForced {
        /// The data directory.
        dir: String,
        /// Why not.
        why: String,
    },
    /// This member's data is not that of the others.
    #[error("etcdserver: corrupt cluster: {why}")]
    Corrupt {
        /// Where they differ.
        why: String,
    },
    /// The configuration asks for what cannot be.
    #[error("{0}")]
    Config(String),
    /// Raft did not start.
    #[error("consensus did not start: {0}")]
    Consensus(String),
}

// === impl StartError ===

impl StartError {
    /// Whether log or database are not what was written to them: another start would say the same.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Wal(error) => matches!(error, garboard_storage::wal::WalError::Corrupt { .. }),
            Self::Backend(error) => error.is_damage(),
            Self::Store(error) => matches!(error, MvccError::Damaged(_)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way_between_members() {
        for (error, _) in NAMED {
            assert_eq!(Error::from_peer(&error.to_peer()).as_ref(), Some(error));
        }
        assert_eq!(Error::from_peer(&tonic::Status::unavailable("broken")), None);
    }
}
