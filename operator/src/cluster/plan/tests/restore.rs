//! A cluster that is to be founded from a backup.

use super::super::super::world::File;
use super::*;
use crate::backup::Obstacle;

/// What becomes of the backup between two steps.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Stays,
    Comes,
    Goes,
    IsDamaged,
    IsWhole,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        12 => Just(Turn::Stays),
        2 => Just(Turn::Comes),
        1 => Just(Turn::Goes),
        1 => Just(Turn::IsDamaged),
        2 => Just(Turn::IsWhole),
    ]
}

fn backup() -> Backup {
    Backup { claim: "backups".into(), file: File::Path("first.db.zst".into()), revision_bump: 1 }
}

fn restoring(size: usize) -> Model {
    let mut model = Model::new(size);
    model.restore = Some(Restore { backup: Ok(backup()), trouble: None });
    model
}

fn founds(step: &Step) -> bool {
    matches!(step, Step::CreatePod { start: Start::Found(_), .. })
}

impl Model {
    fn turn_backup(&mut self, turn: Turn) {
        let obstacle = |reason, message: &str| Obstacle { reason, message: message.to_owned() };
        let Some(restore) = &mut self.restore else { return };
        match turn {
            Turn::Stays => {}
            Turn::Comes => restore.backup = Ok(backup()),
            Turn::Goes => restore.backup = Err(obstacle("BackupMissing", "there is no EtcdBackup first")),
            Turn::IsDamaged => restore.trouble = Some(Trouble::Refused(obstacle("Damaged", "another sha256"))),
            Turn::IsWhole => restore.trouble = None,
        }
    }

    fn turns(&mut self) -> Vec<Step> {
        (0..STEPS_MAX).map(|_| self.turn()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_founded_but_from_the_backup_and_all_of_it_with_that(
        size in 1..=3usize,
        events in prop::collection::vec((event(), turn()), 0..80),
    ) {
        let mut model = restoring(size);
        model.turn_backup(Turn::Goes);
        for (event, turn) in events {
            model.happen(event);
            model.turn_backup(turn);
            model.turn();
        }
        model.happen(Event::Certify);
        model.happen(Event::Mend);
        model.turn_backup(Turn::Comes);
        model.turn_backup(Turn::IsWhole);
        let last = model.turns().pop();
        prop_assert!(
            model.is_as_wanted() || model.broken || matches!(last, Some(Step::Refuse(_))),
            "{last:?}\n{:#?}\n{:#?}", model.world, model.entries
        );
    }
}

#[test]
fn nothing_is_begun_without_the_backup() {
    let mut model = restoring(3);
    model.turn_backup(Turn::Goes);
    for _ in 0..20 {
        let step = model.turn();
        assert!(matches!(&step, Step::Wait(why) if why.contains("no EtcdBackup first")), "{step:?}");
    }
    assert!(model.world.members.is_empty() && model.world.recorded == Recorded::default());
    model.turn_backup(Turn::Comes);
    let steps = model.turns();
    assert!(model.is_as_wanted(), "{:#?}", model.world);
    assert_eq!(steps.iter().filter(|step| founds(step)).count(), 1);
}

#[test]
fn a_backup_that_is_refused_founds_nothing_until_it_is_whole() {
    let mut model = restoring(1);
    model.turn_backup(Turn::IsDamaged);
    let last = model.turns().pop();
    assert!(matches!(&last, Some(Step::Refuse(why)) if why.contains("another sha256")), "{last:?}");
    assert!(!model.founded && model.world.recorded.cluster_id.is_none());
    model.turn_backup(Turn::IsWhole);
    model.turns();
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn a_founder_that_is_lost_with_its_backup_waits_for_it() {
    let mut model = restoring(1);
    model.turn_backup(Turn::IsDamaged);
    model.turns();
    model.turn_backup(Turn::Goes);
    model.happen(Event::LosePod(0));
    let steps = model.turns();
    assert!(!steps.iter().any(founds), "{steps:?}");
    assert!(matches!(steps.last(), Some(Step::Wait(why)) if why.contains("no EtcdBackup first")), "{steps:?}");
}

#[test]
fn a_cluster_that_is_found_in_volumes_is_not_restored() {
    let mut model = steady(3);
    model.restore = restoring(3).restore;
    model.world.recorded = Recorded::default();
    model.world.members.values_mut().for_each(|member| {
        (member.object, member.id, member.pod) = (false, None, None);
    });
    let steps = model.turns();
    let begun = |step: &Step| founds(step) || matches!(step, Step::GrantBootstrap { .. });
    assert!(model.is_as_wanted() && !steps.iter().any(begun), "{steps:?}");
}
