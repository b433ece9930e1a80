//! Names and labels of what belongs to a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// The field manager of everything that the operator applies.
pub const MANAGER: &str = "garboard-operator";

pub const CLUSTER: &str = "garboard.dev/cluster";
pub const MEMBER: &str = "garboard.dev/member";
/// On backups: the EtcdBackupSchedule that they were made for.
pub const SCHEDULE: &str = "garboard.dev/schedule";
/// On the final backup of a cluster: the cluster's uid.
pub const FINAL_OF: &str = "garboard.dev/final-of";
/// On Pods of members that may be reached by clients.
pub const SERVES: &str = "garboard.dev/serves";
/// On volumes of members that have left.
pub const DETACHED: &str = "garboard.dev/detached";
/// On volumes that a restore in place has put aside: the EtcdRestore. On its safety backup: the EtcdRestore's uid.
pub const RESTORE: &str = "garboard.dev/restore";
/// On volumes, in hex: whose data they hold.
pub const CLUSTER_ID: &str = "garboard.dev/cluster-id";
pub const MEMBER_ID: &str = "garboard.dev/member-id";
/// On Pods: what they were built from.
pub const SPEC_HASH: &str = "garboard.dev/spec-hash";
/// On Pods: the version of the server.
pub const VERSION: &str = "garboard.dev/version";
/// On the objects of a backup: whose they are, and the cluster that it is of. Members are found by [`CLUSTER`], which these do not have.
pub const BACKUP: &str = "garboard.dev/backup";
pub const BACKUP_OF: &str = "garboard.dev/backup-of";
/// On an EtcdCluster: another value makes another CA of each plane; and on a CA, the value that it was made for.
pub const ROTATE_CA: &str = "garboard.dev/rotate-ca";
/// On a Pod that may found a cluster.
pub const FOUNDS: &str = "garboard.dev/founds";

pub const CLIENT_PORT: i32 = 2379;
pub const PEER_PORT: i32 = 2380;
/// `/metrics`, `/livez` and `/readyz`, in plain HTTP.
pub const METRICS_PORT: i32 = 2381;

/// One cluster, as far as names need it.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    pub namespace: String,
    pub cluster: String,
    pub uid: String,
    /// Without a dot at its end, such as `cluster.local`.
    pub domain: String,
}

// === impl Names ===

impl Names {
    pub fn peer_service(&self) -> String {
        format!("{}-peer", self.cluster)
    }

    pub fn client_service(&self) -> String {
        format!("{}-client", self.cluster)
    }

    /// The Secret with what the operator shows to members.
    pub fn operator_client(&self) -> String {
        format!("{}-operator-client", self.cluster)
    }

    /// The Secret with what Pods of backups show to members.
    pub fn backup_client(&self) -> String {
        format!("{}-backup-client", self.cluster)
    }

    /// Under which the others find a member's Pod.
    pub fn host(&self, member: &str) -> String {
        format!("{member}.{}", self.peer_domain())
    }

    /// In which the names of all members are.
    pub fn peer_domain(&self) -> String {
        format!("{}.{}.svc.{}", self.peer_service(), self.namespace, self.domain)
    }

    /// By which clients ask for the whole cluster.
    pub fn client_hosts(&self) -> Vec<String> {
        let service = self.client_service();
        let Self { namespace, domain, .. } = self;
        vec![
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{domain}"),
        ]
    }

    pub fn member_hosts(&self, member: &str) -> Vec<String> {
        let short = format!("{member}.{}.{}", self.peer_service(), self.namespace);
        vec![short.clone(), format!("{short}.svc"), self.host(member)]
    }

    /// Of everything that belongs to the cluster.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "garboard"),
            ("app.kubernetes.io/instance", self.cluster.as_str()),
            ("app.kubernetes.io/managed-by", MANAGER),
            (CLUSTER, self.cluster.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    pub fn member_labels(&self, member: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(MEMBER.to_owned(), member.to_owned());
        labels
    }

    pub fn selector(&self) -> BTreeMap<String, String> {
        [(CLUSTER.to_owned(), self.cluster.clone())].into()
    }

    pub fn selector_text(&self) -> String {
        format!("{CLUSTER}={}", self.cluster)
    }

    /// The cluster as controller of what it is made of: it goes when the cluster goes, and a drained node can evict it.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{}/v1alpha1", crate::crd::GROUP),
            kind: "EtcdCluster".to_owned(),
            name: self.cluster.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
