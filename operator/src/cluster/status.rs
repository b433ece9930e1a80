//! The status: what was seen, and conditions that say Unknown when it was not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::authorities::Rotation;
use super::certificates::Certificates;
use super::deletion;
use super::fetch::Answers;
use super::fetch::Objects;
use super::plan::Step;
use super::restore;
use super::rotate::Turn;
use super::validate::Valid;
use super::world::Known;
use super::world::Store;
use super::world::Volume;
use super::world::World;
use super::world::quorum;
use crate::crd::EtcdCluster;
use crate::crd::EtcdClusterStatus;
use crate::crd::status::Bootstrap;
use crate::crd::status::MemberStatus;
use crate::crd::status::OperationType;
use crate::crd::status::RestoreStage;
use crate::crd::status::Role;

/// What a condition says.
pub struct Verdict {
    pub kind: &'static str,
    /// `None`: unknown.
    pub holds: Option<bool>,
    pub reason: &'static str,
    pub message: String,
}

/// The status after this pass; `step` is recorded in it when it is one that is recorded first.
pub fn status(
    cluster: &EtcdCluster,
    valid: &Valid,
    objects: &Objects,
    answers: &Answers,
    certificates: &Certificates,
    world: &World,
    step: &Step,
) -> EtcdClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    record(&mut status, step, world.now);
    status.observed_generation = cluster.metadata.generation;
    status.selector = valid.names.selector_text();
    status.version = Some(valid.version.clone());
    status.members = members(objects, answers, world);
    status.ready_members = count(status.members.iter().filter(|member| member.ready));
    status.ready = format!("{}/{}", status.ready_members, valid.wanted.size);
    status.leader = status.members.iter().find(|member| member.role == Role::Leader).map(|member| member.name.clone());
    if let Store::Known(known) = &world.store {
        status.member_count = count(known.entries.iter());
    }
    // Writes change it all the time: told as of the last pass, and not for its own sake.
    let said = || answers.said.values();
    status.revision = said().filter_map(|said| Some(said.header.as_ref()?.revision)).max();
    status.db_size_bytes = said().map(|said| said.db_size).max();
    let alarm =
        |alarm: &garboard_proto::etcdserverpb::AlarmMember| format!("{:?} {:x}", alarm.alarm(), alarm.member_id);
    status.alarms = answers.alarms.iter().flatten().map(alarm).collect();
    if no_space(world).is_some_and(<[u64]>::is_empty) {
        status.reclaim = None;
    }
    status.detached_volumes = objects.detached.clone();
    status.certificates = certificates.in_use.clone();
    let mut verdicts = verdicts(valid, answers, world, step, &status);
    verdicts.push(certified(certificates));
    verdicts.push(sized(objects, world));
    verdicts.push(up_to_date(valid, world));
    verdicts.push(has_room(world, &status));
    verdicts.extend(restore::verdict(valid, objects, world, step, &status));
    verdicts.extend(deletion::verdict(world, step));
    conditions(&mut status.conditions, verdicts, cluster.metadata.generation, world.now);
    status
}

/// The status of a cluster whose spec cannot be obeyed, or that could not be looked at.
pub fn failed(cluster: &EtcdCluster, reason: &'static str, message: &str, now: Timestamp) -> EtcdClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    let unknown = |kind| Verdict { kind, holds: None, reason: "NotObserved", message: message.to_owned() };
    let verdicts = vec![
        unknown("Available"),
        unknown("Ready"),
        Verdict { kind: "Stalled", holds: Some(true), reason, message: message.to_owned() },
    ];
    conditions(&mut status.conditions, verdicts, cluster.metadata.generation, now);
    status
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}

