//! One call from its first header to its status, with its counters.

use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use http::Response;
use tonic::Code;

use crate::answers::Place;
use crate::body::Body;
use crate::grpc::body::AnswerBody;
use crate::grpc::body::Ending;
use crate::grpc::body::code_of;
use crate::listen::peer::Peer;
use crate::method::Method;
use crate::metrics::Metrics;
use crate::status::Status;
use crate::status::code_name;

/// What a caller sees when its deadline passes; gRPC's text for a context that ran out.
pub const DEADLINE_EXCEEDED: Status = Status::fixed(Code::DeadlineExceeded, "context deadline exceeded");

/// A call under way. Dropped without an end (the client went away), it counts as canceled.
pub struct Call {
    metrics: Arc<Metrics>,
    peer: Arc<Peer>,
    method: Method,
    started_at: clock::Instant,
    code: Code,
}

impl Call {
    /// Counts the call as started.
    pub fn start(metrics: &Arc<Metrics>, peer: &Arc<Peer>, method: Method) -> Call {
        metrics.method(method).started.inc();
        Call {
            metrics: Arc::clone(metrics),
            peer: Arc::clone(peer),
            method,
            started_at: clock::now(),
            code: Code::Cancelled,
        }
    }

    /// Counts messages that go out.
    pub fn sent(&self, messages: u64, bytes: usize) {
        self.metrics.sent(self.method, messages, bytes);
    }

    /// Notes how the call ended.
    pub fn end(mut self, code: Code) {
        self.code = code;
    }

    /// Answers with a status alone.
    pub fn refuse(self, status: Status) -> Response<Body> {
        self.end(status.code);
        refusal(status)
    }

    /// Passes a service's answer on; `ending` ends its stream from outside.
    pub fn answer(self, answer: Response<tonic::body::Body>, ending: Option<Ending>) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        let place = parts.extensions.remove::<Place>();
        let body = match code_of(&parts.headers) {
            // A status in the headers: nothing follows.
            Some(code) => {
                self.end(code);
                Body::empty()
            }
            None => Body::answer(AnswerBody::new(body, self, ending, place)),
        };
        Response::from_parts(parts, body)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let elapsed = clock::now().saturating_duration_since(self.started_at);
        self.metrics.handled(self.method, self.code, elapsed);
        if self.metrics.is_slow(self.method, elapsed) {
            warn_slow(self, elapsed);
        }
    }
}

#[cold]
fn warn_slow(call: &Call, elapsed: Duration) {
    // etcd's words, without the request: keys and values are no matter of the log.
    tracing::warn!(
        "time spent" = ?elapsed,
        remote = call.peer.remote(),
        "response type" = %format_args!("/{}/{}", call.method.service(), call.method.name()),
        code = code_name(call.code),
        "request stats"
    );
}

/// An answer that is a status alone.
pub fn refusal(status: Status) -> Response<Body> {
    tonic::Status::from(status).into_http::<tonic::body::Body>().map(|_| Body::empty())
}
