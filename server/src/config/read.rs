//! Reads the settings into the typed configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::AutoCompaction;
use super::Cluster;
use super::ClusterState;
use super::Config;
use super::ConfigError;
use super::DiscoverySrv;
use super::Grpc;
use super::Listen;
use super::cluster;
use super::tls;
use super::validate::EXTENSIVE;
use crate::flags::Settings;
use crate::flags::Url;
use crate::flags::go_syntax;
use crate::log::Format;
use crate::log::Level;
use crate::log::LogConfig;
use crate::log::Target;

/// What zero stands for.
const SNAPSHOT_COUNT: u64 = 10_000;
const BATCH_INTERVAL: Duration = Duration::from_millis(100);
const COMPACTION_BATCH_LIMIT: usize = 1000;
const COMPACTION_SLEEP_INTERVAL: Duration = Duration::from_millis(10);
const PROGRESS_NOTIFY_INTERVAL: Duration = Duration::from_mins(10);
const WARNING_UNARY_REQUEST_DURATION: Duration = Duration::from_millis(300);

pub fn read(settings: &Settings) -> Result<Config, ConfigError> {
    let name = settings.text("name");
    let data_dir = match settings.text("data-dir") {
        given if given.is_empty() => format!("{name}.etcd"),
        given => given,
    };
    Ok(Config {
        data_dir: data_dir.into(),
        wal_dir: Some(settings.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        cluster: read_cluster(settings)?,
        listen: Listen {
            client_urls: settings.urls("listen-client-urls"),
            metrics_urls: settings.urls("listen-metrics-urls"),
            peer_urls: settings.urls("listen-peer-urls"),
            reuse_port: settings.bool("socket-reuse-port"),
        },
        client_tls: tls::read_client(settings)?,
        peer_tls: tls::read_peer(settings)?,
        join: settings.urls("join"),
        discovery_srv: discovery_srv(settings),
        force_new_cluster: settings.bool("force-new-cluster"),
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        max_learners: usize::try_from(settings.int("max-learners"))
            .map_err(|_| ConfigError::Negative("max-learners"))?,
        pre_vote: settings.bool("pre-vote"),
        lease_reads: settings.bool("lease-reads"),
        grpc: Grpc {
            // etcd's default is the largest number there is.
            max_concurrent_streams: u32::try_from(settings.uint("max-concurrent-streams"))
                .ok()
                .filter(|streams| *streams < u32::MAX),
            keepalive_min_time: duration(settings, "grpc-keepalive-min-time")?,
            keepalive_interval: duration(settings, "grpc-keepalive-interval")?,
            keepalive_timeout: duration(settings, "grpc-keepalive-timeout")?,
        },
        heartbeat_interval: Duration::from_millis(settings.uint("heartbeat-interval")),
        election_timeout: Duration::from_millis(settings.uint("election-timeout")),
        snapshot_count: match settings.uint("snapshot-count") {
            0 => SNAPSHOT_COUNT,
            entries => entries,
        },
        snapshot_catchup_entries: settings.uint("snapshot-catchup-entries"),
        quota_backend_bytes: settings.int("quota-backend-bytes"),
        max_txn_ops: count(settings, "max-txn-ops")?,
        max_request_bytes: count(settings, "max-request-bytes")?,
        cache_bytes: count(settings, "cache-bytes")?,
        backend_batch_interval: or(duration(settings, "backend-batch-interval")?, BATCH_INTERVAL),
        auto_compaction: auto_compaction(settings)?,
        compaction_batch_limit: match settings.int("compaction-batch-limit") {
            0 => COMPACTION_BATCH_LIMIT,
            n => usize::try_from(n).map_err(|_| ConfigError::Negative("compaction-batch-limit"))?,
        },
        compaction_sleep_interval: or(duration(settings, "compaction-sleep-interval")?, COMPACTION_SLEEP_INTERVAL),
        watch_progress_notify_interval: or(
            duration(settings, "watch-progress-notify-interval")?,
            PROGRESS_NOTIFY_INTERVAL,
        ),
        warning_apply_duration: duration(settings, "warning-apply-duration")?,
        corrupt_check_time: duration(settings, "corrupt-check-time")?,
        compact_hash_check_time: duration(settings, "compact-hash-check-time")?,
        downgrade_check_time: duration(settings, "downgrade-check-time")?,
        warning_unary_request_duration: or(
            duration(settings, "warning-unary-request-duration")?,
            WARNING_UNARY_REQUEST_DURATION,
        ),
        extensive_metrics: settings.text("metrics") == EXTENSIVE,
        cors: match settings.list("cors") {
            none if none.is_empty() => vec!["*".to_owned()],
            origins => origins,
        },
        feature_gates: settings.feature_gates("feature-gates"),
        unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
        log: log(settings)?,
        name,
    })
}

fn or(given: Duration, default: Duration) -> Duration {
    if given.is_zero() { default } else { given }
}

fn duration(settings: &Settings, name: &'static str) -> Result<Duration, ConfigError> {
    settings.duration(name).ok_or(ConfigError::Negative(name))
}

fn count(settings: &Settings, name: &'static str) -> Result<usize, ConfigError> {
    usize::try_from(settings.uint(name)).map_err(|_| ConfigError::TooLarge(name))
}

fn read_cluster(settings: &Settings) -> Result<Cluster, ConfigError> {
    Ok(Cluster {
        initial: initial_cluster(settings)?,
        state: match settings.text("initial-cluster-state").as_str() {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        token: settings.text("initial-cluster-token"),
        initial_advertise_peer_urls: settings.urls("initial-advertise-peer-urls"),
        advertise_client_urls: settings.urls("advertise-client-urls"),
    })
}

/// A bare number is hours or revisions, by the mode; a time needs the mode periodic.
fn auto_compaction(settings: &Settings) -> Result<AutoCompaction, ConfigError> {
    let retention = settings.text("auto-compaction-retention");
    let number = retention.parse::<u32>().ok();
    match settings.text("auto-compaction-mode").as_str() {
        "periodic" => {
            let invalid = || ConfigError::CompactionPeriod(retention.clone());
            let period = match number {
                Some(hours) => Duration::from_hours(hours.into()),
                None => {
                    let nanoseconds = go_syntax::parse_duration(&retention).map_err(|_| invalid())?;
                    Duration::from_nanos(u64::try_from(nanoseconds).map_err(|_| invalid())?)
                }
            };
            Ok(if period.is_zero() { AutoCompaction::Off } else { AutoCompaction::Periodic(period) })
        }
        "revision" => match retention.parse::<i64>() {
            Ok(0) => Ok(AutoCompaction::Off),
            Ok(revisions) if revisions > 0 => Ok(AutoCompaction::Revisions(revisions)),
            _ => Err(ConfigError::CompactionRevisions(retention)),
        },
        "" => Err(ConfigError::NoCompactionMode),
        other => Err(ConfigError::CompactionMode(other.to_owned())),
    }
}

fn log(settings: &Settings) -> Result<LogConfig, ConfigError> {
    let logger = settings.text("logger");
    if logger != "zap" {
        return Err(ConfigError::Logger(logger));
    }
    let level = settings.text("log-level");
    let format = settings.text("log-format");
    Ok(LogConfig {
        level: Level::parse(&level).ok_or(ConfigError::LogLevel(level))?,
        format: match format.to_ascii_lowercase().as_str() {
            "json" => Format::Json,
            "console" => Format::Console,
            _ => return Err(ConfigError::LogFormat(format)),
        },
        targets: targets(&settings.list("log-outputs"))?,
    })
}

fn targets(outputs: &[String]) -> Result<Vec<Target>, ConfigError> {
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err(ConfigError::LogOutputs);
    }
    // As in zap, everything is discarded when one output is this one.
    if outputs.iter().any(|output| output == "/dev/null") {
        return Ok(Vec::new());
    }
    if outputs.is_empty() {
        return Ok(vec![Target::Stderr]);
    }
    outputs
        .iter()
        .map(|output| match output.as_str() {
            "default" | "stderr" | "/dev/stderr" => Ok(Target::Stderr),
            "stdout" | "/dev/stdout" => Ok(Target::Stdout),
            "systemd/journal" => Err(ConfigError::Journal),
            "" => Err(ConfigError::Empty("log-outputs")),
            path => Ok(Target::File(path.into())),
        })
        .collect()
}

/// Its default does not stand beside what finds it.
fn initial_cluster(settings: &Settings) -> Result<Vec<(String, Url)>, ConfigError> {
    let given = settings.is_given("initial-cluster");
    let initial = cluster::parse(&settings.text("initial-cluster"))?;
    if !cluster::is_discovered(settings) {
        Ok(initial)
    } else if given && !initial.is_empty() {
        Err(ConfigError::SeveralBootstraps)
    } else {
        Ok(Vec::new())
    }
}

fn discovery_srv(settings: &Settings) -> Option<DiscoverySrv> {
    let domain = settings.text("discovery-srv").to_owned();
    let name = settings.text("discovery-srv-name").to_owned();
    (!domain.is_empty()).then_some(DiscoverySrv { domain, name })
}
