//! The alerts of the chart on what goes wrong: faults are made, and a real Prometheus tells of them, and of their end.

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::prometheus::Prometheus;
use super::rules;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use super::store::Store;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

const VALUES: &str = "--set=podMonitor.enabled=true,podMonitor.interval=1s,monitoring.rules.enabled=true";
/// With all metrics, in a space that is soon full.
const MONITORED: &str = "  monitoring:
    podMonitor: {enabled: true, interval: 1s}
  config:
    quotaBackend: 32Mi
    extraArgs: [--metrics=extensive]
";
/// What a machine that does much else is enough for.
const MACHINE: [&str; 6] = [
    "etcdGRPCRequestsSlow",
    "etcdHighCommitDurations",
    "etcdHighFsyncDurations",
    "etcdHighNumberOfFailedGRPCRequests",
    "etcdHighNumberOfLeaderChanges",
    "etcdMemberCommunicationSlow",
];
/// A trend of hours that is judged by minutes.
const TREND: &str = "etcdExcessiveDatabaseGrowth";
/// What there is only of EtcdBackups, and when a pass has failed.
const ABSENT: [&str; 2] = ["garboard_operator_backup", "garboard_operator_pass_errors_total"];
const VALUE_BYTES: usize = 1_000_000;
/// More than is left without these values.
const SMALL_BYTES: u64 = 8 << 20;

pub fn operator_monitoring(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    rules::check(lab)?;
    steps.held("promtool reads the alerts and the dashboard; each alert fires when it should");
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::define_monitors(&cluster)?;
    store::install_with(lab, &cluster, &[VALUES])?;
    cluster.apply(&EXAMPLE.replace("  update:\n", &format!("{MONITORED}  update:\n")))?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    ensure!(store.condition("Monitored")? == "True", "there is no PodMonitor");
    store.start_client()?;
    store.check()?;
    let mut prometheus = Prometheus::start(lab, &cluster)?;
    prometheus.ready(5)?;
    prometheus.calm(&MACHINE)?;
    steps.held("three members and two operators are scraped, all alerts evaluated, and none fires");

    members(&mut store, &mut prometheus, &mut steps)?;
    space(&mut store, &mut prometheus, &mut steps)?;
    certificates(&store, &mut prometheus, &mut steps)?;
    volumes(&store, &mut prometheus, &mut steps)?;

    let scraped = prometheus.scraped()?;
    let missing: Vec<_> = rules::metrics()?
        .into_iter()
        .filter(|name| !scraped.contains(name) && !ABSENT.iter().any(|start| name.starts_with(start)))
        .collect();
    ensure!(missing.is_empty(), "asked for, and exported by nobody: {missing:?}");
    steps.held("all that alerts and dashboard ask for is exported");
    store.delete()?;
    prometheus.calm(&MACHINE)?;
    steps.held("the cluster is deleted: nothing is told of it any more");
    drop(prometheus);
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

fn operators(cluster: &Kubernetes, count: usize) -> anyhow::Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    cluster.kubectl_ok(&[&namespace, "scale", "deployment", OPERATOR, &format!("--replicas={count}")])?;
    Ok(())
}

