//! gRPC statuses: etcd's table of codes and exact texts (rpctypes of etcd 3.7), and the one mapping of the server's errors into it.
//!
//! Clients match on the exact message, so a text is written once, here. What is not in the table is `Unknown` with the error's own text,
//! as etcd does it. Two rows differ from rpctypes on purpose: `REQUEST_TOO_MANY_REQUESTS` and `MEMBER_NOT_ENOUGH_STARTED` leave etcd's
//! server as `Unknown`, because it converts them through the client's error value.

use std::borrow::Cow;

use garboard_mvcc as mvcc;
use garboard_node as node;
use tonic::Code;

/// All codes, in the order of their numbers on the wire.
pub const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// The code's name, as the `grpc_code` label and Go's `codes.Code` spell it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// How a call ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status whose text is known at compile time.
    pub const fn fixed(code: Code, message: &'static str) -> Status {
        Status { code, message: Cow::Borrowed(message) }
    }

    /// A status with a text of its own.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: Cow::Owned(message.into()) }
    }

    /// etcd has the method, this release does not.
    pub const fn unimplemented(message: &'static str) -> Status {
        Status::fixed(Code::Unimplemented, message)
    }
}

impl From<Status> for tonic::Status {
    fn from(status: Status) -> tonic::Status {
        tonic::Status::new(status.code, status.message)
    }
}

macro_rules! table {
    ($($name:ident = $code:ident, $message:literal;)*) => {
        $(pub const $name: Status = Status::fixed(Code::$code, $message);)*

        /// The whole table.
        pub const TABLE: &[(&str, Status)] = &[$((stringify!($name), $name)),*];
    };
}

table! {
    EMPTY_KEY = InvalidArgument, "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument, "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument, "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument, "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument, "etcdserver: duplicate key given in txn request";
    INVALID_CLIENT_API_VERSION = InvalidArgument, "etcdserver: invalid client api version";
    INVALID_SORT_OPTION = InvalidArgument, "etcdserver: invalid sort option";
    COMPACTED = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REV = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND = NotFound, "etcdserver: requested lease not found";
    LEASE_EXIST = FailedPrecondition, "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange, "etcdserver: too large lease TTL";
    WATCH_CANCELED = Cancelled, "etcdserver: watch canceled";
    MEMBER_EXIST = FailedPrecondition, "etcdserver: member ID already exist";
    PEER_URL_EXIST = FailedPrecondition, "etcdserver: Peer URLs already exists";
    MEMBER_NOT_ENOUGH_STARTED = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    MEMBER_BAD_URLS = InvalidArgument, "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND = NotFound, "etcdserver: member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition, "etcdserver: can only promote a learner member";
    LEARNER_NOT_READY = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS = FailedPrecondition, "etcdserver: too many learner members in cluster";
    CLUSTER_ID_MISMATCH = FailedPrecondition, "etcdserver: cluster ID mismatch";
    REQUEST_TOO_LARGE = InvalidArgument, "etcdserver: request is too large";
    REQUEST_TOO_MANY_REQUESTS = Unknown, "etcdserver: too many requests";
    ROOT_USER_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not exist";
    ROOT_ROLE_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not have root role";
    USER_ALREADY_EXIST = FailedPrecondition, "etcdserver: user name already exists";
    USER_EMPTY = InvalidArgument, "etcdserver: user name is empty";
    USER_NOT_FOUND = FailedPrecondition, "etcdserver: user name not found";
    ROLE_ALREADY_EXIST = FailedPrecondition, "etcdserver: role name already exists";
    ROLE_NOT_FOUND = FailedPrecondition, "etcdserver: role name not found";
    ROLE_EMPTY = InvalidArgument, "etcdserver: role name is empty";
    AUTH_FAILED = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN = InvalidArgument, "etcdserver: permission not given";
    PERMISSION_DENIED = PermissionDenied, "etcdserver: permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition, "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition, "etcdserver: permission is not granted to the role";
    AUTH_NOT_ENABLED = FailedPrecondition, "etcdserver: authentication is not enabled";
    INVALID_AUTH_TOKEN = Unauthenticated, "etcdserver: invalid auth token";
    INVALID_AUTH_MGMT = InvalidArgument, "etcdserver: invalid auth management";
    AUTH_OLD_REVISION = InvalidArgument, "etcdserver: revision of auth store is old";
    NO_LEADER = Unavailable, "etcdserver: no leader";
    NOT_LEADER = FailedPrecondition, "etcdserver: not leader";
    LEADER_CHANGED = Unavailable, "etcdserver: leader changed";
    NOT_CAPABLE = FailedPrecondition, "etcdserver: not capable";
    STOPPED = Unavailable, "etcdserver: server stopped";
    TIMEOUT = Unavailable, "etcdserver: request timed out";
    TIMEOUT_DUE_TO_LEADER_FAIL = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_DUE_TO_CONNECTION_LOST = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TIMEOUT_WAIT_APPLIED_INDEX = Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    UNHEALTHY = Unavailable, "etcdserver: unhealthy cluster";
    CORRUPT = DataLoss, "etcdserver: corrupt cluster";
    NOT_SUPPORTED_FOR_LEARNER = FailedPrecondition, "etcdserver: rpc not supported for learner";
    BAD_LEADER_TRANSFEREE = FailedPrecondition, "etcdserver: bad leader transferee";
    WRONG_DOWNGRADE_VERSION_FORMAT = InvalidArgument, "etcdserver: wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET_VERSION = InvalidArgument, "etcdserver: invalid downgrade target version";
    CLUSTER_VERSION_UNAVAILABLE = FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    DOWNGRADE_IN_PROCESS = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NO_INFLIGHT_DOWNGRADE = FailedPrecondition, "etcdserver: no inflight downgrade job";
    CANCELED = Cancelled, "etcdserver: request canceled";
    DEADLINE_EXCEEDED = DeadlineExceeded, "etcdserver: context deadline exceeded";
}

