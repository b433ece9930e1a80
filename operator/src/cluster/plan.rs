//! What to do next: from what was seen, exactly one step, or none and why. Pure.
//!
//! Invariants, held by the tests on worlds made up at random:
//! - no step takes a healthy voter away unless a quorum of healthy ones stays (one or two voters cannot be restarted otherwise);
//! - no member is added, and no Pod of a healthy one deleted, whose certificates would not let it start;
//! - a Pod that may found a cluster is made only before the cluster's id is known, and for the one member that was recorded;
//! - where a restore was asked for, no Pod founds a cluster without it;
//! - one cluster makes way for another only as [`in_place`] may;
//! - nobody is removed from the store, no volume given up and no Pod of a voter deleted unless that was recorded before;
//! - nobody is made the leader who is not well, or whose node is to be emptied while there is another one;
//! - nothing is compacted or defragmented, and no alarm taken back, but what [`space`] may;
//! - a cluster that is deleted goes only when [`leave`] lets it, and until then it is kept as it is;
//! - repeated steps come to an end.

mod in_place;
mod leader;
mod leave;
mod space;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use super::world::Backup;
use super::world::Entry;
use super::world::Exit;
use super::world::Known;
use super::world::Member;
use super::world::Store;
use super::world::Trouble;
use super::world::World;
use super::world::parse_id;
use super::world::quorum;
use crate::crd::status::FinalBackupStatus;
use crate::crd::status::Operation;
use crate::crd::status::OperationType;
use crate::crd::status::Reclaim;
use crate::crd::status::RestoreInPlace;

/// A member that was added has so long to catch up, until another one is tried.
const ADD_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// All is as it was asked for.
    Steady,
    /// Nothing can be done now.
    Wait(String),
    /// Nothing will be done until somebody has decided.
    Refuse(String),
    /// Records who may found the cluster.
    GrantBootstrap {
        member: String,
    },
    /// Records the cluster's id, which ends the permission to found one.
    Latch {
        cluster_id: u64,
    },
    /// Records what is to be done, before any of it is.
    Begin(Operation),
    /// It is done.
    End,
    CreateMember {
        name: String,
        id: Option<u64>,
    },
    /// Writes the id into the EtcdMember, and both ids onto the volume.
    Identify {
        name: String,
        id: u64,
        cluster_id: u64,
    },
    CreateVolume {
        name: String,
    },
    /// Asks for as much as is wanted.
    ExpandVolume {
        name: String,
        uid: String,
    },
    CreatePod {
        name: String,
        start: Start,
    },
    DeletePod {
        name: String,
        uid: String,
        why: String,
    },
    AddLearner {
        name: String,
        peer_url: String,
    },
    Promote {
        name: String,
        id: u64,
    },
    Remove {
        name: String,
        id: u64,
    },
    MoveLeader {
        to: u64,
    },
    /// Deletes or detaches, as `storage.retention` says.
    RetireVolume {
        name: String,
        uid: String,
    },
    DeleteMember {
        name: String,
    },
    /// Records which EtcdRestore replaces the cluster, before anything of it is done.
    BeginRestore(RestoreInPlace),
    /// Detaches a volume that is not to be used any more, and is to be kept.
    PutAside {
        name: String,
        uid: String,
    },
    TakeBack {
        name: String,
        uid: String,
    },
    /// Records that nothing is left of the cluster that makes way.
    Forget,
    Compact {
        revision: i64,
    },
    /// Asks for it, and does not wait.
    Defragment {
        name: String,
    },
    /// Takes back the NOSPACE alarm of a member.
    Disarm {
        id: u64,
    },
    /// Ends a reclaim of space that was not enough; recorded, so that it is not begun again at once.
    FallShort(Reclaim),
    /// Lets the cluster not go before a final backup.
    Hold,
    /// Lets it go, for this reason.
    LetGo(String),
    /// Makes the final backup, another one after one that has come to nothing; recorded before it is made.
    BackUp {
        next: FinalBackupStatus,
        why: String,
    },
}

