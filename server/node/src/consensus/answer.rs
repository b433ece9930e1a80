//! Raft's calls from the other members, answered.

use std::io;

use futures_util::Stream;
use futures_util::StreamExt as _;
use garboard_proto::peers as pb;
use openraft::raft::AppendEntriesResponse;
use openraft::raft::StreamAppendError;

use super::raft::Consensus;
use super::wire;

impl Consensus {
    /// # Errors
    /// This member has just started, and may have promised not to vote.
    fn check_bound(&self, request: &pb::VoteRequest) -> io::Result<()> {
        match &self.lease {
            Some(lease) if lease.is_bound() && !request.leadership_transfer => {
                Err(io::Error::other("this member has just started: it may still be bound by a leader's lease"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn answer_vote(&self, request: pb::VoteRequest) -> io::Result<pb::VoteResponse> {
        self.check_bound(&request)?;
        let answer = self.raft.vote(wire::from_vote_request(request)?).await.map_err(io::Error::other)?;
        Ok(wire::vote_response(&answer))
    }

    pub(crate) async fn answer_pre_vote(&self, request: pb::VoteRequest) -> io::Result<pb::VoteResponse> {
        self.check_bound(&request)?;
        let answer = self.raft.pre_vote(wire::from_vote_request(request)?).await.map_err(io::Error::other)?;
        Ok(wire::vote_response(&answer))
    }

    pub(crate) async fn answer_append(&self, request: pb::AppendRequest) -> io::Result<pb::AppendResponse> {
        let request = wire::from_append_request(request)?;
        let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let answer = self.raft.append_entries(request).await.map_err(io::Error::other)?;
        let result = match answer {
            AppendEntriesResponse::Success => Ok(last.or(previous)),
            AppendEntriesResponse::PartialSuccess(last) => Ok(last),
            AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
            AppendEntriesResponse::Conflict => {
                let at = previous.ok_or_else(|| io::Error::other("an append at the log's beginning conflicts"))?;
                Err(StreamAppendError::Conflict(at))
            }
        };
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.heard.now();
        }
        Ok(wire::append_result(&result))
    }

    /// Answers come in the order of the requests; a request that cannot be read ends the stream.
    pub(crate) fn answer_stream(
        &self,
        requests: impl Stream<Item = io::Result<pb::AppendRequest>> + Send + 'static,
    ) -> impl Stream<Item = io::Result<pb::AppendResponse>> + Send + 'static {
        let requests = requests.scan((), |(), request| {
            let request = request.and_then(wire::from_append_request);
            if let Err(error) = &request {
                tracing::debug!(%error, "a leader's stream of entries has ended");
            }
            std::future::ready(request.ok())
        });
        let heard = std::sync::Arc::clone(&self.heard);
        self.raft.stream_append(requests).map(move |answer| {
            let result = answer.map_err(io::Error::other)?;
            if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                heard.now();
            }
            Ok(wire::append_result(&result))
        })
    }

    /// Empty, or why not.
    pub(crate) async fn answer_transfer(&self, request: pb::TransferLeaderRequest) -> io::Result<String> {
        let request = wire::from_transfer_request(request)?;
        let answer = self.raft.handle_transfer_leader(request).await.map_err(io::Error::other)?;
        Ok(answer.err().map(|error| error.to_string()).unwrap_or_default())
    }
}