/// What is written before it is done.
fn record(status: &mut EtcdClusterStatus, step: &Step, now: Timestamp) {
    match step {
        Step::GrantBootstrap { member } => status.bootstrap = Some(Bootstrap { member: member.clone() }),
        Step::Latch { cluster_id } => {
            status.cluster_id = Some(format!("{cluster_id:x}"));
            status.bootstrap = None;
            if let Some(restore) = &mut status.restore {
                restore.stage = RestoreStage::Done;
            }
        }
        Step::Begin(operation) => status.operation = Some(operation.clone()),
        Step::End => status.operation = None,
        Step::Compact { .. } | Step::Defragment { .. } => {
            if let Some(operation) = &mut status.operation {
                operation.asked_at = Some(Time(now));
            }
        }
        Step::BeginRestore(restore) => status.restore = Some(restore.clone()),
        Step::Forget => {
            (status.cluster_id, status.bootstrap) = (None, None);
            (status.operation, status.reclaim) = (None, None);
            if let Some(restore) = &mut status.restore {
                restore.stage = RestoreStage::Starting;
            }
        }
        Step::FallShort(reclaim) => {
            status.operation = None;
            status.reclaim = Some(reclaim.clone());
        }
        Step::BackUp { next, .. } => status.final_backup = Some(next.clone()),
        _ => {}
    }
}

fn members(objects: &Objects, answers: &Answers, world: &World) -> Vec<MemberStatus> {
    let known = match &world.store {
        Store::Known(known) => Some(known),
        Store::Unknown => None,
    };
    world
        .members
        .iter()
        .map(|(name, member)| {
            let entry = known.and_then(|known| known.of(member));
            let said = answers.said.get(name);
            let role = match (entry, known) {
                (Some(entry), Some(known)) if entry.id == known.leader => Role::Leader,
                (Some(entry), _) if entry.learner => Role::Learner,
                (Some(_), _) => Role::Follower,
                (None, _) => Role::Unknown,
            };
            let pod = objects.pods.get(name);
            MemberStatus {
                name: name.clone(),
                id: entry.map(|entry| entry.id).or(member.id).map(|id| format!("{id:x}")),
                role,
                ready: member.pod.as_ref().is_some_and(|pod| pod.ready && !pod.deleting),
                node: pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
                version: said.map(|said| said.version.clone()),
                revision: said.and_then(|said| Some(said.header.as_ref()?.revision)),
                db_size_bytes: said.map(|said| said.db_size),
                message: said.map(|said| said.errors.join("; ")).filter(|message| !message.is_empty()),
            }
        })
        .collect()
}

fn verdicts(valid: &Valid, answers: &Answers, world: &World, step: &Step, status: &EtcdClusterStatus) -> Vec<Verdict> {
    let verdict = |kind, holds: Option<bool>, reason: &'static str, message: &str| Verdict {
        kind,
        holds,
        reason,
        message: message.to_owned(),
    };
    let founded = world.recorded.cluster_id.is_some();
    let available = match &answers.read {
        Some(Ok(())) if founded => {
            verdict("Available", Some(true), "LinearizableRead", "a linearizable read was answered")
        }
        Some(Ok(())) => verdict("Available", Some(false), "Founding", "the cluster is being founded"),
        Some(Err(error)) => verdict("Available", Some(false), "NoQuorum", error),
        None if !founded => verdict("Available", Some(false), "Founding", "the cluster is being founded"),
        None if world.members.values().all(|member| member.pod.is_none()) => {
            verdict("Available", Some(false), "NoPods", "no member has a Pod")
        }
        None => verdict("Available", None, "NotObserved", "no member answers the operator"),
    };
    let lost = match &world.store {
        Store::Known(known) => {
            let (voters, healthy) = (known.voters().count(), known.healthy_voters());
            verdict(
                "QuorumLost",
                Some(false),
                "Quorum",
                &format!("{healthy} of {voters} voters are well, {} needed", quorum(voters)),
            )
        }
        Store::Unknown if answers.read.is_some() => {
            verdict("QuorumLost", Some(true), "NoQuorum", "members answer, and none has a quorum behind it")
        }
        Store::Unknown => verdict("QuorumLost", None, "NotObserved", "no member answers the operator"),
    };
    let size = i32::try_from(valid.wanted.size).unwrap_or(i32::MAX);
    let all_ready = status.ready_members == size && status.member_count == size;
    let ready = match step {
        Step::Steady if all_ready && available.holds == Some(true) => {
            verdict("Ready", Some(true), "AllReady", "all members are as they are wanted")
        }
        _ if available.holds.is_none() => verdict("Ready", None, "NotObserved", &available.message),
        step => verdict("Ready", Some(false), "NotAllReady", &describe(step)),
    };
    let works = !matches!(step, Step::Steady | Step::Refuse(_)) && !valid.wanted.paused;
    let progressing = verdict("Progressing", Some(works), if works { "Working" } else { "Idle" }, &describe(step));
    let stalled = match step {
        Step::Refuse(why) => verdict("Stalled", Some(true), "Refused", why),
        _ => verdict("Stalled", Some(false), "NotStalled", ""),
    };
    let degraded = match (&world.store, status.alarms.is_empty()) {
        (Store::Known(known), true) if known.entries.iter().all(|entry| entry.healthy) => {
            verdict("Degraded", Some(false), "AllWell", "all members are well")
        }
        (Store::Known(known), true) => {
            let ill = known.entries.iter().filter(|entry| !entry.healthy);
            let ill: Vec<_> = ill.map(|entry| format!("{} ({:x})", entry.name, entry.id)).collect();
            verdict("Degraded", Some(true), "MembersNotWell", &ill.join(", "))
        }
        (_, false) => verdict("Degraded", Some(true), "Alarm", &status.alarms.join(", ")),
        (Store::Unknown, true) if founded => {
            verdict("Degraded", Some(true), "NotObserved", "the members cannot be asked")
        }
        (Store::Unknown, true) => verdict("Degraded", Some(false), "Founding", "the cluster is being founded"),
    };
    let paused = match valid.wanted.paused {
        true => verdict("Paused", Some(true), "Paused", "spec.paused is set: nothing is changed"),
        false => verdict("Paused", Some(false), "NotPaused", ""),
    };
    vec![available, ready, progressing, stalled, degraded, lost, paused]
}

