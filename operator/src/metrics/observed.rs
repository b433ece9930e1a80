//! What the statuses of all objects say, as gauges: read when somebody scrapes, so that what is gone is not told any more.

use std::collections::HashMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use prometheus::GaugeVec;
use prometheus::core::Collector;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use super::opts;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSchedule;
use crate::crd::EtcdCluster;
use crate::crd::EtcdRestore;
use crate::crd::backup::Phase;
use crate::crd::backup::VerificationResult;

type Guarded<K> = Store<DeserializeGuard<K>>;

#[derive(Clone)]
pub struct Observed {
    /// One of each namespace that is watched.
    stores: Arc<Mutex<Stores>>,
    condition: GaugeVec,
    ready: GaugeVec,
    members: GaugeVec,
    certificates_end: GaugeVec,
    authorities_end: GaugeVec,
    backups: GaugeVec,
    last_success: GaugeVec,
    last_verified: GaugeVec,
    last_size: GaugeVec,
    schedule_success: GaugeVec,
    schedule_next: GaugeVec,
    restores: GaugeVec,
}

#[derive(Default)]
struct Stores {
    clusters: Vec<Guarded<EtcdCluster>>,
    backups: Vec<Guarded<EtcdBackup>>,
    schedules: Vec<Guarded<EtcdBackupSchedule>>,
    restores: Vec<Guarded<EtcdRestore>>,
}

// === impl Observed ===

impl Observed {
    pub(super) fn new() -> prometheus::Result<Self> {
        let cluster = &["namespace", "cluster"];
        let schedule = &["namespace", "schedule", "cluster"];
        let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(opts(name, help), labels);
        Ok(Self {
            stores: Arc::default(),
            condition: gauge(
                "cluster_condition",
                "Conditions of a cluster: 1 True, 0 False, -1 Unknown.",
                &["namespace", "cluster", "condition"],
            )?,
            ready: gauge("cluster_ready_members", "Members that are ready.", cluster)?,
            members: gauge("cluster_members", "Members that the store counts.", cluster)?,
            certificates_end: gauge(
                "cluster_certificates_not_after_seconds",
                "When the first of a cluster's certificates ends, in seconds since the epoch.",
                cluster,
            )?,
            authorities_end: gauge(
                "cluster_authorities_not_after_seconds",
                "When the first of a cluster's CAs ends, in seconds since the epoch.",
                cluster,
            )?,
            backups: gauge("backups", "EtcdBackups of a cluster, by phase.", &["namespace", "cluster", "phase"])?,
            last_success: gauge(
                "backup_last_success_timestamp_seconds",
                "When the newest backup of a cluster was complete, in seconds since the epoch.",
                cluster,
            )?,
            last_verified: gauge(
                "backup_last_verified_timestamp_seconds",
                "When a backup of a cluster was last restored and found to be right, in seconds since the epoch.",
                cluster,
            )?,
            last_size: gauge("backup_last_size_bytes", "Of the newest backup of a cluster.", cluster)?,
            schedule_success: gauge(
                "backup_schedule_last_success_timestamp_seconds",
                "When the last backup of a schedule that succeeded had ended, in seconds since the epoch.",
                schedule,
            )?,
            schedule_next: gauge(
                "backup_schedule_next_timestamp_seconds",
                "When the next backup of a schedule is due, in seconds since the epoch; absent while it is suspended.",
                schedule,
            )?,
            restores: gauge("restores", "EtcdRestores of a cluster, by phase.", &["namespace", "cluster", "phase"])?,
        })
    }

    pub fn watch_clusters(&self, store: Guarded<EtcdCluster>) {
        self.stores.lock().clusters.push(store);
    }

    pub fn watch_backups(&self, store: Guarded<EtcdBackup>) {
        self.stores.lock().backups.push(store);
    }

    pub fn watch_schedules(&self, store: Guarded<EtcdBackupSchedule>) {
        self.stores.lock().schedules.push(store);
    }

    pub fn watch_restores(&self, store: Guarded<EtcdRestore>) {
        self.stores.lock().restores.push(store);
    }

    fn gauges(&self) -> [&GaugeVec; 12] {
        [
            &self.condition,
            &self.ready,
            &self.members,
            &self.certificates_end,
            &self.authorities_end,
            &self.backups,
            &self.last_success,
            &self.last_verified,
            &self.last_size,
            &self.schedule_success,
            &self.schedule_next,
            &self.restores,
        ]
    }

