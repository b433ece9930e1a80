//! A restore in place: the cluster makes way for one that is founded from a backup, or for the one that was here before.
//!
//! Invariants, held by the tests on worlds made up at random:
//! - nothing is stopped, and no other cluster founded, but for an EtcdRestore that names the very cluster that makes way;
//! - volumes are put aside and taken back, never deleted;
//! - one that nobody asks for any more goes back;
//! - until the other cluster has begun there is always something that says which one it is to be: the record, the EtcdRestore, or, where
//!   both are lost, the volumes that were put aside, beside which nothing is founded.

use super::Step;
use crate::cluster::world::Member;
use crate::cluster::world::Store;
use crate::cluster::world::World;
use crate::crd::status::RestoreInPlace;
use crate::crd::status::RestoreStage;

/// `None`: there is no restore, or it is the other cluster's turn.
pub(super) fn replace(world: &World) -> Option<Step> {
    if let Some(restore) = begin(world) {
        return Some(Step::BeginRestore(restore));
    }
    let record = world.recorded.restore.as_ref()?;
    match record.stage {
        RestoreStage::Stopping => Some(stop(world, record)),
        RestoreStage::Starting if record.rollback => take_back(world, record),
        RestoreStage::Starting | RestoreStage::Done => None,
    }
}

/// What is to be recorded now.
fn begin(world: &World) -> Option<RestoreInPlace> {
    let asked = world.asked.as_ref();
    let Some(record) = under_way(world) else {
        // Who is deleted is kept as it is until its final backup is taken.
        let due = asked.filter(|asked| !world.leaving.deleted && is_due(world, asked)).cloned();
        return due.or_else(|| stranded(world));
    };
    if record.rollback {
        // It may have nothing left to go back to.
        let others = asked.filter(|asked| asked.uid != record.uid && !asked.rollback);
        return others.filter(|asked| is_due(world, asked)).cloned();
    }
    match asked.filter(|asked| asked.uid == record.uid) {
        Some(asked) => (!asked.wants_as(record)).then(|| asked.clone()),
        // The EtcdRestore has gone, and nobody was served by the new cluster yet.
        None => Some(RestoreInPlace { stage: RestoreStage::Stopping, rollback: true, from: None, ..record.clone() }),
    }
}

pub(super) fn under_way(world: &World) -> Option<&RestoreInPlace> {
    world.recorded.restore.as_ref().filter(|record| record.is_under_way())
}

/// The record was lost, and the EtcdRestore is gone: some volumes of this very cluster are still aside.
fn stranded(world: &World) -> Option<RestoreInPlace> {
    let id = world.recorded.cluster_id?;
    let volume = world.aside.iter().find(|volume| volume.cluster_id == Some(id) && !volume.deleting)?;
    Some(RestoreInPlace {
        name: volume.restore.clone(),
        uid: String::new(),
        stage: RestoreStage::Stopping,
        cluster_id: format!("{id:x}"),
        rollback: true,
        from: None,
    })
}

/// Records may be lost at any time: whether it was done already is seen in the clusters' ids.
fn is_due(world: &World, asked: &RestoreInPlace) -> bool {
    if asked.rollback {
        return world.aside.iter().any(|volume| asked.takes_back(volume));
    }
    let on_volumes = world.members.values().filter_map(|member| member.volume.as_ref()?.cluster_id);
    let known = match &world.store {
        Store::Known(known) => Some(known.cluster_id),
        Store::Unknown => None,
    };
    on_volumes.chain(world.recorded.cluster_id).chain(known).all(|id| asked.is_of_old(id))
}

/// Ends all members that make way: first their Pods, then, when none of these is left, the rest.
fn stop(world: &World, record: &RestoreInPlace) -> Step {
    let stays = |member: &Member| {
        let id = member.volume.as_ref().and_then(|volume| volume.cluster_id);
        record.rollback && id.is_some_and(|id| record.is_of_old(id))
    };
    let going = || world.members.iter().filter(|(_, member)| !stays(member));
    let mut pods = going().filter_map(|(name, member)| Some((name, member.pod.as_ref()?)));
    if let Some((name, pod)) = pods.clone().find(|(_, pod)| !pod.deleting) {
        let why = format!("EtcdRestore {} replaces the cluster", record.name);
        return Step::DeletePod { name: name.clone(), uid: pod.uid.clone(), why };
    }
    if let Some((name, _)) = pods.next() {
        return Step::Wait(format!("the Pod of {name} is being deleted"));
    }
    for (name, member) in going() {
        match &member.volume {
            Some(volume) if volume.deleting => return Step::Wait(format!("the volume of {name} is being deleted")),
            Some(volume) => return Step::PutAside { name: name.clone(), uid: volume.uid.clone() },
            None => {}
        }
    }
    match going().find(|(_, member)| member.object) {
        Some((name, _)) => Step::DeleteMember { name: name.clone() },
        None => Step::Forget,
    }
}

/// `None`: all volumes of the cluster that was are back, and it is found in them.
fn take_back(world: &World, record: &RestoreInPlace) -> Option<Step> {
    if let Some(volume) = world.aside.iter().find(|volume| record.takes_back(volume)) {
        return Some(Step::TakeBack { name: volume.name.clone(), uid: volume.uid.clone() });
    }
    let mut volumes = world.members.values().filter_map(|member| member.volume.as_ref()?.cluster_id);
    let why = format!("no volume is left of the cluster {}, to which is to be gone back", record.cluster_id);
    (!volumes.any(|id| record.is_of_old(id))).then_some(Step::Refuse(why))
}

/// Nothing says what is to become of volumes that were put aside.
pub(super) fn left_aside(world: &World) -> Option<Step> {
    let volume = world.aside.first().filter(|_| under_way(world).is_none())?;
    Some(Step::Refuse(format!(
        "EtcdRestore {} has put the volumes of a cluster of this name aside, {} among them, and is not at work: take the annotations {} and {} off \
         those that are to be used, or delete them",
        volume.restore,
        volume.name,
        crate::names::DETACHED,
        crate::names::RESTORE,
    )))
}
