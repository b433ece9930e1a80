//! The Watch service. A stream is one state machine, polled by its connection: answers first, then what the client asks, then the clock.
//!
//! Nothing is queued here: while a client does not read, its stream is not polled, its requests are not taken, and the hub's own bounds
//! decide when its watchers fall back to catching up. Answers are encoded straight from the hub's shared events.

mod codec;

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use garboard_mvcc::watch::Next;
use garboard_mvcc::watch::WatchStream;
use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::watch_request::RequestUnion;
use garboard_runtime::clock;
use garboard_runtime::random;
use garboard_runtime::spawn;
use garboard_runtime::wake;
use tonic::Request;
use tonic::Response;
use tonic::Streaming;
use tonic::codegen::Service;

use crate::watch::codec::WatchAnswer;
use crate::watch::codec::WatchCodec;

/// Answers in a row before the client's requests are looked at again.
const ANSWERS_PER_TURN: u32 = 64;

/// Watch, as etcd serves it.
#[derive(Clone)]
pub struct WatchService {
    pub node: Node,
    /// How often an idle watcher that asked for it hears of progress.
    pub progress_interval: Duration,
    pub message_bytes_max: usize,
}

impl WatchService {
    /// Answers one Watch call.
    pub async fn call<B>(&self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut grpc = tonic::server::Grpc::new(WatchCodec).max_decoding_message_size(self.message_bytes_max);
        grpc.streaming(Open(self.clone()), request).await
    }
}

struct Open(WatchService);

impl Service<Request<Streaming<pb::WatchRequest>>> for Open {
    type Response = Response<Session>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Response<Session>, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<pb::WatchRequest>>) -> Self::Future {
        let session = Session::open(&self.0, request.into_inner());
        Box::pin(async { Ok(Response::new(session)) })
    }
}

/// One Watch stream.
pub struct Session {
    node: Node,
    watchers: Arc<WatchStream>,
    woken: Arc<AtomicWaker>,
    gathered: wake::Gathered,
    /// None once the client has no more to ask; its watchers go on.
    requests: Option<Streaming<pb::WatchRequest>>,
    catching_up: Option<spawn::JoinHandle<()>>,
    progress: clock::Interval,
    answers_in_turn: u32,
}

impl Session {
    fn open(service: &WatchService, requests: Streaming<pb::WatchRequest>) -> Session {
        let woken = Arc::new(AtomicWaker::new());
        let waker = Arc::clone(&woken);
        let watchers = Arc::new(service.node.store().watch_hub().stream(Arc::new(move || waker.wake())));
        // etcd's jitter: not all streams at once.
        let interval = service.progress_interval;
        let jitter_ns = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX);
        let progress = clock::interval(interval + Duration::from_nanos(random::jitter(jitter_ns)));
        Session {
            node: service.node.clone(),
            watchers,
            woken,
            gathered: wake::Gathered::default(),
            requests: Some(requests),
            catching_up: None,
            progress,
            answers_in_turn: 0,
        }
    }

    fn ask(&self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.watchers.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => self.watchers.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.watchers.request_progress(),
            // etcd passes over what it does not know, too.
            None => (),
        }
    }

    /// Takes one request; Ready if the hub may have something new for it.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        // A client that asks and does not read waits; the answers go out first, and this is polled again after them.
        if self.watchers.is_answer_queue_full() {
            return Poll::Pending;
        }
        let Some(requests) = &mut self.requests else { return Poll::Pending };
        match Pin::new(requests).poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(request))) => {
                self.ask(request);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(Err(status))) => Poll::Ready(Err(status)),
            Poll::Ready(None) => {
                self.requests = None;
                Poll::Pending
            }
        }
    }

    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(catching_up) = &mut self.catching_up
            && Pin::new(catching_up).poll(cx).is_ready()
        {
            self.catching_up = None;
            return Poll::Ready(());
        }
        if self.progress.poll_tick(cx).is_ready() {
            self.watchers.progress_tick();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn catch_up(&mut self) {
        if self.catching_up.is_none() {
            let watchers = Arc::clone(&self.watchers);
            self.catching_up = Some(spawn::blocking(move || watchers.catch_up()));
        }
    }
}

impl Stream for Session {
    type Item = Result<WatchAnswer, tonic::Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = self.get_mut();
        // Before the hub is asked: what it publishes after that wakes this task.
        session.woken.register(&session.gathered.waker(cx));
        loop {
            if session.answers_in_turn < ANSWERS_PER_TURN {
                match session.watchers.next() {
                    Next::Output(output) => {
                        session.answers_in_turn += 1;
                        let header = session.node.header(output.header_revision);
                        return Poll::Ready(Some(Ok(WatchAnswer { output, header })));
                    }
                    Next::CatchUp => session.catch_up(),
                    Next::Empty => (),
                }
            }
            let turn_over = std::mem::take(&mut session.answers_in_turn) >= ANSWERS_PER_TURN;
            match session.poll_request(cx) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(status)) => return Poll::Ready(Some(Err(status))),
                Poll::Pending => (),
            }
            if session.poll_background(cx).is_pending() && !turn_over {
                return Poll::Pending;
            }
        }
    }
}