/// How a server begins on a data directory that may be empty.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// It founds the cluster, from a backup if there is one.
    Found(Option<Backup>),
    /// It joins these members, by their peer URLs; if there are none, it does not begin on an empty directory.
    Join(Vec<String>),
}

/// The next step.
pub fn plan(world: &World) -> Step {
    if let Some(step) = leave::leave(world) {
        return step;
    }
    if world.wanted.paused {
        return Step::Wait("paused".to_owned());
    }
    let step = in_place::replace(world).or_else(|| match world.recorded.cluster_id {
        None => found(world),
        Some(cluster_id) => keep(world, cluster_id),
    });
    match step {
        None if world.leaving.deleted => Step::Wait("it goes when its final backup is taken".to_owned()),
        None => Step::Steady,
        Some(step) => step,
    }
}

// === founding ===

fn found(world: &World) -> Option<Step> {
    let Some(seed) = &world.recorded.bootstrap else { return Some(find(world)) };
    let Some(member) = world.members.get(seed).filter(|member| member.object) else {
        return Some(Step::CreateMember { name: seed.clone(), id: None });
    };
    if let Some(step) = volume_and_pod(world, seed, member, || beginning(world)) {
        return Some(step);
    }
    let Store::Known(known) = &world.store else {
        return Some(match world.restore.as_ref().and_then(|restore| restore.trouble.as_ref()) {
            Some(Trouble::Refused(why)) => {
                Step::Refuse(format!("the backup is not restored: {}: {}", why.reason, why.message))
            }
            Some(Trouble::HeldUp(why)) => Step::Wait(format!("the Pod of {seed} does not begin: {why}")),
            None => Step::Wait(format!("{seed} founds the cluster")),
        });
    };
    if known.of(member).is_none() {
        return Some(Step::Refuse(format!("{seed} belongs to another cluster, {:x}", known.cluster_id)));
    }
    Some(latch(world, known))
}

/// The cluster's id is recorded when its members are known by theirs: whoever is not is not started again once the cluster is kept.
fn latch(world: &World, known: &Known) -> Step {
    let members = known.entries.iter().filter_map(|entry| Some((entry.id, world.member_of(known, entry.id)?)));
    let unknown = |(id, (name, member)): (u64, (&String, &Member))| match member.object {
        true => identify(world, name, member, id, known.cluster_id),
        false => Some(Step::CreateMember { name: name.clone(), id: Some(id) }),
    };
    members.filter_map(unknown).next().unwrap_or(Step::Latch { cluster_id: known.cluster_id })
}

/// How the cluster is founded, or why it cannot be now. Never empty where a restore was asked for.
fn beginning(world: &World) -> Result<Start, String> {
    let backup = world.restore.as_ref().map(|restore| restore.backup.clone()).transpose();
    backup.map(Start::Found).map_err(|why| why.message)
}

/// Nothing is recorded: what is there may be a cluster whose record was lost.
fn find(world: &World) -> Step {
    if let Store::Known(known) = &world.store {
        return latch(world, known);
    }
    let mut ids = world.members.values().filter_map(|member| member.volume.as_ref()?.cluster_id);
    match ids.next() {
        Some(first) if ids.all(|id| id == first) => return Step::Latch { cluster_id: first },
        Some(_) => {
            return Step::Refuse(
                "there are volumes of several clusters of this name: delete those that are not to be used".to_owned(),
            );
        }
        None => {}
    }
    let left =
        |(name, member): (&String, &Member)| (member.volume.is_some() || member.pod.is_some()).then(|| name.clone());
    if let Some(name) = world.members.iter().find_map(left) {
        return Step::Refuse(format!(
            "there is a Pod or a volume of {name}, and nobody knows whether it holds data: delete it if it does not"
        ));
    }
    if let Some(step) = in_place::left_aside(world) {
        return step;
    }
    if let Some(why) = &world.uncertified {
        return Step::Wait(why.clone());
    }
    match beginning(world) {
        Ok(_) => Step::GrantBootstrap { member: world.fresh_name.clone() },
        Err(why) => Step::Wait(format!("there is nothing to restore: {why}")),
    }
}

