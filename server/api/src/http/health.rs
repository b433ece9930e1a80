//! `/health`, `/livez` and `/readyz`: etcd's checks, bodies and codes.

use std::future::Future;

use garboard_node::Node;
use garboard_proto::etcdserverpb::AlarmType;
use garboard_runtime::clock;
use http::Response;
use http::StatusCode;

use crate::body::Body;
use crate::http::error_text;
use crate::http::query;
use crate::http::text;
use crate::metrics::Metrics;
use crate::status;
use crate::status::Status;

/// What the checks look at.
pub trait Probe: Sync {
    /// The alarms raised, by their numbers.
    fn alarms(&self) -> Vec<i32>;
    fn has_leader(&self) -> bool;
    fn is_learner(&self) -> bool;
    /// A read of one key, with the quorum's consent unless `serializable`.
    fn read(&self, serializable: bool) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Looks at the member itself.
pub struct NodeProbe<'a>(pub &'a Node);

impl Probe for NodeProbe<'_> {
    fn alarms(&self) -> Vec<i32> {
        self.0.store().alarms().into_iter().map(|alarm| alarm.alarm).collect()
    }

    fn has_leader(&self) -> bool {
        self.0.leadership().borrow().leader != 0
    }

    fn is_learner(&self) -> bool {
        self.0.status().is_learner
    }

    async fn read(&self, serializable: bool) -> Result<(), Status> {
        if !serializable {
            let read = clock::timeout(self.0.request_timeout(), self.0.health_read());
            read.await.map_err(|_| status::TIMEOUT)??;
        }
        let request = garboard_proto::etcdserverpb::RangeRequest {
            key: bytes::Bytes::from_static(b"\0"),
            keys_only: true,
            limit: 1,
            serializable: true,
            ..Default::default()
        };
        self.0.store().range(&request)?;
        Ok(())
    }
}

/// A check of `/livez` or `/readyz`.
#[derive(Clone, Copy)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, probe: &impl Probe) -> Result<(), String> {
        match self {
            Check::DataCorruption if probe.alarms().contains(&(AlarmType::Corrupt as i32)) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner if probe.is_learner() => Err("not supported for learner".to_owned()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => probe.read(true).await.map_err(|status| status.message.into_owned()),
            Check::LinearizableRead => probe.read(false).await.map_err(|status| status.message.into_owned()),
        }
    }
}

/// Whether a path is one of the health checks'.
pub fn is_health(path: &str) -> bool {
    path == "/health" || checks(path).is_some()
}

/// The kind of a path and its checks: all of them, or the one it names.
fn checks(path: &str) -> Option<(&'static str, Vec<Check>)> {
    let (kind, all, rest) = if let Some(rest) = path.strip_prefix("/livez") {
        ("livez", LIVEZ, rest)
    } else {
        ("readyz", READYZ, path.strip_prefix("/readyz")?)
    };
    if rest.is_empty() {
        return Some((kind, all.to_vec()));
    }
    let name = rest.strip_prefix('/')?;
    let named: Vec<_> = all.iter().copied().filter(|check| check.name() == name).collect();
    (!named.is_empty()).then_some((kind, named))
}

/// Runs checks.
pub struct Health<'a, P> {
    pub probe: P,
    pub metrics: &'a Metrics,
}

impl<P: Probe> Health<'_, P> {
    /// Answers a GET of a path that [`is_health`].
    pub async fn respond(&self, path: &str, query: &str) -> Response<Body> {
        match checks(path) {
            None => self.health(query).await,
            Some((kind, mut checks)) => {
                if path.len() == kind.len() + 1 {
                    let excluded = query::values(query, "exclude");
                    checks.retain(|check| !excluded.iter().any(|name| name == check.name()));
                }
                self.run(kind, &checks, !query::values(query, "verbose").is_empty()).await
            }
        }
    }

    async fn health(&self, query: &str) -> Response<Body> {
        let reason = self.unhealthy(query).await;
        let body = serde_json::json!({
            "health": if reason.is_none() { "true" } else { "false" },
            "reason": reason.as_deref().unwrap_or(""),
        });
        if reason.is_some() {
            tracing::warn!(output = %body, "/health error");
            self.metrics.health_failures.inc();
            return error_text(StatusCode::SERVICE_UNAVAILABLE, body.to_string());
        }
        self.metrics.health_success.inc();
        let mut response = text(StatusCode::OK, body.to_string());
        response.headers_mut().remove(http::header::X_CONTENT_TYPE_OPTIONS);
        response
    }

    async fn unhealthy(&self, query: &str) -> Option<String> {
        let excluded = query::values(query, "exclude");
        let serializable = query::values(query, "serializable").first().is_some_and(|value| value == "true");
        for alarm in self.probe.alarms() {
            let name = AlarmType::try_from(alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name());
            if !excluded.iter().any(|excluded| excluded == name) {
                return Some(format!("ALARM {name}"));
            }
        }
        if !serializable && !self.probe.has_leader() {
            return Some("RAFT NO LEADER".to_owned());
        }
        self.probe.read(serializable).await.err().map(|status| format!("RANGE ERROR:{}", status.message))
    }

    async fn run(&self, kind: &str, checks: &[Check], verbose: bool) -> Response<Body> {
        let mut lines = String::new();
        let mut failed = false;
        for check in checks {
            let (name, result) = (check.name(), check.run(&self.probe).await);
            let (status, value) = if result.is_ok() { ("success", 1.0) } else { ("error", 0.0) };
            self.metrics.healthcheck.with_label_values(&[kind, name]).set(value);
            self.metrics.healthchecks.with_label_values(&[kind, name, status]).inc();
            match result {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    failed = true;
                    lines.push_str(&format!("[-]{name} failed: {reason}\n"));
                }
            }
        }
        if failed {
            tracing::error!(kind, reason = %lines, "health check error");
            return error_text(StatusCode::SERVICE_UNAVAILABLE, lines);
        }
        if !verbose {
            lines.clear();
        }
        lines.push_str("ok\n");
        text(StatusCode::OK, lines)
    }
}

#[cfg(test)]
mod tests;
