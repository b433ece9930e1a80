//! One pass over one EtcdRestore: fetch, plan, write down what is to be done, do it.
//!
//! It decides, and says so in its status; what that means for Pods and volumes is the EtcdCluster's own next steps
//! (`cluster/plan/in_place.rs`), which look at the statuses of EtcdRestores.

mod fetch;
mod plan;
mod status;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::api::PostParams;
use kube::core::DeserializeGuard;

use crate::cluster::act;
use crate::cluster::act::ActError;
use crate::cluster::write;
use crate::crd;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSpec;
use crate::crd::EtcdCluster;
use crate::crd::EtcdRestore;
use crate::crd::backup::BackupTemplate;
use crate::crd::in_place::Phase;
use crate::crd::in_place::SafetyBackup;
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
pub async fn pass(client: &Client, restore: &EtcdRestore) -> Result<Passed, ActError> {
    let (world, old) = fetch::fetch(client, restore).await?;
    let step = plan::plan(&world);
    write(client, restore, status::status(restore, &world, old, &step)).await?;
    fail::reached(Point::Recorded, &step);
    if let (Step::TakeSafetyBackup, Some(asked)) = (&step, &restore.spec.safety_backup) {
        take_safety_backup(client, restore, asked).await?;
    }
    fail::reached(Point::Acted, &step);
    let again = match &step {
        Step::Rest => None,
        Step::Wait(_) if world.phase.is_at_work() => Some(WATCHING),
        Step::Wait(_) | Step::Withdraw(_) | Step::Propose(_) => Some(WAITING),
        _ => Some(SOON),
    };
    Ok(Passed { step, again })
}

fn safety_backup_name(restore: &EtcdRestore) -> String {
    format!("{}-safety", restore.name_any())
}

/// It belongs to nobody: it outlives the EtcdRestore.
async fn take_safety_backup(client: &Client, restore: &EtcdRestore, asked: &SafetyBackup) -> Result<(), ActError> {
    let template = BackupTemplate::new(asked.destination.clone());
    let spec = EtcdBackupSpec { cluster_ref: restore.spec.cluster_ref.clone(), template };
    let mut backup = EtcdBackup::new(&safety_backup_name(restore), spec);
    backup.metadata.labels = Some(BTreeMap::from([(names::RESTORE.to_owned(), restore.uid().unwrap_or_default())]));
    let api = Api::<EtcdBackup>::namespaced(client.clone(), &restore.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &backup).await {
        Err(error) if !act::is_already_there(&error) => Err(error.into()),
        // Whose it is sees the next pass.
        _ => Ok(()),
    }
}

/// Those that can be read, of a namespace.
async fn all(client: &Client, namespace: &str) -> kube::Result<Vec<EtcdRestore>> {
    let api = Api::<DeserializeGuard<EtcdRestore>>::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
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
    let from = crd::restore::Restore {
        source: restore.spec.source.clone(),
        revision_bump: restore.spec.revision_bump.saturating_add(behind).min(BUMP_MAX),
    };
    Some(RestoreInPlace {
        name: restore.name_any(),
        uid: restore.uid()?,
        stage: RestoreStage::Stopping,
        cluster_id: plan.cluster_id.clone(),
        from: (status.phase != Phase::RollingBack).then_some(from),
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
    let sources = of_clusters.chain(restores.map(|restore| restore.spec.source));
    Ok(sources.filter_map(|source| Some(source.backup_ref?.name)).collect())
}

fn to_be_founded_from(cluster: &EtcdCluster) -> Option<crd::restore::RestoreSource> {
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