// === keeping ===

fn keep(world: &World, cluster_id: u64) -> Option<Step> {
    let known = match &world.store {
        Store::Known(known) if known.cluster_id != cluster_id => {
            return Some(Step::Refuse(format!(
                "the members are those of cluster {:x}, and this one is {cluster_id:x}",
                known.cluster_id
            )));
        }
        Store::Known(known) => Some(known),
        Store::Unknown => None,
    };
    objects(world, cluster_id).or_else(|| pods(world, known)).or_else(|| match tend(world, known, cluster_id) {
        // Whatever is waited for: a disk that is full may be the reason, and a node may be emptied meanwhile.
        step @ (None | Some(Step::Wait(_))) if !world.leaving.deleted => {
            expand(world).or_else(|| leader::shelter(world, known?)).or(step)
        }
        step => step,
    })
}

/// What the members as a cluster need.
fn tend(world: &World, known: Option<&Known>, cluster_id: u64) -> Option<Step> {
    let Some(known) = known else {
        let why = "no quorum of the members answers".to_owned();
        return Some(Step::Wait(world.uncertified.clone().unwrap_or(why)));
    };
    match &world.recorded.operation {
        Some(operation) => Some(carry_on(world, known, operation, cluster_id)),
        // It is kept whole, and nothing else is begun.
        None if world.leaving.deleted => strays(world, known, cluster_id)
            .or_else(|| lost(world, known))
            .or_else(|| grow(world, known))
            .or_else(|| uncertified(world)),
        None => strays(world, known, cluster_id)
            .or_else(|| lost(world, known))
            .or_else(|| space::reclaim(world, known))
            .or_else(|| grow(world, known))
            .or_else(|| shrink(world, known))
            .or_else(|| roll(world, known))
            .or_else(|| uncertified(world)),
    }
}

/// Volumes grow one after the other; of a class that does not allow it they stay as they are.
fn expand(world: &World) -> Option<Step> {
    let volumes = || world.members.iter().filter_map(|(name, member)| Some((name, member.volume.as_ref()?)));
    if volumes().any(|(_, volume)| volume.is_growing() && !volume.deleting) {
        return None;
    }
    let (name, volume) = volumes().find(|(_, volume)| volume.expandable && volume.is_small(&world.wanted))?;
    Some(Step::ExpandVolume { name: name.clone(), uid: volume.uid.clone() })
}

/// EtcdMembers that somebody has deleted, or that lack what the volume knows.
fn objects(world: &World, cluster_id: u64) -> Option<Step> {
    for (name, member) in &world.members {
        let volume = member.volume.as_ref().filter(|volume| volume.cluster_id == Some(cluster_id));
        let id = volume.and_then(|volume| volume.member_id);
        if !member.object && (id.is_some() || member.pod.is_some()) {
            return Some(Step::CreateMember { name: name.clone(), id });
        }
        if let (None, Some(id)) = (member.id, id) {
            return Some(Step::Identify { name: name.clone(), id, cluster_id });
        }
    }
    None
}

/// Pods of the members that the cluster has.
fn pods(world: &World, known: Option<&Known>) -> Option<Step> {
    for (name, member) in &world.members {
        // Whoever has no id is still being added; and who is to leave may be needed for the quorum until it has.
        let gone = known.is_some_and(|known| known.of(member).is_none());
        if member.id.is_none() || gone || is_lost_for_good(world, member).is_some() {
            continue;
        }
        // Without a volume its data would go with it: whoever can be spared is replaced as a whole.
        if let Some(pod) = &member.pod
            && pod.founds
            && world.wanted.volumes
            && !pod.deleting
            && world.uncertified(member).is_none()
        {
            let why = "the cluster is founded: nobody may found it again".to_owned();
            return Some(Step::DeletePod { name: name.clone(), uid: pod.uid.clone(), why });
        }
        if let Some(step @ (Step::CreatePod { .. } | Step::DeletePod { .. })) =
            volume_and_pod(world, name, member, || Ok(join(world, name)))
        {
            return Some(step);
        }
    }
    None
}

