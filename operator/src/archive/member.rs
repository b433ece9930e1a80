//! What the programs ask of a member, for tests to answer without one.

use futures_util::Stream;
use garboard_proto::etcdserverpb as pb;

use crate::store::Client;
use crate::store::StoreError;

pub trait Member {
    async fn status(&self) -> Result<pb::StatusResponse, StoreError>;
    async fn snapshot(&self) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, StoreError>>, StoreError>;
    async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, StoreError>;
    async fn count(&self, revision: i64) -> Result<i64, StoreError>;
    async fn compact(&self, revision: i64) -> Result<(), StoreError>;
}

impl Member for Client {
    async fn status(&self) -> Result<pb::StatusResponse, StoreError> {
        Self::status(self).await
    }

    async fn snapshot(&self) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, StoreError>>, StoreError> {
        Self::snapshot(self).await
    }

    async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, StoreError> {
        Self::hash_kv(self, revision).await
    }

    async fn count(&self, revision: i64) -> Result<i64, StoreError> {
        Self::count(self, revision).await
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        Self::compact(self, revision).await
    }
}
