//! The status of a restore after a step.

use k8s_openapi::jiff::Timestamp;

use super::plan::Step;
use super::plan::World;
use crate::cluster::status::Verdict;
use crate::cluster::status::conditions;
use crate::crd::EtcdRestore;
use crate::crd::EtcdRestoreStatus;
use crate::crd::in_place::OldVolume;
use crate::crd::in_place::Phase;

const CONFIRMED: &str = "Confirmed";
const COMPLETE: &str = "Complete";
const ROLLED_BACK: &str = "RolledBack";

/// What is written down before `step` is done. `old`: the volumes of the cluster that made way.
pub fn status(restore: &EtcdRestore, world: &World, old: Vec<OldVolume>, step: &Step) -> EtcdRestoreStatus {
    let mut status = restore.status.clone().unwrap_or_default();
    status.observed_generation = restore.metadata.generation;
    status.old_volumes = old;
    let verdict =
        |kind, holds, reason, message: &str| Verdict { kind, holds: Some(holds), reason, message: message.to_owned() };
    let mut verdicts = Vec::new();
    match step {
        Step::Rest | Step::TakeSafetyBackup | Step::Inspect(_) | Step::Salvage(_) => {}
        Step::Wait(why) if world.phase == Phase::RollingBack || (world.rollback && world.phase.is_final()) => {
            verdicts.push(verdict(ROLLED_BACK, false, why.reason, &why.message));
        }
        Step::Wait(why) if ["AwaitingConfirmation", "WrongToken"].contains(&why.reason) => {
            verdicts.push(verdict(CONFIRMED, false, why.reason, &why.message));
        }
        Step::Wait(why) => verdicts.push(verdict(COMPLETE, false, why.reason, &why.message)),
        Step::Propose(plan) => {
            status.phase = Phase::AwaitingConfirmation;
            let why = world.unconfirmed(&plan.token);
            verdicts.push(verdict(CONFIRMED, false, why.reason, &why.message));
            verdicts.push(verdict(COMPLETE, false, "AwaitingConfirmation", "nothing was touched"));
            status.plan = Some(plan.clone());
        }
        Step::Choose(plan) => {
            let why = world.unconfirmed(&plan.token);
            verdicts.push(verdict(CONFIRMED, false, why.reason, &why.message));
            verdicts.push(verdict(COMPLETE, false, "AwaitingConfirmation", &plan.chosen));
            status.plan = Some(plan.clone());
        }
        Step::Withdraw(why) => {
            (status.phase, status.plan) = (Phase::Planning, None);
            verdicts.push(verdict(CONFIRMED, false, why.reason, &why.message));
            verdicts.push(verdict(COMPLETE, false, why.reason, &why.message));
        }
        Step::Confirm(plan) => {
            status.phase = Phase::SafetyBackup;
            status.plan = Some(plan.clone());
            verdicts.push(verdict(CONFIRMED, true, "Confirmed", ""));
        }
        Step::Founded(id) => {
            (status.phase, status.cluster_id) = (Phase::Reforming, Some(id.clone()));
            verdicts.push(verdict(COMPLETE, false, "Reforming", &format!("the cluster is {id} now")));
        }
        Step::Advance(phase) => {
            status.phase = *phase;
            verdicts.extend(advanced(world, *phase));
            if *phase == Phase::Verifying {
                status.revision = world.cluster.as_ref().and_then(|cluster| cluster.revision);
            }
        }
        Step::Fail { reason, message } => {
            status.phase = Phase::Failed;
            verdicts.push(verdict(COMPLETE, false, reason, message));
        }
    }
    conditions(&mut status.conditions, verdicts, restore.metadata.generation, Timestamp::now());
    status
}

fn advanced(world: &World, phase: Phase) -> Option<Verdict> {
    let verdict = |kind, holds, reason, message: &str| {
        Some(Verdict { kind, holds: Some(holds), reason, message: message.to_owned() })
    };
    match phase {
        Phase::Succeeded => {
            verdict(COMPLETE, true, "Restored", "all members are as they are wanted; the old volumes are kept")
        }
        Phase::RolledBack if world.phase == Phase::RollingBack => {
            verdict(ROLLED_BACK, true, "RolledBack", "the EtcdCluster is the one that it was")
        }
        Phase::RolledBack => verdict(ROLLED_BACK, true, "NothingDone", "nothing of the EtcdCluster was changed"),
        Phase::RollingBack => verdict(ROLLED_BACK, false, "RollingBack", "the old volumes are taken back"),
        Phase::Stopping => verdict(COMPLETE, false, "Stopping", "the members end"),
        Phase::Inspecting => verdict(COMPLETE, false, "Inspecting", "the volumes that are left are looked at"),
        Phase::Salvaging => verdict(CONFIRMED, true, "Confirmed", ""),
        Phase::Restoring => verdict(COMPLETE, false, "Restoring", "a cluster is founded from the backup"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backup::Obstacle;
    use crate::crd::in_place::Plan;

    /// What the condition Confirmed says after a step, and the phase.
    fn told(confirm: &str, step: &Step) -> (String, String, Phase) {
        let spec = json!({"clusterRef": {"name": "a"}, "source": {"backupRef": {"name": "first"}}});
        let restore = EtcdRestore::new("back", serde_json::from_value(spec).unwrap());
        let world = World {
            phase: Phase::AwaitingConfirmation,
            confirm: confirm.to_owned(),
            rollback: false,
            shown: None,
            founded: None,
            proposal: Err(Obstacle { reason: "BackupMissing", message: String::new() }),
            cluster: None,
            other: None,
            safety: None,
            aside: 0,
            survivors: None,
        };
        let status = status(&restore, &world, Vec::new(), step);
        let confirmed = status.conditions.iter().find(|condition| condition.type_ == CONFIRMED).unwrap();
        (confirmed.status.clone(), confirmed.reason.clone(), status.phase)
    }

    #[test]
    fn a_wrong_token_is_told_of_also_where_the_plan_changes_with_each_write() {
        let plan = Plan { token: "t1".to_owned(), ..Plan::default() };
        let said = |confirm, step: &Step| {
            let (status, reason, phase) = told(confirm, step);
            (status + " " + &reason, phase)
        };
        let (waits, wrong) = ("False AwaitingConfirmation".to_owned(), "False WrongToken".to_owned());
        assert_eq!(said("", &Step::Propose(plan.clone())), (waits, Phase::AwaitingConfirmation));
        assert_eq!(said("t2", &Step::Propose(plan.clone())), (wrong, Phase::AwaitingConfirmation));
        assert_eq!(said("t1", &Step::Confirm(plan)), ("True Confirmed".to_owned(), Phase::SafetyBackup));
    }
}
