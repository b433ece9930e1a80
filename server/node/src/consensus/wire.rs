//! Raft's messages between openraft's form and the one that members send.

use std::io;

use garboard_proto::peers as pb;
use garboard_proto::peers::append_response::Result as AppendResult;
use garboard_proto::raft::LogPosition;
use openraft::entry::RaftEntry as _;
use openraft::raft::AppendEntriesRequest;
use openraft::raft::StreamAppendError;
use openraft::raft::StreamAppendResult;
use openraft::raft::TransferLeaderRequest;
use openraft::raft::VoteRequest;
use openraft::raft::VoteResponse;

use super::log_store;
use super::types::Entry;
use super::types::LeaderId;
use super::types::LogId;
use super::types::TypeConfig;
use super::types::Vote;
use super::types::log_id;

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message between members has no {what}"))
}

pub(super) fn vote(vote: &Vote) -> pb::Vote {
    let id = vote.leader_id();
    pb::Vote { term: id.term, voted_for: id.voted_for, committed: vote.is_committed() }
}

pub(super) fn from_vote(vote: Option<pb::Vote>) -> io::Result<Vote> {
    let vote = vote.ok_or_else(|| missing("vote"))?;
    Ok(Vote { leader_id: LeaderId { term: vote.term, voted_for: vote.voted_for }, committed: vote.committed })
}

pub(super) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

pub(super) fn from_position(at: LogPosition) -> LogId {
    log_id(at.term, at.index)
}

pub(super) fn vote_request(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote(&request.vote)),
        last: request.last_log_id.as_ref().map(position),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(super) fn from_vote_request(request: pb::VoteRequest) -> io::Result<VoteRequest<TypeConfig>> {
    let mut out = VoteRequest::new(from_vote(request.vote)?, request.last.map(from_position));
    out.leadership_transfer = request.leadership_transfer;
    Ok(out)
}

pub(super) fn vote_response(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(position),
    }
}

pub(super) fn from_vote_response(response: pb::VoteResponse) -> io::Result<VoteResponse<TypeConfig>> {
    let vote = from_vote(response.vote)?;
    Ok(VoteResponse::new(vote, response.last.map(from_position), response.granted))
}

/// The message, and the bytes of its entries.
pub(super) fn append_request(request: AppendEntriesRequest<TypeConfig>) -> (pb::AppendRequest, usize) {
    let entry = |entry: Entry| {
        let id = position(&entry.log_id());
        let (kind, payload) = log_store::encode_payload(&entry.payload);
        pb::Entry { term: id.term, index: id.index, kind: u32::from(kind), payload }
    };
    let entries: Vec<pb::Entry> = request.entries.into_iter().map(entry).collect();
    let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    let message = pb::AppendRequest {
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(position),
        entries,
        committed: request.leader_commit.as_ref().map(position),
    };
    (message, bytes)
}

pub(super) fn from_append_request(request: pb::AppendRequest) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let entry = |entry: pb::Entry| {
        let kind = u8::try_from(entry.kind).map_err(|_| missing("known kind of entry"))?;
        let payload = log_store::decode_payload(kind, entry.payload, entry.index)?;
        Ok(Entry::new(log_id(entry.term, entry.index), payload))
    };
    Ok(AppendEntriesRequest {
        vote: from_vote(request.vote)?,
        prev_log_id: request.previous.map(from_position),
        entries: request.entries.into_iter().map(entry).collect::<io::Result<_>>()?,
        leader_commit: request.committed.map(from_position),
    })
}

pub(super) fn append_result(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    let result = match result {
        Ok(last) => AppendResult::Appended(pb::Appended { last: last.as_ref().map(position) }),
        Err(StreamAppendError::Conflict(at)) => AppendResult::Conflict(position(at)),
        Err(StreamAppendError::HigherVote(higher)) => AppendResult::HigherVote(vote(higher)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(super) fn from_append_result(response: pb::AppendResponse) -> io::Result<StreamAppendResult<TypeConfig>> {
    Ok(match response.result.ok_or_else(|| missing("result"))? {
        AppendResult::Appended(appended) => Ok(appended.last.map(from_position)),
        AppendResult::Conflict(at) => Err(StreamAppendError::Conflict(from_position(at))),
        AppendResult::HigherVote(higher) => Err(StreamAppendError::HigherVote(from_vote(Some(higher))?)),
    })
}

pub(super) fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from: Some(vote(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(position),
    }
}

pub(super) fn from_transfer_request(
    request: pb::TransferLeaderRequest,
) -> io::Result<TransferLeaderRequest<TypeConfig>> {
    Ok(TransferLeaderRequest::new(from_vote(request.from)?, request.to, request.last.map(from_position)))
}

#[cfg(test)]
mod tests {
    use super::super::types::BatchBytes;
    use super::super::types::Payload;
    use super::*;

    fn a_vote() -> Vote {
        Vote { leader_id: LeaderId { term: 3, voted_for: 7 }, committed: true }
    }

    #[test]
    fn entries_arrive_as_they_were_sent() {
        let payload = Payload::Normal(BatchBytes(bytes::Bytes::from_static(b"batch")));
        let request = AppendEntriesRequest {
            vote: a_vote(),
            prev_log_id: Some(log_id(2, 8)),
            entries: vec![Entry::new(log_id(3, 9), payload), Entry::new(log_id(3, 10), Payload::Blank)],
            leader_commit: None,
        };
        let (message, bytes) = append_request(request.clone());
        assert_eq!(bytes, 5);
        let arrived = from_append_request(message).expect("a whole message");
        assert_eq!(format!("{arrived:?}"), format!("{request:?}"));
    }

    #[test]
    fn results_and_votes_arrive_as_they_were_sent() {
        for result in [
            Ok(Some(log_id(1, 2))),
            Ok(None),
            Err(StreamAppendError::Conflict(log_id(1, 2))),
            Err(StreamAppendError::HigherVote(a_vote())),
        ] {
            assert_eq!(from_append_result(append_result(&result)).expect("a whole message"), result);
        }
        let mut request = VoteRequest::new(a_vote(), Some(log_id(2, 8)));
        request.leadership_transfer = true;
        assert_eq!(from_vote_request(vote_request(&request)).expect("a whole message"), request);
        let response = VoteResponse::new(a_vote(), None, true);
        assert_eq!(from_vote_response(vote_response(&response)).expect("a whole message"), response);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert!(from_vote_request(pb::VoteRequest::default()).is_err());
        assert!(from_append_result(pb::AppendResponse::default()).is_err());
        let entry = pb::Entry { kind: 99, ..pb::Entry::default() };
        let request = pb::AppendRequest { vote: Some(vote(&a_vote())), entries: vec![entry], ..Default::default() };
        assert!(from_append_request(request).is_err());
    }
}
