//! How openraft reaches the other members: votes and heartbeats one at a time, log entries pipelined within a window of bytes.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt as _;
use futures_util::stream;
use garboard_proto::peers as pb;
use garboard_proto::peers::snapshot_held_response::Held;
use garboard_runtime::clock;
use openraft::AnyError;
use openraft::OptionalSend;
use openraft::RPCTypes;
use openraft::RaftNetworkFactory;
use openraft::base::BoxFuture;
use openraft::base::BoxStream;
use openraft::errors::NetworkError;
use openraft::errors::RPCError;
use openraft::errors::ReplicationClosed;
use openraft::errors::StreamingError;
use openraft::errors::Timeout;
use openraft::errors::Unreachable;
use openraft::network::RPCOption;
use openraft::network::v2::RaftNetworkV2;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::SnapshotResponse;
use openraft::raft::StreamAppendResult;
use openraft::raft::TransferLeaderRequest;
use openraft::raft::TransferLeaderResponse;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::Code;
use tonic::Response;
use tonic::Status;

use super::proof::Proof;
use super::snapshot;
use super::snapshot::SnapshotData;
use super::types::MemberNode;
use super::types::TypeConfig;
use super::types::Vote;
use super::wire;
use crate::install::KEPT_FOR;
use crate::install::Outgoing;
use crate::install::Point;
use crate::peers::Attempts;
use crate::peers::Line;
use crate::peers::LinkError;
use crate::peers::Links;

/// Bytes of entries on their way to a member and not acknowledged.
const WINDOW_BYTES: u32 = 8 << 20;

/// How long a member may take to say what it has of a snapshot: it may be putting it in its state's place.
const HELD_TIMEOUT: Duration = Duration::from_secs(5);
const HELD_PAUSE: Duration = Duration::from_millis(200);
/// Connections in a row over which nothing of a snapshot arrives, until it is given up.
const IN_VAIN_MAX: u32 = 5;

type RpcError = RPCError<TypeConfig>;

/// Makes [`Peer`]s.
pub(crate) struct Peers {
    pub(crate) links: Arc<Links>,
    pub(crate) own_id: u64,
    pub(crate) proof: Arc<Proof>,
}

/// One of the connections to one member.
pub(crate) struct Peer {
    links: Arc<Links>,
    proof: Arc<Proof>,
    own_id: u64,
    id: u64,
    line: Line,
    attempts: Attempts,
}

impl Peers {
    fn peer(&self, id: u64, node: &MemberNode, line: Line) -> Peer {
        self.links.roster().dialled_at(id, node);
        let (links, proof) = (Arc::clone(&self.links), Arc::clone(&self.proof));
        Peer { links, proof, own_id: self.own_id, id, line, attempts: Attempts::default() }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &MemberNode) -> Peer {
        self.peer(target, node, Line::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &MemberNode) -> Peer {
        self.peer(target, node, Line::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &MemberNode) -> Peer {
        self.peer(target, node, Line::Snapshot)
    }
}

/// An answer that took too long is one that did not come.
fn broken(error: &LinkError) -> RpcError {
    match error {
        LinkError::NotSent(_) | LinkError::Refused(_) | LinkError::Stranger(_) => {
            RPCError::Unreachable(Unreachable::new(&AnyError::error(error)))
        }
        LinkError::Failed(_) => RPCError::Network(NetworkError::new(&AnyError::error(error))),
    }
}

fn malformed(error: &std::io::Error) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

impl Peer {
    /// One call and its answer, within the time that openraft gives it.
    async fn call<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let started = clock::now();
        let ttl = option.hard_ttl();
        let result = match clock::timeout(ttl, call).await {
            Ok(result) => self.links.answer(self.id, result).await.map_err(|error| broken(&error)),
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.own_id, target: self.id, timeout: ttl })),
        };
        match &result {
            Ok(_) => self.links.metrics().answered(self.id, started.elapsed()),
            Err(_) => self.links.metrics().failed(self.id),
        }
        result
    }

    /// Asks for the member's vote, or whether it would give it.
    async fn ask_vote(
        &self,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
        would: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.links.client(self.id, Line::Heartbeat);
        let request = self.links.request(self.id, wire::vote_request(rpc));
        let asked = async { if would { client.pre_vote(request).await } else { client.vote(request).await } };
        let response = self.call(RPCTypes::Vote, option, asked).await?;
        wire::from_vote_response(response).map_err(|error| malformed(&error))
    }
}

