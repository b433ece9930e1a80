//! Prometheus metrics: names, types and whether they move.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::ensure;

use crate::etcdctl::Etcdctl;
use crate::http::Http;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::free_port;

/// What etcd's alerts and dashboards ask of one member. Vectors over peers appear with peers only.
const WANTED: &[(&str, &str)] = &[
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_disk_backend_snapshot_duration_seconds", "histogram"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_server_snapshot_apply_in_progress_total", "gauge"),
    ("etcd_snap_db_fsync_duration_seconds", "histogram"),
    ("etcd_snap_db_save_total_duration_seconds", "histogram"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

/// What a member answers at /metrics.
pub(super) struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub(super) fn of(http: &Http, base: &str) -> anyhow::Result<Self> {
        let answer = http.get(&format!("{base}/metrics"))?;
        ensure!(answer.status == 200 && answer.content_type.starts_with("text/plain"), "{base}/metrics: {answer:?}");
        let mut scrape = Self { types: BTreeMap::new(), samples: BTreeMap::new() };
        for line in answer.body.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("sample {line:?}"))?;
                scrape.samples.insert(name.to_owned(), value.parse().with_context(|| format!("sample {line:?}"))?);
            }
        }
        Ok(scrape)
    }

    /// The sum of a metric's samples, whatever their labels; 0 without any.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let of_this =
            |sample: &str| sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.samples.iter().filter(|(sample, _)| of_this(sample)).map(|(_, value)| value).sum()
    }

    pub(super) fn value(&self, sample: &str) -> anyhow::Result<f64> {
        self.samples.get(sample).copied().with_context(|| format!("no sample {sample}"))
    }
}

pub fn metrics(lab: &Lab) -> anyhow::Result<u32> {
    let metrics_url = format!("http://127.0.0.1:{}", free_port()?);
    let server = Member::new(lab, "server")?
        .with(format!("--listen-metrics-urls={metrics_url}"))
        .with("--quota-backend-bytes=1073741824")
        .with("--metrics=extensive")
        .start()?;
    let http = Http::new();
    let before = Scrape::of(&http, server.url())?;
    let mut checks = 0;
    for (name, kind) in WANTED {
        ensure!(
            before.types.get(*name).map(String::as_str) == Some(*kind),
            "{name} must be a {kind}: {:?}",
            before.types.get(*name)
        );
        checks += 1;
    }
    ensure!(
        before.types.get("grpc_server_handling_seconds").is_some_and(|kind| kind == "histogram"),
        "--metrics=extensive adds nothing"
    );
    for bucket in ["0.001", "0.002", "0.512", "8.192", "+Inf"] {
        before.value(&format!("etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"{bucket}\"}}"))?;
    }
    let put = |code: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    let watch = "grpc_server_started_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
    for sample in [put("OK"), put("ResourceExhausted"), watch.to_owned()] {
        ensure!(before.value(&sample)? == 0.0, "{sample} is there and 0 from the start");
    }

    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..20 {
        ctl.ok(&["put", &format!("k{i}"), &"v".repeat(10_000)])?;
    }
    ctl.ok(&["snapshot", "save", &lab.path("metrics.snapshot").display().to_string()])?;
    let after = Scrape::of(&http, &metrics_url)?;
    ensure!(after.value(&put("OK"))? == 20.0, "20 puts are counted as {}", after.value(&put("OK"))?);
    ensure!(after.value("etcd_server_has_leader")? == 1.0 && after.value("etcd_server_is_leader")? == 1.0, "it leads");
    ensure!(after.value("etcd_server_quota_backend_bytes")? == 1_073_741_824.0, "the quota");
    for sample in [
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_committed_total",
        "etcd_disk_backend_snapshot_duration_seconds_count",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
    ] {
        ensure!(after.value(sample)? > before.value(sample)?, "{sample} does not move");
    }
    ensure!(after.value("etcd_network_client_grpc_received_bytes_total")? > 200_000.0, "200 kB came in");
    ensure!(after.value("etcd_mvcc_db_total_size_in_use_in_bytes")? > 200_000.0, "200 kB are stored");
    ensure!(after.value("process_resident_memory_bytes")? > 1e6, "resident memory");
    drop(server);

    let basic = Member::new(lab, "basic")?.start()?;
    let scrape = Scrape::of(&http, basic.url())?;
    ensure!(!scrape.types.contains_key("grpc_server_handling_seconds"), "basic metrics have no handling times");
    Ok(checks + 15)
}
