//! Names that etcd 3.6 still takes for flags renamed since, and those it takes and ignores.

use super::super::Flag;
use super::super::Kind::*;
use super::super::Support::*;
use super::flag;
use super::only_36;

const fn older(name: &'static str, kind: super::super::Kind, default: &'static str, now: &'static str) -> Flag {
    only_36(flag(name, kind, default, Alias(now), "Older name."))
}

const fn older_gate(name: &'static str, default: &'static str, gate: &'static str) -> Flag {
    only_36(flag(name, Bool, default, GateAlias(gate), "Older way to switch a feature gate."))
}

const fn ignored(name: &'static str) -> Flag {
    flag(name, Ignored, "", IgnoredByEtcd, "Of etcd 0.4 and 2.")
}

pub const OLDER_NAMES: &[Flag] = &[
    older("experimental-bootstrap-defrag-threshold-megabytes", Uint, "0", "bootstrap-defrag-threshold-megabytes"),
    older_gate("experimental-compact-hash-check-enabled", "false", "CompactHashCheck"),
    older("experimental-compact-hash-check-time", Duration, "1m0s", "compact-hash-check-time"),
    older("experimental-compaction-batch-limit", Int, "0", "compaction-batch-limit"),
    older("experimental-compaction-sleep-interval", Duration, "0s", "compaction-sleep-interval"),
    older("experimental-corrupt-check-time", Duration, "0s", "corrupt-check-time"),
    older("experimental-distributed-tracing-address", Text, "localhost:4317", "distributed-tracing-address"),
    older("experimental-distributed-tracing-instance-id", Text, "", "distributed-tracing-instance-id"),
    older("experimental-distributed-tracing-sampling-rate", Int, "0", "distributed-tracing-sampling-rate"),
    older("experimental-distributed-tracing-service-name", Text, "etcd", "distributed-tracing-service-name"),
    older("experimental-downgrade-check-time", Duration, "5s", "downgrade-check-time"),
    older("experimental-enable-distributed-tracing", Bool, "false", "enable-distributed-tracing"),
    older_gate("experimental-enable-lease-checkpoint", "false", "LeaseCheckpoint"),
    older_gate("experimental-enable-lease-checkpoint-persist", "false", "LeaseCheckpointPersist"),
    older_gate("experimental-initial-corrupt-check", "false", "InitialCorruptCheck"),
    older("experimental-memory-mlock", Bool, "false", "memory-mlock"),
    older("experimental-peer-skip-client-san-verification", Bool, "false", "peer-skip-client-san-verification"),
    older("experimental-snapshot-catchup-entries", Uint, "5000", "snapshot-catchup-entries"),
    older_gate("experimental-stop-grpc-service-on-defrag", "false", "StopGRPCServiceOnDefrag"),
    older_gate("experimental-txn-mode-write-with-shared-buffer", "true", "TxnModeWriteWithSharedBuffer"),
    older("experimental-warning-apply-duration", Duration, "0s", "warning-apply-duration"),
    older("experimental-warning-unary-request-duration", Duration, "0s", "warning-unary-request-duration"),
    older("experimental-watch-progress-notify-interval", Duration, "0s", "watch-progress-notify-interval"),
];

pub const IGNORED: &[Flag] = &[
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-election-timeout"),
    ignored("peer-heartbeat-interval"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    flag(
        "v2-deprecation",
        Choice(&["", "not-yet", "write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "",
        IgnoredByEtcd,
        "Stage of the removal of etcd's version 2 store.",
    ),
];