/// What `name` lacks to run. `start`: how it begins, or why it cannot.
fn volume_and_pod(
    world: &World,
    name: &str,
    member: &Member,
    start: impl FnOnce() -> Result<Start, String>,
) -> Option<Step> {
    if world.wanted.volumes {
        match &member.volume {
            None => return Some(Step::CreateVolume { name: name.to_owned() }),
            Some(volume) if volume.deleting && member.pod.is_none() => {
                return Some(Step::Wait(format!("the volume of {name} is being deleted")));
            }
            Some(_) => {}
        }
    }
    match &member.pod {
        None if let Some(why) = world.uncertified(member) => Some(Step::Wait(format!("{name} cannot start: {why}"))),
        None => Some(match start() {
            Ok(start) => Step::CreatePod { name: name.to_owned(), start },
            Err(why) => Step::Wait(format!("{name} cannot start: {why}")),
        }),
        Some(pod) if pod.deleting => Some(Step::Wait(format!("the Pod of {name} is being deleted"))),
        Some(pod) if pod.finished => {
            let why = "it has ended and does not start again".to_owned();
            Some(Step::DeletePod { name: name.to_owned(), uid: pod.uid.clone(), why })
        }
        Some(_) => None,
    }
}

/// Why not all is as it was asked for, if nothing else can be done.
fn uncertified(world: &World) -> Option<Step> {
    let (name, why) = world.members.iter().find_map(|(name, member)| Some((name, world.uncertified(member)?)))?;
    Some(Step::Wait(format!("{name}: {why}")))
}

fn join(world: &World, name: &str) -> Start {
    let others = world.members.iter().filter(|(other, member)| *other != name && member.id.is_some());
    Start::Join(others.map(|(_, member)| member.peer_url.clone()).collect())
}

fn identify(world: &World, name: &str, member: &Member, id: u64, cluster_id: u64) -> Option<Step> {
    let on_volume = member.volume.as_ref().is_none_or(|v| v.member_id == Some(id) && v.cluster_id == Some(cluster_id));
    let known = member.id == Some(id) && (on_volume || !world.wanted.volumes);
    (!known).then(|| Step::Identify { name: name.to_owned(), id, cluster_id })
}

/// Entries of the store and members here that do not know of each other.
fn strays(world: &World, known: &Known, cluster_id: u64) -> Option<Step> {
    for entry in &known.entries {
        match world.member_of(known, entry.id) {
            Some((name, member)) => {
                if let Some(step) = identify(world, name, member, entry.id, cluster_id) {
                    return Some(step);
                }
            }
            None if entry.learner || entry.name.is_empty() => {
                return Some(begin(
                    world,
                    OperationType::RemoveMember,
                    "",
                    Some(entry.id),
                    "nobody here is this member",
                ));
            }
            // Its Pod, its EtcdMember and, if it had one, its volume are gone.
            None if entry.ours => {
                return Some(give_up(world, known, "", entry, "nothing is left of it"));
            }
            None => {
                return Some(Step::Wait(format!(
                    "the store has a member {} ({:x}) that is not the operator's: remove it",
                    entry.name, entry.id
                )));
            }
        }
    }
    let gone = world.members.iter().find(|(_, member)| known.of(member).is_none());
    gone.map(|(name, member)| {
        begin(world, OperationType::RemoveMember, name, member.id, "the store does not have this member")
    })
}

/// Why a member will not come back by itself.
fn is_lost_for_good(world: &World, member: &Member) -> Option<&'static str> {
    if world.wanted.volumes {
        match &member.volume {
            None => return Some("its volume is gone"),
            Some(volume) if volume.deleting => return Some("its volume is being deleted"),
            Some(volume) if volume.lost => return Some("its volume is lost"),
            Some(_) => {}
        }
    } else if member.pod.is_none() {
        return Some("its Pod is gone, and its data with it");
    }
    let pod = member.pod.as_ref()?;
    if pod.finished && !world.wanted.volumes {
        return Some("its Pod has ended, and its data with it");
    }
    match pod.exit {
        Some(Exit::Wiped) => return Some("its data directory was wiped"),
        Some(Exit::Removed) => return Some("it was removed from the cluster"),
        Some(Exit::Damaged) => return Some("its data is damaged"),
        // Its data is whole: a later release reads it.
        Some(Exit::Outdated) | None => {}
    }
    let since = pod.node_lost_since?;
    (world.now.duration_since(since) >= world.wanted.node_lost_for).then_some("its node is lost")
}

