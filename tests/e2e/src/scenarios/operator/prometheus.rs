//! A real Prometheus beside a node: it scrapes what PodMonitors name and evaluates the chart's alerts, both as they are in the API server.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;
use serde_json::json;

use super::rules;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use crate::process::Process;
use crate::process::run;
use crate::scenario::Lab;
use crate::wait::until;

const ADDRESS: &str = "127.0.0.1:19090";
/// How long anything must have been so: in place of the minutes and hours of each alert.
const FOR: &str = "5s";
/// It may look at Pods.
const ACCOUNT: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: default}]
";

pub struct Prometheus<'a> {
    cluster: &'a Kubernetes,
    toolbox: PathBuf,
    process: Process,
}

// === impl Prometheus ===

impl<'a> Prometheus<'a> {
    /// Starts it with the PodMonitors and the PrometheusRule that are there now.
    pub fn start(lab: &Lab, cluster: &'a Kubernetes) -> anyhow::Result<Self> {
        cluster.apply(ACCOUNT)?;
        let token = lab.path("prometheus.token");
        std::fs::write(&token, cluster.kubectl_ok(&["create", "token", "prometheus", "--duration=24h"])?.trim())?;
        let access = json!({
            "api_server": cluster.api_url(),
            "authorization": {"credentials_file": token},
            "tls_config": {"ca_file": cluster.home().join("ca.crt")},
        });
        let monitors = read(cluster, &["get", "podmonitors", "--all-namespaces"])?;
        let monitors = monitors["items"].as_array().context("no items")?;
        let jobs = monitors.iter().map(|monitor| job(monitor, &access)).collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(jobs.len() == 2, "PodMonitors of the operator and of its cluster are expected: {monitors:?}");
        let installed = read(cluster, &["get", "prometheusrule", OPERATOR, &format!("--namespace={NAMESPACE}")])?;
        let alerts = lab.path("alerts.json");
        std::fs::write(&alerts, hasty(&installed["spec"])?.to_string())?;
        let config = lab.path("prometheus.json");
        let every = "1s";
        let text = json!({
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [alerts],
            "scrape_configs": jobs,
        });
        std::fs::write(&config, text.to_string())?;
        let data = lab.path("prometheus");
        let mut command = cluster.node(1)?.beside(&lab.kubernetes("prometheus")?, &[])?;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let process = Process::spawn(command, &lab.path("prometheus.log"))?;
        Ok(Self { cluster, toolbox: lab.kubernetes("toolbox")?, process })
    }

    /// What it answers, once it does.
    fn ask(&mut self, path: &str) -> anyhow::Result<Option<Value>> {
        let url = format!("http://{ADDRESS}/api/v1/{path}");
        let output = run(&mut self.cluster.node(1)?.beside(&self.toolbox, &["get", &url])?)?;
        if !output.status.success() {
            let ended = self.process.ended()?;
            ensure!(ended.is_none(), "Prometheus has ended:\n{}", crate::process::tail(&self.process.output()));
            return Ok(None);
        }
        let answer: Value = serde_json::from_str(&output.stdout)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(Some(answer["data"].clone()))
    }

    /// Waits until it scrapes `count` Pods and has evaluated every alert without an error.
    pub fn ready(&mut self, count: usize) -> anyhow::Result<()> {
        let mut seen = (Value::Null, Value::Null);
        until("scrapes and evaluations", LIMIT, || {
            let Some(targets) = self.ask("targets?state=active")? else { return Ok(None) };
            let Some(groups) = self.ask("rules")? else { return Ok(None) };
            let all = targets["activeTargets"].as_array().context("no targets")?;
            let up = all.iter().filter(|target| target["health"] == "up").count();
            let alerts = rules::named(&groups, "name")?;
            let well = !alerts.is_empty() && alerts.iter().all(|rule| rule["health"] == "ok");
            let ready = up == count && all.len() == count && well;
            seen = (targets, groups);
            Ok(ready.then_some(()))
        })
        .with_context(|| format!("targets {}, rules {}", seen.0, seen.1))
    }

