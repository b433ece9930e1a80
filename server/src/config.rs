//! The configuration of a member: one typed struct, validated once, whatever it was read from.
//!
//! Flags, environment and file only give [`Settings`]; here they become a [`Config`] by etcd's rules, and from here the
//! node and the API get theirs. What is wrong is said in etcd's words where it has some; what is not built is named and
//! refused.

mod api;
mod cluster;
mod discovery;
mod error;
mod member;
mod read;
mod resolve;
mod tls;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use crate::flags::FeatureGates;
use crate::flags::Settings;
use crate::flags::Url;
use crate::log::LogConfig;
use crate::notice::Notice;

pub use discovery::Lookups;
pub use error::ConfigError;
pub use tls::Tls;
pub use tls::TlsVersion;

/// etcd's default name, with which a default `--initial-cluster` comes.
const DEFAULT_NAME: &str = "default";

/// Everything a member is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    pub cluster: Cluster,
    pub listen: Listen,
    pub client_tls: Tls,
    pub peer_tls: Tls,
    /// Peer URLs of a cluster to join; none: by the initial cluster.
    pub join: Vec<Url>,
    /// Where DNS names the initial cluster.
    pub discovery_srv: Option<DiscoverySrv>,
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub pre_vote: bool,
    pub lease_reads: bool,
    pub grpc: Grpc,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// Log entries.
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// 0: the default; negative: none.
    pub quota_backend_bytes: i64,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub cache_bytes: usize,
    pub backend_batch_interval: Duration,
    pub auto_compaction: AutoCompaction,
    /// Revisions a step.
    pub compaction_batch_limit: usize,
    pub compaction_sleep_interval: Duration,
    pub watch_progress_notify_interval: Duration,
    pub warning_apply_duration: Duration,
    /// Zero: never.
    pub corrupt_check_time: Duration,
    pub compact_hash_check_time: Duration,
    /// Zero: never.
    pub downgrade_check_time: Duration,
    pub warning_unary_request_duration: Duration,
    pub extensive_metrics: bool,
    /// `*`: all.
    pub cors: Vec<String>,
    pub feature_gates: FeatureGates,
    pub unsafe_no_fsync: bool,
    pub log: LogConfig,
}

/// Who the members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// In the order given; a name with several URLs comes several times.
    pub initial: Vec<(String, Url)>,
    pub state: ClusterState,
    pub token: String,
    pub initial_advertise_peer_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
}

/// Which SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySrv {
    pub domain: String,
    /// Behind the service's name; empty: nothing.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    New,
    Existing,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub client_urls: Vec<Url>,
    pub metrics_urls: Vec<Url>,
    pub peer_urls: Vec<Url>,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
}

/// Limits of clients' connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grpc {
    /// `None`: not restricted by the flag.
    pub max_concurrent_streams: Option<u32>,
    pub keepalive_min_time: Duration,
    /// Zero: never.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    Periodic(Duration),
    Revisions(i64),
}

impl Config {
    /// Makes the configuration of what was given. `default_host` is asked for this machine's address when one listens
    /// on `0.0.0.0` and advertises the default.
    ///
    /// # Errors
    /// A rule of etcd is broken, or something is asked for that is not built.
    pub fn new(
        settings: Settings,
        default_host: impl FnOnce() -> Option<String>,
    ) -> Result<(Self, Vec<Notice>), ConfigError> {
        let (settings, mut notices) = resolve::resolve(settings)?;
        let mut config = read::read(&settings)?;
        validate::validate(&config, &settings, &mut notices)?;
        cluster::replace_defaults(&mut config, &settings, default_host, &mut notices)?;
        Ok((config, notices))
    }

    /// Checks what counts once peers are listened to and dialled.
    ///
    /// # Errors
    /// A peer URL has TLS, and what it needs is missing.
    pub fn validate_peers(&self) -> Result<(), ConfigError> {
        tls::validate_peers(self)
    }

    /// Finds the initial cluster by `--discovery-srv`; only while the member has no data.
    ///
    /// # Errors
    /// DNS does not name it, or not this member.
    pub fn discover(&mut self, lookups: &Lookups<'_>) -> Result<Vec<Notice>, ConfigError> {
        discovery::discover(self, lookups)
    }

    /// Checks what only counts while the member has no data: the initial cluster.
    ///
    /// # Errors
    /// The initial cluster does not name this member as it names itself, or asks for what is not built.
    pub fn validate_bootstrap(&self) -> Result<(), ConfigError> {
        cluster::validate_bootstrap(self)
    }
}

#[cfg(test)]
mod tests;
