//! EtcdCluster: what the user asks for.
// Columns are attributes that share names: clippy takes them for one another.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::deletion::Deletion;
use super::restore::Bootstrap;
use super::rules;
use super::status::EtcdClusterStatus;

/// Rules on the object as a whole.
pub(super) const ROOT_RULES: &[(&str, &str)] = &[
    (
        "size(self.metadata.name) <= 40",
        "the name may have 40 characters at most: members and services are named after it",
    ),
    (
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "the name must be a DNS label that begins with a letter: services are named after it",
    ),
    (
        "!has(self.spec.version) || self.spec.version == '' || self.spec.updatePolicy == 'Pinned'",
        "updatePolicy is of no use with a version that is named: leave it Pinned",
    ),
    (
        "!has(self.spec.bootstrap.restore) || self.spec.storage.type == 'PersistentVolume'",
        "bootstrap.restore needs volumes: on an EmptyDir what was restored is gone with its Pod",
    ),
];

const SOURCE_RULES: &[(&str, &str)] = &[(
    "self.mode == 'Mutual' || has(self.source.operatorCA)",
    "a source of certificates is of no use while mode is Disabled",
)];

/// A replicated store that speaks etcd's API.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "garboard.dev",
    version = "v1alpha1",
    kind = "EtcdCluster",
    namespaced,
    shortname = "ec",
    category = "garboard",
    doc = "A replicated key-value store that speaks etcd's API, kept by the Garboard operator.",
    status = "EtcdClusterStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.size",
        status_replicas_path = ".status.memberCount",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(
        name = "Available",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Available\")].status"
    ),
    printcolumn(name = "DB", type_ = "integer", json_path = ".status.dbSizeBytes"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision", priority = 1),
    printcolumn(name = "Operation", type_ = "string", json_path = ".status.operation.type"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
pub struct EtcdClusterSpec {
    /// Members that vote. An even number tolerates no more failures than the odd one below it.
    #[schemars(range(min = 1, max = 9))]
    pub size: i32,
    /// The version of the server, which is also the tag of its image; from one to another by one minor version at a time. Empty: the version
    /// of the operator at the time of creation, kept or raised as `updatePolicy` has it.
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self == '' || self.matches('^v?[0-9]+[.][0-9]+[.][0-9]+(-[0-9A-Za-z.-]+)?$')", "must be a version like 1.2.3")])))]
    pub version: String,
    /// Whether an operator of a later version may raise an empty `version`.
    pub update_policy: UpdatePolicy,
    pub image: Image,
    pub storage: Storage,
    pub bootstrap: Bootstrap,
    pub config: Config,
    /// Of the server's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    pub placement: Placement,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    pub services: Services,
    pub network: Network,
    pub tls: Tls,
    pub update: Update,
    pub healing: Healing,
    pub maintenance: Maintenance,
    pub monitoring: Monitoring,
    pub deletion: Deletion,
    /// Nothing is changed while it is set; the status goes on telling what is. A final backup is taken all the same.
    pub paused: bool,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdatePolicy {
    /// Never.
    #[default]
    Pinned,
    /// To a later patch release of the same minor version.
    Patch,
    /// To the next minor version, too.
    Minor,
}

/// Where the server's image comes from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// Without tag. Empty: the operator's default.
    #[schemars(length(max = 255))]
    pub repository: String,
    /// `sha256:...`, instead of the tag.
    #[schemars(length(max = 71))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self == '' || self.matches('^sha256:[0-9a-f]{64}$')", "must be sha256:<64 hex digits>")])))]
    pub digest: String,
    pub pull_policy: PullPolicy,
    /// Names of Secrets.
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    #[default]
    IfNotPresent,
    Always,
    Never,
}

/// The members' volumes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("self.type == oldSelf.type", "storage.type cannot be changed"), ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "storage.storageClassName cannot be changed"), ("self.accessMode == oldSelf.accessMode", "storage.accessMode cannot be changed")])))]
pub struct Storage {
    #[serde(rename = "type")]
    pub kind: StorageType,
    /// Of each member's volume. It may grow where the storage class allows it, and never shrinks.
    #[schemars(extend("x-kubernetes-validations" = rules(&[("quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0", "storage.size cannot shrink"), ("quantity(string(self)).compareTo(quantity('512Mi')) >= 0", "storage.size must be 512Mi at least: a member keeps 192Mi free")])))]
    pub size: Quantity,
    /// Absent: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    pub access_mode: AccessMode,
    pub retention: Retention,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageType {
    #[default]
    PersistentVolume,
    /// What a member has is gone with its Pod: for tests.
    EmptyDir,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    #[default]
    ReadWriteOnce,
    ReadWriteOncePod,
}

/// What becomes of volumes that are no longer needed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// When the EtcdCluster is deleted. A cluster of the same name finds retained volumes again.
    pub when_cluster_deleted: WhenDeleted,
    /// When a member left the cluster, because it was replaced or the cluster shrank.
    pub when_member_removed: WhenRemoved,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDeleted {
    #[default]
    Retain,
    Delete,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenRemoved {
    Retain,
    #[default]
    Delete,
}

/// The server's own settings; a change rolls through the members.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self.electionTimeout) >= duration(self.heartbeatInterval) + duration(self.heartbeatInterval) + duration(self.heartbeatInterval) + duration(self.heartbeatInterval) + duration(self.heartbeatInterval)", "config.electionTimeout must be five times config.heartbeatInterval at least")])))]
pub struct Config {
    /// Bytes, or a share of `storage.size`: at most 40 %, since defragmentation, snapshots and restores need a second file beside the first.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^([1-9]|[1-3][0-9]|40)%$') || isQuantity(self)", "must be a quantity, or a share of 1% to 40%")])))]
    pub quota_backend: String,
    pub auto_compaction: AutoCompaction,
    /// Log entries between two checkpoints.
    #[schemars(range(min = 10, max = 100_000_000))]
    pub snapshot_count: i64,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('10ms') && duration(self) <= duration('10s')", "must be 10ms to 10s")])))]
    pub heartbeat_interval: String,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('50ms') && duration(self) <= duration('50s')", "must be 50ms to 50s")])))]
    pub election_timeout: String,
    pub max_request_bytes: Quantity,
    pub log_level: LogLevel,
    /// Further flags of the server, such as `--max-txn-ops=512`; those that the operator sets cannot be given.
    #[schemars(length(max = 32), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.all(arg, arg.matches('^--[a-z0-9-]+(=.*)?$'))", "each must be one flag, as in --name=value"), ("!self.exists(arg, arg.matches('^--(name|data-dir|wal-dir|config-file|join|force-new-cluster|discovery.*|listen-.*|initial-.*|advertise-.*|.*cert.*|.*key-file|.*trusted-ca.*|.*auto-tls|quota-backend-bytes|auto-compaction-.*|snapshot-count|heartbeat-interval|election-timeout|max-request-bytes|log-level|log-outputs|logger)(=.*)?$'))", "one of these flags is the operator's own, or has a field of its own")])))]
    pub extra_args: Vec<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoCompaction {
    pub mode: CompactionMode,
    /// Hours, a duration or revisions, as the mode has it; 0: off. kube-apiserver compacts by itself.
    #[schemars(length(max = 32))]
    pub retention: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionMode {
    #[default]
    Periodic,
    Revision,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

/// Which nodes members run on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Whether two members may share what `topologyKey` names.
    pub anti_affinity: Spread,
    #[schemars(length(max = 253))]
    pub topology_key: String,
    /// Whether members are spread over zones.
    pub zone_spread: Spread,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    Required,
    #[default]
    Preferred,
    Disabled,
}

/// What is laid over the Pods that the operator builds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("!self.exists(key, key.startsWith('garboard.dev/') || key.startsWith('app.kubernetes.io/'))", "these labels are the operator's own")])))]
    pub labels: BTreeMap<String, String>,
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("!self.exists(key, key.startsWith('garboard.dev/'))", "these annotations are the operator's own")])))]
    pub annotations: BTreeMap<String, String>,
    /// A PodSpec: merged into the operator's own, lists by the names of their items.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<serde_json::Value>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Services {
    /// `<name>-client`: the ready voters.
    pub client: ClientService,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientService {
    #[serde(rename = "type")]
    pub kind: ServiceType,
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ip_family_policy: IpFamilyPolicy,
    /// The first one is the Service's for good. Empty: as the cluster has them.
    #[schemars(length(max = 2))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("size(self) < 2 || self[0] != self[1]", "each family can be given once")])))]
    pub ip_families: Vec<IpFamily>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamilyPolicy {
    SingleStack,
    #[default]
    PreferDualStack,
    RequireDualStack,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamily {
    IPv4,
    IPv6,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Empty: as the operator's own Pod knows it.
    #[schemars(length(max = 253))]
    pub cluster_domain: String,
    pub network_policy: Policy,
}

/// A NetworkPolicy for the members: port 2380 is for members of the cluster alone.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("self.enabled || size(self.clientPeers) == 0", "clientPeers are of no use while network.networkPolicy is not enabled")])))]
pub struct Policy {
    pub enabled: bool,
    /// Who may reach port 2379, besides the members and the operator; empty: anybody.
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub client_peers: Vec<NetworkPolicyPeer>,
}

/// Certificates. By default a CA of the cluster's own signs them, and both sides of every connection show one.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self.renewBefore) < duration(self.certValidity)", "tls.renewBefore must be shorter than tls.certValidity"), ("duration(self.certValidity) < duration(self.caValidity)", "tls.certValidity must be shorter than tls.caValidity"), ("self.client.mode == oldSelf.client.mode && self.peer.mode == oldSelf.peer.mode", "tls modes cannot be changed"), ("!has(self.client.source.secretName) || !has(self.clientCertificates) || size(self.clientCertificates) == 0", "tls.clientCertificates cannot be signed while tls.client.source.secretName says that certificates are made elsewhere")])))]
pub struct Tls {
    /// Between clients and members.
    pub client: ClientTls,
    /// Between members.
    pub peer: PeerTls,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('1m')", "must be a duration of a minute at least, such as 2160h")])))]
    pub cert_validity: String,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('1m')", "must be a duration of a minute at least, such as 2160h")])))]
    pub renew_before: String,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('1m')", "must be a duration of a minute at least, such as 2160h")])))]
    pub ca_validity: String,
    /// Certificates for clients, each in a Secret of its own.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub client_certificates: Vec<ClientCertificate>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(SOURCE_RULES)))]
pub struct ClientTls {
    pub mode: TlsMode,
    pub source: Source,
    /// DNS names and IP addresses by which clients reach the members, besides those of their Services.
    #[serde(rename = "extraSANs")]
    #[schemars(length(max = 32))]
    pub extra_sans: Vec<String>,
    /// How long clients have, while CAs are rotated or the source is changed, to read their Secrets: first to trust the next CA, then to show
    /// certificates of it. They cannot say when they have. A sixth of `caValidity` at most.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('0s')", "must be a duration, such as 168h")])))]
    pub rotation_grace: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(SOURCE_RULES)))]
pub struct PeerTls {
    pub mode: TlsMode,
    pub source: Source,
}

/// Where certificates come from: exactly one of these.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[("[has(self.operatorCA), has(self.certManager), has(self.secretName)].filter(given, given).size() == 1", "exactly one of operatorCA, certManager and secretName must be given")])))]
pub struct Source {
    /// A CA of the cluster's own, which the operator makes.
    #[serde(rename = "operatorCA", default, skip_serializing_if = "Option::is_none")]
    pub operator_ca: Option<OperatorCa>,
    /// A Certificate of cert-manager for each member, for the operator and for each of `clientCertificates`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// A Secret with `tls.crt`, `tls.key` and `ca.crt` that all members show copies of, and the operator as their client. Its certificate must be good
    /// for servers and for clients, and name `*.<name>-peer.<namespace>.svc.<domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorCa {}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    pub issuer_ref: IssuerRef,
}

/// An issuer that tells its CA (`ca.crt`): a CA, self-signed by another, or Vault.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct IssuerRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    #[default]
    Mutual,
    Disabled,
}

/// A client and its certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absent: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub common_name: Option<String>,
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub organizations: Vec<String>,
    /// `tls.crt`, `tls.key` and `ca.crt` are put into this Secret.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// How changes roll through the members: one at a time, those that are not ready first, the leader last.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// How long all must be well before the next member is restarted.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('0s')", "must be a duration, such as 10s")])))]
    pub stabilization: String,
}

