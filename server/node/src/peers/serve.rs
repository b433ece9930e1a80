//! What a member answers its peers: raft's calls, what a leader does for the others' clients, and who the members are.
//!
//! Who calls is checked first, whatever the call ([`PeersService::check`]).

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::StreamExt as _;
use garboard_proto::etcdserverpb as etcd;
use garboard_proto::peers as pb;
use garboard_proto::peers::peers_server::Peers;
use garboard_proto::peers::peers_server::PeersServer;
use prost::Message as _;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;
use tonic::metadata::MetadataMap;

use super::Refusal;
use super::Roster;
use super::headers;
use super::links::MESSAGE_BYTES_MAX;
use crate::error::Error;
use crate::install;
use crate::node::Node;

/// The service that `api` mounts at the peer URLs.
pub type PeersService = PeersServer<Service>;

/// Answers the other members.
pub struct Service {
    node: Node,
    roster: Arc<Roster>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;

impl Node {
    /// What answers at the peer URLs.
    pub fn peers(&self) -> PeersService {
        let service = Service { node: self.clone(), roster: Arc::clone(self.roster()) };
        PeersServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn invalid(error: std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// After an error of the connection, the sender may go on over another.
fn snapshot_failed(error: std::io::Error) -> Status {
    if install::is_break(&error) { Status::aborted(error.to_string()) } else { invalid(error) }
}

/// Errors of the house between members: those that carry etcd's meaning go by their own name, see [`Error::to_peer`].
fn failed(error: Error) -> Status {
    error.to_peer()
}

impl Service {
    /// Refuses whoever is not a member of this cluster, as it is known here.
    async fn check(&self, headers: &MetadataMap) -> Result<u64, Status> {
        let caller = match headers::caller(headers, &self.roster) {
            Ok(caller) => caller,
            Err(refusal) => {
                tracing::warn!(reason = %refusal, "refused a call from a member");
                match refusal {
                    // The others know another data directory by this member's id.
                    Refusal::Other => self.node.refused(Refusal::Wiped),
                    Refusal::Behind => self.node.refused(Refusal::Outdated),
                    _ => {}
                }
                return Err(refusal.into());
            }
        };
        let admitted = self.roster.meet(caller.id, caller.incarnation).await;
        admitted.map(|()| caller.id).map_err(|refusal| {
            self.node.links().metrics().refused(caller.id);
            tracing::warn!(member = %format!("{:x}", caller.id), reason = %refusal, "refused a call from a member");
            Status::from(refusal)
        })
    }

    fn signed<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        headers::sign(response.metadata_mut(), &self.roster);
        response
    }
}

#[tonic::async_trait]
impl Peers for Service {
    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.check(request.metadata()).await?;
        let answer = self.node.consensus().answer_vote(request.into_inner()).await.map_err(invalid)?;
        Ok(self.signed(answer))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.check(request.metadata()).await?;
        let answer = self.node.consensus().answer_pre_vote(request.into_inner()).await.map_err(invalid)?;
        Ok(self.signed(answer))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let from = self.check(request.metadata()).await?;
        let request = request.into_inner();
        self.node.links().metrics().received(from, request.encoded_len());
        let answer = self.node.consensus().answer_append(request).await.map_err(invalid)?;
        Ok(self.signed(answer))
    }

    type StreamAppendStream = Answers;

    async fn stream_append(&self, request: Request<Streaming<pb::AppendRequest>>) -> Result<Response<Answers>, Status> {
        let from = self.check(request.metadata()).await?;
        let node = self.node.clone();
        let requests = request.into_inner().map(move |request| {
            let request = request.map_err(std::io::Error::other)?;
            node.links().metrics().received(from, request.encoded_len());
            Ok(request)
        });
        let answers = self.node.consensus().answer_stream(requests).map(|answer| answer.map_err(invalid));
        Ok(self.signed(Box::pin(answers)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        self.check(request.metadata()).await?;
        let refused = self.node.consensus().answer_transfer(request.into_inner()).await.map_err(invalid)?;
        Ok(self.signed(pb::TransferLeaderResponse { refused }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let from = self.check(request.metadata()).await?;
        let parts = request.into_inner().map(|part| part.map_err(std::io::Error::other));
        let answer = self.node.receive_snapshot(from, parts).await.map_err(snapshot_failed)?;
        Ok(self.signed(answer))
    }

    async fn snapshot_held(
        &self,
        request: Request<pb::SnapshotHeldRequest>,
    ) -> Result<Response<pb::SnapshotHeldResponse>, Status> {
        let from = self.check(request.metadata()).await?;
        Ok(self.signed(self.node.snapshot_held(from, request.into_inner().id).await))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ProposeResponse>, Status> {
        self.check(request.metadata()).await?;
        let result = self.node.propose_for(request.into_inner().batch).await;
        Ok(self.signed(pb::ProposeResponse { result: Some(result) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.check(request.metadata()).await?;
        let result = self.node.read_index_for().await;
        Ok(self.signed(pb::ReadIndexResponse { result: Some(result) }))
    }

    async fn lease_renew(
        &self,
        request: Request<pb::LeaseRenewRequest>,
    ) -> Result<Response<pb::LeaseRenewResponse>, Status> {
        self.check(request.metadata()).await?;
        let ttl_s = self.node.lease_renew_here(request.into_inner().id).await.map_err(failed)?;
        Ok(self.signed(pb::LeaseRenewResponse { ttl_s }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<etcd::LeaseTimeToLiveRequest>,
    ) -> Result<Response<etcd::LeaseTimeToLiveResponse>, Status> {
        self.check(request.metadata()).await?;
        let request = request.into_inner();
        let answer = self.node.lease_time_to_live_here(request.id, request.keys).await.map_err(failed)?;
        Ok(self.signed(answer))
    }

    async fn change_members(&self, request: Request<pb::MemberChange>) -> Result<Response<pb::MemberChanged>, Status> {
        self.check(request.metadata()).await?;
        let changed = self.node.change_members_here(request.into_inner()).await.map_err(failed)?;
        Ok(self.signed(changed))
    }

    async fn members(&self, _: Request<pb::MembersRequest>) -> Result<Response<pb::MembersResponse>, Status> {
        Ok(self.signed(self.node.describe_cluster()))
    }

    async fn hash_kv(&self, request: Request<etcd::HashKvRequest>) -> Result<Response<etcd::HashKvResponse>, Status> {
        self.check(request.metadata()).await?;
        let hashed = self.node.hash_kv(request.into_inner().revision).await.map_err(failed)?;
        Ok(self.signed(etcd::HashKvResponse {
            header: Some(self.node.header(hashed.revision)),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        }))
    }
}