    fn cluster(&self, cluster: &EtcdCluster) {
        let (Some(namespace), name) = (cluster.namespace(), cluster.name_any()) else { return };
        let Some(status) = &cluster.status else { return };
        let labels = [namespace.as_str(), name.as_str()];
        self.ready.with_label_values(&labels).set(f64::from(status.ready_members));
        self.members.with_label_values(&labels).set(f64::from(status.member_count));
        if let Some(end) = status.certificates.iter().map(|certificate| certificate.not_after.0.as_second()).min() {
            // Exact for as long as there are such years.
            self.certificates_end.with_label_values(&labels).set(end as f64);
        }
        if let Some(end) = status.authorities.iter().map(|authority| authority.not_after.0.as_second()).min() {
            self.authorities_end.with_label_values(&labels).set(end as f64);
        }
        for condition in &status.conditions {
            let value = match condition.status.as_str() {
                "True" => 1.0,
                "False" => 0.0,
                _ => -1.0,
            };
            self.condition.with_label_values(&[&namespace, &name, &condition.type_]).set(value);
        }
    }

    /// `newest`: of each cluster, when the newest backup was complete.
    fn backup(&self, backup: &EtcdBackup, newest: &mut HashMap<(String, String), i64>) {
        let namespace = backup.namespace().unwrap_or_default();
        let cluster = backup.spec.cluster_ref.name.clone();
        let status = backup.status.clone().unwrap_or_default();
        self.backups.with_label_values(&[&namespace, &cluster, &format!("{:?}", status.phase)]).inc();
        let labels = [namespace.as_str(), cluster.as_str()];
        if let Some(proof) = status.verification.filter(|proof| proof.result == VerificationResult::Passed) {
            let gauge = self.last_verified.with_label_values(&labels);
            gauge.set(gauge.get().max(proof.at.0.as_second() as f64));
        }
        let (Phase::Succeeded, Some(at)) = (status.phase, status.completed_at) else { return };
        let at = at.0.as_second();
        let newest = newest.entry((namespace.clone(), cluster.clone())).or_insert(i64::MIN);
        if at > *newest {
            *newest = at;
            self.last_success.with_label_values(&labels).set(at as f64);
            self.last_size.with_label_values(&labels).set(status.size_bytes.unwrap_or_default() as f64);
        }
    }

    fn restore(&self, restore: &EtcdRestore) {
        let phase = restore.status.as_ref().map(|status| status.phase).unwrap_or_default();
        let (namespace, cluster) = (restore.namespace().unwrap_or_default(), &restore.spec.cluster_ref.name);
        self.restores.with_label_values(&[&namespace, cluster, &format!("{phase:?}")]).inc();
    }

    fn schedule(&self, schedule: &EtcdBackupSchedule) {
        let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
        let labels = [namespace.as_str(), name.as_str(), schedule.spec.cluster_ref.name.as_str()];
        let Some(status) = &schedule.status else { return };
        if let Some(at) = &status.last_successful_time {
            self.schedule_success.with_label_values(&labels).set(at.0.as_second() as f64);
        }
        if let Some(at) = status.next_schedule_time.as_ref().filter(|_| !schedule.spec.suspend) {
            self.schedule_next.with_label_values(&labels).set(at.0.as_second() as f64);
        }
    }
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held to the end: two who scrape at a time would reset each other's gauges.
        let stores = self.stores.lock();
        self.gauges().into_iter().for_each(GaugeVec::reset);
        for cluster in stores.clusters.iter().flat_map(Store::state) {
            cluster.0.iter().for_each(|cluster| self.cluster(cluster));
        }
        let mut newest = HashMap::new();
        for backup in stores.backups.iter().flat_map(Store::state) {
            backup.0.iter().for_each(|backup| self.backup(backup, &mut newest));
        }
        for schedule in stores.schedules.iter().flat_map(Store::state) {
            schedule.0.iter().for_each(|schedule| self.schedule(schedule));
        }
        for restore in stores.restores.iter().flat_map(Store::state) {
            restore.0.iter().for_each(|restore| self.restore(restore));
        }
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}
