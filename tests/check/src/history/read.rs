//! Reads the lines of a history.
//!
//! A request is recorded when it is answered. When the recorder was killed, requests that were under way are in no line, and neither is
//! what they did explained; so that such a history is taken up to a time by which every request that was sent has ended.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde::Deserialize;
use thiserror::Error;

use super::Ending;
use super::Event;
use super::Failure;
use super::Hash;
use super::Header;
use super::History;
use super::KeyValue;
use super::Member;
use super::Operation;
use super::Outcome;
use super::Request;
use super::Response;
use super::Status;
use super::Watch;
use super::WatchOpen;
use super::WatchResponse;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("line {0}: {1}")]
    Io(u32, #[source] std::io::Error),
    #[error("line {0}: {1}")]
    Json(u32, #[source] serde_json::Error),
    #[error("line {0}: {1}")]
    Record(u32, &'static str),
    #[error("there is no {0} line")]
    Missing(&'static str),
}

/// Any line but the first: all fields of all types.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    client: u32,
    #[serde(default)]
    endpoint: i32,
    #[serde(default)]
    call: i64,
    #[serde(default, rename = "return")]
    returned: i64,
    request: Option<Request>,
    header: Option<Header>,
    response: Option<Response>,
    error: Option<Failure>,
    #[serde(default)]
    watch: u64,
    #[serde(default)]
    at: i64,
    open: Option<WatchOpen>,
    #[serde(default)]
    events: Vec<Event>,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    fragment: bool,
    #[serde(default)]
    compact_revision: i64,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    revision: i64,
    left: Option<Vec<i32>>,
    hash: Option<Hash>,
    members: Option<Vec<Member>>,
    status: Option<Status>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Base,
    Op,
    Open,
    Watch,
    End,
    Drain,
    Final,
    Done,
}

/// Longer than any request may take (`traffic` gives them 4 s).
const REQUEST_NS: i64 = 5_000_000_000;

// === impl History ===

impl History {
    /// Reads a whole history.
    ///
    /// # Errors
    /// The source fails, or a line but the last is not a record of the format.
    pub fn read(source: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        let mut watches = BTreeMap::new();
        let mut base = None;
        let mut broken = None;
        let mut done = false;
        for (line, text) in (1u32..).zip(source.split(b'\n')) {
            let text = text.map_err(|error| ReadError::Io(line, error))?;
            if text.is_empty() {
                continue;
            }
            // Only when more follows is a line that cannot be read an error.
            if let Some(error) = broken.take() {
                return Err(error);
            }
            if history.start.endpoints.is_empty() {
                history.start = serde_json::from_slice(&text).map_err(|error| ReadError::Json(line, error))?;
                continue;
            }
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) if record.kind == Kind::Base => base = Some(record),
                Ok(record) if record.kind == Kind::Done => done = true,
                Ok(record) => history.add(line, record, &mut watches)?,
                Err(error) => broken = Some(ReadError::Json(line, error)),
            }
        }
        if history.start.endpoints.is_empty() {
            return Err(ReadError::Missing("start"));
        }
        if !done {
            history.cut_off();
        }
        (history.base_revision, history.base) = base.and_then(base_of).ok_or(ReadError::Missing("base"))?;
        Ok(history)
    }

    fn add(&mut self, line: u32, record: Record, watches: &mut BTreeMap<u64, usize>) -> Result<(), ReadError> {
        let wrong = |what| ReadError::Record(line, what);
        match record.kind {
            Kind::Base | Kind::Done => {}
            Kind::Op => self.operations.push(operation(line, record)?),
            Kind::Open => {
                watches.insert(record.watch, self.watches.len());
                self.watches.push(Watch {
                    id: record.watch,
                    line,
                    endpoint: record.endpoint,
                    opened_at: record.at,
                    open: record.open.ok_or_else(|| wrong("nothing is opened"))?,
                    responses: Vec::new(),
                    ended: None,
                    ended_by_error: false,
                    drain: None,
                });
            }
            Kind::Watch | Kind::End | Kind::Drain => {
                let index = *watches.get(&record.watch).ok_or_else(|| wrong("a watch that was not opened"))?;
                self.watches[index].add(line, record);
            }
            Kind::Final => self.ending.get_or_insert_default().add(line, record),
        }
        Ok(())
    }
}

