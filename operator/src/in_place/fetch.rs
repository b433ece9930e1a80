//! What is there of a restore: asked of the API server without a cache.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::core::DeserializeGuard;

use super::plan::Cluster;
use super::plan::Looked;
use super::plan::Record;
use super::plan::Safety;
use super::plan::Salvage;
use super::plan::Survivors;
use super::plan::World;
use super::safety_backup_name;
use super::survivors;
use crate::backup::Obstacle;
use crate::cluster;
use crate::cluster::fetch::put_aside;
use crate::cluster::validate::Defaults;
use crate::cluster::validate::Valid;
use crate::cluster::validate::validate;
use crate::cluster::world::Aside;
use crate::cluster::world::parse_id;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupStatus;
use crate::crd::EtcdCluster;
use crate::crd::EtcdClusterStatus;
use crate::crd::EtcdRestore;
use crate::crd::backup;
use crate::crd::cluster::StorageType;
use crate::crd::in_place::OldVolume;
use crate::crd::in_place::Phase;
use crate::crd::in_place::Plan;
use crate::crd::status::RestoreInPlace;
use crate::names;

/// What a pass is made from.
pub struct Fetched {
    pub world: World,
    /// The volumes of the cluster that made way.
    pub old: Vec<OldVolume>,
    /// The EtcdCluster, if there is one that can be obeyed.
    pub valid: Option<Valid>,
}

pub async fn fetch(client: &Client, restore: &EtcdRestore, defaults: &Defaults) -> kube::Result<Fetched> {
    let namespace = restore.namespace().unwrap_or_default();
    let clusters = Api::<DeserializeGuard<EtcdCluster>>::namespaced(client.clone(), &namespace);
    let (cluster, others, safety, aside) = tokio::try_join!(
        clusters.get_opt(&restore.spec.cluster_ref.name),
        super::all(client, &namespace),
        safety(client, restore, &namespace),
        volumes_aside(client, restore, &namespace),
    )?;
    let plans = matches!(status_phase(restore), Phase::Planning | Phase::AwaitingConfirmation);
    let proposal = match &cluster {
        Some(DeserializeGuard(Ok(cluster))) if plans => proposal(client, restore, cluster).await?,
        Some(DeserializeGuard(Ok(_))) => {
            Err(obstacle("Confirmed", "what was confirmed is not planned again".to_owned()))
        }
        Some(DeserializeGuard(Err(error))) => Err(obstacle("ClusterInvalid", error.error.clone())),
        None => Err(obstacle("ClusterMissing", format!("there is no EtcdCluster {}", restore.spec.cluster_ref.name))),
    };
    let survivors = survivors(client, restore, &aside).await?;
    let other = others.iter().find(|other| {
        other.uid() != restore.uid()
            && other.spec.cluster_ref.name == restore.spec.cluster_ref.name
            && status_phase(other).is_at_work()
    });
    let cluster = cluster.and_then(|DeserializeGuard(cluster)| cluster.ok());
    let status = restore.status.clone().unwrap_or_default();
    let world = World {
        phase: status.phase,
        confirm: restore.spec.confirm.clone(),
        rollback: restore.spec.rollback,
        shown: status.plan,
        founded: status.cluster_id,
        proposal,
        cluster: cluster.as_ref().map(|cluster| seen(cluster, restore)),
        other: other.map(|other| other.name_any()),
        safety,
        aside: aside.iter().filter(|volume| !volume.deleting).count(),
        survivors,
    };
    let old = aside.into_iter().map(|volume| OldVolume { member: volume.name.clone(), claim: volume.name });
    let valid = cluster.and_then(|cluster| validate(&cluster, defaults).ok());
    Ok(Fetched { world, old: old.collect(), valid })
}