/// Replaces whoever does not come back: leaving first, so that the quorum is one of those who can answer.
fn lost(world: &World, known: &Known) -> Option<Step> {
    for (name, member) in &world.members {
        let Some(entry) = known.of(member) else { continue };
        let Some(why) = is_lost_for_good(world, member) else { continue };
        return Some(give_up(world, known, name, entry, why));
    }
    None
}

/// The member `name`, or the one that has no name here any more, leaves the store, if it may.
fn give_up(world: &World, known: &Known, name: &str, entry: &Entry, why: &str) -> Step {
    let who = if name.is_empty() { &entry.name } else { name };
    if !world.wanted.healing {
        return Step::Wait(format!("{who}: {why}; healing is disabled"));
    }
    if !can_lose(known, entry.id) {
        return Step::Wait(format!("{who}: {why}; without it the others are no quorum"));
    }
    begin(world, OperationType::RemoveMember, name, Some(entry.id), why)
}

/// Whether those who are well, without `id`, are a quorum of the members as they are, and of those who would be left.
fn can_lose(known: &Known, id: u64) -> bool {
    let voters = known.voters().count();
    let others = known.voters().filter(|entry| entry.healthy && entry.id != id).count();
    match known.by_id(id) {
        Some(entry) if entry.learner => true,
        // Two members: the other one has to agree, and both must be well for that.
        Some(entry) if voters == 2 => entry.healthy && others == 1,
        Some(entry) => voters > 1 && others >= quorum(voters - 1) && (others >= quorum(voters) || entry.healthy),
        None => true,
    }
}

/// Members that are missing are added.
fn grow(world: &World, known: &Known) -> Option<Step> {
    // A learner whose operation was lost.
    if let Some((name, _)) = world.members.iter().find(|(_, m)| known.of(m).is_some_and(|entry| entry.learner)) {
        return Some(begin(world, OperationType::AddMember, name, None, "it was begun"));
    }
    let voters = known.voters().count();
    if voters < world.wanted.size {
        let healthy = known.healthy_voters();
        if healthy < quorum(voters + 1) && healthy < voters {
            return Some(Step::Wait(format!("{healthy} of {voters} members are well: too few to add one")));
        }
        if let Some(why) = &world.uncertified {
            return Some(Step::Wait(why.clone()));
        }
        let why = format!("{voters} members of {}", world.wanted.size);
        return Some(begin(world, OperationType::AddMember, &world.fresh_name, None, &why));
    }
    None
}

/// Members that are too many are removed.
fn shrink(world: &World, known: &Known) -> Option<Step> {
    let (voters, wanted) = (known.voters().count(), world.wanted.size);
    if voters <= wanted {
        return None;
    }
    let Some((name, id)) = victim(world, known) else {
        return Some(Step::Wait(format!("{voters} members, {wanted} wanted: none can be spared now")));
    };
    let why = format!("{voters} members, {wanted} wanted");
    Some(begin(world, OperationType::RemoveMember, &name, Some(id), &why))
}

/// Who leaves when the cluster shrinks: one that is not well, else not the leader.
fn victim(world: &World, known: &Known) -> Option<(String, u64)> {
    let mut possible: Vec<_> = world
        .members
        .iter()
        .filter_map(|(name, member)| Some((name, known.of(member)?)))
        .filter(|(_, entry)| can_lose(known, entry.id))
        .collect();
    possible.sort_by_key(|(name, entry)| (entry.healthy, entry.id == known.leader, (*name).clone()));
    possible.first().map(|(name, entry)| ((*name).clone(), entry.id))
}

