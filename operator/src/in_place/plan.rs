//! What to do next about one EtcdRestore: from what was seen, one step. Pure.
//!
//! Invariants, held by the tests on worlds made up at random:
//! - the EtcdCluster is not to change before the token of the very plan that the status shows was confirmed, and the safety backup, if one
//!   was asked for, has succeeded;
//! - a plan that was confirmed stays as it is, until the volumes that are left were looked at; then another one is shown, and nothing is founded
//!   before that was confirmed as well;
//! - it succeeds only with a cluster that was founded for it, is Ready, and is at a revision that nobody has seen of the old one;
//! - nothing is gone back to without volumes, and nothing that another EtcdRestore has made is undone.

use crate::backup::Obstacle;
use crate::crd::in_place::Candidate;
use crate::crd::in_place::Phase;
use crate::crd::in_place::Plan;
use crate::crd::status::RestoreStage;

/// One EtcdRestore, as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub phase: Phase,
    /// `spec.confirm`.
    pub confirm: String,
    pub rollback: bool,
    /// What the status shows.
    pub shown: Option<Plan>,
    /// The cluster that was founded for it.
    pub founded: Option<String>,
    /// What would be done now, or what is in the way of it.
    pub proposal: Result<Plan, Obstacle>,
    /// `None`: there is no EtcdCluster that can be read.
    pub cluster: Option<Cluster>,
    /// Another EtcdRestore of the cluster that is at work.
    pub other: Option<String>,
    /// `None`: it is not asked for.
    pub safety: Option<Safety>,
    /// Volumes to go back to.
    pub aside: usize,
    /// `None`: the source is a file.
    pub survivors: Option<Survivors>,
}

/// What is known of volumes that are left.
#[derive(Debug, Clone, PartialEq)]
pub struct Survivors {
    pub looked: Vec<(String, Looked)>,
    /// What would be done now that all were looked at; `None`: none of them can be used.
    pub choice: Option<Plan>,
    pub salvage: Salvage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    Not,
    At(String),
    Told(Candidate),
}

/// The backup of what is on the volume that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Salvage {
    Absent,
    Running(String),
    Taken,
    Failed(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    pub id: Option<String>,
    /// Of the record in its status.
    pub record: Option<Record>,
    pub ready: bool,
    pub revision: Option<i64>,
    /// What it says of itself.
    pub word: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    Own(RestoreStage),
    Others(RestoreStage),
}

/// The safety backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Safety {
    Absent,
    Running(String),
    Succeeded,
    Failed(String),
    /// One of its name is not this EtcdRestore's.
    Foreign,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is left to do.
    Rest,
    /// Nothing can be done now.
    Wait(Obstacle),
    /// Shows what would be done.
    Propose(Plan),
    /// What was shown cannot be done any more.
    Withdraw(Obstacle),
    /// Somebody has typed the token of this plan.
    Confirm(Plan),
    TakeSafetyBackup,
    /// Looks at the volume of this member.
    Inspect(String),
    /// Shows which volume would be chosen.
    Choose(Plan),
    /// Takes a backup of what is on it.
    Salvage(String),
    Advance(Phase),
    /// The cluster was founded from the backup.
    Founded(String),
    Fail {
        reason: &'static str,
        message: String,
    },
}

/// The next step.
pub fn plan(world: &World) -> Step {
    match world.phase {
        Phase::RolledBack => Step::Rest,
        Phase::RollingBack => roll_back(world),
        Phase::Planning | Phase::AwaitingConfirmation | Phase::SafetyBackup if world.rollback => {
            Step::Advance(Phase::RolledBack)
        }
        // Nothing of the cluster was changed for it.
        Phase::Failed if world.rollback && world.founded.is_none() => Step::Advance(Phase::RolledBack),
        _ if world.rollback => turn_back(world),
        Phase::Planning | Phase::AwaitingConfirmation => propose(world),
        Phase::SafetyBackup => save(world),
        Phase::Stopping | Phase::Restoring => replace(world),
        Phase::Inspecting | Phase::Salvaging => recover(world),
        Phase::Reforming => reform(world),
        Phase::Verifying => verify(world),
        Phase::Succeeded | Phase::Failed => Step::Rest,
    }
}

