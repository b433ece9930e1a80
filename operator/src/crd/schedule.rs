//! EtcdBackupSchedule: when backups are made, and how long they are kept.

// Columns are attributes that share names: clippy takes them for one another.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::backup::BackupTemplate;
use super::backup::ClusterRef;
use super::rules;

/// Rules on the object as a whole.
pub(super) const ROOT_RULES: &[(&str, &str)] = &[
    ("size(self.metadata.name) <= 40", "the name may have 40 characters at most: backups are named after it"),
    (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name must be a DNS label that begins with a letter: backups are named after it",
    ),
];

/// Backups of one EtcdCluster, made again and again.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "garboard.dev",
    version = "v1alpha1",
    kind = "EtcdBackupSchedule",
    namespaced,
    shortname = "ebs",
    category = "garboard",
    doc = "Makes an EtcdBackup of an EtcdCluster whenever it is time for one, and deletes those that need not be kept.",
    status = "EtcdBackupScheduleStatus",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastScheduleTime"),
    // kubectl shows no date that is to come.
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Success", type_ = "date", json_path = ".status.lastSuccessfulTime"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failedInARow"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.retainedBytes", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdBackupScheduleSpec {
    /// Minute, hour, day of the month, month and day of the week, as cron has them, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9A-Za-z*?,/-]+( +[0-9A-Za-z*?,/-]+){4})$')", "must be five fields, such as 0 3 * * *, or one of @hourly, @daily, @weekly, @monthly, @yearly")])))]
    pub schedule: String,
    /// Whose clock `schedule` means, such as `Europe/Berlin`. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')", "must be the name of a time zone, such as Europe/Berlin")])))]
    pub time_zone: Option<String>,
    /// No backup is made, and none deleted, while it is set.
    #[serde(default)]
    pub suspend: bool,
    /// A backup that could not begin in time may begin so much later; then it is skipped.
    #[serde(default = "starting_deadline_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub starting_deadline_seconds: i32,
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Each backup begins up to so much after its time: always as much, and as much as the name of the schedule says, so that many
    /// schedules for one time do not begin together.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub jitter_seconds: i32,
    pub cluster_ref: ClusterRef,
    /// The spec of the EtcdBackups, without `clusterRef`.
    pub template: BackupTemplate,
    #[serde(default)]
    pub retention: Retention,
}

/// What becomes of a backup whose time has come while one before it has not ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyPolicy {
    /// It waits for the other one until its starting deadline, and is skipped then.
    #[default]
    Forbid,
    /// It begins, unless ten have not ended.
    Allow,
    /// The other one is deleted, and it begins.
    Replace,
}

/// Which backups that have succeeded are deleted: those beyond any of these limits. The newest one, the newest one that was verified, and
/// one that a restore needs are never deleted. Of those that have failed, the newest three are kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// All but the newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i32>,
    /// Those that ended longer ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('1m')", "must be a duration of a minute at least, such as 720h")])))]
    pub max_age: Option<String>,
    /// The oldest ones, until the others together have no more bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0'))", "must be a quantity above 0, such as 50Gi")])))]
    pub max_total_size: Option<Quantity>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdBackupScheduleStatus {
    /// For which the last backup was made; written before it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the last backup that succeeded had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The first time that is not done with: from it on, times count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Backups that have not ended.
    pub active: Vec<String>,
    /// The newest backup that has succeeded, of those that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// Backups that have failed since one succeeded.
    pub failed_in_a_row: i32,
    /// Of all backups that have succeeded, as they lie on volumes.
    pub retained_bytes: i64,
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn starting_deadline_seconds() -> i32 {
    600
}
