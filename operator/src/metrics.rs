//! Metrics of the operator itself and of what it keeps.

use prometheus::CounterVec;
use prometheus::GaugeVec;
use prometheus::HistogramVec;
use prometheus::Opts;
use prometheus::Registry;

use crate::crd::EtcdCluster;

/// Of one operator.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    passes: CounterVec,
    errors: CounterVec,
    seconds: HistogramVec,
    condition: GaugeVec,
    ready: GaugeVec,
    certificates_end: GaugeVec,
}

// === impl Metrics ===

impl Metrics {
    /// # Errors
    /// A name is taken.
    pub fn new() -> prometheus::Result<Self> {
        let cluster = &["namespace", "cluster"];
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("garboard_operator_{name}"), help);
        let metrics = Self {
            passes: CounterVec::new(opts("passes_total", "Passes over a cluster."), cluster)?,
            errors: CounterVec::new(
                opts("pass_errors_total", "Passes that came to no end, by reason."),
                &["namespace", "cluster", "reason"],
            )?,
            seconds: HistogramVec::new(
                prometheus::HistogramOpts::new("garboard_operator_pass_duration_seconds", "Time of a pass."),
                cluster,
            )?,
            condition: GaugeVec::new(
                opts("cluster_condition", "Conditions of a cluster: 1 True, 0 False, -1 Unknown."),
                &["namespace", "cluster", "condition"],
            )?,
            ready: GaugeVec::new(opts("cluster_ready_members", "Members that are ready."), cluster)?,
            certificates_end: GaugeVec::new(
                opts(
                    "cluster_certificates_not_after_seconds",
                    "When the first of a cluster's certificates ends, in seconds since the epoch.",
                ),
                cluster,
            )?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.passes.clone()))?;
        metrics.registry.register(Box::new(metrics.errors.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.condition.clone()))?;
        metrics.registry.register(Box::new(metrics.ready.clone()))?;
        metrics.registry.register(Box::new(metrics.certificates_end.clone()))?;
        Ok(metrics)
    }

    pub fn passed(&self, namespace: &str, cluster: &str, seconds: f64, error: Option<&str>) {
        self.passes.with_label_values(&[namespace, cluster]).inc();
        self.seconds.with_label_values(&[namespace, cluster]).observe(seconds);
        if let Some(reason) = error {
            self.errors.with_label_values(&[namespace, cluster, reason]).inc();
        }
    }

    pub fn observed(&self, cluster: &EtcdCluster) {
        let (Some(namespace), Some(name)) = (&cluster.metadata.namespace, &cluster.metadata.name) else { return };
        let Some(status) = &cluster.status else { return };
        self.ready.with_label_values(&[namespace, name]).set(f64::from(status.ready_members));
        if let Some(end) = status.certificates.iter().map(|certificate| certificate.not_after.0.as_second()).min() {
            // Exact for as long as there are such years.
            self.certificates_end.with_label_values(&[namespace, name]).set(end as f64);
        }
        for condition in &status.conditions {
            let value = match condition.status.as_str() {
                "True" => 1.0,
                "False" => 0.0,
                _ => -1.0,
            };
            self.condition.with_label_values(&[namespace, name, &condition.type_]).set(value);
        }
    }
}
