//! Puts it together: binds, starts the client threads, accepts, and ends in order.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use garboard_node::Node;
use garboard_proto::etcdserverpb::auth_server::AuthServer;
use garboard_proto::etcdserverpb::cluster_server::ClusterServer;
use garboard_proto::etcdserverpb::kv_server::KvServer;
use garboard_proto::etcdserverpb::lease_server::LeaseServer;
use garboard_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_tls::Reloader;
use garboard_tls::TlsError;
use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::answers::Room;
use crate::auth::AuthService;
use crate::cluster::ClusterService;
use crate::config::ApiConfig;
use crate::dispatch::Api;
use crate::http::HttpService;
use crate::http::tls::TlsPage;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::listen;
use crate::listen::Bound;
use crate::listen::Entrance;
use crate::listen::Handler;
use crate::listen::Surface;
use crate::listen::url::ListenUrl;
use crate::listen::workers::Workers;
use crate::maintenance::MaintenanceService;
use crate::metrics::Metrics;
use crate::range::RangeService;
use crate::watch::WatchService;

/// What gRPC may need around the largest request, in bytes; etcd's allowance.
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Why the API did not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot listen on {url}: {source}")]
    Listen { url: ListenUrl, source: io::Error },
    #[error("{0} needs a certificate: cert-file and key-file are not given")]
    NoCertificate(ListenUrl),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot start a client thread: {0}")]
    Thread(io::Error),
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The API, serving.
pub struct Running {
    /// The client URLs with the ports they got.
    pub client_urls: Vec<ListenUrl>,
    /// The metrics URLs with the ports they got.
    pub metrics_urls: Vec<ListenUrl>,
    /// The peer URLs with the ports they got.
    pub peer_urls: Vec<ListenUrl>,
    finished: spawn::JoinHandle<()>,
}

impl Running {
    /// Completes when, after the shutdown signal, every connection has ended or its time has run out.
    pub async fn finished(self) {
        let _ = self.finished.await;
    }
}

