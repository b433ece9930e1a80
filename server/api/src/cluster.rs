//! The Cluster service: who the members are. The list is what raft committed.
//!
//! Members do not change yet: a change that etcd would refuse, too, gets etcd's error, any other is refused by name.

use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::cluster_server::Cluster;
use tonic::Request;
use tonic::Response;

use crate::listen::url::ListenUrl;
use crate::status;
use crate::status::Status;

const FIXED: Status =
    Status::unimplemented("etcdserver: this release does not change the membership of a running cluster");

/// Cluster, as etcd serves it.
pub struct ClusterService {
    pub node: Node,
}

impl ClusterService {
    fn member(&self, id: u64) -> Result<pb::Member, Status> {
        self.node.members().into_iter().find(|member| member.id == id).ok_or(status::MEMBER_NOT_FOUND)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, tonic::Status> {
        let urls = request.into_inner().peer_ur_ls;
        if urls.is_empty() || urls.iter().any(|url| url.parse::<ListenUrl>().is_err()) {
            return Err(status::MEMBER_BAD_URLS.into());
        }
        let taken = |member: pb::Member| member.peer_ur_ls.iter().any(|url| urls.contains(url));
        if self.node.members().into_iter().any(taken) {
            return Err(status::PEER_URL_EXIST.into());
        }
        Err(FIXED.into())
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, tonic::Status> {
        self.member(request.into_inner().id)?;
        // The only member: no quorum would be left.
        Err(status::MEMBER_NOT_ENOUGH_STARTED.into())
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, tonic::Status> {
        self.member(request.into_inner().id)?;
        Err(FIXED.into())
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
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, tonic::Status> {
        self.member(request.into_inner().id)?;
        Err(status::MEMBER_NOT_LEARNER.into())
    }
}