/// Of the PodMonitor.
pub enum Monitored {
    Yes,
    No,
    NotInstalled,
}

/// Conditions that tell of what there is on demand only: who never asked for it is not told.
pub const MONITORED: &str = "Monitored";
pub const ISOLATED: &str = "Isolated";
const ROTATED: &str = "AuthoritiesRotated";

/// Whether the last pass left a condition true.
pub fn holds(cluster: &EtcdCluster, kind: &str) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

pub fn monitored(status: &mut EtcdClusterStatus, monitored: Monitored, now: Timestamp) {
    let (holds, reason, message) = match monitored {
        Monitored::Yes => (true, "PodMonitor", ""),
        Monitored::No => (false, "Disabled", ""),
        Monitored::NotInstalled => {
            (false, "NotInstalled", "the API server knows no PodMonitors: the Prometheus operator is not installed")
        }
    };
    add(status, Verdict { kind: MONITORED, holds: Some(holds), reason, message: message.to_owned() }, now);
}

pub fn isolated(status: &mut EtcdClusterStatus, isolated: bool, now: Timestamp) {
    let (reason, message) = match isolated {
        true => ("NetworkPolicy", "as far as the cluster's network plugin enforces NetworkPolicies"),
        false => ("Disabled", ""),
    };
    add(status, Verdict { kind: ISOLATED, holds: Some(isolated), reason, message: message.to_owned() }, now);
}

/// What becomes of the authorities.
pub fn rotating(status: &mut EtcdClusterStatus, rotations: &[Rotation], now: Timestamp) {
    status.authorities = rotations.iter().map(|rotation| rotation.status.clone()).collect();
    if rotations.is_empty() {
        status.conditions.retain(|condition| condition.type_ != ROTATED);
        return;
    }
    let turning = rotations.iter().filter(|rotation| rotation.turn != Turn::Rest);
    let said = turning.map(|Rotation { status, turn, .. }| {
        format!("{} CA ({:?}): {}", status.plane, status.phase, describe_turn(turn))
    });
    let message = said.collect::<Vec<_>>().join("; ");
    let (holds, reason) = if message.is_empty() { (true, "Stable") } else { (false, "Rotating") };
    add(status, Verdict { kind: ROTATED, holds: Some(holds), reason, message }, now);
}

