//! What a cluster is founded from, when it is not founded empty.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::rules;

/// What a new cluster begins with. It is read until the cluster is founded, and never again.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("has(self.restore) == has(oldSelf.restore) && (!has(self.restore) || self.restore == oldSelf.restore)", "bootstrap.restore cannot be changed: a cluster is founded once. Delete this EtcdCluster, and apply another")])))]
pub struct Bootstrap {
    /// A backup. Absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    pub source: RestoreSource,
    /// So many revisions are left out behind that of the backup, and all before is compacted: clients that have seen later ones than the
    /// backup's, such as the caches of a kube-apiserver, notice and begin anew. 0: the revision goes back to that of the backup.
    #[serde(default = "revision_bump")]
    #[schemars(range(min = 0, max = 1_000_000_000_000_000_i64))]
    pub revision_bump: i64,
}

pub(super) fn revision_bump() -> i64 {
    1_000_000_000
}

/// Where the backup is: exactly one of these.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[("has(self.backupRef) != has(self.volume)", "exactly one of backupRef and volume must be given")])))]
pub struct RestoreSource {
    /// An EtcdBackup that has succeeded, of whichever cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<BackupRef>,
    /// A file on a volume: all that is needed when no object is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<RestoreVolume>,
}

/// An EtcdBackup of the same namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupRef {
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreVolume {
    /// A PersistentVolumeClaim of the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Of a file in the volume: an archive of an EtcdBackup, `....db.zst` or `....db`, with its manifest beside it, or a snapshot as `etcdctl snapshot
    /// save` writes it.
    #[schemars(length(min = 1, max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$')", "must be a relative path of letters, digits, dots, dashes and underscores")])))]
    pub path: String,
}

// === impl RestoreSource ===

impl fmt::Display for RestoreSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backup) = &self.backup_ref {
            write!(f, "EtcdBackup {}", backup.name)?;
        }
        if let Some(volume) = &self.volume {
            write!(f, "{} of the claim {}", volume.path, volume.claim_name)?;
        }
        Ok(())
    }
}