fn status_phase(restore: &EtcdRestore) -> Phase {
    restore.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

fn obstacle(reason: &'static str, message: String) -> Obstacle {
    Obstacle { reason, message }
}

fn seen(cluster: &EtcdCluster, restore: &EtcdRestore) -> Cluster {
    let status = cluster.status.clone().unwrap_or_default();
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let current = |generation: Option<i64>| generation == cluster.metadata.generation;
    let own = |record: &RestoreInPlace| Some(&record.uid) == restore.metadata.uid.as_ref();
    Cluster {
        record: status.restore.as_ref().map(|record| match own(record) {
            true => Record::Own(record.stage),
            false => Record::Others(record.stage),
        }),
        ready: condition("Ready").is_some_and(|ready| ready.status == "True" && current(ready.observed_generation)),
        revision: status.revision,
        word: condition("Progressing").map(|progressing| progressing.message.clone()).unwrap_or_default(),
        id: status.cluster_id,
    }
}

/// `None`: none is asked for.
async fn safety(client: &Client, restore: &EtcdRestore, namespace: &str) -> kube::Result<Option<Safety>> {
    if restore.spec.safety_backup.is_none() {
        return Ok(None);
    }
    let api = Api::<DeserializeGuard<EtcdBackup>>::namespaced(client.clone(), namespace);
    let Some(found) = api.get_opt(&safety_backup_name(restore)).await? else { return Ok(Some(Safety::Absent)) };
    if found.labels().get(names::RESTORE) != restore.metadata.uid.as_ref() {
        return Ok(Some(Safety::Foreign));
    }
    let status = found.0.ok().and_then(|backup| backup.status).unwrap_or_default();
    let complete = status.conditions.iter().find(|condition| condition.type_ == "Complete");
    let word = complete.map(|complete| complete.message.clone()).unwrap_or_default();
    Ok(Some(match status.phase {
        backup::Phase::Succeeded => Safety::Succeeded,
        backup::Phase::Failed => Safety::Failed(word),
        backup::Phase::Pending | backup::Phase::Running | backup::Phase::Verifying => Safety::Running(word),
    }))
}

/// Of the cluster that made way.
async fn volumes_aside(client: &Client, restore: &EtcdRestore, namespace: &str) -> kube::Result<Vec<Aside>> {
    let plan = restore.status.as_ref().and_then(|status| status.plan.as_ref());
    let Some(old) = plan.and_then(|plan| parse_id(&plan.cluster_id)) else { return Ok(Vec::new()) };
    let labelled = ListParams::default().labels(&format!("{}={}", names::CLUSTER, restore.spec.cluster_ref.name));
    let volumes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).list(&labelled).await?;
    Ok(volumes.items.iter().filter_map(put_aside).filter(|volume| volume.cluster_id == Some(old)).collect())
}

/// `None`: the source is a file. Nothing is looked at before the members have ended.
async fn survivors(client: &Client, restore: &EtcdRestore, aside: &[Aside]) -> kube::Result<Option<Survivors>> {
    if restore.spec.source.surviving_member.is_none() {
        return Ok(None);
    }
    let nothing = Survivors { looked: Vec::new(), choice: None, salvage: Salvage::Absent };
    let shown = restore.status.as_ref().and_then(|status| status.plan.as_ref());
    Ok(Some(match status_phase(restore) {
        // What was shown is what waits to be confirmed, also when the Pods that told of it have gone.
        Phase::Inspecting if let Some(shown) = shown.filter(|shown| shown.survivor.is_some()) => {
            Survivors { choice: Some(shown.clone()), ..nothing }
        }
        Phase::Inspecting => {
            let looked = survivors::look(client, restore, aside).await?;
            Survivors { choice: choice(restore, &looked), looked, ..nothing }
        }
        Phase::Salvaging => Survivors { salvage: survivors::salvage(client, restore).await?, ..nothing },
        _ => nothing,
    }))
}

// === the plan ===

async fn proposal(
    client: &Client,
    restore: &EtcdRestore,
    cluster: &EtcdCluster,
) -> kube::Result<Result<Plan, Obstacle>> {
    let namespace = restore.namespace().unwrap_or_default();
    if cluster.spec.storage.kind != StorageType::PersistentVolume {
        let message = "on an EmptyDir there is nothing that could be kept: the EtcdCluster has no volumes".to_owned();
        return Ok(Err(obstacle("NoVolumes", message)));
    }
    let source = &restore.spec.source;
    if let Some(file) = source.file()
        && let Err(why) = cluster::restore::file(client, &namespace, &file).await?
    {
        return Ok(Err(why));
    }
    let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    let lost = conditions.any(|condition| condition.type_ == "QuorumLost" && condition.status != "False");
    if source.surviving_member.is_some() && !lost {
        let message = "the members are a quorum, as far as is known: nothing is to be recovered".to_owned();
        return Ok(Err(obstacle("QuorumNotLost", message)));
    }
    let backup = match &source.backup_ref {
        Some(reference) => Api::<EtcdBackup>::namespaced(client.clone(), &namespace).get_opt(&reference.name).await?,
        None => None,
    };
    let backup = backup.and_then(|backup| backup.status);
    let status = cluster.status.clone().unwrap_or_default();
    // Where the EtcdRestore of a record has gone, another one goes on with its cluster.
    let record = status.restore.as_ref().filter(|record| record.is_under_way());
    let Some(id) = status.cluster_id.clone().or_else(|| record.map(|record| record.cluster_id.clone())) else {
        let message = "the EtcdCluster is not founded: bootstrap.restore says what it begins with".to_owned();
        return Ok(Err(obstacle("ClusterNotFounded", message)));
    };
    Ok(Ok(make(restore, id, &status, backup.as_ref())))
}