fn obstacle(reason: &'static str, message: impl Into<String>) -> Obstacle {
    Obstacle { reason, message: message.into() }
}

fn wait(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait(obstacle(reason, message))
}

fn no_cluster() -> Step {
    wait("ClusterMissing", "there is no EtcdCluster of this name that can be read")
}

fn changed(id: &str) -> Step {
    Step::Fail {
        reason: "ClusterChanged",
        message: format!("the EtcdCluster is the cluster {id} now: not by this EtcdRestore"),
    }
}

impl World {
    /// The cluster that makes way.
    fn old(&self) -> Option<&String> {
        self.shown.as_ref().map(|plan| &plan.cluster_id)
    }

    /// Why a plan is not confirmed.
    pub fn unconfirmed(&self, token: &str) -> Obstacle {
        match self.confirm.is_empty() {
            true => obstacle("AwaitingConfirmation", format!("spec.confirm has to be {token}")),
            false => obstacle("WrongToken", format!("spec.confirm is not {token}")),
        }
    }
}

// === before anything is touched ===

fn propose(world: &World) -> Step {
    let proposal = match (&world.other, &world.proposal) {
        (Some(other), _) => Err(obstacle("OtherRestore", format!("EtcdRestore {other} is at work"))),
        (None, proposal) => proposal.clone(),
    };
    let plan = match proposal {
        Ok(plan) => plan,
        Err(why) if world.phase == Phase::AwaitingConfirmation => return Step::Withdraw(why),
        Err(why) => return Step::Wait(why),
    };
    let shown = world.shown.as_ref().filter(|_| world.phase == Phase::AwaitingConfirmation);
    if shown.is_none_or(|shown| shown.token != plan.token) {
        return Step::Propose(plan);
    }
    if world.confirm == plan.token {
        return Step::Confirm(plan);
    }
    if shown != Some(&plan) {
        return Step::Propose(plan);
    }
    Step::Wait(world.unconfirmed(&plan.token))
}

fn save(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    if cluster.id.as_ref() != world.old() {
        return changed(cluster.id.as_deref().unwrap_or("that is to be founded"));
    }
    match &world.safety {
        None | Some(Safety::Succeeded) => Step::Advance(Phase::Stopping),
        Some(Safety::Absent) => Step::TakeSafetyBackup,
        Some(Safety::Running(why)) => wait("SafetyBackup", why),
        Some(Safety::Failed(why)) => {
            Step::Fail { reason: "SafetyBackupFailed", message: format!("nothing was touched: {why}") }
        }
        Some(Safety::Foreign) => {
            let message = "there is an EtcdBackup of the safety backup's name already: nothing was touched".to_owned();
            Step::Fail { reason: "NameTaken", message }
        }
    }
}

// === at work ===

fn replace(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    match (cluster.record, &cluster.id) {
        (Some(Record::Own(RestoreStage::Stopping)), _) => wait("Stopping", &cluster.word),
        (Some(Record::Own(RestoreStage::Starting)), _) if world.phase == Phase::Stopping => {
            Step::Advance(if world.survivors.is_some() { Phase::Inspecting } else { Phase::Restoring })
        }
        (Some(Record::Own(RestoreStage::Starting)), _) => wait("Restoring", &cluster.word),
        (Some(Record::Others(_)), Some(id)) if Some(id) != world.old() => changed(id),
        // The record may have been lost since.
        (_, Some(id)) if Some(id) != world.old() => Step::Founded(id.clone()),
        _ => wait("Pending", format!("the EtcdCluster has not begun with it: {}", cluster.word)),
    }
}

// === from what is left ===

fn recover(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    match (cluster.record, &cluster.id) {
        (Some(Record::Own(RestoreStage::Starting)), _) => {}
        (_, Some(id)) if Some(id) != world.old() => return changed(id),
        // The record was lost, and is made again.
        _ => return wait("Stopping", &cluster.word),
    }
    match (&world.survivors, world.phase) {
        (Some(survivors), Phase::Inspecting) => inspect(world, survivors),
        (Some(survivors), _) => salvage(world, survivors),
        (None, _) => wait("NoSurvivor", "the source is a file"),
    }
}

