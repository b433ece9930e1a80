//! The part of the configuration that serves clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use garboard_api::ApiConfig;
use garboard_api::Limits;
use garboard_api::ListenUrl;
use garboard_api::ReadFile;
use garboard_api::TlsError;
use garboard_api::TlsOptions;
use garboard_storage::disk::Disk;
use garboard_tls::Reloader;

use super::Config;
use super::Tls;
use super::TlsVersion;
use crate::flags::Url;
use crate::flags::url::Place;
use crate::flags::url::Scheme;

/// How often, at most, the peers' TLS files are looked at again when a connection is made.
const TLS_LOOK_INTERVAL: Duration = Duration::from_millis(300);
/// Longest file of certificates, keys or revocations.
const PEM_BYTES_MAX: usize = 16 << 20;

impl Config {
    /// TLS towards peers, if there is any.
    ///
    /// # Errors
    /// The files cannot be read or used.
    pub fn open_peer_tls(&self, disk: Arc<dyn Disk>) -> Result<Option<Arc<Reloader>>, TlsError> {
        let read: ReadFile = Arc::new(move |path: &Path| disk.read(path, PEM_BYTES_MAX));
        let Some(options) = self.peer_tls.options(true) else { return Ok(None) };
        Reloader::open(options, read, TLS_LOOK_INTERVAL).map(|tls| Some(Arc::new(tls)))
    }

    /// What the API is told. It reads its files from `disk`; `peer_tls` is what [`Config::open_peer_tls`] gave.
    pub fn api(&self, disk: Arc<dyn Disk>, peer_tls: Option<Arc<Reloader>>) -> ApiConfig {
        let urls = |urls: &[Url]| urls.iter().map(listen_url).collect();
        let limits = Limits::default();
        ApiConfig {
            client_urls: urls(&self.listen.client_urls),
            metrics_urls: urls(&self.listen.metrics_urls),
            peer_urls: urls(&self.listen.peer_urls),
            peer_tls,
            tls: self.client_tls.options(false),
            limits: Limits {
                concurrent_streams_max: self.grpc.max_concurrent_streams.unwrap_or(limits.concurrent_streams_max),
                keepalive_interval: self.grpc.keepalive_interval,
                keepalive_timeout: self.grpc.keepalive_timeout,
                keepalive_min_time: self.grpc.keepalive_min_time,
                reuse_port: self.listen.reuse_port,
                ..limits
            },
            txn_ops_max: self.max_txn_ops,
            watch_progress_interval: self.watch_progress_notify_interval,
            election_timeout: self.election_timeout,
            extensive_metrics: self.extensive_metrics,
            slow_request: self.warning_unary_request_duration,
            cors: self.cors.clone(),
            ..ApiConfig::new(Arc::new(move |path: &Path| disk.read(path, PEM_BYTES_MAX)))
        }
    }
}

fn listen_url(url: &Url) -> ListenUrl {
    let scheme = match url.scheme() {
        Scheme::Http => garboard_api::Scheme::Http,
        Scheme::Https => garboard_api::Scheme::Https,
        Scheme::Unix => garboard_api::Scheme::Unix,
        Scheme::Unixs => garboard_api::Scheme::Unixs,
    };
    let address = match url.place() {
        Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Tcp { host, port } => format!("{host}:{port}"),
        Place::Socket(path) => path.clone(),
    };
    ListenUrl { scheme, address }
}

impl Tls {
    /// Nothing without a certificate, which no URL needs then.
    fn options(&self, dials: bool) -> Option<TlsOptions> {
        let version = |version| match version {
            TlsVersion::V1_2 => garboard_api::TlsVersion::Tls12,
            TlsVersion::V1_3 => garboard_api::TlsVersion::Tls13,
        };
        self.certificate.as_ref().map(|(cert_file, key_file)| TlsOptions {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            dial_with: self.dial_with.clone(),
            dials,
            trusted_ca_file: self.trusted_ca_file.clone(),
            client_cert_auth: self.client_cert_auth,
            crl_file: self.crl_file.clone(),
            allowed_cns: self.allowed_common_names.clone(),
            allowed_hostnames: self.allowed_hostnames.clone(),
            min_version: Some(version(self.min_version)),
            max_version: Some(version(self.max_version)),
            cipher_suites: self.cipher_suites.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use garboard_storage::disk::RealDisk;

    use super::super::tests::config;
    use super::*;

    #[test]
    fn with_nothing_given_it_is_the_apis_own_defaults() {
        let ours = config("").api(Arc::new(RealDisk), None);
        let default = ApiConfig::new(Arc::clone(&ours.read_file));
        assert_eq!(format!("{:?}", ours.limits), format!("{:?}", default.limits));
        assert!(ours.tls.is_none());
        assert_eq!(ours.client_urls[0].to_string(), "http://localhost:2379");
        assert_eq!((ours.txn_ops_max, ours.election_timeout), (default.txn_ops_max, default.election_timeout));
        assert_eq!((ours.extensive_metrics, ours.slow_request), (default.extensive_metrics, default.slow_request));
        assert_eq!((ours.client_threads, ours.cors), (default.client_threads, default.cors));
    }

    #[test]
    fn each_flag_gets_where_it_belongs() {
        let api = config(
            "--listen-client-urls=https://[::1]:1,unixs:/run/x --advertise-client-urls=https://a:1 --cert-file=c \
             --key-file=k --trusted-ca-file=ca --client-cert-auth --client-crl-file=crl --client-cert-allowed-cn=n,m \
             --client-cert-allowed-hostname=h --tls-min-version=TLS1.2 --tls-max-version=TLS1.2 --cipher-suites=S,T \
             --listen-metrics-urls=http://127.0.0.1:2 --max-concurrent-streams=3 --grpc-keepalive-interval=4s \
             --grpc-keepalive-timeout=5s --grpc-keepalive-min-time=6s --socket-reuse-port --max-txn-ops=7 \
             --watch-progress-notify-interval=8s --election-timeout=999 --metrics=extensive \
             --warning-unary-request-duration=9s --cors=http://o:1",
        )
        .api(Arc::new(RealDisk), None);
        let urls: Vec<_> = api.client_urls.iter().chain(&api.metrics_urls).map(ListenUrl::to_string).collect();
        assert_eq!(urls, ["https://[::1]:1", "unixs:///run/x", "http://127.0.0.1:2"]);
        let tls = "Some(TlsOptions { cert_file: \"c\", key_file: \"k\", dial_with: None, dials: false, trusted_ca_file: Some(\"ca\"), \
            client_cert_auth: true, crl_file: Some(\"crl\"), allowed_cns: [\"n\", \"m\"], allowed_hostnames: [\"h\"], \
            min_version: Some(Tls12), max_version: Some(Tls12), cipher_suites: [\"S\", \"T\"] })";
        assert_eq!(format!("{:?}", api.tls), tls);
        let limits = &api.limits;
        assert_eq!((limits.concurrent_streams_max, limits.reuse_port), (3, true));
        let times = [limits.keepalive_interval, limits.keepalive_timeout, limits.keepalive_min_time];
        assert_eq!(times, [4, 5, 6].map(Duration::from_secs));
        assert_eq!((api.txn_ops_max, api.watch_progress_interval), (7, Duration::from_secs(8)));
        assert_eq!((api.election_timeout, api.extensive_metrics), (Duration::from_millis(999), true));
        assert_eq!((api.slow_request, api.cors), (Duration::from_secs(9), vec!["http://o:1".to_owned()]));
    }
}
