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

use crate::status;
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
        // Without a header, as in etcd.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, tonic::Status> {
        let request = request.into_inner();
        let cluster_version = self.node.status().cluster_version;
        if request.action() != DowngradeAction::Cancel {
            return Err(refuse_downgrade(cluster_version.as_deref(), &request.version).into());
        }
        // There is none to cancel, which etcd does not call an error.
        let version = cluster_version.as_deref().and_then(major_minor).ok_or(status::CLUSTER_VERSION_UNAVAILABLE)?;
        let version = format!("{}.{}", version.0, version.1);
        Ok(Response::new(pb::DowngradeResponse { header: self.header(), version }))
    }
}

/// What etcd would refuse gets etcd's error, what it would do is refused by name.
fn refuse_downgrade(cluster_version: Option<&str>, target: &str) -> Status {
    let Some((major, minor)) = major_minor(target) else { return status::WRONG_DOWNGRADE_VERSION_FORMAT };
    match cluster_version.and_then(major_minor) {
        None => status::CLUSTER_VERSION_UNAVAILABLE,
        Some(now) if now != (major, minor.saturating_add(1)) => status::INVALID_DOWNGRADE_TARGET_VERSION,
        Some(_) => Status::unimplemented("etcdserver: this release cannot be downgraded"),
    }
}

/// Of `3.5`, or of a semantic version.
fn major_minor(version: &str) -> Option<(u64, u64)> {
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let mut parts = version.splitn(3, '.');
    let (major, minor) = (number(parts.next()?)?, number(parts.next()?)?);
    if let Some(patch) = parts.next() {
        number(patch.split(['-', '+']).next()?)?;
    }
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_with_and_without_a_patch() {
        assert_eq!(major_minor("3.5"), Some((3, 5)));
        assert_eq!(major_minor("3.5.0-rc.1"), Some((3, 5)));
        for wrong in ["", "3", "3.", "v3.5", "3.5.", "3.5.x", "3.-1", "3.+5"] {
            assert_eq!(major_minor(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_the_minor_version_before_is_a_target() {
        assert_eq!(refuse_downgrade(Some("3.6.0"), "nonsense"), status::WRONG_DOWNGRADE_VERSION_FORMAT);
        assert_eq!(refuse_downgrade(Some("3.6.0"), "3.6"), status::INVALID_DOWNGRADE_TARGET_VERSION);
        assert_eq!(refuse_downgrade(None, "3.5"), status::CLUSTER_VERSION_UNAVAILABLE);
        assert_eq!(refuse_downgrade(Some("3.6.0"), "3.5.2").code, tonic::Code::Unimplemented);
    }
}