impl From<node::Error> for Status {
    fn from(error: node::Error) -> Status {
        match error {
            node::Error::Mvcc(error) => error.into(),
            node::Error::RequestTooLarge => REQUEST_TOO_LARGE,
            node::Error::TooManyRequests => REQUEST_TOO_MANY_REQUESTS,
            node::Error::NoSpace => NO_SPACE,
            node::Error::NoLeader => NO_LEADER,
            node::Error::NotLeader => NOT_LEADER,
            node::Error::LeaderChanged => LEADER_CHANGED,
            node::Error::Timeout => TIMEOUT,
            node::Error::Stopped => STOPPED,
            node::Error::LeaseNotFound => LEASE_NOT_FOUND,
            node::Error::BadLeaderTransferee => BAD_LEADER_TRANSFEREE,
            // Not one of etcd's table either.
            node::Error::TransferTimeout => {
                Status::new(Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
            }
            node::Error::MemberNotFound => MEMBER_NOT_FOUND,
            node::Error::PeerUrlExists => PEER_URL_EXIST,
            node::Error::MemberNotLearner => MEMBER_NOT_LEARNER,
            node::Error::LearnerNotReady => LEARNER_NOT_READY,
            node::Error::TooManyLearners => TOO_MANY_LEARNERS,
            node::Error::NotEnoughStarted => MEMBER_NOT_ENOUGH_STARTED,
            node::Error::Unhealthy => UNHEALTHY,
            node::Error::WrongDowngradeVersionFormat => WRONG_DOWNGRADE_VERSION_FORMAT,
            node::Error::InvalidDowngradeTarget => INVALID_DOWNGRADE_TARGET_VERSION,
            node::Error::DowngradeInProcess => DOWNGRADE_IN_PROCESS,
            node::Error::ClusterVersionUnavailable => CLUSTER_VERSION_UNAVAILABLE,
            node::Error::Internal(message) => Status::new(Code::Unknown, message),
        }
    }
}

impl From<mvcc::Error> for Status {
    fn from(error: mvcc::Error) -> Status {
        match error {
            mvcc::Error::KeyNotFound => KEY_NOT_FOUND,
            mvcc::Error::LeaseNotFound => LEASE_NOT_FOUND,
            mvcc::Error::LeaseExists => LEASE_EXIST,
            mvcc::Error::LeaseTtlTooLarge => LEASE_TTL_TOO_LARGE,
            mvcc::Error::Compacted => COMPACTED,
            mvcc::Error::FutureRevision => FUTURE_REV,
            mvcc::Error::NoSpace => NO_SPACE,
            mvcc::Error::Corrupt => CORRUPT,
            // What clients try again, as when the member they asked has lost its leader.
            mvcc::Error::Replaced => LEADER_CHANGED,
            error @ (mvcc::Error::UnknownCommand | mvcc::Error::Damaged(_) | mvcc::Error::Backend(_)) => {
                Status::new(Code::Unknown, error.to_string())
            }
        }
    }
}

impl From<mvcc::validate::Invalid> for Status {
    fn from(invalid: mvcc::validate::Invalid) -> Status {
        match invalid {
            mvcc::validate::Invalid::EmptyKey => EMPTY_KEY,
            mvcc::validate::Invalid::ValueProvided => VALUE_PROVIDED,
            mvcc::validate::Invalid::LeaseProvided => LEASE_PROVIDED,
            mvcc::validate::Invalid::TooManyOps => TOO_MANY_OPS,
            mvcc::validate::Invalid::DuplicateKey => DUPLICATE_KEY,
            mvcc::validate::Invalid::InvalidSortOption => INVALID_SORT_OPTION,
            mvcc::validate::Invalid::KeyNotFound => KEY_NOT_FOUND,
            invalid @ (mvcc::validate::Invalid::StreamSortOrder | mvcc::validate::Invalid::StreamRevisionFilters) => {
                Status::new(Code::Unimplemented, invalid.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_each_text_once() {
        assert_eq!(TABLE.len(), 63);
        let texts: std::collections::BTreeSet<_> = TABLE.iter().map(|(_, status)| status.message.as_ref()).collect();
        assert_eq!(texts.len(), 63, "a client tells errors apart by their texts alone");
        assert!(texts.iter().all(|text| text.starts_with("etcdserver: ")));
    }

    #[test]
    fn oddities_arrive_as_unknown() {
        let unknown: Vec<_> =
            TABLE.iter().filter(|(_, status)| status.code == Code::Unknown).map(|(name, _)| *name).collect();
        assert_eq!(unknown, ["MEMBER_NOT_ENOUGH_STARTED", "REQUEST_TOO_MANY_REQUESTS"]);
    }

    #[test]
    fn codes_have_their_numbers() {
        for (number, code) in CODES.into_iter().enumerate() {
            assert_eq!(code as usize, number);
        }
    }

    #[test]
    fn errors_map_to_what_clients_know() {
        let status = Status::from(node::Error::Mvcc(mvcc::Error::Compacted));
        assert_eq!(status, Status::fixed(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"));
        assert_eq!(Status::from(node::Error::Timeout).code, Code::Unavailable);
        assert_eq!(Status::from(node::Error::Internal("disk".into())), Status::new(Code::Unknown, "disk"));
    }
}
