//! Metrics of the operator itself and of what it keeps.

mod observed;

use std::collections::HashMap;

use prometheus::CounterVec;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector as _;
use prometheus::core::MetricVec;
use prometheus::core::MetricVecBuilder;

pub use observed::Observed;

/// Of one operator.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    /// What is told as it is when it is asked for.
    pub observed: Observed,
    passes: CounterVec,
    errors: CounterVec,
    seconds: HistogramVec,
    backup_failures: CounterVec,
}

// === impl Metrics ===

impl Metrics {
    /// # Errors
    /// A name is taken.
    pub fn new() -> prometheus::Result<Self> {
        let cluster = &["namespace", "cluster"];
        let with_reason = &["namespace", "cluster", "reason"];
        let counter = |name: &str, help: &str, labels: &[&str]| CounterVec::new(opts(name, help), labels);
        let metrics = Self {
            registry: Registry::new(),
            observed: Observed::new()?,
            passes: counter("passes_total", "Passes over a cluster.", cluster)?,
            errors: counter("pass_errors_total", "Passes that came to no end, by reason.", with_reason)?,
            seconds: HistogramVec::new(
                HistogramOpts::new("garboard_operator_pass_duration_seconds", "Time of a pass."),
                cluster,
            )?,
            backup_failures: counter("backup_failures_total", "Backups that have failed, by reason.", with_reason)?,
        };
        metrics.registry.register(Box::new(metrics.observed.clone()))?;
        metrics.registry.register(Box::new(metrics.passes.clone()))?;
        metrics.registry.register(Box::new(metrics.errors.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.backup_failures.clone()))?;
        Ok(metrics)
    }

    pub fn passed(&self, namespace: &str, cluster: &str, seconds: f64, error: Option<&str>) {
        self.passes.with_label_values(&[namespace, cluster]).inc();
        self.seconds.with_label_values(&[namespace, cluster]).observe(seconds);
        if let Some(reason) = error {
            self.errors.with_label_values(&[namespace, cluster, reason]).inc();
        }
    }

    /// Tells nothing more of a cluster that is gone: none of its passes will come.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        for counters in [&self.passes, &self.errors, &self.backup_failures] {
            remove(counters, namespace, cluster);
        }
        remove(&self.seconds, namespace, cluster);
    }

    pub fn backup_failed(&self, namespace: &str, cluster: &str, reason: &str) {
        self.backup_failures.with_label_values(&[namespace, cluster, reason]).inc();
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("garboard_operator_{name}"), help)
}

/// Removes what is labelled with the cluster, whatever else it is labelled with.
fn remove<T: MetricVecBuilder>(metrics: &MetricVec<T>, namespace: &str, cluster: &str) {
    for family in metrics.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<_, _> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if labels.get("namespace") == Some(&namespace) && labels.get("cluster") == Some(&cluster) {
                // It fails where somebody else was faster.
                let _ = metrics.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_gone_is_forgotten_with_all_of_its_labels() {
        let metrics = Metrics::new().unwrap();
        for namespace in ["one", "two"] {
            metrics.passed(namespace, "store", 0.1, Some("ApiServer"));
            metrics.backup_failed(namespace, "store", "NoSpace");
        }
        let told = |namespace: &str| {
            let families = metrics.registry.gather();
            let of = |metric: &&prometheus::proto::Metric| {
                metric.get_label().iter().any(|pair| (pair.name(), pair.value()) == ("namespace", namespace))
            };
            families.iter().filter(|family| family.get_metric().iter().any(|metric| of(&metric))).count()
        };
        assert_eq!((told("one"), told("two")), (4, 4));
        metrics.forget("one", "store");
        assert_eq!((told("one"), told("two")), (0, 4));
    }
}
