//! What can be wrong with a configuration.

use crate::flags::Url;
use crate::flags::url::UrlError;

/// Why a configuration is not started with. The words are etcd's where it refuses the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("--{flag}={text} is not supported: {reason}")]
    NotSupported { flag: &'static str, text: String, reason: &'static str },
    #[error(
        "cannot specify both flags: --{older}={value} and --feature-gates={gate}=... at the same time, \
         please just use --feature-gates={gate}={value}"
    )]
    GateTwice { older: &'static str, gate: &'static str, value: bool },
    #[error("both --{older} and --{now} flags are set. Use only --{now}")]
    FlagTwice { older: &'static str, now: &'static str },
    #[error("--{0} must not be negative")]
    Negative(&'static str),
    #[error("--{0} is too large")]
    TooLarge(&'static str),
    #[error("--{0} must be >0")]
    Zero(&'static str),
    #[error("--{0} must not be empty")]
    Empty(&'static str),
    #[error("expected IP in URL for binding ({0})")]
    NotBindable(Url),
    #[error("--initial-advertise-peer-urls {urls:?} must be \"host:port\" (unexpected empty host ({url}))")]
    PeerHost { urls: String, url: Url },
    #[error(
        "--advertise-client-urls {urls:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \
         \"unixs:/path/to/socket\" (unexpected empty host ({url}))"
    )]
    ClientHost { urls: String, url: Url },
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientUrls,
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    ZeroHeartbeat,
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ZeroElection,
    #[error(
        "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
    )]
    ElectionTooShort { election_ms: u64, heartbeat_ms: u64 },
    #[error("--election-timeout[{0}ms] is too long, and should be set less than 50000ms")]
    ElectionTooLong(u64),
    #[error("undefined auto-compaction-mode")]
    NoCompactionMode,
    #[error("unknown auto-compaction-mode {0:?}")]
    CompactionMode(String),
    #[error("error parsing CompactionRetention: {0:?} is no number of hours and no duration")]
    CompactionPeriod(String),
    #[error("error parsing CompactionRetention: {0:?} is no number of revisions")]
    CompactionRevisions(String),
    #[error("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")]
    CheckpointPersist,
    #[error("unknown logger option {0:?}")]
    Logger(String),
    #[error("unknown log level {0:?}, supported values debug, info, warn, error, panic, fatal")]
    LogLevel(String),
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    #[error("multi logoutput for \"default\" is not supported yet")]
    LogOutputs,
    #[error("--log-outputs=systemd/journal is not supported: log to stderr, which systemd passes on to the journal")]
    Journal,
    #[error("unexpected TLS version {0:?} (must be one of: TLS1.2, TLS1.3)")]
    TlsVersion(String),
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsVersions { min: String, max: String },
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuites,
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfCertificate { cert: String, key: String },
    #[error("TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme")]
    NoCertificate(Url),
    #[error("--client-cert-auth needs --trusted-ca-file: the authorities that clients' certificates are held to")]
    NoTrustedCa,
    #[error("--initial-cluster: {0}")]
    InitialClusterUrl(UrlError),
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \
         \"discovery-endpoints\" or \"discovery-srv\""
    )]
    SeveralBootstraps,
    #[error("error setting up initial cluster: {0}")]
    Discovery(String),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NoLocalName(String),
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error("--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised}")]
    NotAdvertised { missing: String, advertised: String },
    #[error("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={initial}")]
    NotInCluster { missing: String, initial: String },
    #[error("TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url {0} with HTTPS scheme")]
    NoPeerCertificate(Url),
    #[error(
        "--peer-trusted-ca-file must be provided for peer url {0} with HTTPS scheme: what peers' certificates are held to"
    )]
    NoPeerCa(Url),
}
