//! A cluster that is to leave a backup behind.

use super::super::super::world::Seen;
use super::super::super::world::Tried;
use super::*;

/// What becomes of the backup, and of who asks for it, between two steps.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Stays,
    Ask(bool),
    Delete,
    Waits,
    Comes,
    Fails,
    /// Somebody deletes the EtcdBackup.
    Goes,
    /// Another destination is asked for.
    Outdate,
    LoseStatus,
    Pause(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        20 => Just(Turn::Stays),
        2 => any::<bool>().prop_map(Turn::Ask),
        1 => Just(Turn::Delete),
        2 => Just(Turn::Waits),
        1 => Just(Turn::Comes),
        2 => Just(Turn::Fails),
        1 => Just(Turn::Goes),
        1 => Just(Turn::Outdate),
        1 => Just(Turn::LoseStatus),
        1 => any::<bool>().prop_map(Turn::Pause),
    ]
}

impl Model {
    fn turn_leaving(&mut self, turn: Turn) {
        let now = self.world.now;
        let seen = |model: &mut Self, seen| {
            if let Some(tried) = &mut model.world.leaving.tried {
                tried.seen = seen;
            }
        };
        match turn {
            Turn::Stays => {}
            Turn::Ask(wanted) => self.world.wanted.final_backup = wanted,
            Turn::Delete => self.world.leaving.deleted = true,
            Turn::Waits => seen(self, Seen::Pending("there is no PersistentVolumeClaim".to_owned())),
            Turn::Comes => seen(self, Seen::Taken),
            Turn::Fails => seen(self, Seen::Failed { why: "NoSpace".to_owned(), at: now }),
            Turn::Goes => seen(self, Seen::Absent),
            Turn::Outdate => self.world.leaving.tried.iter_mut().for_each(|tried| tried.as_wanted = false),
            Turn::LoseStatus => (self.world.recorded, self.world.leaving.tried) = (Recorded::default(), None),
            Turn::Pause(paused) => self.world.wanted.paused = paused,
        }
    }

    /// What no step may do to a cluster that is deleted, or to one that is held.
    pub(super) fn judge_leaving(&self, step: &Step) {
        let leaving = &self.world.leaving;
        let taken = leaving.tried.as_ref().is_some_and(|tried| tried.seen == Seen::Taken);
        match step {
            Step::LetGo(_) => {
                assert!(leaving.held, "it is not held");
                let empty = leaving.deleted && !self.served();
                assert!(!self.world.wanted.final_backup || taken || empty, "{step:?} without a backup");
            }
            Step::BackUp { .. } => assert!(leaving.deleted && leaving.held && !taken, "{step:?}"),
            Step::Hold => assert!(self.world.wanted.final_backup && !leaving.deleted && !leaving.held, "{step:?}"),
            Step::Begin(operation) if leaving.deleted => {
                assert!(
                    matches!(operation.kind, OperationType::AddMember | OperationType::RemoveMember)
                        || self.world.recorded.operation.is_some(),
                    "{step:?} of a cluster that goes"
                );
            }
            Step::ExpandVolume { .. } => assert!(!leaving.deleted, "{step:?} of a cluster that goes"),
            _ => {}
        }
    }

    /// Whether clients can have written.
    fn served(&self) -> bool {
        self.world.members.values().any(|member| member.volume.as_ref().is_some_and(|v| v.cluster_id.is_some()))
    }

    pub(super) fn leave(&mut self, step: Step) {
        match step {
            Step::Hold => self.world.leaving.held = true,
            Step::LetGo(_) => self.world.leaving.held = false,
            Step::BackUp { next, .. } => {
                let seen = Seen::Pending("a Job takes it".to_owned());
                self.world.leaving.tried = Some(Tried { record: next, seen, as_wanted: true });
            }
            _ => {}
        }
    }
}

/// One that was deleted with a backup asked for.
fn deleted(size: usize) -> Model {
    let mut model = steady(size);
    model.turn_leaving(Turn::Ask(true));
    assert_eq!(model.turn(), Step::Hold);
    model.turn_leaving(Turn::Delete);
    model
}

