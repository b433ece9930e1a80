//! The list of scenarios.

mod commands;
mod config;
mod damage;
mod full_disk;
mod health;
mod kubernetes;
mod metrics;
mod snapshot;
mod suites;
mod tls;

use crate::scenario::Scenario;
use crate::scenario::Tier;

pub fn all() -> Vec<Scenario> {
    use Tier::Cluster;
    use Tier::K8s;
    let scenario = |name, what, tier, ours_only, run| Scenario { name, what, tier, ours_only, run };
    vec![
        scenario(
            "etcdctl",
            "each etcdctl command, its output compared with real etcd's",
            Cluster,
            false,
            commands::etcdctl,
        ),
        scenario("etcdctl-tls", "the same over TLS with client certificates", Cluster, false, commands::etcdctl_tls),
        scenario("clientv3-plain", "Go clientv3 drives every call", Cluster, false, suites::plain),
        scenario("clientv3-tls", "the same over TLS with client certificates", Cluster, false, suites::tls),
        scenario("clientv3-unix", "the same over a unix socket", Cluster, false, suites::unix),
        scenario("wire", "HTTP/2 frames that no gRPC client sends", Cluster, false, suites::wire),
        scenario("quota", "NOSPACE and the way out of it", Cluster, false, suites::quota),
        scenario(
            "differential",
            "random requests: same answers, history and HashKV as real etcd",
            Cluster,
            false,
            suites::differential,
        ),
        scenario("rangestream", "KV.RangeStream with clientv3 3.7", Cluster, false, suites::rangestream),
        scenario(
            "tls",
            "client certificates are demanded; certificates are reloaded without a restart",
            Cluster,
            false,
            tls::tls,
        ),
        scenario("flags", "flags, environment, config file, version, signals", Cluster, false, config::flags),
        scenario("logs", "the lines that people and tools look for", Cluster, false, config::logs),
        scenario("listen", "port 0, unix sockets, several client URLs, wal-dir", Cluster, false, config::listen),
        scenario("auto-compaction", "by revision and by period", Cluster, false, config::auto_compaction),
        scenario("health", "/health /livez /readyz /version", Cluster, false, health::health),
        scenario("metrics", "the metrics that alerts and dashboards use", Cluster, false, metrics::metrics),
        scenario("snapshot", "etcd's tools and etcd itself read a snapshot", Cluster, false, snapshot::snapshot),
        scenario("kill", "kill -9 at random points under writes", Cluster, false, suites::kill),
        scenario(
            "unsynced",
            "the same where unsynced bytes die with the process",
            Cluster,
            true,
            suites::kill_unsynced,
        ),
        scenario(
            "torn-tail",
            "a write that a crash cut short does not stop the next start",
            Cluster,
            true,
            damage::torn_tail,
        ),
        scenario("bit-flip", "a flipped bit in a synced record refuses to start", Cluster, false, damage::bit_flip),
        scenario(
            "bit-flip-db",
            "a flipped bit in the database is never served",
            Cluster,
            true,
            damage::bit_flip_in_database,
        ),
        scenario("limits", "more than is allowed, of everything", Cluster, true, suites::limits),
        scenario("large", "the snapshot of a large store takes little memory", Cluster, true, suites::large),
        scenario(
            "full-disk",
            "a disk that fills up refuses what adds data, and nothing else",
            Cluster,
            true,
            full_disk::full_disk,
        ),
        scenario(
            "kube-apiserver",
            "Kubernetes on the store, through kills of the store",
            K8s,
            false,
            kubernetes::kube_apiserver,
        ),
    ]
}
