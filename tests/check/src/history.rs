//! A history as recorded: what its lines say, in types. `README.md` of this crate describes the format.

mod read;

use std::sync::Arc;

use serde::Deserialize;

pub use read::ReadError;

pub type Text = Arc<str>;

/// All lines of one run. Times are nanoseconds of one monotonic clock.
#[derive(Debug, Default)]
pub struct History {
    pub start: Start,
    /// The store before the first request.
    pub base_revision: i64,
    pub base: Vec<KeyValue>,
    pub operations: Vec<Operation>,
    pub watches: Vec<Watch>,
    pub ending: Option<Ending>,
    /// The recorder was killed: what was under way then is left out.
    pub cut_off: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
pub struct Start {
    #[serde(default)]
    pub seed: u64,
    pub endpoints: Vec<String>,
    pub prefix: String,
    /// The wall clock when the history's clock was 0.
    #[serde(default)]
    pub unix_ns: i64,
}

#[derive(Debug)]
pub struct Operation {
    pub line: u32,
    pub client: u32,
    /// Index of `Start::endpoints`, -1 for a client that knew all of them.
    pub endpoint: i32,
    pub call: i64,
    pub returned: i64,
    pub request: Request,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    Done {
        header: Header,
        response: Option<Response>,
    },
    /// Surely without effect.
    Refused(Failure),
    Unknown(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Header {
    pub revision: i64,
    pub member: u64,
    #[serde(default)]
    pub term: u64,
    #[serde(default)]
    pub cluster: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    pub code: String,
    pub text: String,
    #[serde(default)]
    pub definite: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRequest),
    Txn(TxnRequest),
    Compact(CompactRequest),
    Grant(LeaseRequest),
    KeepAlive(LeaseRequest),
    Revoke(LeaseRequest),
    Ttl(LeaseRequest),
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct RangeRequest {
    pub key: Text,
    pub end: Text,
    pub revision: i64,
    pub limit: i64,
    pub serializable: bool,
    pub count_only: bool,
    pub keys_only: bool,
}

#[derive(Debug, Deserialize)]
pub struct PutRequest {
    pub key: Text,
    pub value: Text,
    #[serde(default)]
    pub lease: i64,
    #[serde(default)]
    pub prev_kv: bool,
}

#[derive(Debug, Deserialize)]
pub struct DeleteRequest {
    pub key: Text,
    #[serde(default)]
    pub end: Text,
    #[serde(default)]
    pub prev_kv: bool,
}

#[derive(Debug, Deserialize)]
pub struct TxnRequest {
    #[serde(default)]
    pub compares: Vec<Compare>,
    #[serde(default)]
    pub then: Vec<Request>,
    #[serde(default, rename = "else")]
    pub otherwise: Vec<Request>,
}

#[derive(Debug, Deserialize)]
pub struct Compare {
    pub key: Text,
    #[serde(default)]
    pub end: Text,
    pub target: Target,
    pub result: Relation,
    #[serde(default)]
    pub value: Text,
    #[serde(default)]
    pub number: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Value,
    Version,
    Create,
    Mod,
    Lease,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Relation {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = "<")]
    Less,
}

#[derive(Debug, Deserialize)]
pub struct CompactRequest {
    pub revision: i64,
}

#[derive(Debug, Deserialize)]
pub struct LeaseRequest {
    pub lease: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteResponse),
    Txn(TxnResponse),
    /// Seconds.
    Ttl(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RangeResponse {
    #[serde(default)]
    pub kvs: Vec<KeyValue>,
    #[serde(default)]
    pub more: bool,
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PutResponse {
    pub prev_kv: Option<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeleteResponse {
    pub deleted: i64,
    #[serde(default)]
    pub prev_kvs: Vec<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TxnResponse {
    pub succeeded: bool,
    #[serde(default)]
    pub responses: Vec<Response>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyValue {
    pub key: Text,
    pub value: Text,
    pub create: i64,
    #[serde(rename = "mod")]
    pub modified: i64,
    pub version: i64,
    #[serde(default)]
    pub lease: i64,
}

/// One watch on one stream. What a client opens to go on after an error is a watch of its own.
#[derive(Debug)]
pub struct Watch {
    pub id: u64,
    pub line: u32,
    pub endpoint: i32,
    pub opened_at: i64,
    pub open: WatchOpen,
    pub responses: Vec<WatchResponse>,
    /// When and on which line the stream ended.
    pub ended: Option<(i64, u32)>,
    /// The client asked for the end.
    pub ended_by_error: bool,
    /// By now (line, time) everything up to this revision must have come.
    pub drain: Option<(u32, i64, i64)>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct WatchOpen {
    pub key: Text,
    pub end: Text,
    pub start: i64,
    pub prev_kv: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub progress: bool,
    pub fragment: bool,
}

#[derive(Debug)]
pub struct WatchResponse {
    pub line: u32,
    pub at: i64,
    pub header_revision: i64,
    pub events: Vec<Event>,
    pub created: bool,
    pub canceled: bool,
    /// More of the same revisions follows.
    pub fragment: bool,
    pub compact_revision: i64,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Event {
    #[serde(default)]
    pub delete: bool,
    pub kv: KeyValue,
    pub prev_kv: Option<KeyValue>,
}

/// What each member holds at the end.
#[derive(Debug, Default)]
pub struct Ending {
    pub line: u32,
    pub at: i64,
    /// Endpoints that must answer.
    pub left: Vec<i32>,
    pub hashes: Vec<(i32, u32, Hash)>,
    pub members: Vec<(i32, u32, Vec<Member>)>,
    pub statuses: Vec<(i32, u32, u64, Status)>,
    pub failures: Vec<(i32, u32, Failure)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hash {
    pub revision: i64,
    pub hash: u32,
    #[serde(default)]
    pub compact_revision: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub peers: Vec<String>,
    #[serde(default)]
    pub clients: Vec<String>,
    #[serde(default)]
    pub learner: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub leader: u64,
}

// === impl Operation ===

impl Operation {
    pub fn header(&self) -> Option<&Header> {
        match &self.outcome {
            Outcome::Done { header, .. } => Some(header),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    pub fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Done { response, .. } => response.as_ref(),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    /// The request was answered, and has written.
    pub fn has_written(&self) -> bool {
        self.response().is_some_and(Response::has_written)
    }
}

// === impl Request ===

impl Request {
    /// Reads and writes of keys, which a revision orders.
    pub fn is_kv(&self) -> bool {
        matches!(self, Self::Range(_) | Self::Put(_) | Self::Delete(_) | Self::Txn(_))
    }

    /// A member may answer from what it has, however old that is.
    pub fn is_serializable(&self) -> bool {
        match self {
            Self::Range(range) => range.serializable,
            Self::Txn(txn) => {
                txn.then.iter().chain(&txn.otherwise).all(|op| matches!(op, Self::Range(range) if range.serializable))
            }
            _ => false,
        }
    }

    /// It could write, whatever the state.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete(_) => true,
            Self::Txn(txn) => txn.then.iter().chain(&txn.otherwise).any(Self::may_write),
            _ => false,
        }
    }

    /// Calls `visit` with each put, also those of branches that may not be taken.
    pub fn puts<'a>(&'a self, visit: &mut dyn FnMut(&'a PutRequest)) {
        match self {
            Self::Put(put) => visit(put),
            Self::Txn(txn) => txn.then.iter().chain(&txn.otherwise).for_each(|op| op.puts(visit)),
            _ => {}
        }
    }
}

// === impl Response ===

impl Response {
    fn has_written(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Delete(delete) => delete.deleted > 0,
            Self::Txn(txn) => txn.responses.iter().any(Self::has_written),
            Self::Range(_) | Self::Ttl(_) => false,
        }
    }

    /// Calls `visit` with each key that the answer shows.
    pub fn key_values<'a>(&'a self, visit: &mut dyn FnMut(&'a KeyValue)) {
        match self {
            Self::Range(range) => range.kvs.iter().for_each(visit),
            Self::Put(put) => put.prev_kv.iter().for_each(visit),
            Self::Delete(delete) => delete.prev_kvs.iter().for_each(visit),
            Self::Txn(txn) => txn.responses.iter().for_each(|response| response.key_values(visit)),
            Self::Ttl(_) => {}
        }
    }
}

/// Whether `key` is in the range that etcd's `key` and `range_end` mean.
pub fn in_range(key: &str, from: &str, end: &str) -> bool {
    match end {
        "" => key == from,
        "\0" => key >= from,
        _ => key >= from && key < end,
    }
}