/// Sending a snapshot.
impl Peer {
    /// Over as many connections as it takes: openraft's count of what the member then has is that of this one snapshot, so that another
    /// attempt of openraft's, with another snapshot, cannot go on with it.
    async fn send_snapshot(&self, vote: &Vote, outgoing: &Outgoing) -> Result<pb::SnapshotResponse, LinkError> {
        let sending = self.links.metrics().sending(self.id);
        let (mut from, mut in_vain) = (Point::default(), 0);
        loop {
            let (parts, points) = snapshot::parts(vote, outgoing, &from);
            let mut client = self.links.client(self.id, self.line);
            let (request, begun) = self.links.streaming(self.id, parts);
            let sent = begun.answer(client.snapshot(request)).await;
            let error = match self.links.answer(self.id, sent).await {
                Ok(response) => {
                    sending.succeeded();
                    return Ok(response);
                }
                Err(error) => error,
            };
            sending.failed();
            // Where nobody can be reached, nothing was begun.
            if !is_break(&error) || (matches!(error, LinkError::NotSent(_)) && from.rows() == 0) {
                return Err(error);
            }
            let at = match self.snapshot_held(outgoing).await?.held {
                Some(Held::Taken(response)) => {
                    sending.succeeded();
                    return Ok(response);
                }
                Some(Held::Point(point)) => points.find(point),
                None => None,
            };
            // Without one, another snapshot is as good.
            let Some(at) = at else { return Err(error) };
            in_vain = if at.rows() == from.rows() { in_vain + 1 } else { 0 };
            if in_vain == IN_VAIN_MAX || outgoing.is_too_old() {
                return Err(error);
            }
            tracing::warn!(member = %format!("{:x}", self.id), %error, rows = at.rows(), "going on with a snapshot whose connection broke");
            from = at;
        }
    }

    /// What the member has of it. Asks until the member can be reached, for as long as it keeps what it has.
    async fn snapshot_held(&self, outgoing: &Outgoing) -> Result<pb::SnapshotHeldResponse, LinkError> {
        let until = clock::now() + KEPT_FOR;
        loop {
            let mut client = self.links.client(self.id, self.line);
            let request = self.links.request(self.id, pb::SnapshotHeldRequest { id: outgoing.id });
            let asked = clock::timeout(HELD_TIMEOUT, client.snapshot_held(request)).await;
            let asked = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            match self.links.answer(self.id, asked).await {
                Err(error) if is_break(&error) && clock::now() < until => clock::sleep(HELD_PAUSE).await,
                answer => return answer,
            }
        }
    }
}