fn inspect(world: &World, survivors: &Survivors) -> Step {
    for (member, looked) in &survivors.looked {
        match looked {
            Looked::Not => return Step::Inspect(member.clone()),
            Looked::At(word) => return wait("Inspecting", format!("the volume of {member}: {word}")),
            Looked::Told(_) => {}
        }
    }
    let Some(choice) = &survivors.choice else {
        let told = survivors.looked.iter().filter_map(|(member, looked)| match looked {
            Looked::Told(candidate) => Some(format!("{member}: {}", candidate.message)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        return wait("NoSurvivor", format!("no volume can be used: {}", told.join("; ")));
    };
    if world.shown.as_ref().is_none_or(|shown| shown.token != choice.token) {
        return Step::Choose(choice.clone());
    }
    match world.confirm == choice.token {
        true => Step::Advance(Phase::Salvaging),
        false => Step::Wait(world.unconfirmed(&choice.token)),
    }
}

fn salvage(world: &World, survivors: &Survivors) -> Step {
    let chosen = world.shown.as_ref().and_then(|shown| shown.survivor.as_ref());
    match (&survivors.salvage, chosen) {
        (Salvage::Absent, Some(member)) => Step::Salvage(member.clone()),
        (Salvage::Absent, None) => wait("NoSurvivor", "no volume is chosen"),
        (Salvage::Running(word), _) => wait("Salvaging", word),
        (Salvage::Failed(why), _) => wait("SalvageFailed", format!("once its Job is deleted it is tried again: {why}")),
        (Salvage::Taken, _) => Step::Advance(Phase::Restoring),
    }
}

// === the new cluster ===

fn reform(world: &World) -> Step {
    match &world.cluster {
        None => no_cluster(),
        Some(Cluster { id: Some(id), .. }) if Some(id) != world.founded.as_ref() => changed(id),
        Some(Cluster { id: Some(_), ready: true, revision: Some(_), .. }) => Step::Advance(Phase::Verifying),
        Some(cluster) => wait("Reforming", &cluster.word),
    }
}

fn verify(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    match &cluster.id {
        Some(id) if Some(id) != world.founded.as_ref() => return changed(id),
        _ if !cluster.ready => return wait("Verifying", &cluster.word),
        _ => {}
    }
    let Some(revision) = cluster.revision else { return wait("Verifying", "no member tells its revision") };
    let seen = world.shown.as_ref().and_then(|plan| plan.newest_revision.max(plan.revision)).unwrap_or(0);
    if revision <= seen {
        let message = format!("the cluster is at revision {revision}, and clients have seen {seen}");
        return Step::Fail { reason: "RevisionTooLow", message };
    }
    Step::Advance(Phase::Succeeded)
}

// === going back ===

fn turn_back(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    if let Some(other) = &world.other {
        return wait("OtherRestore", format!("EtcdRestore {other} is at work"));
    }
    let begun = matches!(cluster.record, Some(Record::Own(RestoreStage::Stopping | RestoreStage::Starting)));
    let (id, old) = (cluster.id.as_ref(), world.old());
    if begun || id == old {
        return Step::Advance(Phase::RollingBack);
    }
    let own = match &world.founded {
        Some(founded) => id.is_none_or(|id| id == founded),
        // What was founded a moment ago is not known as this one's yet.
        None => !matches!(cluster.record, Some(Record::Others(_))),
    };
    match (own, world.aside) {
        (false, _) => wait("ClusterChanged", "the EtcdCluster is another one by now: not by this EtcdRestore"),
        (true, 0) => wait("VolumesMissing", "no volume is left of the cluster that was"),
        (true, _) => Step::Advance(Phase::RollingBack),
    }
}

fn roll_back(world: &World) -> Step {
    let Some(cluster) = &world.cluster else { return no_cluster() };
    let begun = matches!(cluster.record, Some(Record::Own(RestoreStage::Stopping | RestoreStage::Starting)));
    // Whether it is well is the EtcdCluster's own to say: it may not have been before.
    match cluster.id.as_ref() == world.old() && !begun && world.aside == 0 {
        true => Step::Advance(Phase::RolledBack),
        false => wait("RollingBack", &cluster.word),
    }
}

#[cfg(test)]
mod tests;
