//! EtcdBackup: one snapshot of a cluster, on a volume.

// Columns are attributes that share names: clippy takes them for one another.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::rules;

/// Rules on the object as a whole.
pub(super) const ROOT_RULES: &[(&str, &str)] = &[
    (
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",
        "the name must be a DNS label of 52 characters at most: files and Jobs are named after it",
    ),
    (
        "!has(oldSelf.spec) || self.spec == oldSelf.spec",
        "a backup is taken once: make another EtcdBackup instead of changing this one",
    ),
];

#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "garboard.dev",
    version = "v1alpha1",
    kind = "EtcdBackup",
    namespaced,
    shortname = "eb",
    category = "garboard",
    doc = "A snapshot of an EtcdCluster on a volume, with a manifest beside it.",
    status = "EtcdBackupStatus",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.sizeBytes"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.verification.result"),
    printcolumn(name = "File", type_ = "string", json_path = ".status.file", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupSpec {
    pub cluster_ref: ClusterRef,
    #[serde(flatten)]
    pub template: BackupTemplate,
}

/// An EtcdCluster of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// How a backup is taken, and where it is put.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupTemplate {
    pub destination: Destination,
    #[serde(default)]
    pub source: SnapshotSource,
    #[serde(default)]
    pub compression: Compression,
    #[serde(default)]
    pub verify: Verify,
    /// What becomes of the files when the EtcdBackup is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// From its creation, in seconds, until it is given up.
    #[serde(default = "active_deadline")]
    #[schemars(range(min = 10, max = 604_800))]
    pub active_deadline_seconds: i64,
    /// Further tries of a Pod that failed.
    #[serde(default = "backoff_limit")]
    #[schemars(range(min = 0, max = 10))]
    pub backoff_limit: i32,
}

pub(super) fn active_deadline() -> i64 {
    3600
}

pub(super) fn backoff_limit() -> i32 {
    3
}

/// A volume: exactly one of these.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[("has(self.volume) != has(self.volumeTemplate)", "exactly one of volume and volumeTemplate must be given")])))]
pub struct Destination {
    /// One that is there: whatever a Pod can mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeDestination>,
    /// One of this backup's own, with the backup's name; it goes with the backup when `deletionPolicy` is Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_template: Option<VolumeTemplate>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeDestination {
    /// A PersistentVolumeClaim of the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// A folder in the volume, made when it is not there. In it each cluster has one of its own.
    #[serde(default)]
    #[schemars(length(max = 512))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^([A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?$')", "must be a relative path of letters, digits, dots, dashes and underscores")])))]
    pub path: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeTemplate {
    pub size: Quantity,
    /// Absent: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Whose state is taken.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotSource {
    /// A follower's that is not behind; the leader's if there is none.
    #[default]
    PreferFollower,
    Leader,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    Zstd,
    None,
}

/// How it is shown that the backup is good.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The checksum that the member sends with it.
    #[default]
    Checksum,
    /// That, and a server that is started from it in a Pod of its own: revision, HashKV and the count of keys must be the cluster's.
    Restore,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    #[default]
    Delete,
    Retain,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdBackupStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// The claim of the volume, and the archive within that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whose state it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<i64>,
    /// Of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_size_bytes: Option<i64>,
    /// Of the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Of the archive, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(rename = "hashKV", skip_serializing_if = "Option::is_none")]
    pub hash_kv: Option<i64>,
    /// Of the snapshot, while it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Pending,
    Running,
    Verifying,
    Succeeded,
    Failed,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub bytes: i64,
    pub total_bytes: i64,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub result: VerificationResult,
    pub at: Time,
    pub message: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationResult {
    Passed,
    Failed,
}

// === impl BackupTemplate ===

impl BackupTemplate {
    /// With the defaults for all else.
    pub fn new(destination: Destination) -> Self {
        Self {
            destination,
            source: SnapshotSource::default(),
            compression: Compression::default(),
            verify: Verify::default(),
            deletion_policy: DeletionPolicy::default(),
            active_deadline_seconds: active_deadline(),
            backoff_limit: backoff_limit(),
        }
    }
}

// === impl EtcdBackup ===

impl EtcdBackup {
    /// The claim of the volume that it is on.
    pub fn claim(&self) -> String {
        let volume = self.spec.template.destination.volume.as_ref();
        volume.map_or_else(|| self.metadata.name.clone().unwrap_or_default(), |volume| volume.claim_name.clone())
    }

    /// The folder in the volume.
    pub fn folder(&self) -> String {
        let cluster = &self.spec.cluster_ref.name;
        match self.spec.template.destination.volume.as_ref().map(|volume| volume.path.as_str()) {
            Some(path) if !path.is_empty() => format!("{path}/{cluster}"),
            _ => cluster.clone(),
        }
    }
}

// === impl Phase ===

impl Phase {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Verifying, Self::Succeeded, Self::Failed];

    /// Nothing more happens to it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
