//! How an EtcdCluster goes.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::backup::BackupTemplate;
use super::backup::Compression;
use super::backup::DeletionPolicy;
use super::backup::Destination;
use super::backup::SnapshotSource;
use super::backup::Verify;
use super::backup::active_deadline;
use super::backup::backoff_limit;

/// What comes before the EtcdCluster goes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Deletion {
    /// A backup without which a founded cluster does not go; it outlives the cluster. Absent: none, which also lets a deleted cluster go that
    /// waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_backup: Option<FinalBackup>,
}

/// An EtcdBackup with `deletionPolicy: Retain`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FinalBackup {
    pub destination: Destination,
    #[serde(default)]
    pub compression: Compression,
    #[serde(default)]
    pub verify: Verify,
}

// === impl FinalBackup ===

impl FinalBackup {
    pub fn template(&self) -> BackupTemplate {
        BackupTemplate {
            destination: self.destination.clone(),
            source: SnapshotSource::default(),
            compression: self.compression,
            verify: self.verify,
            deletion_policy: DeletionPolicy::Retain,
            active_deadline_seconds: active_deadline(),
            backoff_limit: backoff_limit(),
        }
    }
}
