//! The backup that a new cluster is founded from, by `spec.bootstrap.restore` or an EtcdRestore, and what has become of it in the founder's Pod.

use k8s_openapi::api::core::v1::ContainerState;
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::api::core::v1::ContainerStatus;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::Client;
use kube::core::DeserializeGuard;

use super::build::restore::PROGRAMS;
use super::build::restore::UNPACK;
use super::fetch::Objects;
use super::plan::Step;
use super::status::Verdict;
use super::validate::Valid;
use super::world::Backup;
use super::world::File;
use super::world::Restore;
use super::world::Trouble;
use super::world::World;
use crate::archive::Outcome;
use crate::archive::Reason;
use crate::backup;
use crate::backup::Obstacle;
use crate::crd;
use crate::crd::EtcdBackup;
use crate::crd::EtcdCluster;
use crate::crd::EtcdClusterStatus;
use crate::crd::backup::Phase;
use crate::crd::restore::RestoreSource;
use crate::crd::status::RestoreInPlace;

const RESTORED: &str = "Restored";

/// What was asked for, until the cluster is founded.
pub async fn look(
    client: &Client,
    cluster: &EtcdCluster,
    valid: &Valid,
    objects: &Objects,
) -> kube::Result<Option<Restore>> {
    let status = cluster.status.as_ref();
    let founded = status.is_some_and(|status| status.cluster_id.is_some());
    let record = status.and_then(|status| status.restore.as_ref()).filter(|record| record.is_under_way());
    if let Some(record) = record.filter(|record| !record.rollback && record.from.is_none() && !founded) {
        let message = format!("EtcdRestore {} has not got that far", record.name);
        return Ok(Some(Restore { backup: Err(Obstacle { reason: "NotChosen", message }), trouble: None }));
    }
    let Some(asked) = asked(valid, record).filter(|_| !founded) else { return Ok(None) };
    let file = file(client, &valid.names.namespace, &asked.source).await?;
    let backup = file.map(|(claim, file)| Backup { claim, file, revision_bump: asked.revision_bump });
    let founder = status.and_then(|status| status.bootstrap.as_ref()).and_then(|it| objects.pods.get(&it.member));
    Ok(Some(Restore { backup, trouble: founder.and_then(trouble) }))
}

/// What was asked for last.
fn asked<'a>(valid: &'a Valid, record: Option<&'a RestoreInPlace>) -> Option<&'a crd::restore::Restore> {
    record.map_or(valid.spec.bootstrap.restore.as_ref(), |record| record.from.as_ref())
}

/// The claim of the volume, and the file in it.
pub async fn file(
    client: &Client,
    namespace: &str,
    source: &RestoreSource,
) -> kube::Result<Result<(String, File), Obstacle>> {
    let obstacle = |reason, message: String| Ok(Err(Obstacle { reason, message }));
    let (claim, file) = match (&source.backup_ref, &source.volume) {
        (Some(reference), None) => {
            let name = &reference.name;
            let backups = Api::<DeserializeGuard<EtcdBackup>>::namespaced(client.clone(), namespace);
            match backups.get_opt(name).await? {
                None => return obstacle("BackupMissing", format!("there is no EtcdBackup {name}")),
                Some(DeserializeGuard(Err(error))) => {
                    return obstacle("BackupInvalid", format!("EtcdBackup {name}: {}", error.error));
                }
                Some(DeserializeGuard(Ok(backup))) => match archive(name, &backup) {
                    Ok(found) => found,
                    Err(why) => return Ok(Err(why)),
                },
            }
        }
        (None, Some(volume)) => (volume.claim_name.clone(), File::Path(volume.path.clone())),
        _ => return obstacle("InvalidSource", "exactly one of backupRef and volume must be given".to_owned()),
    };
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    match claims.get_metadata_opt(&claim).await? {
        None => obstacle("VolumeMissing", format!("there is no PersistentVolumeClaim {claim}")),
        Some(there) if there.metadata.deletion_timestamp.is_some() => {
            obstacle("VolumeDeleting", format!("the PersistentVolumeClaim {claim} is being deleted"))
        }
        Some(_) => Ok(Ok((claim, file))),
    }
}