fn add(status: &mut EtcdClusterStatus, verdict: Verdict, now: Timestamp) {
    let generation = status.observed_generation;
    conditions(&mut status.conditions, vec![verdict], generation, now);
}

fn certified(certificates: &Certificates) -> Verdict {
    let problems: Vec<&str> = certificates.problems.iter().map(String::as_str).collect();
    let (holds, reason) = if problems.is_empty() { (true, "AllValid") } else { (false, "Unusable") };
    Verdict { kind: "CertificatesValid", holds: Some(holds), reason, message: problems.join("; ") }
}

/// Whether members run what is asked for.
fn up_to_date(valid: &Valid, world: &World) -> Verdict {
    let verdict = |holds, reason, message| Verdict { kind: "UpToDate", holds: Some(holds), reason, message };
    if let Some(why) = &valid.refused_version {
        return verdict(false, "VersionRefused", why.clone());
    }
    let outdated = world.members.iter().filter(|(_, member)| member.pod.as_ref().is_some_and(|pod| pod.outdated));
    let outdated: Vec<_> = outdated.map(|(name, _)| name.as_str()).collect();
    match outdated.is_empty() {
        true => verdict(true, "AllCurrent", String::new()),
        false => verdict(false, "Rolling", outdated.join(", ")),
    }
}

/// Whether volumes are as large as they are wanted.
fn sized(objects: &Objects, world: &World) -> Verdict {
    let verdict = |holds, reason, message| Verdict { kind: "VolumesSized", holds: Some(holds), reason, message };
    let volumes = || world.members.iter().filter_map(|(name, member)| Some((name, member.volume.as_ref()?)));
    let names = |picked: &dyn Fn(&Volume) -> bool| -> Vec<&str> {
        volumes().filter(|(_, volume)| picked(volume)).map(|(name, _)| name.as_str()).collect()
    };
    let fixed = names(&|volume| volume.is_small(&world.wanted) && !volume.expandable);
    if !fixed.is_empty() {
        let classes: Vec<_> =
            objects.expandable.iter().filter(|(_, may)| !**may).map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "the StorageClass {} does not allow expansion: {} stay as they are, and the quota with them; members that are replaced get volumes of the new size",
            classes.join(", "),
            fixed.join(", ")
        );
        return verdict(false, "ClassForbids", message);
    }
    let small = names(&|volume| volume.is_growing() || volume.is_small(&world.wanted));
    match small.is_empty() {
        true => verdict(true, "AsWanted", String::new()),
        false => verdict(false, "Expanding", small.join(", ")),
    }
}

/// Who has raised NOSPACE; `None`: nobody could be asked.
fn no_space(world: &World) -> Option<&[u64]> {
    match &world.store {
        Store::Known(Known { alarms: Some(alarms), .. }) => Some(&alarms.no_space),
        _ => None,
    }
}

/// Whether the quota has room for writes.
fn has_room(world: &World, status: &EtcdClusterStatus) -> Verdict {
    let verdict =
        |holds, reason, message: &str| Verdict { kind: "QuotaSufficient", holds, reason, message: message.to_owned() };
    let reclaims = |kind| kind == OperationType::ReclaimSpace;
    match (no_space(world), &status.reclaim) {
        (None, _) => verdict(None, "NotObserved", "the alarms cannot be read"),
        (Some([]), _) => verdict(Some(true), "NoAlarm", ""),
        _ if !world.wanted.reclaim => {
            verdict(Some(false), "Manual", "NOSPACE is raised: make room, and disarm it; nothing is written until then")
        }
        _ if status.operation.as_ref().is_some_and(|operation| reclaims(operation.kind)) => {
            verdict(Some(false), "Reclaiming", "NOSPACE is raised: space is being reclaimed")
        }
        (_, Some(reclaim)) => verdict(Some(false), "NotEnough", &reclaim.message),
        _ => verdict(
            Some(false),
            "Waiting",
            "NOSPACE is raised: space is reclaimed once all members are well, nothing else is under way, and no CORRUPT is raised",
        ),
    }
}

