//! etcd's rules that hold whether or not the member has data.

use std::time::Duration;

use super::Config;
use super::ConfigError;
use super::DEFAULT_NAME;
use super::tls;
use crate::flags::Settings;
use crate::flags::Source;
use crate::flags::Url;
use crate::notice::Notice;

/// What `--metrics` knows; anything else is basic, as in etcd.
const BASIC: &str = "basic";
pub const EXTENSIVE: &str = "extensive";

const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

/// Past these etcd warns.
const QUOTA_BYTES_USUAL_MAX: i64 = 8 << 30;
const REQUEST_BYTES_USUAL_MAX: usize = 10 << 20;

pub fn validate(config: &Config, settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    validate_urls(config, settings)?;
    validate_timing(config)?;
    tls::validate(config, settings, notices)?;
    if config.name.is_empty() {
        return Err(ConfigError::Empty("name"));
    }
    for (flag, count) in
        [("max-txn-ops", config.max_txn_ops as u64), ("max-request-bytes", config.max_request_bytes as u64)]
    {
        if count == 0 {
            return Err(ConfigError::Zero(flag));
        }
    }
    if settings.nanoseconds("compact-hash-check-time") <= 0 {
        return Err(ConfigError::Zero("compact-hash-check-time"));
    }
    let gates = &config.feature_gates;
    if gates.enabled("LeaseCheckpointPersist") && !gates.enabled("LeaseCheckpoint") {
        return Err(ConfigError::CheckpointPersist);
    }
    warn(config, settings, notices);
    Ok(())
}

fn validate_urls(config: &Config, settings: &Settings) -> Result<(), ConfigError> {
    let listen = &config.listen;
    for url in listen.peer_urls.iter().chain(&listen.client_urls).chain(&listen.metrics_urls) {
        if !url.is_bindable() {
            return Err(ConfigError::NotBindable(url.clone()));
        }
    }
    let cluster = &config.cluster;
    let without_host = |urls: &[Url]| urls.iter().find(|url| url.has_empty_host()).map(|url| (join(urls), url.clone()));
    if let Some((urls, url)) = without_host(&cluster.initial_advertise_peer_urls) {
        return Err(ConfigError::PeerHost { urls, url });
    }
    if let Some((urls, url)) = without_host(&cluster.advertise_client_urls) {
        return Err(ConfigError::ClientHost { urls, url });
    }
    // In a file, as in etcd, the default stands beside whatever is listened on.
    let explicit = settings.get("listen-client-urls").is_some_and(|given| given.source != Source::File);
    if explicit && !settings.is_given("advertise-client-urls") {
        return Err(ConfigError::AdvertiseClientUrls);
    }
    Ok(())
}

pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

fn validate_timing(config: &Config) -> Result<(), ConfigError> {
    let (heartbeat, election) = (config.heartbeat_interval, config.election_timeout);
    if heartbeat.is_zero() {
        return Err(ConfigError::ZeroHeartbeat);
    }
    if election.is_zero() {
        return Err(ConfigError::ZeroElection);
    }
    let (heartbeat_ms, election_ms) = (milliseconds(heartbeat), milliseconds(election));
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return Err(ConfigError::ElectionTooShort { election_ms, heartbeat_ms });
    }
    if election > ELECTION_TIMEOUT_MAX {
        return Err(ConfigError::ElectionTooLong(election_ms));
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn warn(config: &Config, settings: &Settings, notices: &mut Vec<Notice>) {
    if config.name == DEFAULT_NAME {
        let text = "it isn't recommended to use default name, please set a value for --name. \
                    Note that etcd might run into issue when multiple members have the same default name";
        notices.push(Notice::warn(text).with("name", DEFAULT_NAME));
    }
    if settings.text("data-dir").is_empty() {
        let notice = Notice::warn("'data-dir' was empty; using default");
        notices.push(notice.with("data-dir", config.data_dir.display().to_string()));
    }
    if config.quota_backend_bytes > QUOTA_BYTES_USUAL_MAX {
        let notice = Notice::warn("quota exceeds the maximum value that is usual");
        notices.push(notice.with("quota-size-bytes", config.quota_backend_bytes));
    }
    if config.max_request_bytes > REQUEST_BYTES_USUAL_MAX {
        let notice = Notice::warn("exceeded recommended request limit");
        notices.push(notice.with("max-request-bytes", config.max_request_bytes));
    }
    let metrics = settings.text("metrics");
    if metrics != BASIC && metrics != EXTENSIVE {
        notices.push(Notice::warn("unknown --metrics, using basic").with("metrics", metrics));
    }
    if config.unsafe_no_fsync {
        let text = "fsync is off (--unsafe-no-fsync): what was acknowledged is lost when the machine goes down";
        notices.push(Notice::warn(text));
    }
}
