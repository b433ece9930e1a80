//! What to do next about one EtcdBackup: from what was seen, one step. Pure.
//!
//! Invariants, held by the tests on worlds made up at random:
//! - a backup that has ended stays as it ended, and nothing is started for it any more;
//! - it succeeds only with the manifest that its own Job has told, and is verified only by a Job that says so;
//! - its files are removed only when it is deleted and `deletionPolicy` asks for that;
//! - while a Job of it runs, it is not let go;
//! - repeated steps come to an end.

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;

use crate::archive::Manifest;
use crate::archive::Reason;
use crate::crd::backup::Phase;
use crate::crd::backup::Progress;

/// Between two tries to remove the files.
const REMOVE_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// One EtcdBackup, as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub wanted: Wanted,
    pub phase: Phase,
    /// A Job may have been made that writes: recorded before it is.
    pub started: bool,
    pub created_at: Timestamp,
    /// Somebody has deleted it.
    pub deleting: bool,
    /// It cannot go before the operator lets it.
    pub held: bool,
    pub claim: Claim,
    /// Why no snapshot can be taken now, with the reason for a condition.
    pub obstacle: Option<Obstacle>,
    pub take: Option<Job>,
    pub verify: Option<Job>,
    pub delete: Option<Job>,
    pub now: Timestamp,
}

/// What the plan needs of the spec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    pub deadline: SignedDuration,
    pub restore: bool,
    pub remove_files: bool,
    /// The volume is this backup's own.
    pub own_volume: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Absent,
    Deleting,
    There,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Take,
    Verify,
    Delete,
}

/// A Job of the backup.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// What holds it up, if anything is known to.
    Running {
        progress: Option<Progress>,
        held_up: Option<String>,
    },
    /// What its Pod told.
    Succeeded(Told),
    Failed(Failure),
    /// It goes.
    Deleting,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Nothing,
    Manifest(Box<Manifest>),
    /// The restored one is the same.
    Same,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `None`: no Pod came to say why.
    pub reason: Option<Reason>,
    pub message: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is left to do.
    Rest,
    /// Nothing can be done now.
    Wait(Obstacle),
    /// A Job is at work.
    Watch(Task, Option<Progress>),
    /// Lets it not go before its files have.
    Hold,
    LetGo,
    CreateClaim,
    /// Recorded before the Job is made.
    Start(Task),
    /// Writes down what was taken; the backup is complete, or is to be verified.
    Taken(Box<Manifest>),
    Verified,
    /// The archive is there, and whether it can be restored is not known.
    Unverified(String),
    Fail {
        reason: &'static str,
        message: String,
    },
    DeleteJob(Task),
    /// Of the backup's own volume.
    DeleteClaim,
}

/// The next step.
pub fn plan(world: &World) -> Step {
    if world.deleting {
        return leave(world);
    }
    if world.phase.is_final() {
        return clean(world);
    }
    if world.wanted.remove_files && !world.held {
        return Step::Hold;
    }
    let late = world.now.duration_since(world.created_at) > world.wanted.deadline;
    let step = match world.phase {
        Phase::Verifying => verify(world),
        _ => take(world),
    };
    match step {
        Step::Wait(_) | Step::Watch(..) | Step::Start(_) | Step::CreateClaim | Step::DeleteJob(_) if late => {
            give_up(world, &step)
        }
        step => step,
    }
}

// === taking ===

fn take(world: &World) -> Step {
    match &world.take {
        Some(Job::Running { progress, held_up: None }) => Step::Watch(Task::Take, *progress),
        Some(Job::Running { held_up: Some(why), .. }) => wait("PodPending", why),
        Some(Job::Deleting) => wait("JobDeleted", "its Job is being deleted"),
        Some(Job::Succeeded(Told::Manifest(manifest))) => Step::Taken(manifest.clone()),
        // Its Pod went before it could be asked. What it has written is found again by the next one.
        Some(Job::Succeeded(_)) => Step::DeleteJob(Task::Take),
        Some(Job::Failed(failure)) => failed(failure),
        None => begin(world, Task::Take),
    }
}

