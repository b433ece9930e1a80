//! The list of scenarios.

mod asleep;
mod cluster;
mod cluster_commands;
mod commands;
mod config;
mod corruption;
mod damage;
mod full_disk;
mod health;
mod inspect;
mod kubernetes;
mod metrics;
mod operator;
mod snapshot;
mod stalled_disk;
mod suites;
mod tls;
mod upgrade;

use crate::scenario::Scenario;
use crate::scenario::Tier;

/// Of what runs on nodes, the scenario that every run takes.
pub const SMOKE: &str = "operator-smoke";
/// And the one that full runs alone take: a whole release is built for it.
pub const UPGRADE: &str = "operator-upgrade";

pub fn all() -> Vec<Scenario> {
    use Tier::Cluster;
    use Tier::K8s;
    use Tier::Nodes;
    // Those count how soon the store serves again; whoever runs on nodes waits for most of its time, and has networks of its own.
    let scenario = |name, what, tier, ours_only, run| Scenario { name, what, tier, ours_only, alone: tier == K8s, run };
    vec![
        scenario(
            "etcdctl",
            "each etcdctl command, its output compared with real etcd's",
            Cluster,
            false,
            commands::etcdctl,
        ),
        scenario("etcdctl-tls", "the same over TLS with client certificates", Cluster, false, commands::etcdctl_tls),
        scenario(
            "etcdctl-cluster",
            "the commands of a cluster, compared with real etcd's on three members each",
            Cluster,
            false,
            cluster_commands::etcdctl_cluster,
        ),
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
        scenario("inspect", "what a disk holds, told without a member", Cluster, true, inspect::inspect),
        scenario("members", "three members: each serves, each may be lost", Cluster, false, cluster::members),
        scenario(
            "asleep",
            "a leader that sleeps while another leads serves no stale read as it wakes",
            Cluster,
            false,
            asleep::asleep,
        )
        .alone(),
        scenario(
            "leadership",
            "leadership moves when asked, and before a member ends",
            Cluster,
            true,
            cluster::leadership,
        )
        .alone(),
        scenario("membership", "members are added, promoted, removed and wiped", Cluster, true, cluster::membership),
        scenario(
            "peer-tls",
            "peers with certificates, and one that joins by URLs alone",
            Cluster,
            true,
            cluster::peer_tls,
        ),
        scenario("restored", "a snapshot becomes a cluster of three", Cluster, true, cluster::restored),
        scenario(
            "far-behind",
            "a member far behind gets a snapshot, on connections that are all cut",
            Cluster,
            true,
            cluster::far_behind,
        ),
        scenario(
            "corruption",
            "a member with other data is found, at its start and later",
            Cluster,
            false,
            corruption::corruption,
        ),
        scenario(
            "stalled-disk",
            "a leader whose disk does not answer lets another lead",
            Cluster,
            false,
            stalled_disk::stalled_disk,
        )
        .alone(),
        scenario(
            "change-halfway",
            "the leader is lost between the steps of a change of the voters",
            Cluster,
            false,
            cluster::change_halfway,
        )
        .alone(),
        scenario("upgrade", "two releases in one cluster, forth and back", Cluster, true, upgrade::upgrade),
        scenario(
            "discovery-srv",
            "members find each other by SRV records of a DNS server",
            Cluster,
            false,
            cluster::discovery_srv,
        ),
        scenario(
            "old-member",
            "a member of the cluster before a restore comes back and is refused",
            Cluster,
            true,
            cluster::old_member,
        ),
        scenario(
            "quorum-lost",
            "two of three are lost for good, the third goes on alone and grows again",
            Cluster,
            true,
            cluster::quorum_lost,
        ),
        scenario("limits", "more than is allowed, of everything", Cluster, true, suites::limits).alone(),
        scenario("large", "the snapshot of a large store takes little memory", Cluster, true, suites::large).alone(),
        scenario(
            "full-disk",
            "a disk that fills up refuses what adds data, and nothing else",
            Cluster,
            true,
            full_disk::full_disk,
        )
        .alone(),
        scenario(
            "kube-apiserver",
            "Kubernetes on the store, through kills of the store",
            K8s,
            false,
            kubernetes::kube_apiserver,
        ),
        scenario(
            "kube-apiserver-cluster",
            "Kubernetes on three members, each killed, stopped and replaced",
            K8s,
            false,
            kubernetes::kube_apiserver_cluster,
        ),
        scenario(
            "lab-nodes",
            "a whole Kubernetes of three nodes: Pods, names, volumes, and faults of all of it",
            Nodes,
            false,
            kubernetes::lab_nodes,
        ),
        scenario(
            "lab-chart",
            "the chart: least rights, valid objects, helm install, test, upgrade and uninstall around a running EtcdCluster",
            Nodes,
            true,
            kubernetes::lab_chart,
        ),
        scenario(
            SMOKE,
            "helm install, kubectl apply, a kube-apiserver on it, a Pod lost: the product in a few minutes",
            Nodes,
            true,
            operator::operator_smoke,
        ),
        scenario(
            "operator-life",
            "helm install, kubectl apply: the life of an EtcdCluster with a kube-apiserver on it and clients that are judged",
            Nodes,
            true,
            operator::operator_life,
        ),
        scenario(
            "operator-nodes",
            "its nodes are cordoned, drained, cut off, and lost for good",
            Nodes,
            true,
            operator::operator_nodes,
        ),
        scenario(
            "operator-matrix",
            "each change of its members with operators that die at each step, two operators, a killed API server, killed Pods",
            Nodes,
            true,
            operator::operator_matrix,
        ),
        scenario(
            "operator-upkeep",
            "its CAs rotated, backups taken and restored, with the same troubles",
            Nodes,
            true,
            operator::operator_upkeep,
        ),
        scenario(
            "operator-storage",
            "an EtcdCluster on volumes that grow, on volumes that do not, and on none; and one whose quota is full",
            Nodes,
            true,
            operator::operator_storage,
        ),
        scenario(
            "operator-dual-stack",
            "an EtcdCluster whose Pods have IPv4 and IPv6",
            Nodes,
            true,
            operator::operator_dual_stack,
        ),
        scenario("operator-ipv6", "an EtcdCluster whose Pods have IPv6 alone", Nodes, true, operator::operator_ipv6),
        scenario(
            "operator-cert-manager",
            "certificates by a real cert-manager: founded with them, renewed under clients, by the operator instead and back; an issuer that comes late",
            Nodes,
            true,
            operator::operator_cert_manager,
        ),
        scenario(
            "operator-certificates",
            "certificates of the operator's own authorities, all renewed under clients",
            Nodes,
            true,
            operator::operator_certificates,
        ),
        scenario(
            "operator-backup",
            "EtcdBackups under clients: read by real etcd, restored, refused when damaged; volumes that are full, read-only or not there",
            Nodes,
            true,
            operator::operator_backup,
        ),
        scenario(
            "operator-schedule",
            "a backup every minute, each restored, while members come and go; what is kept, skipped and refused",
            Nodes,
            true,
            operator::operator_schedule,
        ),
        scenario(
            "operator-monitoring",
            "the chart's alerts in a real Prometheus, while members, operator, space and certificates fail",
            Nodes,
            true,
            operator::operator_monitoring,
        ),
        scenario(
            "operator-restore",
            "EtcdClusters that are founded from an EtcdBackup, from files when no object is left, from real etcd's snapshot; and those that are not",
            Nodes,
            true,
            operator::operator_restore,
        ),
        scenario(
            "operator-rotation",
            "the operator's CAs rotated under clients, replaced by somebody else's Secret and back; then all have expired while no operator ran",
            Nodes,
            true,
            operator::operator_rotation,
        ),
        scenario(
            UPGRADE,
            "the operator, then an EtcdCluster under clients, from the release before to this one, and the latter back",
            Nodes,
            true,
            operator::operator_upgrade,
        ),
        scenario(
            "operator-restore-in-place",
            "an EtcdCluster that a live Kubernetes stores in goes back to a backup, once that is confirmed, and forth again while operators die",
            Nodes,
            true,
            operator::operator_restore_in_place,
        ),
        scenario(
            "operator-recover",
            "two of three volumes of an EtcdCluster that a live Kubernetes stores in are destroyed, and it goes on with the third",
            Nodes,
            true,
            operator::operator_recover,
        ),
    ]
}

#[cfg(test)]
mod tests;
