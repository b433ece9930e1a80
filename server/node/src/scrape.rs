//! The metrics that are read off the member when Prometheus asks.

use std::sync::Weak;

use garboard_proto::etcdserverpb::AlarmType;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;

use crate::node::Inner;
use crate::node::Node;

/// A metric of one value: name, help, whether it is a counter in etcd (the other `_total`s are gauges there), how to read it.
struct Reading {
    gauge: IntGauge,
    counter: bool,
    read: fn(&Inner) -> i64,
}

/// Collects all readings of one member.
pub(crate) struct Scrape {
    inner: Weak<Inner>,
    readings: Vec<Reading>,
    alarms: IntGaugeVec,
}

const GAUGE: bool = false;
const COUNTER: bool = true;

type Row = (&'static str, &'static str, bool, fn(&Inner) -> i64);

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const SERVER: &[Row] = &[
    ("etcd_server_has_leader", "1 when a leader is known.", GAUGE, |n| i64::from(n.leadership.borrow().leader != 0)),
    ("etcd_server_is_leader", "1 when this member leads.", GAUGE, |n| i64::from(n.leadership.borrow().is_leader)),
    ("etcd_server_is_learner", "1 when this member is a learner.", GAUGE, |n| {
        i64::from(n.links.roster().member(n.member_id).is_some_and(|m| m.is_learner))
    }),
    ("etcd_server_proposals_committed_total", "Log entries committed.", GAUGE, |n| {
        count(n.consensus.view().committed_index)
    }),
    ("etcd_server_proposals_applied_total", "Log entries applied.", GAUGE, |n| count(n.store.applied().index)),
    ("etcd_server_quota_backend_bytes", "The quota of the database in bytes.", GAUGE, |n| {
        n.config.quota_bytes().map_or(0, count)
    }),
    ("garboard_joint_consensus", "1 while two sets of voters decide together, amid a change of them.", GAUGE, |n| {
        i64::from(n.consensus.is_joint())
    }),
    ("garboard_format_version", "The format that the members agreed to write.", GAUGE, |n| {
        n.store.format_version().into()
    }),
    ("etcd_server_heartbeat_send_failures_total", "Heartbeats that could not be sent in time.", COUNTER, |_| 0),
];

const MVCC: &[Row] = &[
    ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database, free pages included.", GAUGE, |n| {
        count(n.backend.size().total_bytes)
    }),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the database in use.", GAUGE, |n| {
        count(n.backend.size().in_use_bytes)
    }),
    ("etcd_mvcc_put_total", "Keys put.", COUNTER, |n| count(n.store.counters().puts)),
    ("etcd_mvcc_delete_total", "Keys deleted.", COUNTER, |n| count(n.store.counters().deletes)),
    ("etcd_mvcc_range_total", "Ranges served.", COUNTER, |n| count(n.store.counters().ranges)),
    ("etcd_mvcc_txn_total", "Transactions.", COUNTER, |n| count(n.store.counters().txns)),
    ("etcd_debugging_mvcc_keys_total", "Keys in the index.", GAUGE, |n| count(n.store.counters().indexed_keys)),
    ("etcd_debugging_mvcc_current_revision", "The current revision.", GAUGE, |n| n.store.revision()),
    ("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction.", GAUGE, |n| {
        n.store.compact_revision().max(0)
    }),
    ("etcd_debugging_mvcc_events_total", "Events sent to watchers.", COUNTER, |n| {
        count(n.store.watch_hub().counters().events_total)
    }),
    ("etcd_debugging_mvcc_pending_events_total", "Events waiting for their watchers.", GAUGE, |n| {
        count(n.store.watch_hub().counters().pending_events)
    }),
    ("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are catching up.", GAUGE, |n| {
        count(n.store.watch_hub().counters().slow_watchers)
    }),
    ("etcd_debugging_mvcc_watch_stream_total", "Watch streams.", GAUGE, |n| {
        count(n.store.watch_hub().counters().streams)
    }),
    ("etcd_debugging_mvcc_watcher_total", "Watchers.", GAUGE, |n| count(n.store.watch_hub().counters().watchers)),
    ("etcd_debugging_mvcc_db_compaction_keys_total", "Revisions removed by compaction.", COUNTER, |n| {
        count(n.store.counters().compacted_revisions)
    }),
    ("etcd_debugging_lease_granted_total", "Leases granted.", COUNTER, |n| count(n.store.counters().leases_granted)),
    ("etcd_debugging_lease_revoked_total", "Leases revoked.", COUNTER, |n| count(n.store.counters().leases_revoked)),
];

impl Scrape {
    /// Registers the readings of `node`.
    pub(crate) fn register(registry: &Registry, node: &Node) -> Result<(), prometheus::Error> {
        let mut readings = Vec::new();
        for (name, help, counter, read) in SERVER.iter().chain(MVCC) {
            readings.push(Reading { gauge: IntGauge::new(*name, *help)?, counter: *counter, read: *read });
        }
        let labels = &["server_id", "alarm_type"];
        let alarms =
            IntGaugeVec::new(Opts::new("etcd_debugging_server_alarms", "1 for each alarm that is raised."), labels)?;
        let id = IntGaugeVec::new(Opts::new("etcd_server_id", "1, labelled with the member's id."), &["server_id"])?;
        id.with_label_values(&[&format!("{:x}", node.member_id())]).set(1);
        registry.register(Box::new(id))?;
        let inner = std::sync::Arc::downgrade(&node.0);
        registry.register(Box::new(Self { inner, readings, alarms }))
    }
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        let mut all: Vec<&Desc> = self.readings.iter().flat_map(|r| r.gauge.desc()).collect();
        all.extend(self.alarms.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(inner) = self.inner.upgrade() else { return Vec::new() };
        let mut families = Vec::with_capacity(self.readings.len() + 1);
        for reading in &self.readings {
            let value = (reading.read)(&inner);
            reading.gauge.set(value);
            let mut collected = reading.gauge.collect();
            if reading.counter {
                collected.iter_mut().for_each(|family| as_counter(family, value));
            }
            families.append(&mut collected);
        }
        self.alarms.reset();
        for alarm in inner.store.alarms() {
            let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |a| a.as_str_name());
            self.alarms.with_label_values(&[&format!("{:x}", alarm.member_id), kind]).set(1);
        }
        families.append(&mut self.alarms.collect());
        families
    }
}

/// The crate's counters can only be added to; what is counted elsewhere is handed on as one.
fn as_counter(family: &mut MetricFamily, value: i64) {
    family.set_field_type(MetricType::COUNTER);
    for metric in family.mut_metric() {
        let mut counter = prometheus::proto::Counter::default();
        counter.set_value(value as f64);
        metric.set_counter(counter);
    }
}