/// Serves `node` on the URLs of `config` until `shutdown` completes: then new connections are refused, open calls may end within
/// `limits.drain_timeout`, and streams are ended with `Unavailable`, which clients take as a reason to go to another member.
///
/// # Errors
/// A URL cannot be bound, TLS files cannot be used, a metric's name is taken.
pub async fn serve(
    config: ApiConfig,
    node: Node,
    registry: Registry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, ApiError> {
    let metrics = Metrics::register(&registry, config.extensive_metrics, config.slow_request, node.etcd_version())?;
    let client_tls = open_client_tls(&config)?;
    let tls = TlsPage::register(&registry, client_tls.clone(), config.peer_tls.clone())?;
    let stops = Stops::default();
    let http = HttpService { node: node.clone(), registry, metrics: Arc::new(metrics), tls, cors: config.cors.clone() };
    let api = Arc::new(assemble(&config, node, http, &stops));
    start(&config, client_tls.as_ref(), &api, stops, shutdown)
}

/// Turn true when connections are to end: clients' first, since what they wait for comes from peers.
pub(crate) struct Stops {
    clients: watch::Sender<bool>,
    peers: watch::Sender<bool>,
}

impl Default for Stops {
    fn default() -> Self {
        Self { clients: watch::Sender::new(false), peers: watch::Sender::new(false) }
    }
}

fn open_client_tls(config: &ApiConfig) -> Result<Option<Arc<Reloader>>, TlsError> {
    let Some(options) = &config.tls else { return Ok(None) };
    let tls = Reloader::open(options.clone(), Arc::clone(&config.read_file), config.tls_look_interval)?;
    Ok(Some(Arc::new(tls)))
}

fn assemble(config: &ApiConfig, node: Node, http: HttpService, stops: &Stops) -> Api {
    let message_bytes_max = node.max_request_bytes() + MESSAGE_OVERHEAD_BYTES;
    let progress_interval = if config.watch_progress_interval.is_zero() {
        PROGRESS_INTERVAL
    } else {
        config.watch_progress_interval.max(PROGRESS_INTERVAL_MIN)
    };
    let room = Room::new(config.answers_bytes_max);
    let kv = Arc::new(KvService { node: node.clone(), txn_ops_max: config.txn_ops_max, room });
    Api {
        metrics: Arc::clone(&http.metrics),
        http,
        range: RangeService { kv: Arc::clone(&kv), message_bytes_max },
        kv: KvServer::from_arc(kv).max_decoding_message_size(message_bytes_max),
        watch: WatchService { node: node.clone(), progress_interval, message_bytes_max },
        lease: LeaseServer::new(LeaseService { node: node.clone() }),
        cluster: ClusterServer::new(ClusterService { node: node.clone() }),
        maintenance: MaintenanceServer::new(MaintenanceService { node: node.clone() }),
        auth: AuthServer::new(AuthService { node: node.clone() }),
        peers: node.peers(),
        node,
        message_bytes_max,
        election_timeout: config.election_timeout,
        stop: stops.clients.subscribe(),
        peer_stop: stops.peers.subscribe(),
    }
}

/// Serves any handler; must be called within a runtime.
pub(crate) fn start<H: Handler>(
    config: &ApiConfig,
    client_tls: Option<&Arc<Reloader>>,
    handler: &Arc<H>,
    stops: Stops,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, ApiError> {
    let bind = |url: &ListenUrl, surface| -> Result<Bound, ApiError> {
        let tls = if surface == Surface::Peer { config.peer_tls.as_ref() } else { client_tls };
        let tls = if url.scheme.is_tls() {
            Some(Arc::clone(tls.ok_or_else(|| ApiError::NoCertificate(url.clone()))?))
        } else {
            None
        };
        listen::listen(url, Entrance { surface, tls }, &config.limits)
            .map_err(|source| ApiError::Listen { url: url.clone(), source })
    };
    let client: Vec<_> = config.client_urls.iter().map(|url| bind(url, Surface::Client)).collect::<Result<_, _>>()?;
    let metrics: Vec<_> =
        config.metrics_urls.iter().map(|url| bind(url, Surface::Metrics)).collect::<Result<_, _>>()?;
    let peer: Vec<_> = config.peer_urls.iter().map(|url| bind(url, Surface::Peer)).collect::<Result<_, _>>()?;
    let urls = |bound: &[Bound]| bound.iter().map(|bound| bound.url.clone()).collect();
    let (client_urls, metrics_urls, peer_urls) = (urls(&client), urls(&metrics), urls(&peer));

    let threads = match config.client_threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let limits = Arc::new(config.limits.clone());
    let workers = Arc::new(Workers::start(threads, handler, &limits).map_err(ApiError::Thread)?);
    let places = Arc::new(Semaphore::new(config.limits.connections_max));
    let (alive, mut clients_gone) = mpsc::channel(1);
    let accept =
        |bound, stop: &watch::Sender<bool>, client| listen::accept(bound, &workers, &places, stop.subscribe(), client);
    let clients = client.into_iter().chain(metrics);
    let clients: Vec<_> = clients.map(|bound| accept(bound, &stops.clients, Some(alive.clone()))).collect();
    let peers: Vec<_> = peer.into_iter().map(|bound| accept(bound, &stops.peers, None)).collect();
    drop(alive);
    let drain_timeout = config.limits.drain_timeout;
    let finished = spawn::task(async move {
        shutdown.await;
        stops.clients.send_replace(true);
        for accepting in clients {
            let _ = accepting.await;
        }
        // Nothing is ever sent: it ends with the last connection of a client.
        let _ = clock::timeout(drain_timeout, clients_gone.recv()).await;
        stops.peers.send_replace(true);
        for accepting in peers {
            let _ = accepting.await;
        }
        if let Some(workers) = Arc::into_inner(workers) {
            workers.finish().await;
        }
    });
    Ok(Running { client_urls, metrics_urls, peer_urls, finished })
}
