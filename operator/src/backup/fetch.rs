//! What is there of a backup: asked of the API server without a cache.

use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::ContainerStatus;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::api::LogParams;
use kube::core::DeserializeGuard;

use super::build::job_name;
use super::plan::Claim;
use super::plan::Failure;
use super::plan::Job;
use super::plan::Obstacle;
use super::plan::Task;
use super::plan::Told;
use super::plan::Wanted;
use super::plan::World;
use crate::archive::Outcome;
use crate::archive::Reason;
use crate::cluster::build::backup_secret;
use crate::cluster::validate::Defaults;
use crate::cluster::validate::Valid;
use crate::cluster::validate::validate;
use crate::crd::EtcdBackup;
use crate::crd::EtcdCluster;
use crate::crd::backup::DeletionPolicy;
use crate::crd::backup::Phase;
use crate::crd::backup::Progress;
use crate::crd::backup::SnapshotSource;
use crate::crd::backup::Verify;
use crate::crd::status::Role;

/// Whether the operator has a say in when the backup goes.
pub const FINALIZER: &str = "garboard.dev/archive";

/// The cluster that a backup is of.
pub struct Source {
    pub valid: Valid,
    /// Names and hosts of the members to be asked, in this order.
    pub members: Vec<(String, String)>,
    pub client_secret: Option<String>,
}

/// What was seen, and the cluster, if it can be used.
pub async fn fetch(
    client: &Client,
    backup: &EtcdBackup,
    defaults: &Defaults,
) -> kube::Result<(World, Result<Source, Obstacle>)> {
    let namespace = backup.namespace().unwrap_or_default();
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let claim_name = backup.claim();
    let job = |task| job(client, backup, task);
    let (source, claim, take, verify, delete) = tokio::try_join!(
        source(client, backup, defaults),
        claims.get_metadata_opt(&claim_name),
        job(Task::Take),
        job(Task::Verify),
        job(Task::Delete),
    )?;
    let now = Timestamp::now();
    let status = backup.status.clone().unwrap_or_default();
    let template = &backup.spec.template;
    let world = World {
        wanted: Wanted {
            deadline: SignedDuration::from_secs(template.active_deadline_seconds),
            restore: template.verify == Verify::Restore,
            remove_files: template.deletion_policy == DeletionPolicy::Delete,
            own_volume: template.destination.volume_template.is_some(),
        },
        phase: status.phase,
        started: status.started_at.is_some(),
        created_at: backup.creation_timestamp().map_or(now, |time| time.0),
        deleting: backup.metadata.deletion_timestamp.is_some(),
        held: backup.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        claim: match claim {
            None => Claim::Absent,
            Some(claim) if claim.metadata.deletion_timestamp.is_some() => Claim::Deleting,
            Some(_) => Claim::There,
        },
        obstacle: source.as_ref().err().cloned(),
        take,
        verify,
        delete,
        now,
    };
    Ok((world, source))
}

/// The cluster, or what is in the way.
async fn source(client: &Client, backup: &EtcdBackup, defaults: &Defaults) -> kube::Result<Result<Source, Obstacle>> {
    let namespace = backup.namespace().unwrap_or_default();
    let name = &backup.spec.cluster_ref.name;
    let obstacle = |reason, message: String| Ok(Err(Obstacle { reason, message }));
    let clusters = Api::<DeserializeGuard<EtcdCluster>>::namespaced(client.clone(), &namespace);
    let cluster = match clusters.get_opt(name).await? {
        Some(DeserializeGuard(Ok(cluster))) => cluster,
        Some(DeserializeGuard(Err(error))) => {
            return obstacle("ClusterInvalid", format!("EtcdCluster {name}: {}", error.error));
        }
        None => return obstacle("ClusterMissing", format!("there is no EtcdCluster {name}")),
    };
    let valid = match validate(&cluster, defaults) {
        Ok(valid) => valid,
        Err(invalid) => return obstacle("ClusterInvalid", format!("EtcdCluster {name}: {invalid}")),
    };
    let members = in_order(&cluster, &valid, backup.spec.template.source);
    // Whoever is verified needs none of them.
    let taken = backup.status.as_ref().is_some_and(|status| status.phase == Phase::Verifying);
    if members.is_empty() && !taken {
        return obstacle("ClusterNotReady", format!("no member of EtcdCluster {name} can be asked"));
    }
    let client_secret = backup_secret(&valid);
    if let Some(secret) = &client_secret {
        let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
        if secrets.get_metadata_opt(secret).await?.is_none() {
            return obstacle("CertificateMissing", format!("there is no Secret {secret} to show to members"));
        }
    }
    Ok(Ok(Source { valid, members, client_secret }))
}