/// A step in words.
pub fn describe(step: &Step) -> String {
    match step {
        Step::Steady => "all is as it is wanted".to_owned(),
        Step::Wait(why) | Step::Refuse(why) => why.clone(),
        Step::GrantBootstrap { member } => format!("{member} is to found the cluster"),
        Step::Latch { cluster_id } => format!("the cluster is {cluster_id:x}"),
        Step::Begin(operation) if operation.member.is_empty() => format!("{:?}: {}", operation.kind, operation.reason),
        Step::Begin(operation) => format!("{:?} {}: {}", operation.kind, operation.member, operation.reason),
        Step::End => "the operation is done".to_owned(),
        Step::CreateMember { name, .. } => format!("making EtcdMember {name}"),
        Step::Identify { name, id, .. } => format!("{name} is {id:x}"),
        Step::CreateVolume { name } => format!("making the volume of {name}"),
        Step::ExpandVolume { name, .. } => format!("asking for a larger volume of {name}"),
        Step::CreatePod { name, .. } => format!("making the Pod of {name}"),
        Step::DeletePod { name, why, .. } => format!("deleting the Pod of {name}: {why}"),
        Step::AddLearner { name, .. } => format!("adding {name} as a learner"),
        Step::Promote { name, .. } => format!("making {name} a voter"),
        Step::Remove { name, .. } => format!("removing {name} from the store"),
        Step::MoveLeader { to } => format!("moving the leadership to {to:x}"),
        Step::RetireVolume { name, .. } => format!("giving up the volume of {name}"),
        Step::DeleteMember { name } => format!("deleting EtcdMember {name}"),
        Step::BeginRestore(restore) if restore.rollback => {
            format!("EtcdRestore {}: going back to the cluster {}", restore.name, restore.cluster_id)
        }
        Step::BeginRestore(restore) => {
            format!("EtcdRestore {}: the cluster {} makes way", restore.name, restore.cluster_id)
        }
        Step::PutAside { name, .. } => format!("putting the volume of {name} aside"),
        Step::TakeBack { name, .. } => format!("taking the volume of {name} back"),
        Step::Forget => "nothing is left of the cluster that made way but its volumes".to_owned(),
        Step::Compact { revision } => format!("compacting to revision {revision}"),
        Step::Defragment { name } => format!("defragmenting {name}"),
        Step::Disarm { id } => format!("disarming the NOSPACE alarm of {id:x}"),
        Step::FallShort(reclaim) => format!("space was reclaimed, and it is not enough: {}", reclaim.message),
        Step::Hold => "it is held until there is a final backup".to_owned(),
        Step::LetGo(why) => format!("it is let go: {why}"),
        Step::BackUp { next, why } => format!("making EtcdBackup {}: {why}", next.name),
    }
}

/// A turn in words.
pub fn describe_turn(turn: &Turn) -> String {
    match turn {
        Turn::Rest => "nothing is under way".to_owned(),
        Turn::Wait(why) => why.clone(),
        Turn::Grace(until) => format!("clients have until {until} to read their Secrets"),
        Turn::TrustBoth => "another one is to be trusted beside it".to_owned(),
        Turn::Withdraw => "the next one is not wanted any more".to_owned(),
        Turn::Settle => "all Secrets are written".to_owned(),
        Turn::Reissue => "certificates of the next one are shown from now on".to_owned(),
        Turn::Retire => "the one before is trusted no more, and its key is deleted".to_owned(),
        Turn::Conclude => "all members have loaded the new one alone".to_owned(),
        Turn::Renew => "it has expired: another one is made and signs at once".to_owned(),
    }
}

/// Writes down what is said now; a condition keeps the time since when it holds.
pub fn conditions(into: &mut Vec<Condition>, verdicts: Vec<Verdict>, generation: Option<i64>, now: Timestamp) {
    for verdict in verdicts {
        let status = match verdict.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let at = into.iter().position(|condition| condition.type_ == verdict.kind);
        let since = at.map(|at| &into[at]).filter(|condition| condition.status == status);
        let condition = Condition {
            type_: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.message,
            observed_generation: generation,
            last_transition_time: since.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        };
        match at {
            Some(at) => into[at] = condition,
            None => into.push(condition),
        }
    }
}

#[cfg(test)]
mod tests;
