//! The part of the configuration that the member itself is started with.

use garboard_node::InitialClusterState;
use garboard_node::NodeConfig;
use garboard_node::PeerTls;
use garboard_node::Release;

use super::AutoCompaction;
use super::ClusterState;
use super::Config;
use crate::flags::Url;

/// Not configurable: etcd's size of a segment.
const WAL_SEGMENT_BYTES: u64 = 64 << 20;

impl Config {
    /// What the node is told. `peer_tls` is made of [`Config::peer_tls`].
    pub fn node(&self, peer_tls: PeerTls) -> NodeConfig {
        let texts = |urls: &[Url]| urls.iter().map(Url::to_string).collect();
        NodeConfig {
            name: self.name.clone(),
            data_dir: self.data_dir.clone(),
            wal_dir: self.wal_dir.clone(),
            initial_cluster: self.cluster.initial.iter().map(|(name, url)| (name.clone(), url.to_string())).collect(),
            initial_cluster_token: self.cluster.token.clone(),
            initial_cluster_state: match self.cluster.state {
                ClusterState::New => InitialClusterState::New,
                ClusterState::Existing => InitialClusterState::Existing,
            },
            join: texts(&self.join),
            peer_tls,
            force_new_cluster: self.force_new_cluster,
            strict_reconfig_check: self.strict_reconfig_check,
            max_learners: self.max_learners,
            pre_vote: self.pre_vote,
            lease_reads: self.lease_reads,
            initial_advertise_peer_urls: texts(&self.cluster.initial_advertise_peer_urls),
            advertise_client_urls: texts(&self.cluster.advertise_client_urls),
            heartbeat_interval: self.heartbeat_interval,
            election_timeout: self.election_timeout,
            snapshot_count: self.snapshot_count,
            snapshot_catchup_entries: self.snapshot_catchup_entries,
            quota_backend_bytes: self.quota_backend_bytes,
            max_request_bytes: self.max_request_bytes,
            cache_bytes: self.cache_bytes,
            unsafe_no_fsync: self.unsafe_no_fsync,
            auto_compaction: match self.auto_compaction {
                AutoCompaction::Off => garboard_node::AutoCompaction::Off,
                AutoCompaction::Periodic(period) => garboard_node::AutoCompaction::Periodic(period),
                AutoCompaction::Revisions(revisions) => garboard_node::AutoCompaction::Revision(revisions),
            },
            compaction_batch_limit: self.compaction_batch_limit,
            compaction_sleep_interval: self.compaction_sleep_interval,
            wal_segment_bytes: WAL_SEGMENT_BYTES,
            backend_batch_interval: self.backend_batch_interval,
            warning_apply_duration: self.warning_apply_duration,
            initial_corrupt_check: self.feature_gates.enabled("InitialCorruptCheck"),
            corrupt_check_time: self.corrupt_check_time,
            compact_hash_check: self.feature_gates.enabled("CompactHashCheck"),
            compact_hash_check_time: self.compact_hash_check_time,
            downgrade_check_time: self.downgrade_check_time,
            release: Release::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn with_nothing_given_it_is_the_nodes_own_defaults() {
        assert_eq!(format!("{:?}", config("").node(PeerTls::default())), format!("{:?}", NodeConfig::default()));
    }

    #[test]
    fn each_flag_gets_where_it_belongs() {
        let node = config(
            "--name=a --data-dir=d --wal-dir=w --initial-cluster=a=http://h:1 --initial-advertise-peer-urls=http://h:1 \
             --initial-cluster-token=t --initial-cluster-state=existing --advertise-client-urls=http://h:2 \
             --heartbeat-interval=11 --election-timeout=66 --snapshot-count=3 --snapshot-catchup-entries=4 \
             --quota-backend-bytes=5 --max-request-bytes=6 --cache-bytes=7 --unsafe-no-fsync \
             --auto-compaction-mode=revision --auto-compaction-retention=8 --compaction-batch-limit=9 \
             --compaction-sleep-interval=10ms --backend-batch-interval=12ms --warning-apply-duration=13ms \
             --join=http://h:3 --force-new-cluster --strict-reconfig-check=false --max-learners=14 --pre-vote=false --lease-reads \
             --corrupt-check-time=15s --compact-hash-check-time=16s --downgrade-check-time=17s --feature-gates=CompactHashCheck=true",
        )
        .node(PeerTls::default());
        let expected = "NodeConfig { name: \"a\", data_dir: \"d\", wal_dir: Some(\"w\"), \
            initial_cluster: [(\"a\", \"http://h:1\")], initial_cluster_token: \"t\", initial_cluster_state: Existing, join: [\"http://h:3\"], peer_tls: PeerTls(no), \
            force_new_cluster: true, strict_reconfig_check: false, max_learners: 14, pre_vote: false, lease_reads: true, \
            initial_advertise_peer_urls: [\"http://h:1\"], advertise_client_urls: [\"http://h:2\"], \
            heartbeat_interval: 11ms, election_timeout: 66ms, snapshot_count: 3, snapshot_catchup_entries: 4, \
            quota_backend_bytes: 5, max_request_bytes: 6, cache_bytes: 7, unsafe_no_fsync: true, \
            auto_compaction: Revision(8), compaction_batch_limit: 9, compaction_sleep_interval: 10ms, \
            wal_segment_bytes: 67108864, backend_batch_interval: 12ms, warning_apply_duration: 13ms, \
            initial_corrupt_check: false, corrupt_check_time: 15s, compact_hash_check: true, compact_hash_check_time: 16s, downgrade_check_time: 17s, \
            release: Release { etcd_version: \"3.6.16\", reads: 1..=1, writes: 1 } }";
        assert_eq!(format!("{node:?}"), expected);
    }
}