/// Restarts one member that is not as it is wanted: first who is not well, last the leader. Without volumes it is replaced: a restart
/// would take its data away.
fn roll(world: &World, known: &Known) -> Option<Step> {
    // Of three and more, none has to keep the permission to found the cluster.
    let founds = !world.wanted.volumes && known.voters().count() > 2;
    let mut outdated: Vec<_> = world
        .members
        .iter()
        .filter(|(_, member)| {
            member.pod.as_ref().is_some_and(|pod| (pod.outdated || (founds && pod.founds)) && !pod.deleting)
        })
        .filter_map(|(name, member)| Some((name, known.of(member)?)))
        .collect();
    outdated.sort_by_key(|(name, entry)| (entry.healthy, entry.id == known.leader, (*name).clone()));
    let (name, entry) = outdated.first()?;
    if let Some(why) = world.members.get(*name).and_then(|member| world.uncertified(member)) {
        return Some(Step::Wait(format!("{name} is to be restarted: {why}")));
    }
    if entry.healthy
        && let Some(why) = unsettled(world, known)
    {
        return Some(Step::Wait(format!("{name} is to be restarted: {why}")));
    }
    let why = "it is not as the spec asks for";
    if world.wanted.volumes {
        return Some(begin(world, OperationType::RestartMember, name, Some(entry.id), why));
    }
    if !can_lose(known, entry.id) {
        return Some(Step::Wait(format!(
            "{name} is to be replaced: its data goes with its Pod, and the others are no quorum"
        )));
    }
    Some(begin(world, OperationType::RemoveMember, name, Some(entry.id), why))
}

/// Why no healthy member may be restarted now.
fn unsettled(world: &World, known: &Known) -> Option<String> {
    if let Some(entry) = known.entries.iter().find(|entry| !entry.healthy) {
        return Some(format!("{} is not well", if entry.name.is_empty() { "a member" } else { &entry.name }));
    }
    if known.alarms.as_ref().is_some_and(|alarms| !alarms.corrupt.is_empty()) {
        return Some("CORRUPT is raised".to_owned());
    }
    for (name, member) in &world.members {
        let since = member.pod.as_ref().filter(|pod| pod.ready && !pod.deleting).and_then(|pod| pod.ready_since);
        match since {
            None => return Some(format!("{name} is not ready")),
            Some(since) if world.now.duration_since(since) < world.wanted.stabilization => {
                return Some(format!("{name} is ready for less than the stabilization time"));
            }
            Some(_) => {}
        }
    }
    None
}

// === operations ===

fn begin(world: &World, kind: OperationType, member: &str, id: Option<u64>, reason: &str) -> Step {
    Step::Begin(Operation {
        kind,
        member: member.to_owned(),
        member_id: id.map(|id| format!("{id:x}")),
        reason: reason.to_owned(),
        started_at: Time(world.now),
        asked_at: None,
    })
}

/// The next step of what was begun. Every step looks at the world again: any of them may have been done before.
fn carry_on(world: &World, known: &Known, operation: &Operation, cluster_id: u64) -> Step {
    match operation.kind {
        OperationType::AddMember => add(world, known, operation, cluster_id),
        OperationType::RemoveMember => remove(world, known, operation),
        OperationType::RestartMember => restart(world, known, operation),
        OperationType::ReclaimSpace => space::carry_on(world, known, operation),
    }
}

