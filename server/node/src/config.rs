//! What a member is started with. Flags, environment and file are the binary's affair.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_tls::Reloader;

use crate::release::Release;

/// Whether this member founds a cluster or joins one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialClusterState {
    /// Found it.
    #[default]
    New,
    /// Join it.
    Existing,
}

/// Automatic compaction (`--auto-compaction-mode`, `--auto-compaction-retention`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    /// None.
    #[default]
    Off,
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// TLS towards peers, from files that may change.
#[derive(Clone, Default)]
pub struct PeerTls(pub Option<Arc<Reloader>>);

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "PeerTls(yes)" } else { "PeerTls(no)" })
    }
}

/// The configuration of one member.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`; `<data-dir>/member/wal` without it.
    pub wal_dir: Option<PathBuf>,
    /// `--initial-cluster`, as (name, URL) pairs.
    pub initial_cluster: Vec<(String, String)>,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--initial-cluster-state`.
    pub initial_cluster_state: InitialClusterState,
    /// `--join`: peer URLs of a cluster to join; empty: by `initial_cluster_state`.
    pub join: Vec<String>,
    /// TLS towards peers.
    pub peer_tls: PeerTls,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--lease-reads`.
    pub lease_reads: bool,
    /// `--initial-advertise-peer-urls`.
    pub initial_advertise_peer_urls: Vec<String>,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<String>,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--snapshot-count`, in log entries.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub snapshot_catchup_entries: u64,
    /// `--quota-backend-bytes`: 0 = 2 GiB, negative = none.
    pub quota_backend_bytes: i64,
    /// `--max-request-bytes`, of the marshalled command.
    pub max_request_bytes: usize,
    /// Bound of the value cache, in bytes.
    pub cache_bytes: usize,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// Automatic compaction.
    pub auto_compaction: AutoCompaction,
    /// Rows per compaction step (`--compaction-batch-limit`).
    pub compaction_batch_limit: usize,
    /// Pause between compaction steps (`--compaction-sleep-interval`).
    pub compaction_sleep_interval: Duration,
    /// Size of a WAL segment in bytes.
    pub wal_segment_bytes: u64,
    /// How long applied rows wait at most for their flush (`--backend-batch-interval`).
    pub backend_batch_interval: Duration,
    /// `--warning-apply-duration`.
    pub warning_apply_duration: Duration,
    /// Feature gate InitialCorruptCheck: compare with the others before serving.
    pub initial_corrupt_check: bool,
    /// `--corrupt-check-time`; zero: never.
    pub corrupt_check_time: Duration,
    /// Feature gate CompactHashCheck: compare what compactions have left.
    pub compact_hash_check: bool,
    /// `--compact-hash-check-time`.
    pub compact_hash_check_time: Duration,
    /// `--downgrade-check-time`; zero: never.
    pub downgrade_check_time: Duration,
    /// What this member was built as.
    pub release: Release,
}

/// etcd's default quota, in bytes.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 << 30;

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: "default".into(),
            data_dir: PathBuf::from("default.etcd"),
            wal_dir: None,
            initial_cluster: vec![("default".into(), "http://localhost:2380".into())],
            initial_cluster_token: "etcd-cluster".into(),
            initial_cluster_state: InitialClusterState::New,
            join: Vec::new(),
            peer_tls: PeerTls::default(),
            force_new_cluster: false,
            strict_reconfig_check: true,
            max_learners: 1,
            pre_vote: true,
            lease_reads: false,
            initial_advertise_peer_urls: vec!["http://localhost:2380".into()],
            advertise_client_urls: vec!["http://localhost:2379".into()],
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            quota_backend_bytes: 0,
            max_request_bytes: 3 << 19,
            cache_bytes: 64 << 20,
            unsafe_no_fsync: false,
            auto_compaction: AutoCompaction::Off,
            compaction_batch_limit: 1_000,
            compaction_sleep_interval: Duration::from_millis(10),
            wal_segment_bytes: 64 << 20,
            backend_batch_interval: Duration::from_millis(100),
            warning_apply_duration: Duration::from_millis(100),
            initial_corrupt_check: false,
            corrupt_check_time: Duration::ZERO,
            compact_hash_check: false,
            compact_hash_check_time: Duration::from_secs(60),
            downgrade_check_time: Duration::from_secs(5),
            release: Release::default(),
        }
    }
}

impl NodeConfig {
    /// The quota in bytes; `None` = no quota.
    pub fn quota_bytes(&self) -> Option<u64> {
        match self.quota_backend_bytes {
            0 => u64::try_from(DEFAULT_QUOTA_BYTES).ok(),
            n => u64::try_from(n).ok(),
        }
    }

    /// How long a request may take: etcd's 5 s and two election timeouts.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + self.election_timeout * 2
    }

    /// The shortest TTL a lease gets, in seconds: one and a half election timeouts, rounded up, as etcd has it.
    pub fn min_lease_ttl_s(&self) -> i64 {
        let ms = self.election_timeout.as_millis() * 3 / 2;
        i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}
