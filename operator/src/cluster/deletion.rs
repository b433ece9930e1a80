//! `spec.deletion.finalBackup`: a finalizer for as long as it is asked for, and the EtcdBackup that a deleted cluster leaves behind.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::Resource as _;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::core::DeserializeGuard;
use serde_json::json;

use super::act;
use super::act::ActError;
use super::plan::Step;
use super::random_suffix;
use super::status::Verdict;
use super::status::describe;
use super::validate::Valid;
use super::world::Leaving;
use super::world::Seen;
use super::world::Tried;
use super::world::World;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSpec;
use crate::crd::EtcdCluster;
use crate::crd::backup::ClusterRef;
use crate::crd::backup::Phase;
use crate::crd::backup::Verify;
use crate::crd::cluster::WhenDeleted;
use crate::crd::deletion::FinalBackup;
use crate::names;

const FINALIZER: &str = "garboard.dev/final-backup";
/// While an object has this one, Kubernetes deletes what belongs to it first.
const FOREGROUND: &str = "foregroundDeletion";
const FINAL_BACKUP: &str = "FinalBackup";

/// Whether the operator has a say in when it goes.
pub fn is_held(cluster: &EtcdCluster) -> bool {
    cluster.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// What there is of the final backup, if somebody has deleted the cluster.
pub async fn look(client: &Client, cluster: &EtcdCluster) -> kube::Result<Leaving> {
    let deleted = cluster.metadata.deletion_timestamp.is_some();
    let record = cluster.status.as_ref().and_then(|status| status.final_backup.clone());
    let mut tried = None;
    if let (true, Some(record), Some(wanted)) = (deleted, record, &cluster.spec.deletion.final_backup) {
        let namespace = cluster.namespace().unwrap_or_default();
        let backups = Api::<DeserializeGuard<EtcdBackup>>::namespaced(client.clone(), &namespace);
        let (seen, as_wanted) = match backups.get_opt(&record.name).await? {
            None => (Seen::Absent, true),
            Some(DeserializeGuard(Err(error))) => (Seen::Pending(error.error), true),
            Some(DeserializeGuard(Ok(backup))) => (seen(&backup, wanted), backup.spec.template == wanted.template()),
        };
        tried = Some(Tried { record, seen, as_wanted });
    }
    let fresh_name = format!("{}-final-{}", cluster.name_any(), random_suffix());
    Ok(Leaving { deleted, held: is_held(cluster), tried, fresh_name })
}

fn seen(backup: &EtcdBackup, wanted: &FinalBackup) -> Seen {
    let status = backup.status.clone().unwrap_or_default();
    let of = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let holds = |kind: &str| of(kind).is_some_and(|condition| condition.status == "True");
    let kinds: &[&str] = if wanted.verify == Verify::Restore { &["Complete", "Verified"] } else { &["Complete"] };
    // What it says of the first that does not hold.
    let lacking = kinds.iter().find(|kind| !holds(kind));
    let why = lacking.map(|kind| match of(kind) {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None => format!("it is not {kind} yet"),
    });
    match (status.phase, why) {
        (Phase::Succeeded, None) => Seen::Taken,
        (phase, why) if phase.is_final() => Seen::Failed {
            why: why.unwrap_or_else(|| "it says no reason".to_owned()),
            at: status.completed_at.map_or(Timestamp::UNIX_EPOCH, |at| at.0),
        },
        (phase, why) => Seen::Pending(why.unwrap_or_else(|| format!("it is {phase:?}"))),
    }
}

/// Does what a step asks for that has to do with the cluster's going.
pub async fn act(client: &Client, cluster: &EtcdCluster, valid: &Valid, step: &Step) -> Result<(), ActError> {
    match step {
        Step::Hold => hold(client, cluster, true).await,
        Step::LetGo(_) => hold(client, cluster, false).await,
        Step::BackUp { next, .. } => {
            // The members are needed until there is a backup.
            if cluster.finalizers().iter().any(|finalizer| finalizer == FOREGROUND) {
                act::finalizer(client, cluster, FOREGROUND, false).await?;
            }
            forget(client, cluster, &next.name).await?;
            let Some(wanted) = &cluster.spec.deletion.final_backup else { return Ok(()) };
            let backups = Api::<EtcdBackup>::namespaced(client.clone(), &valid.names.namespace);
            act::create(&backups, &backup(valid, wanted, &next.name), valid).await
        }
        _ => Ok(()),
    }
}

/// It belongs to nobody: it stays when the cluster has gone.
fn backup(valid: &Valid, wanted: &FinalBackup, name: &str) -> EtcdBackup {
    let cluster_ref = ClusterRef { name: valid.names.cluster.clone() };
    let mut backup = EtcdBackup::new(name, EtcdBackupSpec { cluster_ref, template: wanted.template() });
    let labels = [(names::CLUSTER, &valid.names.cluster), (names::FINAL_OF, &valid.names.uid)];
    backup.metadata.labels = Some(labels.map(|(label, value)| (label.to_owned(), value.clone())).into());
    backup
}

/// Deletes the tries before the one of this name, and volumes that were theirs alone.
async fn forget(client: &Client, cluster: &EtcdCluster, next: &str) -> Result<(), ActError> {
    let namespace = cluster.namespace().unwrap_or_default();
    let backups = Api::<EtcdBackup>::namespaced(client.clone(), &namespace);
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let uid = cluster.uid().unwrap_or_default();
    let tries = backups.list(&ListParams::default().labels(&format!("{}={uid}", names::FINAL_OF))).await?;
    for before in tries.items.iter().filter(|backup| backup.name_any() != next) {
        if before.spec.template.destination.volume_template.is_some() {
            gone(claims.delete(&before.claim(), &DeleteParams::default()).await.map(drop))?;
        }
        act::delete(&backups, &before.name_any(), &before.uid().unwrap_or_default(), None).await?;
    }
    Ok(())
}

/// Puts the finalizer on, or takes it off. The volumes belong to a cluster only while it is not held: whatever somebody deletes it with, they
/// stay as long as it does.
///
/// # Errors
/// The API server does not answer, or refuses.
pub async fn hold(client: &Client, cluster: &EtcdCluster, hold: bool) -> Result<(), ActError> {
    if cluster.spec.storage.retention.when_cluster_deleted == WhenDeleted::Delete {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
        let of_cluster = ListParams::default().labels(&format!("{}={}", names::CLUSTER, cluster.name_any()));
        let owners = cluster.controller_owner_ref(&()).filter(|_| !hold);
        for claim in claims.list(&of_cluster).await?.items {
            // One of a cluster that is not founded yet goes with it in any case.
            if claim.annotations().contains_key(names::CLUSTER_ID) {
                let owned = json!({"uid": claim.uid(), "ownerReferences": owners.iter().collect::<Vec<_>>()});
                let patch = Patch::Merge(json!({"metadata": owned}));
                gone(claims.patch(&claim.name_any(), &PatchParams::default(), &patch).await.map(drop))?;
            }
        }
    }
    act::finalizer(client, cluster, FINALIZER, hold).await
}

/// What is gone needs nothing more.
fn gone(done: kube::Result<()>) -> kube::Result<()> {
    match done {
        Err(error) if act::is(&error, 404) => Ok(()),
        done => done,
    }
}

/// What is told of it; `None` while nobody waits for it.
pub fn verdict(world: &World, step: &Step) -> Option<Verdict> {
    let leaving = &world.leaving;
    if !(leaving.deleted && leaving.held && world.wanted.final_backup) {
        return None;
    }
    let (holds, reason, message) = match (step, &leaving.tried) {
        (Step::LetGo(why), Some(Tried { seen: Seen::Taken, .. })) => (true, "Taken", why.clone()),
        (Step::BackUp { .. }, Some(Tried { seen: Seen::Failed { .. }, .. })) => (false, "Failed", describe(step)),
        (_, Some(Tried { record, seen: Seen::Failed { why, .. }, .. })) => {
            (false, "Failed", format!("EtcdBackup {} has failed, another one follows: {why}", record.name))
        }
        (_, Some(Tried { record, seen: Seen::Pending(why), .. })) => {
            (false, "Pending", format!("EtcdBackup {}: {why}", record.name))
        }
        (step, _) => (false, "Pending", describe(step)),
    };
    Some(Verdict { kind: FINAL_BACKUP, holds: Some(holds), reason, message })
}

#[cfg(test)]
mod tests;
