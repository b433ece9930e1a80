//! What the operator has seen of a cluster, and what it is doing to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::restore::Restore;

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdClusterStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Selects the members' Pods.
    pub selector: String,
    /// Of the store, in hex. Once it is known no Pod is ever allowed again to found a cluster.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The member that may found the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// The version that members run, or are to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Members that are ready, of those that are wanted.
    pub ready: String,
    pub ready_members: i32,
    /// Members of the store, learners included.
    pub member_count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Absent while no member can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_size_bytes: Option<i64>,
    pub alarms: Vec<String>,
    pub members: Vec<MemberStatus>,
    /// What is under way; written before anything is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The EtcdRestore that is under way, or the last one; written before anything of it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreInPlace>,
    /// The last reclaim of space that was not enough, until no NOSPACE is raised any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,
    /// The last try of the final backup; written before it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_backup: Option<FinalBackupStatus>,
    /// Volumes of members that have left, kept as `storage.retention` says.
    pub detached_volumes: Vec<DetachedVolume>,
    /// Those that are in use, with their ends.
    pub certificates: Vec<CertificateStatus>,
    /// Who signs, on each plane that has certificates.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["plane"]))]
    pub authorities: Vec<AuthorityStatus>,
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    pub member: String,
}

/// One cluster makes way for another one of the same name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreInPlace {
    /// Of the EtcdRestore.
    pub name: String,
    pub uid: String,
    pub stage: RestoreStage,
    /// That makes way, or that is gone back to, in hex.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// The old volumes are taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// What the new cluster begins with; absent as long as it is not chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Restore>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStage {
    /// The members end, and their volumes are put aside.
    Stopping,
    /// Nothing of them is left: the other cluster begins.
    Starting,
    Done,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    pub name: String,
    #[serde(rename = "id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub role: Role,
    pub ready: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_size_bytes: Option<i64>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
    /// Not observed, or not a member of the store.
    #[default]
    Unknown,
}

/// Something that takes more than one step.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// Empty while it concerns all of them.
    pub member: String,
    /// The member's id, in hex, when it has one.
    #[serde(rename = "memberID", default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// Why.
    pub reason: String,
    pub started_at: Time,
    /// When a member was last asked for something that nobody waits for; written before it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<Time>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationType {
    AddMember,
    RemoveMember,
    RestartMember,
    /// Compacts where that is needed, while `member` is empty; then defragments `member`.
    ReclaimSpace,
}

/// It is made again when less is in use, the quota is larger, or an hour has passed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Reclaim {
    pub ended_at: Time,
    /// Of the member that had most.
    pub db_size_in_use_bytes: i64,
    /// Of the member that had least.
    pub quota_bytes: i64,
    /// Why it was not enough.
    pub message: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FinalBackupStatus {
    /// Of the EtcdBackup.
    pub name: String,
    /// This one included.
    pub tries: i32,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DetachedVolume {
    pub claim: String,
    pub member: String,
    pub since: Time,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    pub secret_name: String,
    pub not_after: Time,
}

/// Who signs the certificates of a plane.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    pub plane: Plane,
    /// Where the certificates come from that are shown now.
    pub source: AuthoritySource,
    /// How far its rotation is.
    pub phase: RotationPhase,
    /// SHA-256 of the operator's CA that signs now, of its DER, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The end of the CA, or of the last of those that others tell.
    pub not_after: Time,
}

/// As the spec names them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum AuthoritySource {
    #[serde(rename = "operatorCA")]
    OperatorCa,
    CertManager,
    SecretName,
}

/// Who talks to members: each has certificates of its own.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    Client,
    Peer,
}

// === impl Plane ===

impl Plane {
    pub const ALL: [Self; 2] = [Self::Client, Self::Peer];
}

impl std::fmt::Display for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Peer => "peer",
        })
    }
}

/// How far the rotation of an authority is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotationPhase {
    /// One signs, and no other is trusted.
    #[default]
    Stable,
    /// The next one is to be trusted, too.
    TrustBoth,
    /// The next one signs.
    Reissue,
    /// The one before is to be trusted no more.
    Retire,
}