/// What is done about members that do not come back.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Healing {
    pub enabled: bool,
    /// A member whose node is gone, or whose volume cannot be had, is replaced after so long.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("duration(self) >= duration('0s')", "must be a duration, such as 10s")])))]
    pub node_lost_for: String,
}

/// What is done about databases.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Maintenance {
    /// What is done when a member raises the alarm NOSPACE, under which nothing is written.
    pub nospace: NoSpace,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoSpace {
    /// Nothing: somebody makes room, and disarms the alarm.
    #[default]
    Manual,
    /// The history is compacted to the newest revision where it takes too much, members are defragmented one after the other, the leader
    /// last, and the alarm is disarmed once every database is below 80 % of its quota.
    Reclaim,
}

/// For Prometheus.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    pub pod_monitor: PodMonitor,
}

/// A PodMonitor of the Prometheus operator, for the members' metrics.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[("self.enabled || (size(self.labels) == 0 && self.interval == '30s')", "labels and interval are of no use while monitoring.podMonitor is not enabled")])))]
pub struct PodMonitor {
    pub enabled: bool,
    /// By which a Prometheus finds it.
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("!self.exists(key, key.startsWith('garboard.dev/') || key.startsWith('app.kubernetes.io/'))", "these labels are the operator's own")])))]
    pub labels: BTreeMap<String, String>,
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self.matches('^[0-9]+(ms|s|m|h)$')", "must be a duration such as 30s")])))]
    pub interval: String,
}

