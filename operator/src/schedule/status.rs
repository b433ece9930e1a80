//! The status of a schedule: what there is of it, and what is to be done next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::plan::Planned;
use super::plan::Step;
use super::seen::Backup;
use crate::cluster::status::Verdict;
use crate::cluster::status::conditions;
use crate::crd::EtcdBackupSchedule;
use crate::crd::EtcdBackupScheduleStatus;

/// The status after this pass; a backup that is to be made is in it before it is.
pub fn status(
    schedule: &EtcdBackupSchedule,
    backups: &[Backup],
    planned: &Planned,
    now: Timestamp,
) -> EtcdBackupScheduleStatus {
    let mut status = schedule.status.clone().unwrap_or_default();
    status.failed_in_a_row = failed_in_a_row(&status, backups);
    let stay = || backups.iter().filter(|backup| !backup.deleting);
    status.active = stay().filter(|backup| backup.is_active()).map(|backup| backup.name.clone()).collect();
    let newest = stay().filter_map(|backup| Some((backup.succeeded()?, &backup.name))).max();
    if let Some((at, _)) = newest {
        // One that is gone may have been newer.
        let before = status.last_successful_time.map(|before| before.0);
        status.last_successful_time = before.max(Some(at)).map(Time);
    }
    status.last_backup = newest.map(|(_, name)| name.clone());
    let retained = stay().filter(|backup| backup.succeeded().is_some());
    let retained = retained.fold(0, |sum: u64, backup| sum.saturating_add(backup.bytes));
    status.retained_bytes = i64::try_from(retained).unwrap_or(i64::MAX);
    status.next_schedule_time = planned.next.map(Time);
    if let Step::Create { name, at } = &planned.step {
        status.last_schedule_time = Some(Time(*at));
        status.active.push(name.clone());
    }
    let ready = ready(schedule, &status, &planned.step);
    conditions(&mut status.conditions, vec![ready], schedule.metadata.generation, now);
    status
}

/// Those that were under way in the pass before count once they have ended.
fn failed_in_a_row(before: &EtcdBackupScheduleStatus, backups: &[Backup]) -> i32 {
    let mut ended: Vec<_> = backups
        .iter()
        .filter(|backup| before.active.contains(&backup.name))
        .filter_map(|backup| Some((backup.succeeded().or(backup.failed())?, &backup.name, backup.failed().is_some())))
        .collect();
    ended.sort();
    ended.iter().fold(before.failed_in_a_row, |count, (_, _, failed)| if *failed { count.saturating_add(1) } else { 0 })
}

fn ready(schedule: &EtcdBackupSchedule, status: &EtcdBackupScheduleStatus, step: &Step) -> Verdict {
    let verdict = |holds, reason, message: &str| Verdict {
        kind: "Ready",
        holds: Some(holds),
        reason,
        message: message.to_owned(),
    };
    match (step, status.failed_in_a_row) {
        (Step::Refuse(why), _) => verdict(false, "InvalidSpec", why),
        (_, 1..) => {
            verdict(false, "BackupsFail", &format!("backups that have failed in a row: {}", status.failed_in_a_row))
        }
        _ if schedule.spec.suspend => {
            verdict(true, "Suspended", "spec.suspend is set: no backup is made, and none deleted")
        }
        _ => verdict(true, "Scheduled", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::State;
    use super::super::validate::tests::schedule;
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(name: &str, state: State) -> Backup {
        Backup {
            name: name.to_owned(),
            uid: name.to_owned(),
            state,
            bytes: 10,
            verified: false,
            in_use: false,
            deleting: false,
        }
    }

    fn waits() -> Planned {
        Planned { step: Step::Wait(NOW), next: Some(NOW) }
    }

    fn ready(status: &EtcdBackupScheduleStatus) -> (&str, &str) {
        let [condition] = &status.conditions[..] else { panic!("{:?}", status.conditions) };
        (condition.status.as_str(), condition.reason.as_str())
    }

    #[test]
    fn a_backup_is_told_before_it_is_made() {
        let planned = Planned { step: Step::Create { name: "b".into(), at: at(60) }, next: Some(at(60)) };
        let status = status(&schedule(serde_json::json!({})), &[backup("a", State::Active)], &planned, NOW);
        assert_eq!(status.active, ["a", "b"]);
        assert_eq!(status.last_schedule_time, Some(Time(at(60))));
        assert_eq!(status.next_schedule_time, Some(Time(at(60))));
        assert_eq!(ready(&status), ("True", "Scheduled"));
    }

    #[test]
    fn each_failure_counts_once_until_one_succeeds() {
        let mut schedule = schedule(serde_json::json!({}));
        let mut pass = |backups: &[Backup]| {
            schedule.status = Some(status(&schedule, backups, &waits(), NOW));
            let status = schedule.status.as_ref().unwrap();
            (status.failed_in_a_row, ready(status).0 == "True")
        };
        let (a, b) = (State::Failed(at(1)), State::Failed(at(2)));
        assert_eq!(pass(&[backup("a", State::Active)]), (0, true));
        assert_eq!(pass(&[backup("a", a), backup("b", State::Active)]), (1, false));
        assert_eq!(pass(&[backup("a", a), backup("b", State::Active)]), (1, false));
        assert_eq!(pass(&[backup("a", a), backup("b", b), backup("c", State::Active)]), (2, false));
        // Gone for its age, or by hand.
        assert_eq!(pass(&[backup("c", State::Active), backup("d", State::Active)]), (2, false));
        // The later one of two that end together decides.
        let (c, d) = (State::Succeeded(at(5)), State::Failed(at(4)));
        assert_eq!(pass(&[backup("c", c), backup("d", d)]), (0, true));
    }

    #[test]
    fn the_last_success_outlives_its_backup() {
        let mut schedule = schedule(serde_json::json!({}));
        let (old, new) = (backup("a", State::Succeeded(at(1))), backup("b", State::Succeeded(at(2))));
        schedule.status = Some(status(&schedule, &[old.clone(), new.clone()], &waits(), NOW));
        let said = schedule.status.clone().unwrap();
        assert_eq!((said.last_backup.as_deref(), said.retained_bytes), (Some("b"), 20));
        let left = status(&schedule, &[old, Backup { deleting: true, ..new }], &waits(), NOW);
        assert_eq!((left.last_backup.as_deref(), left.retained_bytes), (Some("a"), 10));
        assert_eq!(left.last_successful_time, Some(Time(at(2))));
        let none = status(&schedule, &[], &waits(), NOW);
        assert_eq!((none.last_backup, none.last_successful_time), (None, Some(Time(at(2)))));
    }

    #[test]
    fn a_spec_that_cannot_be_obeyed_is_told() {
        let planned = Planned { step: Step::Refuse("no".into()), next: None };
        let refused = status(&schedule(serde_json::json!({})), &[], &planned, NOW);
        assert_eq!(ready(&refused), ("False", "InvalidSpec"));
        assert_eq!(refused.next_schedule_time, None);
        let suspended = status(&schedule(serde_json::json!({"suspend": true})), &[], &waits(), NOW);
        assert_eq!(ready(&suspended), ("True", "Suspended"));
    }
}
