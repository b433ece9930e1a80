//! One pass over one EtcdRestore: fetch, plan, write down what is to be done, do it.
//!
//! It decides, and says so in its status; what that means for Pods and volumes is the EtcdCluster's own next steps
//! (`cluster/plan/in_place.rs`), which look at the statuses of EtcdRestores.

mod build;
mod fetch;
mod plan;
mod status;
mod survivors;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::core::DeserializeGuard;

use crate::backup;
use crate::cluster::act;
use crate::cluster::act::ActError;
use crate::cluster::validate::Defaults;
use crate::cluster::validate::Valid;
use crate::cluster::write;
use crate::crd;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSpec;
use crate::crd::EtcdCluster;
use crate::crd::EtcdRestore;
use crate::crd::backup::BackupTemplate;
use crate::crd::in_place::Phase;
use crate::crd::in_place::SafetyBackup;
use crate::crd::restore::RestoreSource;
use crate::crd::restore::RestoreVolume;
use crate::crd::status::RestoreInPlace;
use crate::crd::status::RestoreStage;
use crate::fail;
use crate::fail::Point;
use crate::names;
pub use plan::Step;

const SOON: Duration = Duration::from_millis(200);
const WATCHING: Duration = Duration::from_secs(2);
/// While nobody has confirmed it.
const WAITING: Duration = Duration::from_secs(15);
/// What a founder is told at most: see `bootstrap.restore`.
const BUMP_MAX: i64 = 1_000_000_000_000_000;

/// What came of a pass.
pub struct Passed {
    pub step: Step,
    /// `None`: when somebody changes something.
    pub again: Option<Duration>,
}

/// Looks at `restore` and makes one step.
///
/// # Errors
/// The API server refuses.
pub async fn pass(client: &Client, restore: &EtcdRestore, defaults: &Defaults) -> Result<Passed, ActError> {
    let fetch::Fetched { world, old, valid } = fetch::fetch(client, restore, defaults).await?;
    let step = plan::plan(&world);
    write(client, restore, status::status(restore, &world, old, &step)).await?;
    fail::reached(Point::Recorded, &step);
    act(client, restore, &step, valid.as_ref()).await?;
    fail::reached(Point::Acted, &step);
    let again = match &step {
        Step::Rest => None,
        Step::Wait(_) if world.phase.is_at_work() => Some(WATCHING),
        Step::Wait(_) | Step::Withdraw(_) | Step::Propose(_) => Some(WAITING),
        Step::Choose(_) => Some(WATCHING),
        _ => Some(SOON),
    };
    Ok(Passed { step, again })
}

/// Does what changes something besides the status.
async fn act(client: &Client, restore: &EtcdRestore, step: &Step, valid: Option<&Valid>) -> Result<(), ActError> {
    match (step, &restore.spec.safety_backup, valid) {
        (Step::TakeSafetyBackup, Some(asked), _) => take_safety_backup(client, restore, asked).await,
        (Step::Inspect(member), _, Some(valid)) => run(client, restore, &build::inspect(restore, valid, member)).await,
        (Step::Salvage(member), _, Some(valid)) => run(client, restore, &build::salvage(restore, valid, member)).await,
        _ => Ok(()),
    }
}

async fn run(client: &Client, restore: &EtcdRestore, job: &Job) -> Result<(), ActError> {
    let namespace = restore.namespace().unwrap_or_default();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &namespace);
    backup::create(&accounts, &backup::service_account(&namespace)).await?;
    backup::create(&Api::<Job>::namespaced(client.clone(), &namespace), job).await
}

fn safety_backup_name(restore: &EtcdRestore) -> String {
    format!("{}-safety", restore.name_any())
}

/// It belongs to nobody: it outlives the EtcdRestore.
async fn take_safety_backup(client: &Client, restore: &EtcdRestore, asked: &SafetyBackup) -> Result<(), ActError> {
    let template = BackupTemplate::new(asked.destination.clone());
    let spec = EtcdBackupSpec { cluster_ref: restore.spec.cluster_ref.clone(), template };
    let mut made = EtcdBackup::new(&safety_backup_name(restore), spec);
    made.metadata.labels = Some(BTreeMap::from([(names::RESTORE.to_owned(), restore.uid().unwrap_or_default())]));
    let api = Api::<EtcdBackup>::namespaced(client.clone(), &restore.namespace().unwrap_or_default());
    // Whose it is sees the next pass.
    backup::create(&api, &made).await
}