/// Members are lost where nobody makes them again.
fn members(store: &mut Store<'_>, prometheus: &mut Prometheus<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    operators(store.cluster, 0)?;
    prometheus.fire(&["GarboardOperatorAbsent warning"])?;
    steps.held("no operator: GarboardOperatorAbsent");
    let pods = store.names("pods")?;
    let lose = |pod: &String| store.cluster.kubectl_ok(&["delete", "pod", pod]);
    lose(pods.first().context("no Pod")?)?;
    prometheus.fire(&["etcdMembersDown warning"])?;
    steps.held("the Pod of a member deleted: etcdMembersDown");
    lose(pods.get(1).context("no second Pod")?)?;
    prometheus.fire(&["etcdInsufficientMembers critical", "etcdNoLeader critical"])?;
    steps.held("and a second one: etcdInsufficientMembers, etcdNoLeader");

    // It looks, and does nothing.
    store.patch(r#"{"spec":{"paused":true}}"#)?;
    operators(store.cluster, 2)?;
    prometheus.fire(&["GarboardQuorumLost critical", "etcdInsufficientMembers critical"])?;
    steps.held("an operator looks at it: GarboardQuorumLost");
    store.patch(r#"{"spec":{"paused":false}}"#)?;
    store.wait(3)?;
    prometheus.calm(&MACHINE)?;
    store.check()?;
    steps.held("and may mend it: the alerts end");
    Ok(())
}

/// Writes until nothing more is taken, then makes room as the runbook says.
fn space(store: &mut Store<'_>, prometheus: &mut Prometheus<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let value = "v".repeat(VALUE_BYTES);
    let mut written = 0;
    let mut write = || {
        written += 1;
        let key = format!("fill{written:03}");
        let put = ["exec", "--stdin", "client", "--", "/etcdctl", "put", &key];
        run_with_input(&mut store.cluster.command("kubectl", &put), &value)
    };
    for _ in 0..10 {
        write()?.success("etcdctl put")?;
    }
    prometheus.fire(&["etcdExcessiveDatabaseGrowth warning"])?;
    steps.held("ten megabytes within moments: etcdExcessiveDatabaseGrowth");
    until("end of the space", LIMIT, || {
        let output = write()?;
        let full = output.stderr.contains("database space exceeded");
        ensure!(full || output.status.success(), "{}", output.stderr);
        Ok(full.then_some(()))
    })?;
    prometheus.fire(&["etcdDatabaseQuotaLowSpace critical"])?;
    steps.held("and until nothing more is taken: etcdDatabaseQuotaLowSpace");

    store.etcdctl_ok(&["del", "fill", "--prefix"])?;
    let read: Value = serde_json::from_str(&store.etcdctl_ok(&["get", "key", "--write-out=json"])?)?;
    store.etcdctl_ok(&["compaction", &read["header"]["revision"].to_string()])?;
    until("end of the compaction", LIMIT, || {
        let status = store.etcdctl_ok(&["endpoint", "status", "--cluster", "--write-out=json"])?;
        let status: Value = serde_json::from_str(&status)?;
        let members = status.as_array().context("no members")?;
        let small = |member: &Value| member["Status"]["dbSizeInUse"].as_u64().is_some_and(|bytes| bytes < SMALL_BYTES);
        Ok(members.iter().all(small).then_some(()))
    })?;
    store.etcdctl_ok(&["defrag", "--cluster", "--command-timeout=120s"])?;
    store.etcdctl_ok(&["alarm", "disarm"])?;
    prometheus.calm(&[&MACHINE[..], &[TREND]].concat())?;
    store.check()?;
    steps.held("deleted, compacted, defragmented, disarmed: the alert ends");
    Ok(())
}

/// A certificate that is signed for two days is one that ends soon.
fn certificates(store: &Store<'_>, prometheus: &mut Prometheus<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    store.patch(r#"{"spec":{"tls":{"certValidity":"48h","renewBefore":"1h"}}}"#)?;
    let secret = format!("{}-client-tls", store.first("etcdmembers")?);
    store.cluster.kubectl_ok(&["delete", "secret", &secret])?;
    prometheus.fire(&["GarboardCertificateExpiresSoon warning", "GarboardCertificateExpiresSoon critical"])?;
    steps.held("a certificate of two days: GarboardCertificateExpiresSoon, in both severities");
    // All that were signed for less than this are due.
    store.patch(r#"{"spec":{"tls":{"certValidity":"8760h","renewBefore":"4380h"}}}"#)?;
    prometheus.calm(&[&MACHINE[..], &[TREND]].concat())?;
    steps.held("renewed: it ends");
    Ok(())
}

fn volumes(store: &Store<'_>, prometheus: &mut Prometheus<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    store.patch(r#"{"spec":{"storage":{"size":"2Gi"}}}"#)?;
    prometheus.fire(&["GarboardVolumeNotSized warning"])?;
    steps.held("volumes that cannot grow: GarboardVolumeNotSized");
    Ok(())
}
