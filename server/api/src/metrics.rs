//! The counters of the API, by etcd's names and types. What a request touches is resolved once, at start: no label is looked up on its way.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::GaugeVec;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector;
use tonic::Code;

use crate::method::Kind;
use crate::method::Method;
use crate::status::CODES;
use crate::status::code_name;

/// Client versions told apart in labels; what comes after is `other`, since a client may send what it likes.
const CLIENT_VERSIONS_MAX: usize = 64;

const METHOD_LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];

/// The counters of one method.
pub struct MethodCounters {
    pub started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    handled: Vec<IntCounter>,
    seconds: Option<Histogram>,
}

/// The counters of the calls of one client version.
#[derive(Clone)]
pub struct VersionCounters {
    pub unary: IntCounter,
    pub stream: IntCounter,
}

/// Everything the API counts.
pub struct Metrics {
    methods: Vec<MethodCounters>,
    received_bytes: IntCounter,
    sent_bytes: IntCounter,
    client_requests: IntCounterVec,
    client_versions: Mutex<BTreeMap<String, VersionCounters>>,
    stream_failures: IntCounterVec,
    pub health_success: IntCounter,
    pub health_failures: IntCounter,
    pub healthcheck: GaugeVec,
    pub healthchecks: IntCounterVec,
    pub scrapes: IntCounterVec,
    pub scrapes_in_flight: IntGauge,
    slow_after: Duration,
}

impl Metrics {
    /// Registers all of them; `extensive` adds the histogram of handling times; unary calls longer than `slow_after` are logged (zero: none).
    ///
    /// # Errors
    /// A name is taken in `registry`.
    pub fn register(
        registry: &Registry,
        extensive: bool,
        slow_after: Duration,
        version: &str,
    ) -> prometheus::Result<Metrics> {
        let methods = register_methods(registry, extensive)?;
        let server_version = register(
            registry,
            GaugeVec::new(
                Opts::new(
                    "etcd_server_version",
                    "Which version is running. 1 for 'server_version' label with current version.",
                ),
                &["server_version"],
            ),
        )?;
        server_version.with_label_values(&[version]).set(1.0);
        let counter = |name, help| register(registry, IntCounter::new(name, help));
        let counters =
            |name, help, labels: &[&str]| register(registry, IntCounterVec::new(Opts::new(name, help), labels));
        let scrapes = counters("promhttp_metric_handler_requests_total", "Scrapes by HTTP status code.", &["code"])?;
        for code in ["200", "500", "503"] {
            scrapes.with_label_values(&[code]);
        }
        Ok(Metrics {
            methods,
            received_bytes: counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes received from gRPC clients.",
            )?,
            sent_bytes: counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to gRPC clients.")?,
            client_requests: counters(
                "etcd_server_client_requests_total",
                "Client requests by client version.",
                &["type", "client_api_version"],
            )?,
            client_versions: Mutex::default(),
            stream_failures: counters(
                "etcd_network_server_stream_failures_total",
                "Streams that failed on this member.",
                &["Type", "API"],
            )?,
            health_success: counter("etcd_server_health_success", "Health checks that succeeded.")?,
            health_failures: counter("etcd_server_health_failures", "Health checks that failed.")?,
            healthcheck: register(
                registry,
                GaugeVec::new(
                    Opts::new("etcd_server_healthcheck", "The last result of each health check."),
                    &["type", "name"],
                ),
            )?,
            healthchecks: counters(
                "etcd_server_healthchecks_total",
                "Health checks by result.",
                &["type", "name", "status"],
            )?,
            scrapes,
            scrapes_in_flight: register(
                registry,
                IntGauge::new("promhttp_metric_handler_requests_in_flight", "Scrapes being served."),
            )?,
            slow_after,
        })
    }

    /// The counters of `method`.
    pub fn method(&self, method: Method) -> &MethodCounters {
        &self.methods[method as usize]
    }

    /// One message of `bytes` came in.
    pub fn received(&self, method: Method, bytes: usize) {
        self.method(method).received.inc();
        self.received_bytes.inc_by(bytes as u64);
    }

    /// `messages` messages of together `bytes` went out.
    pub fn sent(&self, method: Method, messages: u64, bytes: usize) {
        self.method(method).sent.inc_by(messages);
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// What a client sent on a stream could not be taken.
    pub fn receive_failed(&self, method: Method) {
        let api = match method {
            Method::Watch => "watch",
            Method::LeaseKeepAlive => "lease-keepalive",
            _ => return,
        };
        self.stream_failures.with_label_values(&["receive", api]).inc();
    }

    /// A call ended.
    pub fn handled(&self, method: Method, code: Code, elapsed: Duration) {
        let counters = self.method(method);
        counters.handled[code as usize].inc();
        if let Some(seconds) = &counters.seconds {
            seconds.observe(elapsed.as_secs_f64());
        }
    }

    /// Whether a call that took this long is worth a line in the log.
    pub fn is_slow(&self, method: Method, elapsed: Duration) -> bool {
        elapsed > self.slow_after && !self.slow_after.is_zero() && method.kind() == Kind::Unary
    }

    /// The counters for clients of this version. Looked up once per connection.
    pub fn client_version(&self, version: &str) -> VersionCounters {
        let mut versions = self.client_versions.lock();
        if let Some(counters) = versions.get(version) {
            return counters.clone();
        }
        let label = if versions.len() < CLIENT_VERSIONS_MAX { version } else { "other" };
        let counters = VersionCounters {
            unary: self.client_requests.with_label_values(&["unary", label]),
            stream: self.client_requests.with_label_values(&["stream", label]),
        };
        if versions.len() < CLIENT_VERSIONS_MAX {
            versions.insert(version.to_owned(), counters.clone());
        }
        counters
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn register_methods(registry: &Registry, extensive: bool) -> prometheus::Result<Vec<MethodCounters>> {
    let counters = |name, help, labels: &[&str]| register(registry, IntCounterVec::new(Opts::new(name, help), labels));
    let started = counters("grpc_server_started_total", "RPCs started on the server.", &METHOD_LABELS)?;
    let received =
        counters("grpc_server_msg_received_total", "RPC stream messages received on the server.", &METHOD_LABELS)?;
    let sent = counters("grpc_server_msg_sent_total", "RPC stream messages sent by the server.", &METHOD_LABELS)?;
    let [kind, service, name] = METHOD_LABELS;
    let handled = counters(
        "grpc_server_handled_total",
        "RPCs completed on the server, by their code.",
        &[kind, service, name, "grpc_code"],
    )?;
    let seconds = if extensive {
        let options = HistogramOpts::new("grpc_server_handling_seconds", "How long RPCs took on the server.");
        Some(register(registry, HistogramVec::new(options, &METHOD_LABELS))?)
    } else {
        None
    };
    let of = |method: &Method| {
        let labels = [method.kind().label(), method.service(), method.name()];
        let [kind, service, name] = labels;
        MethodCounters {
            started: started.with_label_values(&labels),
            received: received.with_label_values(&labels),
            sent: sent.with_label_values(&labels),
            handled: CODES
                .iter()
                .map(|code| handled.with_label_values(&[kind, service, name, code_name(*code)]))
                .collect(),
            seconds: seconds.as_ref().map(|seconds| seconds.with_label_values(&labels)),
        }
    };
    Ok(Method::ALL.iter().map(of).collect())
}