/// Those that can be read, of a namespace.
async fn all(client: &Client, namespace: &str) -> kube::Result<Vec<EtcdRestore>> {
    let api = Api::<DeserializeGuard<EtcdRestore>>::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect()),
        // The definition may come later than the operator: clusters are kept without it.
        Err(error) if act::is(&error, 404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What an EtcdRestore that was confirmed wants of `cluster`: first the one that has begun, else the oldest.
pub async fn asked(client: &Client, cluster: &EtcdCluster) -> kube::Result<Option<RestoreInPlace>> {
    let mut restores = all(client, &cluster.namespace().unwrap_or_default()).await?;
    let name = cluster.name_any();
    restores.retain(|restore| restore.spec.cluster_ref.name == name);
    let record = cluster.status.as_ref().and_then(|status| status.restore.as_ref());
    restores.sort_by_key(|restore| {
        let begun = record.is_some_and(|record| restore.uid().as_ref() == Some(&record.uid));
        (!begun, restore.creation_timestamp().map(|at| at.0), restore.name_any())
    });
    let seen = cluster.status.as_ref().and_then(|status| status.revision);
    Ok(restores.iter().find_map(|restore| wants(restore, seen)))
}

/// `seen`: the revision at which the cluster was last seen.
fn wants(restore: &EtcdRestore, seen: Option<i64>) -> Option<RestoreInPlace> {
    let status = restore.status.as_ref().filter(|status| status.phase.replaces())?;
    let plan = status.plan.as_ref()?;
    let newest = seen.max(plan.newest_revision).unwrap_or(0);
    let behind = newest.saturating_sub(plan.revision.unwrap_or(0)).max(0);
    let rollback = status.phase == Phase::RollingBack;
    let salvaged = || {
        let claim_name = plan.survivor.clone().filter(|_| status.phase == Phase::Restoring)?;
        let path = format!("{}/{}.db.zst", build::salvage_folder(restore), restore.name_any());
        Some(RestoreSource { volume: Some(RestoreVolume { claim_name, path }), ..RestoreSource::default() })
    };
    let source = restore.spec.source.file().or_else(salvaged).filter(|_| !rollback);
    Some(RestoreInPlace {
        name: restore.name_any(),
        uid: restore.uid()?,
        stage: RestoreStage::Stopping,
        cluster_id: plan.cluster_id.clone(),
        rollback,
        from: source.map(|source| crd::restore::Restore {
            source,
            revision_bump: restore.spec.revision_bump.saturating_add(behind).min(BUMP_MAX),
        }),
    })
}

/// The names of EtcdBackups that a restore may still need, in place or of a cluster that is to be founded.
///
/// # Errors
/// The API server does not answer.
pub async fn backups_in_use(client: &Client, namespace: &str) -> kube::Result<BTreeSet<String>> {
    let clusters = Api::<DeserializeGuard<EtcdCluster>>::namespaced(client.clone(), namespace);
    let clusters = clusters.list(&ListParams::default()).await?.items.into_iter().filter_map(|guarded| guarded.0.ok());
    let of_clusters = clusters.filter_map(|cluster| to_be_founded_from(&cluster));
    let restores = all(client, namespace).await?.into_iter().filter(|restore| {
        let phase = restore.status.as_ref().map(|status| status.phase).unwrap_or_default();
        !phase.is_final()
    });
    let backups = of_clusters.filter_map(|source| source.backup_ref);
    let backups = backups.chain(restores.filter_map(|restore| restore.spec.source.backup_ref));
    Ok(backups.map(|backup| backup.name).collect())
}

fn to_be_founded_from(cluster: &EtcdCluster) -> Option<RestoreSource> {
    let status = cluster.status.clone().unwrap_or_default();
    let record = status.restore.filter(RestoreInPlace::is_under_way);
    let asked = match record {
        Some(record) => record.from,
        None if status.cluster_id.is_some() => None,
        None => cluster.spec.bootstrap.restore.clone(),
    };
    asked.map(|asked| asked.source)
}

#[cfg(test)]
mod tests;