fn tries(step: &Step) -> Option<i32> {
    match step {
        Step::BackUp { next, .. } => Some(next.tries),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_goes_with_its_backup_or_when_nobody_asks_for_one(
        size in 1..=3usize,
        events in prop::collection::vec((event(), turn()), 0..120),
    ) {
        let mut model = Model::new(size);
        for (event, turn) in events {
            model.happen(event);
            model.turn_leaving(turn);
            model.turn();
        }
        model.turn_leaving(Turn::Ask(false));
        model.turn_leaving(Turn::Pause(false));
        for _ in 0..3 {
            model.turn();
        }
        prop_assert!(!model.world.leaving.held, "{:#?}", model.world);
    }
}

#[test]
fn it_is_held_only_while_a_backup_is_asked_for() {
    let mut model = steady(3);
    model.turn_leaving(Turn::Ask(true));
    assert_eq!([model.turn(), model.turn()], [Step::Hold, Step::Steady]);
    model.turn_leaving(Turn::Ask(false));
    assert!(matches!(model.turn(), Step::LetGo(_)));
    assert_eq!(model.turn(), Step::Steady);
}

#[test]
fn it_goes_when_its_backup_is_taken_paused_or_not() {
    for paused in [false, true] {
        let mut model = deleted(3);
        model.turn_leaving(Turn::Pause(paused));
        assert_eq!(tries(&model.turn()), Some(1));
        for _ in 0..20 {
            assert!(matches!(model.turn(), Step::Wait(_)));
        }
        model.turn_leaving(Turn::Comes);
        assert!(matches!(model.turn(), Step::LetGo(_)));
    }
}

#[test]
fn a_backup_that_fails_is_followed_by_another_one_later_each_time_and_never_by_the_end() {
    let mut model = deleted(1);
    let mut last = SignedDuration::ZERO;
    for n in 1..12 {
        assert_eq!(tries(&model.turn()), Some(n));
        model.turn_leaving(Turn::Fails);
        let failed = model.world.now;
        let next = loop {
            model.settle();
            match plan(&model.world) {
                Step::Wait(_) => {}
                step => break step,
            }
        };
        assert_eq!(tries(&next), Some(n + 1), "{next:?}");
        let pause = model.world.now.duration_since(failed);
        assert!(pause >= last && pause <= SignedDuration::from_mins(61), "{pause} after {last}");
        last = pause;
    }
    assert!(last >= SignedDuration::from_hours(1), "{last}");
    model.turn_leaving(Turn::Ask(false));
    assert!(matches!(model.turn(), Step::LetGo(_)));
}

#[test]
fn one_that_somebody_has_deleted_is_made_again_and_one_that_is_not_as_wanted_is_replaced() {
    let mut model = deleted(1);
    model.turn();
    model.world.leaving.fresh_name = "other".to_owned();
    let name = |model: &Model| model.world.leaving.tried.as_ref().unwrap().record.name.clone();
    model.turn_leaving(Turn::Goes);
    assert_eq!((tries(&model.turn()), name(&model)), (Some(1), String::new()));
    model.turn_leaving(Turn::Outdate);
    assert_eq!((tries(&model.turn()), name(&model)), (Some(1), "other".to_owned()));
}

#[test]
fn members_live_on_until_then_and_nothing_else_is_begun() {
    let mut model = deleted(3);
    model.turn();
    model.happen(Event::Outdate);
    model.happen(Event::Resize(1));
    model.happen(Event::Grow);
    let names: Vec<String> = model.world.members.keys().cloned().collect();
    model.happen(Event::LosePod(0));
    let steps: Vec<Step> = (0..50).map(|_| model.turn()).collect();
    let done: Vec<&Step> = steps.iter().filter(|step| !matches!(step, Step::Wait(_))).collect();
    assert!(matches!(done[..], [Step::CreatePod { .. }]), "{done:?}");
    assert!(model.world.members.keys().eq(&names));
    model.happen(Event::Resize(3));
    model.happen(Event::Wipe(1));
    (0..STEPS_MAX).for_each(|_| drop(model.turn()));
    assert!(model.world.members.len() == 3 && model.entries.iter().all(|entry| entry.healthy), "{:#?}", model.world);
}

#[test]
fn one_that_was_never_founded_goes_at_once_and_one_whose_record_was_lost_does_not() {
    let mut model = Model::new(3);
    model.turn_leaving(Turn::Ask(true));
    model.happen(Event::UncertifyAll);
    model.turn();
    model.turn_leaving(Turn::Delete);
    assert!(matches!(model.turn(), Step::LetGo(_)));

    let mut model = deleted(3);
    model.turn_leaving(Turn::LoseStatus);
    model.happen(Event::Hide);
    assert_eq!(model.turn(), Step::Latch { cluster_id: CLUSTER });
    assert_eq!(tries(&model.turn()), Some(1));
}