/// Whether the connection is to blame, and not what was said over it.
fn is_break(error: &LinkError) -> bool {
    match error {
        LinkError::NotSent(_) => true,
        LinkError::Failed(status) => !matches!(status.code(), Code::InvalidArgument | Code::Unimplemented),
        LinkError::Refused(_) | LinkError::Stranger(_) => false,
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let (message, _) = wire::append_request(rpc);
        let (term, sent) = (term_of(&message), clock::now());
        self.links.metrics().sent(self.id, message.encoded_len());
        let mut client = self.links.client(self.id, self.line);
        let request = self.links.request(self.id, message);
        let response = self.call(RPCTypes::AppendEntries, &option, client.append(request)).await?;
        let result = wire::from_append_result(response).map_err(|error| malformed(&error))?;
        if result.is_ok() {
            self.proof.obeyed(self.id, term, sent);
        }
        Ok(AppendEntriesResponse::from(result))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.line == Line::Heartbeat {
            return openraft::network::stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let window = Window::default();
            let (gate, links, id) = (window.clone(), Arc::clone(&self.links), self.id);
            let requests = input.then(move |request| {
                let (gate, links) = (gate.clone(), Arc::clone(&links));
                async move {
                    let (message, bytes) = wire::append_request(request);
                    gate.enter(bytes, term_of(&message)).await;
                    links.metrics().sent(id, message.encoded_len());
                    message
                }
            });
            // openraft's own pauses are in the stream, which nobody reads where there is no connection.
            self.attempts.next().await;
            let mut client = self.links.client(self.id, self.line);
            let (request, begun) = self.links.streaming(self.id, requests);
            let result = begun.answer(client.stream_append(request)).await;
            let answers = self.links.answer(self.id, result).await.map_err(|error| {
                self.attempts.failed();
                self.links.metrics().failed(self.id);
                broken(&error)
            })?;
            let proof = Arc::clone(&self.proof);
            let obeyed = move |sent: &Sent| proof.obeyed(id, sent.term, sent.at);
            Ok(Box::pin(answers_of(answers, window, obeyed)) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(&rpc, &option, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(&rpc, &option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let outgoing = snapshot::open(snapshot).map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let answer = tokio::select! {
            answer = self.send_snapshot(&vote, &outgoing) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let response = answer.map_err(|error| match broken(&error) {
            RPCError::Unreachable(error) => StreamingError::Unreachable(error),
            other => StreamingError::Network(NetworkError::new(&other)),
        })?;
        let vote =
            wire::from_vote(response.vote).map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.links.client(self.id, Line::Heartbeat);
        let message = self.links.request(self.id, wire::transfer_request(&request));
        // The target waits for its disk before it answers.
        let option = RPCOption::new(option.hard_ttl().max(Duration::from_secs(1)));
        let response = self.call(RPCTypes::TransferLeader, &option, client.transfer_leader(message)).await?;
        if response.refused.is_empty() {
            return Ok(Ok(()));
        }
        Err(RPCError::Network(NetworkError::new(&AnyError::error(response.refused))))
    }
}

fn term_of(message: &pb::AppendRequest) -> u64 {
    message.vote.as_ref().map_or(0, |vote| vote.term)
}

/// Requests under way, each until it is answered.
#[derive(Clone)]
struct Window {
    room: Arc<Semaphore>,
    sent: Arc<Mutex<VecDeque<Sent>>>,
}

/// A request that was sent, not before `at`.
struct Sent {
    bytes: u32,
    term: u64,
    at: clock::Instant,
}

impl Default for Window {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(WINDOW_BYTES as usize)), sent: Arc::default() }
    }
}

impl Window {
    async fn enter(&self, bytes: usize, term: u64) {
        // What is larger than the window goes alone.
        let bytes = u32::try_from(bytes).unwrap_or(WINDOW_BYTES).clamp(1, WINDOW_BYTES);
        if let Ok(permit) = self.room.acquire_many(bytes).await {
            permit.forget();
            self.sent.lock().push_back(Sent { bytes, term, at: clock::now() });
        }
    }

    /// Answers come in the order of the requests.
    fn answered(&self) -> Option<Sent> {
        let sent = self.sent.lock().pop_front()?;
        self.room.add_permits(sent.bytes as usize);
        Some(sent)
    }
}

/// The answers in the order of the requests, up to the first that ends the stream.
fn answers_of(
    answers: tonic::Streaming<pb::AppendResponse>,
    window: Window,
    obeyed: impl Fn(&Sent) + Send + 'static,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RpcError>> + Send {
    stream::unfold(Some((answers, window, obeyed)), |state| async move {
        let (mut answers, window, obeyed) = state?;
        let answer = match answers.next().await? {
            Ok(answer) => answer,
            Err(status) => return Some((Err(broken(&LinkError::Failed(status))), None)),
        };
        let sent = window.answered();
        match wire::from_append_result(answer) {
            Ok(Ok(last)) => {
                sent.iter().for_each(&obeyed);
                Some((Ok(Ok(last)), Some((answers, window, obeyed))))
            }
            Ok(Err(ended)) => Some((Ok(Err(ended)), None)),
            Err(error) => Some((Err(malformed(&error)), None)),
        }
    })
}