/// `backup`: what the EtcdBackup says of itself, if the source is one.
pub(super) fn make(
    restore: &EtcdRestore,
    id: String,
    status: &EtcdClusterStatus,
    backup: Option<&EtcdBackupStatus>,
) -> Plan {
    let chosen = chosen(restore, backup);
    let before = restore.status.as_ref().and_then(|status| status.plan.as_ref()).filter(|plan| plan.cluster_id == id);
    let newest = status.revision.max(before.and_then(|plan| plan.newest_revision));
    let revision = backup.and_then(|backup| backup.revision);
    let foreign = backup.and_then(|backup| backup.cluster_id.as_ref()).filter(|of| **of != id);
    let survivors = restore.spec.source.surviving_member.is_some();
    let mut expected_loss = match (foreign, revision, newest) {
        _ if survivors => {
            let why = "the members that are left end, so that their volumes can be looked at";
            format!("{why}. Which of them is gone on with, and what that loses, is to be confirmed then")
        }
        (Some(of), ..) => format!("all that the cluster {id} has: the backup is of the cluster {of}"),
        (None, Some(from), Some(to)) => {
            format!("what was written after revision {from}, at {to} now, until the members have ended")
        }
        (None, None, Some(to)) => {
            format!(
                "what is not in the file, of which nothing is known before it is read; the cluster is at revision {to}"
            )
        }
        (None, _, None) => "it is not known how much: no member tells its revision".to_owned(),
    };
    expected_loss.push_str(match &restore.spec.safety_backup {
        Some(_) => ". A safety backup is taken before; the old volumes are kept",
        None => ". No safety backup is asked for; the old volumes are kept",
    });
    let token = token(restore, &chosen, &id);
    Plan { token, chosen, cluster_id: id, revision, newest_revision: newest, expected_loss, ..Plan::default() }
}

fn token(restore: &EtcdRestore, chosen: &str, cluster_id: &str) -> String {
    let of = [restore.uid().unwrap_or_default().as_str(), chosen, cluster_id].join("\n");
    cluster::hash(of.as_bytes()).chars().take(8).collect()
}

fn chosen(restore: &EtcdRestore, backup: Option<&EtcdBackupStatus>) -> String {
    let Some(file) = restore.spec.source.file() else {
        let wanted = restore.spec.source.surviving_member.as_deref().unwrap_or_default();
        return match wanted {
            survivors::AUTO => "the best of the volumes that are left".to_owned(),
            member => format!("the volume of {member}"),
        };
    };
    let mut chosen = file.to_string();
    if let Some(backup) = backup {
        let (revision, at) = (backup.revision.unwrap_or_default(), backup.completed_at.as_ref());
        let sum: String = backup.sha256.iter().flat_map(|sum| sum.chars()).take(12).collect();
        chosen += &format!(": revision {revision}, sha256 {sum}");
        chosen += &at.map_or_else(String::new, |at| format!(", complete at {}", at.0));
    }
    chosen
}

/// What would be done with what was found on the volumes; `None`: not all were looked at, or none can be used.
fn choice(restore: &EtcdRestore, looked: &[(String, Looked)]) -> Option<Plan> {
    let shown = restore.status.as_ref()?.plan.as_ref()?;
    let told = looked.iter().map(|(_, looked)| match looked {
        Looked::Told(candidate) => Some(candidate.clone()),
        Looked::Not | Looked::At(_) => None,
    });
    let candidates = survivors::ranked(told.collect::<Option<Vec<_>>>()?);
    let best = survivors::choose(&candidates, restore.spec.source.surviving_member.as_deref()?)?;
    let number = |number: Option<i64>| number.unwrap_or_default();
    let chosen = format!(
        "the volume of {}: its log ends with term {}, index {}, at revision {}",
        best.member,
        number(best.term),
        number(best.index),
        number(best.revision)
    );
    let usable = candidates.iter().filter(|of| of.message.is_empty()).count();
    Some(Plan {
        token: token(restore, &chosen, &shown.cluster_id),
        expected_loss: format!(
            "what lost members alone have acknowledged, and nobody can tell how much. Volumes that can be read: {usable}. All are kept"
        ),
        chosen,
        cluster_id: shown.cluster_id.clone(),
        revision: best.revision,
        newest_revision: shown.newest_revision,
        survivor: Some(best.member.clone()),
        candidates,
    })
}
