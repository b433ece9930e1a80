//! Runs a member: starts it, says when it serves, and ends it in order.
//!
//! The main thread waits here; requests, consensus, the log and the database have threads of their own.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use garboard_api::Running;
use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_node::PeerTls;
use garboard_node::Release;
use garboard_node::StartError;
use garboard_runtime::clock;
use garboard_storage::disk::Disk;
use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::flags::Url;
use crate::log;
use crate::log::Level;
use crate::notice::Notice;
use crate::notify;
use crate::signals;
use crate::signals::Signal;
use crate::signals::Signals;

/// How long an orderly end may take. Nothing that was acknowledged depends on it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Where systemd says whom to tell.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Why a member does not run, or no longer.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot take over signals: {0}")]
    Signals(io::Error),
    #[error(transparent)]
    Start(#[from] garboard_node::StartError),
    #[error(transparent)]
    Api(#[from] garboard_api::ApiError),
    #[error("TLS towards peers: {0}")]
    PeerTls(garboard_api::TlsError),
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the member stopped before it was ready: {0}")]
    Stopped(garboard_node::Error),
}

/// Runs a member until it is told to end. Does not return then: the process ends by the signal.
pub fn run(config: &Config, disk: Arc<dyn Disk>, release: Release) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime);
    match runtime.and_then(|runtime| runtime.block_on(until_signal(config, disk, release))) {
        Ok(signal) => {
            log::flush();
            signals::die_by(signal)
        }
        Err(error) => {
            log::emit(Level::Fatal, "cannot serve", &fields([("error", json!(error.to_string()))]));
            log::flush();
            match error {
                ServeError::Start(StartError::Wiped { .. }) => ExitCode::from(garboard_node::EXIT_WIPED),
                ServeError::Start(StartError::Removed { .. }) => ExitCode::from(garboard_node::EXIT_REMOVED),
                ServeError::Start(StartError::Outdated { .. }) => ExitCode::from(garboard_node::EXIT_OUTDATED),
                ServeError::Start(error) if error.is_damage() => ExitCode::from(garboard_node::EXIT_DAMAGED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

async fn until_signal(config: &Config, disk: Arc<dyn Disk>, release: Release) -> Result<Signal, ServeError> {
    let mut signals = Signals::take().map_err(ServeError::Signals)?;
    log::emit(Level::Info, "starting a member", &describe(config));
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let start = async {
        let peer_tls = config.open_peer_tls(Arc::clone(&disk)).map_err(ServeError::PeerTls)?;
        let setup = NodeConfig { release, ..config.node(PeerTls(peer_tls.clone())) };
        let node = Node::start(setup, Arc::clone(&disk), &registry).await?;
        let stopped = async {
            let _ = api_stopped.await;
        };
        // Before the member is ready, so that health checks find somebody to ask.
        let api = garboard_api::serve(config.api(disk, peer_tls), node.clone(), registry, stopped).await?;
        describe_listeners(&api);
        node.ready().await.map_err(ServeError::Stopped)?;
        Ok::<_, ServeError>((node, api))
    };
    let (node, api) = tokio::select! {
        started = start => started?,
        // Nothing is acknowledged that is not on disk: there is nothing to put in order.
        signal = signals.next() => return Ok(signal),
    };
    log::notice(&Notice::info("ready to serve client requests"));
    tell_init();
    let signal = signals.next().await;
    log::notice(&Notice::info("received signal; shutting down").with("signal", signal.name()));
    log::notice(&Notice::info("closing etcd server").with("name", config.name.clone()));
    let end = clock::timeout(SHUTDOWN_TIMEOUT, async {
        // While the peers can still be answered.
        node.hand_over_if_leading().await;
        drop(stop_api);
        api.finished().await;
        node.shutdown().await;
    });
    tokio::select! {
        ended = end => match ended {
            Ok(()) => log::notice(&Notice::info("closed etcd server").with("name", config.name.clone())),
            Err(_) => log::notice(&Notice::warn("shutting down took too long; ending at once")),
        },
        again = signals.next() => {
            log::notice(&Notice::warn("received another signal; ending at once").with("signal", again.name()));
        }
    }
    Ok(signal)
}

fn describe_listeners(api: &Running) {
    for url in &api.client_urls {
        let text = if url.scheme.is_tls() {
            "serving client traffic securely"
        } else {
            "serving client traffic insecurely; this is strongly discouraged!"
        };
        log::notice(&Notice::info(text).with("traffic", "grpc+http").with("address", url.address.clone()));
    }
    for url in &api.peer_urls {
        log::notice(&Notice::info("serving peer traffic").with("address", url.to_string()));
    }
    for url in &api.metrics_urls {
        log::notice(&Notice::info("serving metrics").with("address", url.to_string()));
    }
}

fn tell_init() {
    let Some(socket) = std::env::var_os(NOTIFY_SOCKET).and_then(|socket| socket.into_string().ok()) else { return };
    if socket.is_empty() {
        return;
    }
    match notify::ready(&socket) {
        Ok(()) => log::notice(&Notice::info("successfully notified init daemon")),
        Err(error) => {
            log::emit(
                Level::Error,
                "failed to notify systemd for readiness",
                &fields([("error", json!(error.to_string()))]),
            );
        }
    }
}

/// The configuration as it counts, for the log.
fn describe(config: &Config) -> Map<String, Value> {
    let urls = |urls: &[Url]| json!(urls.iter().map(Url::to_string).collect::<Vec<_>>());
    let initial =
        config.cluster.initial.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",");
    fields([
        ("etcd-version", json!(garboard_node::ETCD_VERSION)),
        ("garboard-version", json!(env!("CARGO_PKG_VERSION"))),
        ("name", json!(config.name)),
        ("data-dir", json!(config.data_dir)),
        ("wal-dir", json!(config.wal_dir)),
        ("listen-client-urls", urls(&config.listen.client_urls)),
        ("advertise-client-urls", urls(&config.cluster.advertise_client_urls)),
        ("listen-metrics-urls", urls(&config.listen.metrics_urls)),
        ("initial-advertise-peer-urls", urls(&config.cluster.initial_advertise_peer_urls)),
        ("initial-cluster", json!(initial)),
        ("listen-peer-urls", urls(&config.listen.peer_urls)),
        ("join", urls(&config.join)),
        ("initial-cluster-token", json!(config.cluster.token)),
        ("heartbeat-interval", json!(format!("{:?}", config.heartbeat_interval))),
        ("election-timeout", json!(format!("{:?}", config.election_timeout))),
        ("snapshot-count", json!(config.snapshot_count)),
        ("snapshot-catchup-entries", json!(config.snapshot_catchup_entries)),
        ("quota-backend-bytes", json!(config.quota_backend_bytes)),
        ("max-request-bytes", json!(config.max_request_bytes)),
        ("max-txn-ops", json!(config.max_txn_ops)),
        ("cache-bytes", json!(config.cache_bytes)),
        ("auto-compaction", json!(format!("{:?}", config.auto_compaction))),
        ("watch-progress-notify-interval", json!(format!("{:?}", config.watch_progress_notify_interval))),
        ("client-cert-auth", json!(config.client_tls.client_cert_auth)),
        ("trusted-ca-file", json!(config.client_tls.trusted_ca_file)),
        ("feature-gates", json!(config.feature_gates.to_string())),
        ("log-level", json!(config.log.level.name())),
    ])
}
