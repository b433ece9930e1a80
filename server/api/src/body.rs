//! What answers are made of: one enum for HTTP and gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tokio::sync::watch;

use crate::grpc::body::AnswerBody;
use crate::listen::peer::OpenStream;

/// The body of an answer. Counts as an open stream of its connection until it is dropped.
pub struct Body {
    kind: Kind,
    _open: Option<OpenStream>,
}

// The larger of the variants is the one of nearly every answer: a box would be an allocation for each.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Empty,
    Whole(Bytes),
    Answer(AnswerBody),
    Peer { answer: tonic::body::Body, stop: Pin<Box<dyn Future<Output = ()> + Send>> },
}

impl Body {
    /// No body at all; of a gRPC answer: the status stands in the headers.
    pub fn empty() -> Body {
        Body { kind: Kind::Empty, _open: None }
    }

    /// A body of known length.
    pub fn whole(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Whole(bytes) }, _open: None }
    }

    /// What a service answers.
    pub fn answer(answer: AnswerBody) -> Body {
        Body { kind: Kind::Answer(answer), _open: None }
    }

    /// What a peer is answered. Its streams never end by themselves: `stop` does it.
    pub fn peer(answer: tonic::body::Body, mut stop: watch::Receiver<bool>) -> Body {
        let stop = Box::pin(async move {
            // Gone without a word is an end as well.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        Body { kind: Kind::Peer { answer, stop }, _open: None }
    }

    /// Ties the body to the stream it is sent on.
    pub fn on(mut self, open: OpenStream) -> Body {
        self._open = Some(open);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Kind::Answer(answer) = &mut self.kind {
            return Pin::new(answer).poll_frame(cx);
        }
        if let Kind::Peer { answer, stop } = &mut self.kind {
            if stop.as_mut().poll(cx).is_ready() {
                self.kind = Kind::Empty;
                return Poll::Ready(None);
            }
            let frame = std::task::ready!(Pin::new(answer).poll_frame(cx));
            // The status of a failure stands in the trailers.
            return Poll::Ready(frame.and_then(Result::ok).map(Ok));
        }
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Kind::Empty | Kind::Answer(_) | Kind::Peer { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Answer(_) | Kind::Peer { .. } => SizeHint::default(),
        }
    }
}
