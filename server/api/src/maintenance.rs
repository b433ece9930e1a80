//! The Maintenance service.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream;
use garboard_node::Node;
use garboard_node::Snapshot;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::downgrade_request::DowngradeAction;
use garboard_proto::etcdserverpb::maintenance_server::Maintenance;
use tonic::Request;
use tonic::Response;

use crate::status::Status;

/// For an action that etcd does not know: not in its table of errors, so without a code of its own.
const UNKNOWN_METHOD: Status = Status::fixed(tonic::Code::Unknown, "etcdserver: unknown method");

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
            version: self.node.etcd_version().to_owned(),
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: self.node.storage_version(),
            db_size_quota: status.db_size_quota,
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: status.downgrade_target.is_some(),
                target_version: status.downgrade_target.unwrap_or_default(),
            }),
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
        let Snapshot { revision, file_len, version, blobs } = self.node.snapshot().await.map_err(Status::from)?;
        // With the first message alone, and with the file's own revision.
        let header = Some(self.node.header(revision));
        let begun = (blobs, header, file_len, version);
        let answers = stream::unfold(begun, |(mut blobs, header, left, version)| async move {
            let blob = blobs.recv().await?;
            let left = left.saturating_sub(blob.as_ref().map_or(0, |blob| blob.len() as u64));
            let answer = |blob| pb::SnapshotResponse { header, remaining_bytes: left, blob, version: version.clone() };
            Some((blob.map(answer).map_err(|error| Status::from(error).into()), (blobs, None, left, version)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, tonic::Status> {
        self.node.move_leader(request.into_inner().target_id).await.map_err(Status::from)?;
        // Without a header, as in etcd.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, tonic::Status> {
        let request = request.into_inner();
        let action = DowngradeAction::try_from(request.action).map_err(|_| UNKNOWN_METHOD)?;
        let version = self.node.downgrade(action, &request.version).await.map_err(Status::from)?;
        Ok(Response::new(pb::DowngradeResponse { header: self.header(), version }))
    }
}
