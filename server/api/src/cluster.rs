//! The Cluster service: who the members are. The list is what raft committed.

use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::cluster_server::Cluster;
use tonic::Request;
use tonic::Response;

use crate::status::Status;

const FIXED: &str = "etcdserver: this release does not change the membership of a running cluster";

/// Cluster, as etcd serves it.
pub struct ClusterService {
    pub node: Node,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, tonic::Status> {
        Err(Status::unimplemented(FIXED).into())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, tonic::Status> {
        Err(Status::unimplemented(FIXED).into())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, tonic::Status> {
        Err(Status::unimplemented(FIXED).into())
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, tonic::Status> {
        if request.into_inner().linearizable {
            self.node.linearizable_read().await.map_err(Status::from)?;
        }
        // etcd's cluster responses carry no revision.
        Ok(Response::new(pb::MemberListResponse { header: Some(self.node.header(0)), members: self.node.members() }))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, tonic::Status> {
        Err(Status::unimplemented(FIXED).into())
    }
}