/// Who is asked first: those who are furthest, and the leader last unless it is the one who is wanted.
fn in_order(cluster: &EtcdCluster, valid: &Valid, source: SnapshotSource) -> Vec<(String, String)> {
    let Some(status) = &cluster.status else { return Vec::new() };
    let role = match source {
        SnapshotSource::PreferFollower => [Some(Role::Follower), Some(Role::Leader)],
        SnapshotSource::Leader => [Some(Role::Leader), None],
    };
    role.into_iter()
        .flatten()
        .flat_map(|role| {
            let mut of_role: Vec<_> =
                status.members.iter().filter(|member| member.ready && member.role == role).collect();
            of_role.sort_by_key(|member| std::cmp::Reverse(member.revision));
            of_role.into_iter().map(|member| (member.name.clone(), valid.names.host(&member.name)))
        })
        .collect()
}

// === Jobs ===

async fn job(client: &Client, backup: &EtcdBackup, task: Task) -> kube::Result<Option<Job>> {
    let namespace = backup.namespace().unwrap_or_default();
    let name = job_name(&backup.name_any(), task);
    let Some(job) = Api::<JobObject>::namespaced(client.clone(), &namespace).get_opt(&name).await? else {
        return Ok(None);
    };
    let uid = backup.uid().unwrap_or_default();
    // One that an earlier backup of this name has left goes with that.
    if job.metadata.deletion_timestamp.is_some() || !job.owner_references().iter().any(|owner| owner.uid == uid) {
        return Ok(Some(Job::Deleting));
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let of_job = pods_of(&pods, &name).await?;
    Ok(Some(match ended(&job) {
        Some((true, _, _)) => Job::Succeeded(told(&of_job, task)),
        Some((false, message, at)) => Job::Failed(failure(&of_job, message, at)),
        None => Job::Running {
            progress: match of_job.last() {
                Some(pod) if task == Task::Take && is_running(pod) => progress(&pods, pod).await,
                _ => None,
            },
            held_up: of_job.last().and_then(held_up),
        },
    }))
}

/// The Pods of a Job, the last one last.
pub async fn pods_of(pods: &Api<Pod>, job: &str) -> kube::Result<Vec<Pod>> {
    let labelled = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let mut of_job = pods.list(&labelled).await?.items;
    of_job.sort_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    Ok(of_job)
}

/// Whether the Job has succeeded, what its condition says, and since when.
pub fn ended(job: &JobObject) -> Option<(bool, String, Timestamp)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let holds = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    let (succeeded, condition) = match holds("Complete") {
        Some(condition) => (true, condition),
        None => (false, holds("Failed")?),
    };
    let at = condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let message = condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default();
    Some((succeeded, message, at))
}

/// The containers of a Pod that have begun, those that come first and run beside included.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
    first.chain(status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten())
}

fn outcome(container: &ContainerStatus) -> Option<(i32, &str)> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    Some((ended.exit_code, ended.message.as_deref().unwrap_or_default()))
}

fn told(pods: &[Pod], task: Task) -> Told {
    let read = pods.iter().rev().flat_map(containers).filter_map(outcome).find_map(|(code, message)| {
        let told: Outcome = serde_json::from_str(message).ok().filter(|_| code == 0)?;
        match (task, told) {
            (Task::Take, Outcome::Manifest(manifest)) => Some(Told::Manifest(manifest)),
            (Task::Verify, Outcome::Compared(_)) => Some(Told::Same),
            _ => None,
        }
    });
    read.unwrap_or(Told::Nothing)
}

/// What the last of its Pods that ended said, or what the Job says of itself.
pub fn failure(pods: &[Pod], message: String, at: Timestamp) -> Failure {
    let ends = pods.iter().rev().flat_map(containers).filter_map(outcome);
    let said = ends.filter(|(code, _)| *code != 0).find_map(|(_, message)| read_failure(message));
    let (reason, message) = said.unwrap_or((None, message));
    Failure { reason, message, at }
}

/// What a program that failed has told at its end.
pub fn read_failure(message: &str) -> Option<(Option<Reason>, String)> {
    match serde_json::from_str(message) {
        Ok(Outcome::Failed(failed)) => Some((Some(failed.reason), failed.message)),
        Ok(_) => None,
        // The server's own words, when it is the one that could not restore; its usage may follow.
        Err(_) => {
            let error = message.lines().rfind(|line| line.starts_with("Error: ")).or_else(|| message.lines().last());
            error.map(|line| (None, line.chars().take(1024).collect()))
        }
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// What its Pod has written last; `None` also while that cannot be read.
async fn progress(pods: &Api<Pod>, pod: &Pod) -> Option<Progress> {
    let last = LogParams { tail_lines: Some(1), limit_bytes: Some(4096), ..LogParams::default() };
    serde_json::from_str(pods.logs(&pod.name_any(), &last).await.ok()?.trim()).ok()
}

/// Why a Pod does not begin.
pub fn held_up(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Pending"))?;
    let mut conditions = status.conditions.iter().flatten();
    if let Some(unscheduled) =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
    {
        return unscheduled.message.clone();
    }
    let waiting = containers(pod).filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let mut stuck = waiting.filter(|waiting| {
        waiting.reason.as_deref().is_some_and(|reason| reason.contains("Image") || reason.contains("Config"))
    });
    stuck.next().map(|waiting| {
        format!("{}: {}", waiting.reason.as_deref().unwrap_or_default(), waiting.message.as_deref().unwrap_or_default())
    })
}