fn issuer_kind() -> String {
    "Issuer".to_owned()
}

fn issuer_group() -> String {
    "cert-manager.io".to_owned()
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true})
}

// === impl defaults ===

impl Default for EtcdClusterSpec {
    fn default() -> Self {
        Self {
            size: 3,
            version: String::new(),
            update_policy: UpdatePolicy::default(),
            image: Image::default(),
            storage: Storage::default(),
            bootstrap: Bootstrap::default(),
            config: Config::default(),
            resources: None,
            placement: Placement::default(),
            pod_template: None,
            services: Services::default(),
            network: Network::default(),
            tls: Tls::default(),
            update: Update::default(),
            healing: Healing::default(),
            maintenance: Maintenance::default(),
            monitoring: Monitoring::default(),
            deletion: Deletion::default(),
            paused: false,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            kind: StorageType::default(),
            size: Quantity("8Gi".to_owned()),
            storage_class_name: None,
            access_mode: AccessMode::default(),
            retention: Retention::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quota_backend: "40%".to_owned(),
            auto_compaction: AutoCompaction::default(),
            snapshot_count: 10_000,
            heartbeat_interval: "100ms".to_owned(),
            election_timeout: "1s".to_owned(),
            max_request_bytes: Quantity("1536Ki".to_owned()),
            log_level: LogLevel::default(),
            extra_args: Vec::new(),
        }
    }
}

impl Default for AutoCompaction {
    fn default() -> Self {
        Self { mode: CompactionMode::default(), retention: "0".to_owned() }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            anti_affinity: Spread::default(),
            topology_key: "kubernetes.io/hostname".to_owned(),
            zone_spread: Spread::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            client: ClientTls::default(),
            peer: PeerTls::default(),
            cert_validity: "2160h".to_owned(),
            renew_before: "720h".to_owned(),
            ca_validity: "43800h".to_owned(),
            client_certificates: Vec::new(),
        }
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            mode: TlsMode::default(),
            source: Source::default(),
            extra_sans: Vec::new(),
            rotation_grace: "168h".to_owned(),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self { operator_ca: Some(OperatorCa {}), cert_manager: None, secret_name: None }
    }
}

impl Default for Update {
    fn default() -> Self {
        Self { stabilization: "10s".to_owned() }
    }
}

impl Default for PodMonitor {
    fn default() -> Self {
        Self { enabled: false, labels: BTreeMap::new(), interval: "30s".to_owned() }
    }
}

impl Default for Healing {
    fn default() -> Self {
        Self { enabled: true, node_lost_for: "3m".to_owned() }
    }
}
