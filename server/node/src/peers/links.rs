//! The connections to the other members: three to each, made when first needed and again when lost.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::Stream;
use garboard_proto::peers as pb;
use garboard_proto::peers::peers_client::PeersClient;
use garboard_tls::Reloader;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::Channel;
use tonic::transport::Endpoint;

use super::PeerMetrics;
use super::Refusal;
use super::Roster;
use super::begin;
use super::begin::Begun;
use super::dial::DialError;
use super::dial::Dialer;
use super::headers;

/// The largest message: a request as large as a client's may be, or the entries of one read of the log.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How long a connection may take to begin with a call, besides the dialling.
const BEGIN_MARGIN: Duration = Duration::from_secs(5);

/// Which of the connections to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// Heartbeats and votes: nothing large comes before them.
    Heartbeat,
    /// Log entries to a follower; to the leader, what the followers' clients want.
    Log,
    /// Snapshots.
    Snapshot,
}

/// Called when the others refuse this member for good.
pub(crate) type OnRefused = Arc<dyn Fn(Refusal) + Send + Sync>;

/// What the connections are made with.
pub(crate) struct LinksConfig {
    pub(crate) tls: Option<Arc<Reloader>>,
    pub(crate) election_timeout: Duration,
    pub(crate) on_refused: OnRefused,
    pub(crate) metrics: Arc<PeerMetrics>,
}

/// Why a call to a member has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// It did not leave this member.
    #[error("{0}")]
    NotSent(String),
    /// The other end has refused the call: nothing was done.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Another has answered than the member that is known.
    #[error("not the member that was called: {0}")]
    Stranger(Refusal),
    /// Whether something was done is not known, or the status tells.
    #[error("{0}")]
    Failed(Status),
}

/// The connections of one member to all others.
pub(crate) struct Links {
    roster: Arc<Roster>,
    dialer: Dialer,
    config: LinksConfig,
    channels: Mutex<HashMap<(u64, Line), Channel>>,
}

impl Links {
    pub(crate) fn new(roster: Arc<Roster>, config: LinksConfig) -> Self {
        let dialer = Dialer { tls: config.tls.clone(), timeout: config.election_timeout };
        Self { roster, dialer, config, channels: Mutex::default() }
    }

    pub(crate) fn metrics(&self) -> &PeerMetrics {
        &self.config.metrics
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The client of one connection to `to`. Must be called on a runtime.
    pub(crate) fn client(&self, to: u64, line: Line) -> PeersClient<Channel> {
        let mut channels = self.channels.lock();
        let channel = channels.entry((to, line)).or_insert_with(|| self.channel(to));
        limited(channel.clone())
    }

    /// Forgets the connections to members that are gone.
    pub(crate) fn retain(&self, stays: impl Fn(u64) -> bool) {
        self.channels.lock().retain(|(id, _), _| stays(*id));
    }

    fn channel(&self, to: u64) -> Channel {
        let (roster, dialer, turn) = (Arc::clone(&self.roster), self.dialer.clone(), Arc::new(AtomicUsize::new(0)));
        let connect = tower::service_fn(move |_| {
            let (roster, dialer, turn) = (Arc::clone(&roster), dialer.clone(), Arc::clone(&turn));
            async move { dialer.dial(to, &roster.urls(to), &turn).await.map(TokioIo::new) }
        });
        // Who does not answer pings for an election timeout is taken for gone, and dialled anew.
        Endpoint::from_static("http://peer")
            .http2_keep_alive_interval(self.config.election_timeout / 2)
            .keep_alive_timeout(self.config.election_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector_lazy(connect)
    }

    /// A call to `to`.
    pub(crate) fn request<T>(&self, to: u64, message: T) -> Request<T> {
        let mut request = Request::new(message);
        headers::address(request.metadata_mut(), &self.roster, to);
        request
    }

    /// The answer of `to`, if it is the one who answered.
    ///
    /// # Errors
    /// It is not, or there is none.
    pub(crate) async fn answer<T>(&self, to: u64, result: Result<Response<T>, Status>) -> Result<T, LinkError> {
        let response = match result {
            Ok(response) => response,
            Err(status) => return Err(self.failed(status)),
        };
        let answerer = headers::answerer(response.metadata(), &self.roster, to).map_err(LinkError::Stranger)?;
        match self.roster.meet(answerer.id, answerer.incarnation).await {
            Ok(()) => Ok(response.into_inner()),
            Err(refusal) => {
                tracing::warn!(member = %format!("{to:x}"), reason = %refusal, "a member's answer is not taken");
                Err(LinkError::Stranger(refusal))
            }
        }
    }

    /// A call to `to` that carries `messages`, and what the call is to be waited for by.
    pub(crate) fn streaming<S: Stream>(
        &self,
        to: u64,
        messages: S,
    ) -> (Request<impl Stream<Item = S::Item> + use<S>>, Begun) {
        let dials = u32::try_from(self.roster.urls(to).len()).unwrap_or(u32::MAX);
        let (messages, begun) = begin::told(messages, BEGIN_MARGIN + self.dialer.timeout.saturating_mul(dials));
        (self.request(to, messages), begun)
    }

    fn failed(&self, status: Status) -> LinkError {
        if let Some(refusal) = Refusal::of(&status) {
            if matches!(refusal, Refusal::Removed | Refusal::Wiped | Refusal::Outdated) {
                (self.config.on_refused)(refusal);
            }
            return LinkError::Refused(refusal);
        }
        let mut source = status.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<DialError>() {
                return LinkError::NotSent(error.to_string());
            }
            source = error.source();
        }
        LinkError::Failed(status)
    }

    /// What the member behind one of `urls` says of its cluster. For who has no identity in it yet.
    ///
    /// # Errors
    /// None of them answers.
    pub(crate) async fn ask_members(dialer: Dialer, urls: Vec<String>) -> Result<pb::MembersResponse, LinkError> {
        let turn = Arc::new(AtomicUsize::new(0));
        let connect = tower::service_fn(move |_| {
            let (dialer, urls, turn) = (dialer.clone(), urls.clone(), Arc::clone(&turn));
            async move { dialer.dial(0, &urls, &turn).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://peer").connect_with_connector_lazy(connect);
        let answer = limited(channel).members(pb::MembersRequest {}).await;
        answer.map(Response::into_inner).map_err(LinkError::Failed)
    }
}

fn limited(channel: Channel) -> PeersClient<Channel> {
    PeersClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}
