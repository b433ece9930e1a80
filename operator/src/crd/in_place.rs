//! EtcdRestore: an EtcdCluster begins anew from a backup, or from what one of its members has left, under the same name.

// Columns are attributes that share names: clippy takes them for one another.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::backup::ClusterRef;
use super::backup::Destination;
use super::restore::BackupRef;
use super::restore::RestoreSource;
use super::restore::RestoreVolume;
use super::restore::revision_bump;
use super::rules;

/// Rules on the object as a whole.
pub(super) const ROOT_RULES: &[(&str, &str)] = &[
    (
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 45",
        "the name must be a DNS label of 45 characters at most: the safety backup is named after it",
    ),
    (
        "!has(oldSelf.spec) || (self.spec.clusterRef == oldSelf.spec.clusterRef && self.spec.source == oldSelf.spec.source && self.spec.revisionBump == oldSelf.spec.revisionBump && has(self.spec.safetyBackup) == has(oldSelf.spec.safetyBackup) && (!has(self.spec.safetyBackup) || self.spec.safetyBackup == oldSelf.spec.safetyBackup))",
        "a restore is made once: besides confirm and rollback nothing can be changed. Make another EtcdRestore",
    ),
    (
        "!has(self.spec.source.survivingMember) || !has(self.spec.safetyBackup)",
        "safetyBackup is of no use with source.survivingMember: without a quorum none can be taken",
    ),
    ("!has(oldSelf.spec) || !oldSelf.spec.rollback || self.spec.rollback", "a rollback cannot be taken back"),
];

/// What is restored, and the word without which nothing is.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "garboard.dev",
    version = "v1alpha1",
    kind = "EtcdRestore",
    namespaced,
    shortname = "er",
    category = "garboard",
    doc = "Gives an EtcdCluster the state of a backup, once somebody has confirmed what would be lost. The old volumes are kept.",
    status = "EtcdRestoreStatus",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Token", type_ = "string", json_path = ".status.plan.token"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Source", type_ = "string", json_path = ".status.plan.chosen", priority = 1),
    printcolumn(name = "Loss", type_ = "string", json_path = ".status.plan.expectedLoss", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdRestoreSpec {
    pub cluster_ref: ClusterRef,
    pub source: Source,
    /// So many revisions are left out behind those that clients may have seen, and all before is compacted: clients such as a
    /// kube-apiserver's caches notice and begin anew. It has to be more than is written while the members stop.
    #[serde(default = "revision_bump")]
    #[schemars(range(min = 1_000_000, max = 100_000_000_000_000_i64))]
    pub revision_bump: i64,
    /// An EtcdBackup `NAME-safety` of what the cluster has, before it is stopped. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<SafetyBackup>,
    /// Nothing is touched before this is `status.plan.token`. With `source.survivingMember` it is asked for twice: before the members end, and
    /// before one of their volumes is chosen.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub confirm: String,
    /// Goes back to the old volumes. What was written since the restore stays on the new ones, which are kept as well.
    #[serde(default)]
    pub rollback: bool,
}

/// What the cluster begins anew with: exactly one of these.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[("[has(self.backupRef), has(self.volume), has(self.survivingMember)].filter(given, given).size() == 1", "exactly one of backupRef, volume and survivingMember must be given")])))]
pub struct Source {
    /// An EtcdBackup that has succeeded, of whichever cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<BackupRef>,
    /// A file on a volume: all that is needed when no object is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<RestoreVolume>,
    /// A member whose volume is left when the quorum is lost, or `Auto`: the one whose log ends last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub surviving_member: Option<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SafetyBackup {
    pub destination: Destination,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdRestoreStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub phase: Phase,
    /// What is to be done; as it is now until it is confirmed, and as it was then afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Of the cluster that was founded from the backup, in hex.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// That this cluster went on at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Of the cluster that made way: kept until somebody deletes their claims.
    pub old_volumes: Vec<OldVolume>,
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// To be typed into `spec.confirm`; another one whenever cluster or source are others.
    pub token: String,
    /// The source.
    pub chosen: String,
    /// Of the cluster that makes way, in hex.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// Of the backup, if that is known before it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// The newest that was seen of the cluster; absent while no member has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_revision: Option<i64>,
    /// In words.
    pub expected_loss: String,
    /// The member whose volume is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survivor: Option<String>,
    /// The volumes that are left, the best one first; once they were looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// What is on a volume of a member that does not run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub member: String,
    pub volume: String,
    /// Of the last entry of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i64>,
    /// At which it would go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Why it cannot be used; empty: it can.
    pub message: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OldVolume {
    pub claim: String,
    pub member: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Planning,
    AwaitingConfirmation,
    SafetyBackup,
    /// The members end, and their volumes are put aside.
    Stopping,
    /// The volumes that are left are looked at, read-only; then one of them waits to be confirmed.
    Inspecting,
    /// A backup is taken of what is on it.
    Salvaging,
    /// A new cluster is founded from the backup.
    Restoring,
    /// The other members join it.
    Reforming,
    Verifying,
    Succeeded,
    /// Nothing more is done; `spec.rollback` goes back, if the cluster was stopped.
    Failed,
    RollingBack,
    RolledBack,
}

// === impl Phase ===

impl Phase {
    /// Nothing more happens to it, unless it is rolled back.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::RolledBack)
    }

    /// The EtcdCluster is to change.
    pub fn replaces(self) -> bool {
        matches!(self, Self::Stopping | Self::Inspecting | Self::Salvaging | Self::Restoring | Self::RollingBack)
    }

    /// No other restore of the EtcdCluster begins.
    pub fn is_at_work(self) -> bool {
        self.replaces() || matches!(self, Self::SafetyBackup | Self::Reforming | Self::Verifying)
    }
}

// === impl Source ===

impl Source {
    /// `None`: it is what a member has left.
    pub fn file(&self) -> Option<RestoreSource> {
        let Self { backup_ref, volume, surviving_member } = self;
        surviving_member.is_none().then(|| RestoreSource { backup_ref: backup_ref.clone(), volume: volume.clone() })
    }
}