    /// The alerts that fire, each as its name and severity.
    fn firing(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let answer = until("answer of Prometheus", LIMIT, || self.ask("alerts"))?;
        let alerts = answer["alerts"].as_array().context("no alerts")?;
        let of = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| format!("{} {}", of(alert, "alertname"), of(alert, "severity"))).collect())
    }

    /// Waits until all of these fire, each given as its name and severity.
    pub fn fire(&mut self, wanted: &[&str]) -> anyhow::Result<()> {
        self.wait(&format!("alerts {wanted:?}"), |firing| wanted.iter().all(|alert| firing.contains(*alert)))
    }

    /// Waits until no alert fires but those of `spared`.
    pub fn calm(&mut self, spared: &[&str]) -> anyhow::Result<()> {
        let other = |alert: &String| !spared.iter().any(|name| alert.starts_with(name));
        self.wait("end of the alerts", |firing| !firing.iter().any(other))
    }

    fn wait(&mut self, what: &str, done: impl Fn(&BTreeSet<String>) -> bool) -> anyhow::Result<()> {
        let mut firing = BTreeSet::new();
        until(what, LIMIT, || {
            firing = self.firing()?;
            Ok(done(&firing).then_some(()))
        })
        .with_context(|| format!("firing: {firing:?}"))
    }

    /// The names of all metrics that it has scraped.
    pub fn scraped(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let answer = until("answer of Prometheus", LIMIT, || self.ask("label/__name__/values"))?;
        let names = answer.as_array().context("no names")?;
        Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

fn read(cluster: &Kubernetes, get: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl_ok(&[get, &["--output=json"]].concat())?)?)
}

/// The alerts, waiting for nothing long.
fn hasty(spec: &Value) -> anyhow::Result<Value> {
    let mut alerts = rules::named(spec, "alert")?;
    for alert in &mut alerts {
        alert["for"] = json!(FOR);
    }
    Ok(json!({"groups": [{"name": "alerts", "rules": alerts}]}))
}

/// What Prometheus' operator makes of a PodMonitor.
fn job(monitor: &Value, access: &Value) -> anyhow::Result<Value> {
    let text = |path: &str| {
        let value = monitor.pointer(path).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("no {path} in {monitor}"))
    };
    let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
    let (port, interval) = (text("/spec/podMetricsEndpoints/0/port")?, text("/spec/podMetricsEndpoints/0/interval")?);
    let safe = |label: &str| label.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let pod = |what: &str| format!("__meta_kubernetes_pod_{what}");
    let keep = |source: String, value: &str| json!({"action": "keep", "source_labels": [source], "regex": value});
    let copy = |source: String, target: &str| json!({"source_labels": [source], "target_label": target});
    let set = |target: &str, value: &str| json!({"target_label": target, "replacement": value});
    let mut relabel = Vec::new();
    let selector = monitor.pointer("/spec/selector/matchLabels").and_then(Value::as_object).context("no selector")?;
    for (label, value) in selector {
        relabel.push(keep(pod(&format!("label_{}", safe(label))), value.as_str().context("a label that is no text")?));
    }
    relabel.push(keep(pod("container_port_name"), &port));
    relabel.push(json!({"action": "drop", "source_labels": [pod("phase")], "regex": "(Failed|Succeeded)"}));
    relabel.push(copy("__meta_kubernetes_namespace".to_owned(), "namespace"));
    relabel.push(copy(pod("container_name"), "container"));
    relabel.push(copy(pod("name"), "pod"));
    for label in monitor["spec"]["podTargetLabels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        relabel.push(copy(pod(&format!("label_{}", safe(label))), &safe(label)));
    }
    relabel.push(set("job", &format!("{namespace}/{name}")));
    relabel.push(set("endpoint", &port));
    let mut discovery = access.clone();
    discovery["role"] = json!("pod");
    discovery["namespaces"] = json!({"names": [namespace]});
    Ok(json!({
        "job_name": format!("podMonitor/{namespace}/{name}/0"),
        "honor_labels": monitor["spec"]["podMetricsEndpoints"][0]["honorLabels"] == true,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": relabel,
    }))
}
