//! Bodies of calls, with their counters: requests into tonic, answers out of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as HttpBody;
use http_body::Frame;
use tonic::Code;

use crate::answers::Place;
use crate::grpc::call::Call;
use crate::grpc::prefix::Prefixes;
use crate::listen::peer::Peer;
use crate::method::Method;
use crate::metrics::Metrics;
use crate::status::Status;

/// A request on its way into a service. A message above the limit ends it with grpc's own text before anything of it is kept.
pub struct RequestBody<B> {
    inner: B,
    prefixes: Prefixes,
    bytes_max: usize,
    method: Method,
    metrics: Arc<Metrics>,
    peer: Arc<Peer>,
    /// What `peer` was told that this request holds.
    held: usize,
}

impl<B> RequestBody<B> {
    pub fn new(inner: B, bytes_max: usize, method: Method, metrics: &Arc<Metrics>, peer: &Arc<Peer>) -> RequestBody<B> {
        let (metrics, peer) = (Arc::clone(metrics), Arc::clone(peer));
        RequestBody { inner, prefixes: Prefixes::default(), bytes_max, method, metrics, peer, held: 0 }
    }

    fn count(&mut self, data: &[u8]) -> Result<(), tonic::Status> {
        let RequestBody { prefixes, bytes_max, method, metrics, peer, held, .. } = self;
        let mut longest = 0;
        prefixes.scan(data, |length| {
            longest = length.max(longest);
            metrics.received(*method, length);
        });
        if longest > *bytes_max {
            metrics.receive_failed(*method);
            let message = format!("grpc: received message larger than max ({longest} vs. {bytes_max})");
            return Err(tonic::Status::resource_exhausted(message));
        }
        let before = std::mem::replace(held, prefixes.incomplete());
        if !peer.hold(before, *held) {
            return Err(tonic::Status::resource_exhausted("grpc: too many unfinished messages on this connection"));
        }
        Ok(())
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        self.peer.hold(self.held, 0);
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => return Poll::Ready(None),
            // The client went away; nobody reads what this says.
            Some(Err(error)) => return Poll::Ready(Some(Err(tonic::Status::cancelled(error.to_string())))),
            Some(Ok(frame)) => frame,
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| self.count(data));
        Poll::Ready(Some(counted.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// What ends a stream from outside.
pub type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// An answer on its way out of a service.
pub struct AnswerBody {
    inner: tonic::body::Body,
    prefixes: Prefixes,
    ending: Option<Ending>,
    /// Until the trailers.
    call: Option<Call>,
    /// Of a large answer; its bytes take it along.
    place: Option<Place>,
}

impl AnswerBody {
    pub fn new(inner: tonic::body::Body, call: Call, ending: Option<Ending>, place: Option<Place>) -> AnswerBody {
        AnswerBody { inner, prefixes: Prefixes::default(), ending, call: Some(call), place }
    }

    fn count(&mut self, data: &[u8]) {
        let (mut messages, mut bytes) = (0, 0);
        self.prefixes.scan(data, |length| {
            messages += 1;
            bytes += length;
        });
        if let Some(call) = &self.call {
            call.sent(messages, bytes);
        }
    }

    fn finish(&mut self, status: &tonic::Status) -> Frame<Bytes> {
        self.ended(status.code());
        let mut trailers = HeaderMap::with_capacity(2);
        if status.add_header(&mut trailers).is_err() {
            trailers.insert(tonic::Status::GRPC_STATUS, http::HeaderValue::from_static("2"));
        }
        Frame::trailers(trailers)
    }

    fn ended(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            call.end(code);
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.call.is_none() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_pending() {
            let Some(ending) = &mut self.ending else { return Poll::Pending };
            let status = ready!(ending.as_mut().poll(cx));
            // What the service still holds goes at once: its watchers, its place in queues.
            self.inner = tonic::body::Body::empty();
            return Poll::Ready(Some(Ok(self.finish(&status.into()))));
        }
        Poll::Ready(match ready!(polled) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.count(data);
                    if let Some(place) = self.place.take() {
                        return Poll::Ready(Some(Ok(frame.map_data(|data| place.hold(data)))));
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.ended(code_of(trailers).unwrap_or(Code::Unknown));
                }
                Some(Ok(frame))
            }
            Some(Err(status)) => Some(Ok(self.finish(&status))),
            None => {
                self.ended(Code::Unknown);
                None
            }
        })
    }
}

/// The code in these headers or trailers.
pub fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(tonic::Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}
