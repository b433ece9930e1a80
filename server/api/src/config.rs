//! What the API is told by the command line.

use std::sync::Arc;
use std::time::Duration;

use garboard_tls::ReadFile;
use garboard_tls::Reloader;
use garboard_tls::TlsOptions;

use crate::listen::Limits;
use crate::listen::url::ListenUrl;

/// The API's configuration. [`ApiConfig::new`] has etcd's defaults.
#[derive(Clone)]
pub struct ApiConfig {
    /// `--listen-client-urls`.
    pub client_urls: Vec<ListenUrl>,
    /// `--listen-metrics-urls`.
    pub metrics_urls: Vec<ListenUrl>,
    /// `--listen-peer-urls`.
    pub peer_urls: Vec<ListenUrl>,
    /// Needed by such of them as have TLS.
    pub peer_tls: Option<Arc<Reloader>>,
    /// Needed by `https` and `unixs` URLs.
    pub tls: Option<TlsOptions>,
    /// How often, at most, the TLS files are looked at again when a client shakes hands.
    pub tls_look_interval: Duration,
    /// Reads TLS files.
    pub read_file: ReadFile,
    pub limits: Limits,
    /// Threads for clients; 0: one for each processor.
    pub client_threads: usize,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// Bytes of large answers under way; more wait.
    pub answers_bytes_max: u64,
    /// `--watch-progress-notify-interval`; zero: etcd's ten minutes. Never below 100 ms.
    pub watch_progress_interval: Duration,
    /// `--election-timeout`; three of them without a leader end the streams that require one.
    pub election_timeout: Duration,
    /// `--metrics extensive`.
    pub extensive_metrics: bool,
    /// `--warning-unary-request-duration`; zero: no warnings.
    pub slow_request: Duration,
    /// `--cors`.
    pub cors: Vec<String>,
}

impl ApiConfig {
    /// etcd's defaults, and no URL at all.
    pub fn new(read_file: ReadFile) -> ApiConfig {
        ApiConfig {
            client_urls: Vec::new(),
            metrics_urls: Vec::new(),
            peer_urls: Vec::new(),
            peer_tls: None,
            tls: None,
            tls_look_interval: Duration::from_millis(300),
            read_file,
            limits: Limits::default(),
            client_threads: 0,
            txn_ops_max: 128,
            answers_bytes_max: 512 << 20,
            watch_progress_interval: Duration::ZERO,
            election_timeout: Duration::from_secs(1),
            extensive_metrics: false,
            slow_request: Duration::from_millis(300),
            cors: vec!["*".to_owned()],
        }
    }
}
