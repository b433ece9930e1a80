//! One pass over one EtcdBackupSchedule: read, validate, plan, write down what is to be done, do it.
//!
//! Backups belong to nobody: they outlive the schedule that made them, and one of its name finds them again by their labels.

pub mod cron;
pub mod plan;
pub mod retention;
pub mod seen;
pub mod status;
pub mod validate;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::api::PostParams;
use kube::core::DeserializeGuard;

use crate::cluster::act;
use crate::cluster::act::ActError;
use crate::cluster::write;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSchedule;
use crate::crd::EtcdBackupScheduleStatus;
use crate::crd::EtcdBackupSpec;
use crate::fail;
use crate::fail::Point;
use crate::names;
use plan::Planned;
use plan::Step;
use seen::Backup;
use seen::Seen;

/// Between two passes, at least while something is under way, and at most.
const SOON: Duration = Duration::from_millis(200);
const STEADY: Duration = Duration::from_secs(60);

/// What came of a pass.
pub struct Passed {
    pub step: Step,
    /// As it is written.
    pub status: EtcdBackupScheduleStatus,
    pub again: Duration,
}

/// Looks at `schedule` and makes one step. A backup of a name that is `in_use` is not deleted.
///
/// # Errors
/// The API server does not answer, or refuses; or the name of the next backup is somebody else's.
pub async fn pass(
    client: &Client,
    schedule: &EtcdBackupSchedule,
    in_use: &BTreeSet<String>,
) -> Result<Passed, ActError> {
    let now = Timestamp::now();
    if schedule.metadata.deletion_timestamp.is_some() {
        let status = schedule.status.clone().unwrap_or_default();
        return Ok(Passed { step: Step::Wait(now), status, again: STEADY });
    }
    let api = Api::<EtcdBackup>::namespaced(client.clone(), &schedule.namespace().unwrap_or_default());
    let backups = backups(client, schedule, in_use, now).await?;
    let planned = look(schedule, &backups, now);
    // First the record, then the deed.
    let status = status::status(schedule, &backups, &planned, now);
    write(client, schedule, status.clone()).await?;
    fail::reached(Point::Recorded, &planned.step);
    act(&api, schedule, &backups, &planned.step).await?;
    fail::reached(Point::Acted, &planned.step);
    let again = match &planned.step {
        Step::Wait(until) => Duration::try_from(until.duration_since(now)).unwrap_or_default().clamp(SOON, STEADY),
        Step::Refuse(_) => STEADY,
        Step::Skip { .. } | Step::Replace(_) | Step::Create { .. } | Step::Delete(_) => SOON,
    };
    Ok(Passed { step: planned.step, status, again })
}

/// The backups that the schedule has made of its cluster. One that cannot be read is left alone.
async fn backups(
    client: &Client,
    schedule: &EtcdBackupSchedule,
    in_use: &BTreeSet<String>,
    now: Timestamp,
) -> kube::Result<Vec<Backup>> {
    let namespace = schedule.namespace().unwrap_or_default();
    let api = Api::<DeserializeGuard<EtcdBackup>>::namespaced(client.clone(), &namespace);
    let selector: Vec<String> = labels(schedule).iter().map(|(name, value)| format!("{name}={value}")).collect();
    let list = api.list(&ListParams::default().labels(&selector.join(","))).await?;
    let readable = list.items.into_iter().filter_map(|guarded| match guarded.0 {
        Ok(backup) => Some(backup),
        Err(invalid) => {
            let name = invalid.metadata.name;
            tracing::warn!(namespace, backup = ?name, error = invalid.error, "an EtcdBackup cannot be read");
            None
        }
    });
    Ok(readable.map(|backup| Backup::read(&backup, in_use.contains(&backup.name_any()), now)).collect())
}

fn look(schedule: &EtcdBackupSchedule, backups: &[Backup], now: Timestamp) -> Planned {
    let wanted = match validate::validate(schedule) {
        Ok(wanted) => wanted,
        Err(invalid) => return Planned { step: Step::Refuse(invalid.to_string()), next: None },
    };
    let status = schedule.status.as_ref();
    let fresh_since = schedule.creation_timestamp().filter(|_| status.is_none()).map(|at| at.0);
    let recorded = status.and_then(|status| status.next_schedule_time.as_ref()).map(|at| at.0);
    plan::plan(&Seen { name: &schedule.name_any(), wanted: &wanted, recorded, fresh_since, backups, now })
}

/// Does what changes something besides the status.
async fn act(
    api: &Api<EtcdBackup>,
    schedule: &EtcdBackupSchedule,
    backups: &[Backup],
    step: &Step,
) -> Result<(), ActError> {
    match step {
        Step::Create { name, .. } => {
            let params = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
            match api.create(&params, &backup(schedule, name)).await {
                Err(error) if act::is(&error, 409) => Err(ActError::Taken(name.clone())),
                made => Ok(made.map(drop)?),
            }
        }
        Step::Replace(names) | Step::Delete(names) => {
            for backup in backups.iter().filter(|backup| names.contains(&backup.name)) {
                act::delete(api, &backup.name, &backup.uid, None).await?;
            }
            Ok(())
        }
        Step::Wait(_) | Step::Refuse(_) | Step::Skip { .. } => Ok(()),
    }
}

fn backup(schedule: &EtcdBackupSchedule, name: &str) -> EtcdBackup {
    let spec =
        EtcdBackupSpec { cluster_ref: schedule.spec.cluster_ref.clone(), template: schedule.spec.template.clone() };
    let mut backup = EtcdBackup::new(name, spec);
    backup.metadata.labels = Some(labels(schedule));
    backup
}

/// Of backups, and by which they are found again.
fn labels(schedule: &EtcdBackupSchedule) -> BTreeMap<String, String> {
    [(names::SCHEDULE, schedule.name_any()), (names::CLUSTER, schedule.spec.cluster_ref.name.clone())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}
