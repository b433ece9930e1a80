//! etcd's server, disk and MVCC metrics, under etcd's names and buckets, so that dashboards and alerts written for it go on working.

use std::sync::Arc;

use garboard_storage::backend::BackendObserver;
use garboard_storage::wal::WalObserver;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::IntCounter;
use prometheus::IntGauge;
use prometheus::Registry;
use prometheus::exponential_buckets;

/// The metrics that are written where things happen; what can be read off at scrape time is in `scrape`.
pub(crate) struct Metrics {
    pub(crate) wal_fsync: Histogram,
    pub(crate) wal_bytes: IntGauge,
    pub(crate) backend_commit: Histogram,
    pub(crate) defrag_duration: Histogram,
    pub(crate) defrag_inflight: IntGauge,
    pub(crate) hash_duration: Histogram,
    pub(crate) hash_rev_duration: Histogram,
    pub(crate) client_snapshot: Histogram,
    pub(crate) snapshot_save: Histogram,
    pub(crate) snapshot_sync: Histogram,
    pub(crate) snapshot_applies: IntGauge,
    pub(crate) leader_changes: IntCounter,
    pub(crate) proposals_pending: IntGauge,
    pub(crate) proposals_failed: IntCounter,
    pub(crate) read_indexes_failed: IntCounter,
    pub(crate) slow_applies: IntCounter,
    pub(crate) lease_expired: IntCounter,
    pub(crate) lease_renewed: IntCounter,
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn histogram(&self, name: &str, help: &str, start: f64, count: usize) -> Result<Histogram, prometheus::Error> {
        let histogram =
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(exponential_buckets(start, 2.0, count)?))?;
        self.0.register(Box::new(histogram.clone()))?;
        Ok(histogram)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn register(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let m = Maker(registry);
        Ok(Arc::new(Self {
            wal_fsync: m.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Time of one sync of the write-ahead log.",
                0.001,
                14,
            )?,
            wal_bytes: m.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the write-ahead log.")?,
            backend_commit: m.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Time of one commit of the database.",
                0.001,
                14,
            )?,
            defrag_duration: m.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Time of one defragmentation.",
                0.1,
                13,
            )?,
            defrag_inflight: m.gauge("etcd_disk_defrag_inflight", "1 while a defragmentation is under way.")?,
            hash_duration: m.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Time of one hash of the whole database.",
                0.01,
                15,
            )?,
            hash_rev_duration: m.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Time of one hash at a revision.",
                0.01,
                15,
            )?,
            client_snapshot: m.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Time of one snapshot sent to a client.",
                0.01,
                17,
            )?,
            snapshot_save: m.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Time from the beginning of a snapshot that a member sends until it is a synced file.",
                0.1,
                10,
            )?,
            snapshot_sync: m.histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "Time of the last commit of a received snapshot, with its syncs.",
                0.001,
                14,
            )?,
            snapshot_applies: m.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "1 while a received snapshot takes the state's place.",
            )?,
            leader_changes: m.counter("etcd_server_leader_changes_seen_total", "Leader changes seen.")?,
            proposals_pending: m.gauge("etcd_server_proposals_pending", "Proposals waiting to be applied.")?,
            proposals_failed: m.counter("etcd_server_proposals_failed_total", "Proposals that failed.")?,
            read_indexes_failed: m.counter("etcd_server_read_indexes_failed_total", "ReadIndex rounds that failed.")?,
            slow_applies: m.counter("etcd_server_slow_apply_total", "Entries that took long to apply.")?,
            lease_expired: m.counter("etcd_debugging_server_lease_expired_total", "Leases that expired.")?,
            lease_renewed: m.counter("etcd_debugging_lease_renewed_total", "Lease renewals seen by the leader.")?,
        }))
    }

    /// Counts one proposal as pending until the guard is dropped.
    pub(crate) fn pending_proposal(&self) -> PendingProposal<'_> {
        self.proposals_pending.inc();
        PendingProposal(&self.proposals_pending)
    }
}

/// See [`Metrics::pending_proposal`].
pub(crate) struct PendingProposal<'a>(&'a IntGauge);

impl Drop for PendingProposal<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Passes the disk's timings on to the metrics.
pub(crate) struct DiskObserver(pub(crate) Arc<Metrics>);

impl WalObserver for DiskObserver {
    fn synced(&self, duration: std::time::Duration) {
        self.0.wal_fsync.observe(duration.as_secs_f64());
    }

    fn written(&self, bytes: usize) {
        self.0.wal_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl BackendObserver for DiskObserver {
    fn committed(&self, duration: std::time::Duration) {
        self.0.backend_commit.observe(duration.as_secs_f64());
    }
}
