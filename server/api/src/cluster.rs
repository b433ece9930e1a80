//! The Cluster service: who the members are, and how that changes. The list is what raft committed.

use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::cluster_server::Cluster;
use tonic::Request;
use tonic::Response;

use crate::listen::url::ListenUrl;
use crate::status;
use crate::status::Status;

/// Cluster, as etcd serves it.
pub struct ClusterService {
    pub node: Node,
}

impl ClusterService {
    /// etcd's cluster responses carry no revision.
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.node.header(0))
    }
}

fn check_urls(urls: &[String]) -> Result<(), Status> {
    let is_url = |url: &String| url.parse::<ListenUrl>().is_ok();
    if urls.is_empty() || !urls.iter().all(is_url) { Err(status::MEMBER_BAD_URLS) } else { Ok(()) }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, tonic::Status> {
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let (member, members) = self.node.member_add(request).await.map_err(Status::from)?;
        Ok(Response::new(pb::MemberAddResponse { header: self.header(), member: Some(member), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, tonic::Status> {
        let members = self.node.member_remove(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, tonic::Status> {
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let members = self.node.member_update(request).await.map_err(Status::from)?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, tonic::Status> {
        if request.into_inner().linearizable {
            self.node.linearizable_read().await.map_err(Status::from)?;
        }
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members: self.node.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, tonic::Status> {
        let members = self.node.member_promote(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