fn add(world: &World, known: &Known, operation: &Operation, cluster_id: u64) -> Step {
    let name = &operation.member;
    let late = world.now.duration_since(operation.started_at.0) > ADD_LIMIT;
    let Some(member) = world.members.get(name).filter(|member| member.object) else {
        return Step::CreateMember { name: name.clone(), id: None };
    };
    let Some(entry) = known.of(member) else {
        if member.id.is_some() {
            return begin(world, OperationType::RemoveMember, name, member.id, "somebody has removed it");
        }
        if let Some(why) = world.uncertified(member) {
            // The store does not know of it yet: it can be given up, and others be healed.
            return match late {
                true => begin(world, OperationType::RemoveMember, name, None, why),
                false => Step::Wait(format!("{name} cannot start: {why}")),
            };
        }
        return Step::AddLearner { name: name.clone(), peer_url: member.peer_url.clone() };
    };
    if !entry.learner {
        return identify(world, name, member, entry.id, cluster_id).unwrap_or(Step::End);
    }
    let lost = is_lost_for_good(world, member).filter(|_| member.id.is_some() && member.pod.is_some());
    if late || lost.is_some() {
        let why = lost.unwrap_or("it has not caught up in time");
        return begin(world, OperationType::RemoveMember, name, Some(entry.id), why);
    }
    if let Some(step) = volume_and_pod(world, name, member, || Ok(join(world, name))) {
        return step;
    }
    if let Some(step) = identify(world, name, member, entry.id, cluster_id) {
        return step;
    }
    if entry.healthy && known.healthy_voters() + 1 >= quorum(known.voters().count() + 1) {
        return Step::Promote { name: name.clone(), id: entry.id };
    }
    Step::Wait(format!("{name} catches up"))
}

fn remove(world: &World, known: &Known, operation: &Operation) -> Step {
    let name = &operation.member;
    let member = world.members.get(name);
    let id = operation.member_id.as_deref().and_then(parse_id);
    let entry = id.and_then(|id| known.by_id(id)).or_else(|| known.of(member?));
    if let Some(entry) = entry {
        if !can_lose(known, entry.id) {
            // The world has changed since it was recorded: nothing was done yet that could not be left.
            return Step::End;
        }
        if entry.id == known.leader
            && let Some(to) = leader::successor(world, known)
        {
            return Step::MoveLeader { to: to.id };
        }
        return Step::Remove { name: name.clone(), id: entry.id };
    }
    let Some(member) = member else { return Step::End };
    if let Some(pod) = &member.pod {
        if pod.deleting {
            return Step::Wait(format!("the Pod of {name} is being deleted"));
        }
        let why = "the member has left the cluster".to_owned();
        return Step::DeletePod { name: name.clone(), uid: pod.uid.clone(), why };
    }
    if let Some(volume) = &member.volume {
        if volume.deleting {
            return Step::Wait(format!("the volume of {name} is being deleted"));
        }
        return Step::RetireVolume { name: name.clone(), uid: volume.uid.clone() };
    }
    if member.object {
        return Step::DeleteMember { name: name.clone() };
    }
    Step::End
}

fn restart(world: &World, known: &Known, operation: &Operation) -> Step {
    let name = &operation.member;
    let Some((member, entry)) = world.members.get(name).and_then(|member| Some((member, known.of(member)?))) else {
        return Step::End;
    };
    if is_lost_for_good(world, member).is_some() {
        return Step::End;
    }
    let Some(pod) = &member.pod else { return Step::Wait(format!("the Pod of {name} is made again")) };
    if pod.deleting {
        return Step::Wait(format!("the Pod of {name} is being deleted"));
    }
    if pod.outdated {
        if world.uncertified(member).is_some() {
            return Step::End;
        }
        let voters = known.voters().count();
        let others = known.voters().filter(|other| other.healthy && other.id != entry.id).count();
        if entry.healthy && !entry.learner && voters > 2 && others < quorum(voters) {
            return Step::End;
        }
        if entry.id == known.leader
            && let Some(to) = leader::successor(world, known)
        {
            return Step::MoveLeader { to: to.id };
        }
        let why = "it is restarted as the spec asks for".to_owned();
        return Step::DeletePod { name: name.clone(), uid: pod.uid.clone(), why };
    }
    if pod.ready && entry.healthy {
        return Step::End;
    }
    if pod.exit == Some(Exit::Outdated) {
        return Step::Refuse(format!(
            "{name} has ended with exit code 5: the cluster writes a format that this version cannot read; set the version back"
        ));
    }
    Step::Wait(format!("{name} starts"))
}

#[cfg(test)]
mod tests;
