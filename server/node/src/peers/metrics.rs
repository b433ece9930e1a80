//! etcd's metrics of the connections between members, under etcd's names and labels.

use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector;
use prometheus::exponential_buckets;

const TO: &[&str] = &["To"];
const FROM: &[&str] = &["From"];
const ENDS: &[&str] = &["Local", "Remote"];

/// What is counted of the connections to all others.
pub(crate) struct PeerMetrics {
    local: String,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip: HistogramVec,
    snapshots_sent: Transfers,
    snapshots_received: Transfers,
}

/// Snapshots in one direction, by peer.
struct Transfers {
    success: IntCounterVec,
    failures: IntCounterVec,
    inflight: IntGaugeVec,
    duration: HistogramVec,
}

/// A snapshot on its way: in flight until this is dropped.
pub(crate) struct Transfer {
    success: IntCounter,
    failures: IntCounter,
    inflight: IntGauge,
    duration: Histogram,
    started: clock::Instant,
}

fn id_text(id: u64) -> String {
    format!("{id:x}")
}

// === impl Transfer ===

impl Transfer {
    /// A connection broke, or was refused.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// All of it has come.
    pub(crate) fn succeeded(&self) {
        self.success.inc();
        self.duration.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.inflight.dec();
    }
}

// === impl Transfers ===

impl Transfers {
    fn begin(&self, peer: u64) -> Transfer {
        let peer = &[id_text(peer)];
        let inflight = self.inflight.with_label_values(peer);
        inflight.inc();
        Transfer {
            success: self.success.with_label_values(peer),
            failures: self.failures.with_label_values(peer),
            inflight,
            duration: self.duration.with_label_values(peer),
            started: clock::now(),
        }
    }
}

// === impl PeerMetrics ===

impl PeerMetrics {
    /// Registers all of them for the member `local`.
    pub(crate) fn register(registry: &Registry, local: u64) -> Result<Arc<Self>, prometheus::Error> {
        fn registered<C: Collector + Clone + 'static>(registry: &Registry, of: C) -> Result<C, prometheus::Error> {
            registry.register(Box::new(of.clone()))?;
            Ok(of)
        }
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let transfers = |verb: &str, done: &str, timed: &str, label: &[&str]| {
            let name = |what: &str| format!("etcd_network_snapshot_{verb}_{what}");
            let inflight = Opts::new(name("inflights_total"), format!("Snapshots being {done}."));
            let duration =
                HistogramOpts::new(name("total_duration_seconds"), timed).buckets(exponential_buckets(0.1, 2.0, 10)?);
            let failures = format!("Connections that ended before a snapshot was {done}.");
            Ok::<_, prometheus::Error>(Transfers {
                success: counter(&name("success"), &format!("Snapshots {done}."), label)?,
                failures: counter(&name("failures"), &failures, label)?,
                inflight: registered(registry, IntGaugeVec::new(inflight, label)?)?,
                duration: registered(registry, HistogramVec::new(duration, label)?)?,
            })
        };
        let active = Opts::new("etcd_network_active_peers", "1 for each peer that answers.");
        let round_trip =
            HistogramOpts::new("etcd_network_peer_round_trip_time_seconds", "Time from a heartbeat to its answer.")
                .buckets(exponential_buckets(0.0001, 2.0, 16)?);
        Ok(Arc::new(Self {
            local: id_text(local),
            active: registered(registry, IntGaugeVec::new(active, ENDS)?)?,
            disconnected: counter("etcd_network_disconnected_peers_total", "Peers that no longer answered.", ENDS)?,
            sent_bytes: counter("etcd_network_peer_sent_bytes_total", "Bytes sent to a peer.", TO)?,
            received_bytes: counter("etcd_network_peer_received_bytes_total", "Bytes received from a peer.", FROM)?,
            sent_failures: counter("etcd_network_peer_sent_failures_total", "Calls to a peer that failed.", TO)?,
            received_failures: counter(
                "etcd_network_peer_received_failures_total",
                "Calls from a peer that were refused.",
                FROM,
            )?,
            round_trip: registered(registry, HistogramVec::new(round_trip, TO)?)?,
            snapshots_sent: transfers(
                "send",
                "sent to a peer",
                "Time to send a snapshot to a peer, over whatever connections.",
                TO,
            )?,
            snapshots_received: transfers(
                "receive",
                "received from a peer",
                "Time of the connection over which the last of a snapshot came, with putting it in the state's place.",
                FROM,
            )?,
        }))
    }

    /// A heartbeat was answered.
    pub(crate) fn answered(&self, to: u64, took: Duration) {
        let to = id_text(to);
        self.round_trip.with_label_values(&[&to]).observe(took.as_secs_f64());
        self.active.with_label_values(&[&self.local, &to]).set(1);
    }

    /// A call had no answer.
    pub(crate) fn failed(&self, to: u64) {
        let to = id_text(to);
        self.sent_failures.with_label_values(&[&to]).inc();
        let active = self.active.with_label_values(&[&self.local, &to]);
        if active.get() == 1 {
            active.set(0);
            self.disconnected.with_label_values(&[&self.local, &to]).inc();
        }
    }

    pub(crate) fn sent(&self, to: u64, bytes: usize) {
        self.sent_bytes.with_label_values(&[&id_text(to)]).inc_by(bytes as u64);
    }

    pub(crate) fn received(&self, from: u64, bytes: usize) {
        self.received_bytes.with_label_values(&[&id_text(from)]).inc_by(bytes as u64);
    }

    pub(crate) fn refused(&self, from: u64) {
        self.received_failures.with_label_values(&[&id_text(from)]).inc();
    }

    /// A snapshot is sent, over whatever connections.
    pub(crate) fn sending(&self, to: u64) -> Transfer {
        self.snapshots_sent.begin(to)
    }

    /// A connection brings a snapshot.
    pub(crate) fn receiving(&self, from: u64) -> Transfer {
        self.snapshots_received.begin(from)
    }
}
