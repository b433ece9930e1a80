//! The Lease service. Keep-alives never go through raft: the leader renews on its own clock.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream;
use garboard_mvcc as mvcc;
use garboard_node as node;
use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::lease_server::Lease;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use tonic::Request;
use tonic::Response;
use tonic::Streaming;

use crate::status::Status;

/// Lease, as etcd serves it.
pub struct LeaseService {
    pub node: Node,
}

type KeepAliveAnswers = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, tonic::Status>> + Send>>;

impl LeaseService {
    fn header(&self, given: Option<pb::ResponseHeader>) -> Option<pb::ResponseHeader> {
        let revision = given.map_or_else(|| self.node.store().revision(), |header| header.revision);
        Some(self.node.header(revision))
    }
}

async fn renew(node: &Node, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    // Before the renewal: a lease revoked at revision 3 must not be seen kept alive at revision 4.
    let header = Some(node.header(node.store().revision()));
    let ttl = match node.lease_renew(id).await {
        Ok(ttl) => ttl,
        Err(node::Error::LeaseNotFound | node::Error::Mvcc(mvcc::Error::LeaseNotFound)) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, tonic::Status> {
        let mut answer = self.node.lease_grant(request.into_inner()).await.map_err(Status::from)?;
        answer.header = self.header(answer.header);
        Ok(Response::new(answer))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, tonic::Status> {
        let command = Command { op: Some(Op::LeaseRevoke(request.into_inner())) };
        let mvcc::Response::LeaseRevoke(mut answer) = self.node.propose(command).await.map_err(Status::from)? else {
            return Err(tonic::Status::internal("the state machine gave another command's answer"));
        };
        answer.header = self.header(answer.header);
        Ok(Response::new(answer))
    }

    type LeaseKeepAliveStream = KeepAliveAnswers;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAliveAnswers>, tonic::Status> {
        let node = self.node.clone();
        let answers = stream::unfold(Some((request.into_inner(), node)), |state| async {
            let (mut requests, node) = state?;
            match requests.message().await {
                Ok(Some(request)) => match renew(&node, request.id).await {
                    Ok(answer) => Some((Ok(answer), Some((requests, node)))),
                    Err(status) => Some((Err(status.into()), None)),
                },
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, tonic::Status> {
        let request = request.into_inner();
        let mut answer = match self.node.lease_time_to_live(request.id, request.keys).await {
            Ok(answer) => answer,
            Err(node::Error::LeaseNotFound | node::Error::Mvcc(mvcc::Error::LeaseNotFound)) => {
                pb::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() }
            }
            Err(error) => return Err(Status::from(error).into()),
        };
        answer.header = self.header(None);
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, tonic::Status> {
        let leases = self.node.leases().into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: self.header(None), leases }))
    }
}