fn begin(world: &World, task: Task) -> Step {
    match world.claim {
        Claim::Absent if world.wanted.own_volume && task == Task::Take => return Step::CreateClaim,
        Claim::Absent => return wait("VolumeMissing", "there is no PersistentVolumeClaim of this name"),
        Claim::Deleting => return wait("VolumeDeleting", "the PersistentVolumeClaim is being deleted"),
        Claim::There => {}
    }
    match &world.obstacle {
        Some(obstacle) => Step::Wait(obstacle.clone()),
        None => Step::Start(task),
    }
}

// === verifying ===

fn verify(world: &World) -> Step {
    match &world.verify {
        Some(Job::Running { held_up: None, .. }) => Step::Watch(Task::Verify, None),
        Some(Job::Running { held_up: Some(why), .. }) => wait("PodPending", why),
        Some(Job::Deleting) => wait("JobDeleted", "its Job is being deleted"),
        Some(Job::Succeeded(Told::Same)) => Step::Verified,
        Some(Job::Succeeded(_)) => Step::DeleteJob(Task::Verify),
        Some(Job::Failed(failure)) if failure.reason.is_some_and(Reason::proves_bad) => failed(failure),
        Some(Job::Failed(failure)) => Step::Unverified(failure.message.clone()),
        None => begin(world, Task::Verify),
    }
}

// === ends ===

/// What is left of a backup that has ended: Pods of a Job that succeeded have nothing more to tell.
fn clean(world: &World) -> Step {
    let jobs = [(Task::Take, &world.take), (Task::Verify, &world.verify)];
    let done = jobs.into_iter().find(|(_, job)| matches!(job, Some(Job::Succeeded(_) | Job::Running { .. })));
    done.map_or(Step::Rest, |(task, _)| Step::DeleteJob(task))
}

/// Its time is over.
fn give_up(world: &World, step: &Step) -> Step {
    let why = match step {
        Step::Wait(obstacle) => obstacle.message.as_str(),
        _ => "it takes longer than activeDeadlineSeconds",
    };
    match world.phase {
        Phase::Verifying => Step::Unverified(format!("not verified in time: {why}")),
        _ => fail("DeadlineExceeded", &format!("not taken in time: {why}")),
    }
}

fn failed(failure: &Failure) -> Step {
    Step::Fail { reason: failure.reason.map_or("PodFailed", Reason::name), message: failure.message.clone() }
}

fn fail(reason: &'static str, message: &str) -> Step {
    Step::Fail { reason, message: message.to_owned() }
}

fn wait(reason: &'static str, message: &str) -> Step {
    Step::Wait(Obstacle { reason, message: message.to_owned() })
}

// === going ===

fn leave(world: &World) -> Step {
    if !world.held {
        return Step::Rest;
    }
    for (task, job) in [(Task::Take, &world.take), (Task::Verify, &world.verify)] {
        match job {
            None => {}
            Some(Job::Deleting) => return wait("JobDeleted", "its Job is being deleted"),
            Some(_) => return Step::DeleteJob(task),
        }
    }
    let nothing_there = !world.started || world.claim != Claim::There;
    if nothing_there || !world.wanted.remove_files {
        return Step::LetGo;
    }
    if world.wanted.own_volume {
        return Step::DeleteClaim;
    }
    match &world.delete {
        Some(Job::Running { held_up: None, .. }) => Step::Watch(Task::Delete, None),
        Some(Job::Running { held_up: Some(why), .. }) => wait("FilesNotRemoved", why),
        Some(Job::Deleting) => wait("JobDeleted", "its Job is being deleted"),
        Some(Job::Succeeded(_)) => Step::LetGo,
        // Those of this name are another EtcdBackup's.
        Some(Job::Failed(failure)) if failure.reason == Some(Reason::Foreign) => Step::LetGo,
        Some(Job::Failed(failure)) if world.now.duration_since(failure.at) < REMOVE_AGAIN => {
            wait("FilesNotRemoved", &failure.message)
        }
        Some(Job::Failed(_)) => Step::DeleteJob(Task::Delete),
        None => Step::Start(Task::Delete),
    }
}

#[cfg(test)]
mod tests;
