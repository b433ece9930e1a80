//! The Maintenance service.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream;
use garboard_node::Node;
use garboard_node::Snapshot;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::maintenance_server::Maintenance;
use tonic::Request;
use tonic::Response;

use crate::status::Status;
use crate::version;

/// Maintenance, as etcd serves it.
pub struct MaintenanceService {
    pub node: Node,
}

type SnapshotAnswers = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, tonic::Status>> + Send>>;

impl MaintenanceService {
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.node.header(self.node.store().revision()))
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, tonic::Status> {
        let mut answer = self.node.alarm(request.into_inner()).await.map_err(Status::from)?;
        answer.header = self.header();
        Ok(Response::new(answer))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, tonic::Status> {
        let status = self.node.status();
        Ok(Response::new(pb::StatusResponse {
            header: self.header(),
            version: version::SERVER.to_owned(),
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: status.db_size_quota,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, tonic::Status> {
        self.node.defragment().await.map_err(Status::from)?;
        // Without a header, as in etcd.
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, tonic::Status> {
        let hash = self.node.hash().await.map_err(Status::from)?;
        Ok(Response::new(pb::HashResponse { header: self.header(), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, tonic::Status> {
        let hashed = self.node.hash_kv(request.into_inner().revision).await.map_err(Status::from)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.node.header(hashed.revision)),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        }))
    }

    type SnapshotStream = SnapshotAnswers;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<SnapshotAnswers>, tonic::Status> {
        let Snapshot { file_len, version, blobs } = self.node.snapshot().await.map_err(Status::from)?;
        let answers = stream::unfold((blobs, file_len), move |(mut blobs, left)| async move {
            let blob = blobs.recv().await?;
            let left = left.saturating_sub(blob.as_ref().map_or(0, |blob| blob.len() as u64));
            let answer =
                |blob| pb::SnapshotResponse { header: None, remaining_bytes: left, blob, version: version.to_owned() };
            Some((blob.map(answer).map_err(|error| Status::from(error).into()), (blobs, left)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, tonic::Status> {
        self.node.move_leader(request.into_inner().target_id).await.map_err(Status::from)?;
        Ok(Response::new(pb::MoveLeaderResponse { header: self.header() }))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, tonic::Status> {
        Err(Status::unimplemented("etcdserver: this release cannot be downgraded").into())
    }
}