fn archive(name: &str, backup: &EtcdBackup) -> Result<(String, File), Obstacle> {
    let obstacle = |reason, message| Err(Obstacle { reason, message });
    if backup.metadata.deletion_timestamp.is_some() {
        return obstacle("BackupMissing", format!("EtcdBackup {name} is being deleted"));
    }
    match backup.status.as_ref().map(|status| status.phase).unwrap_or_default() {
        Phase::Succeeded => Ok((backup.claim(), File::Archive { folder: backup.folder(), name: name.to_owned() })),
        phase => obstacle("BackupNotSucceeded", format!("EtcdBackup {name} is {phase:?}")),
    }
}

// === the founder's Pod ===

/// Those of its containers that restore.
fn programs(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let first = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    first.filter(|container| PROGRAMS.contains(&container.name.as_str()))
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

fn trouble(pod: &Pod) -> Option<Trouble> {
    let refused = programs(pod).find_map(|container| {
        // One that is tried again has not done any better yet.
        let last = ended(container.state.as_ref()).or_else(|| ended(container.last_state.as_ref()));
        let last = last.filter(|ended| ended.exit_code != 0)?;
        Some(refusal(&container.name, last))
    });
    refused.map(Trouble::Refused).or_else(|| backup::held_up(pod).map(Trouble::HeldUp))
}

fn refusal(program: &str, ended: &ContainerStateTerminated) -> Obstacle {
    let message = ended.message.as_deref().unwrap_or_default();
    let (reason, message) = backup::read_failure(message)
        .unwrap_or_else(|| (None, format!("{program} has ended with exit code {}", ended.exit_code)));
    Obstacle { reason: reason.map_or("NotRestored", Reason::name), message }
}

/// Which revision was unpacked, if its manifest says so.
fn unpacked(pod: &Pod) -> Option<i64> {
    let unpack = programs(pod).find(|container| container.name == UNPACK)?;
    match serde_json::from_str(ended(unpack.state.as_ref())?.message.as_deref()?) {
        Ok(Outcome::Manifest(manifest)) => Some(manifest.revision),
        _ => None,
    }
}

// === the condition ===

/// `None`: nothing was asked for, or what has become of it stands there already.
pub fn verdict(
    valid: &Valid,
    objects: &Objects,
    world: &World,
    step: &Step,
    status: &EtcdClusterStatus,
) -> Option<Verdict> {
    let record = world.recorded.restore.as_ref().filter(|record| record.is_under_way());
    if let (Step::Latch { cluster_id }, Some(back)) = (step, record.filter(|record| record.rollback)) {
        let message = format!("EtcdRestore {}: it is the cluster {cluster_id:x} again", back.name);
        return Some(Verdict { kind: RESTORED, holds: Some(false), reason: "RolledBack", message });
    }
    let restore = world.restore.as_ref()?;
    let source = &asked(valid, record)?.source;
    let seed = world.recorded.bootstrap.as_ref();
    let (holds, reason, message) = match (step, seed, &restore.backup, &restore.trouble) {
        (Step::Latch { .. }, Some(seed), ..) => {
            let revision = objects.pods.get(seed).and_then(unpacked);
            let what =
                revision.map_or_else(|| source.to_string(), |revision| format!("revision {revision} of {source}"));
            let on = status.revision.map(|revision| format!("; the cluster has gone on at revision {revision}"));
            (true, "Restored", what + &on.unwrap_or_default())
        }
        (Step::Latch { cluster_id }, None, ..) => {
            (false, "Adopted", format!("there was a cluster {cluster_id:x} of this name already: it goes on as it is"))
        }
        (.., Some(Trouble::Refused(why))) => (false, why.reason, why.message.clone()),
        (.., Some(Trouble::HeldUp(why))) => (false, "PodPending", why.clone()),
        (_, _, Err(why), None) => (false, why.reason, why.message.clone()),
        (_, Some(seed), Ok(_), None) => (false, "Restoring", format!("{seed} restores {source}")),
        (_, None, Ok(_), None) => (false, "Pending", format!("{source} is to be restored")),
    };
    Some(Verdict { kind: RESTORED, holds: Some(holds), reason, message })
}

#[cfg(test)]
mod tests;