impl History {
    /// Leaves out what came so late that a request without a line may have caused it.
    fn cut_off(&mut self) {
        let answers = self.operations.iter().map(|operation| operation.returned);
        let responses = self.watches.iter().flat_map(|watch| &watch.responses).map(|response| response.at);
        let end = answers.chain(responses).max().unwrap_or_default() - REQUEST_NS;
        self.operations.retain(|operation| {
            let only_reads = operation.request.is_kv() && !operation.request.may_write();
            operation.call <= end && (operation.returned <= end || !only_reads)
        });
        for operation in self.operations.iter_mut().filter(|operation| operation.returned > end) {
            let (code, text) = ("CutOff".to_owned(), "answered after the end of what is judged".to_owned());
            operation.outcome = Outcome::Unknown(Failure { code, text, definite: false });
        }
        self.watches.retain(|watch| watch.opened_at <= end);
        for watch in &mut self.watches {
            watch.responses.retain(|response| response.at <= end);
            watch.drain = None;
        }
        self.ending = None;
        self.cut_off = true;
    }
}

fn base_of(record: Record) -> Option<(i64, Vec<KeyValue>)> {
    match record.response {
        Some(Response::Range(range)) => Some((record.header?.revision, range.kvs)),
        _ => None,
    }
}

fn operation(line: u32, record: Record) -> Result<Operation, ReadError> {
    let wrong = |what| ReadError::Record(line, what);
    let outcome = match (record.error, record.header) {
        (Some(failure), _) if failure.definite => Outcome::Refused(failure),
        (Some(failure), _) => Outcome::Unknown(failure),
        (None, Some(header)) => Outcome::Done { header, response: record.response },
        (None, None) => return Err(wrong("neither header nor error")),
    };
    let request = record.request.ok_or_else(|| wrong("no request"))?;
    if let Outcome::Done { response, .. } = &outcome
        && !fits(&request, response.as_ref())
    {
        return Err(wrong("the response is to another kind of request"));
    }
    Ok(Operation {
        line,
        client: record.client,
        endpoint: record.endpoint,
        call: record.call,
        returned: record.returned,
        request,
        outcome,
    })
}

fn fits(request: &Request, response: Option<&Response>) -> bool {
    matches!(
        (request, response),
        (Request::Range(_), Some(Response::Range(_)))
            | (Request::Put(_), Some(Response::Put(_)))
            | (Request::Delete(_), Some(Response::Delete(_)))
            | (Request::Txn(_), Some(Response::Txn(_)))
            | (Request::Grant(_) | Request::KeepAlive(_) | Request::Ttl(_), Some(Response::Ttl(_)))
            | (Request::Compact(_) | Request::Revoke(_), None)
    )
}

// === impl Watch ===

impl Watch {
    fn add(&mut self, line: u32, record: Record) {
        match record.kind {
            Kind::End => {
                self.ended = Some((record.at, line));
                self.ended_by_error = record.error.is_some();
            }
            Kind::Drain => self.drain = Some((line, record.at, record.revision)),
            _ => self.responses.push(WatchResponse {
                line,
                at: record.at,
                header_revision: record.header.map_or(0, |header| header.revision),
                events: record.events,
                created: record.created,
                canceled: record.canceled,
                fragment: record.fragment,
                compact_revision: record.compact_revision,
                reason: record.reason,
            }),
        }
    }
}

// === impl Ending ===

impl Ending {
    fn add(&mut self, line: u32, record: Record) {
        let endpoint = record.endpoint;
        if let Some(left) = record.left {
            (self.line, self.at, self.left) = (line, record.at, left);
        }
        if let Some(hash) = record.hash {
            self.hashes.push((endpoint, line, hash));
        }
        if let Some(mut members) = record.members {
            members.sort();
            self.members.push((endpoint, line, members));
        }
        if let (Some(status), Some(header)) = (record.status, record.header) {
            self.statuses.push((endpoint, line, header.member, status));
        }
        if let Some(failure) = record.error {
            self.failures.push((endpoint, line, failure));
        }
    }
}
