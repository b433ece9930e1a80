//! The plan against a model of an EtcdCluster that does what it is told, and of people who do what they like.

use proptest::prelude::*;

use super::*;

fn shown(token: &str) -> Plan {
    Plan {
        token: token.to_owned(),
        chosen: "EtcdBackup first".to_owned(),
        cluster_id: "c1".to_owned(),
        revision: Some(7),
        newest_revision: Some(9),
        expected_loss: "revisions 8 to 9".to_owned(),
        ..Plan::default()
    }
}

fn world(phase: Phase) -> World {
    World {
        phase,
        confirm: String::new(),
        rollback: false,
        shown: Some(shown("t1")),
        founded: None,
        proposal: Ok(shown("t1")),
        cluster: Some(Cluster { id: Some("c1".to_owned()), ready: true, revision: Some(9), ..Cluster::default() }),
        other: None,
        safety: None,
        aside: 0,
        survivors: None,
    }
}

fn reason(step: Step) -> &'static str {
    match step {
        Step::Wait(why) | Step::Withdraw(why) => why.reason,
        Step::Fail { reason, .. } => reason,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_plan_is_shown_before_it_can_be_confirmed_and_only_by_its_own_token() {
    let planning = World { shown: None, confirm: "t1".to_owned(), ..world(Phase::Planning) };
    assert_eq!(plan(&planning), Step::Propose(shown("t1")));
    let waiting = world(Phase::AwaitingConfirmation);
    assert_eq!(reason(plan(&waiting)), "AwaitingConfirmation");
    assert_eq!(reason(plan(&World { confirm: "t2".to_owned(), ..waiting.clone() })), "WrongToken");
    assert_eq!(plan(&World { confirm: "t1".to_owned(), ..waiting.clone() }), Step::Confirm(shown("t1")));
    // The token of what was shown, and that is not the plan any more.
    let changed = World { confirm: "t1".to_owned(), proposal: Ok(shown("t2")), ..waiting.clone() };
    assert_eq!(plan(&changed), Step::Propose(shown("t2")));
    let gone = obstacle("BackupMissing", "");
    assert_eq!(plan(&World { proposal: Err(gone.clone()), ..waiting.clone() }), Step::Withdraw(gone));
    assert_eq!(
        reason(plan(&World { other: Some("o".to_owned()), confirm: "t1".to_owned(), ..waiting })),
        "OtherRestore"
    );
}

#[test]
fn a_busy_cluster_can_be_confirmed() {
    let newer = Plan { newest_revision: Some(12), ..shown("t1") };
    let busy = World { proposal: Ok(newer.clone()), ..world(Phase::AwaitingConfirmation) };
    assert_eq!(plan(&busy), Step::Propose(newer.clone()));
    assert_eq!(plan(&World { confirm: "t1".to_owned(), ..busy }), Step::Confirm(newer));
}

#[test]
fn nothing_is_stopped_before_the_safety_backup_has_succeeded() {
    let saving = |safety| plan(&World { safety, ..world(Phase::SafetyBackup) });
    assert_eq!(saving(None), Step::Advance(Phase::Stopping));
    assert_eq!(saving(Some(Safety::Absent)), Step::TakeSafetyBackup);
    assert_eq!(reason(saving(Some(Safety::Running(String::new())))), "SafetyBackup");
    assert_eq!(reason(saving(Some(Safety::Failed("no space".to_owned())))), "SafetyBackupFailed");
    assert_eq!(reason(saving(Some(Safety::Foreign))), "NameTaken");
    assert_eq!(saving(Some(Safety::Succeeded)), Step::Advance(Phase::Stopping));
    let mut other = World { safety: Some(Safety::Succeeded), ..world(Phase::SafetyBackup) };
    other.cluster.as_mut().unwrap().id = Some("c2".to_owned());
    assert_eq!(reason(plan(&other)), "ClusterChanged");
}

#[test]
fn whose_cluster_it_is_says_the_record_or_when_that_is_lost_the_id() {
    let seen = |record, id: &str| {
        let mut world = world(Phase::Stopping);
        let cluster = world.cluster.as_mut().unwrap();
        (cluster.record, cluster.id) = (record, Some(id.to_owned()).filter(|id| !id.is_empty()));
        plan(&world)
    };
    assert_eq!(reason(seen(None, "c1")), "Pending");
    assert_eq!(reason(seen(Some(Record::Own(RestoreStage::Stopping)), "c1")), "Stopping");
    assert_eq!(seen(Some(Record::Own(RestoreStage::Starting)), ""), Step::Advance(Phase::Restoring));
    assert_eq!(seen(Some(Record::Own(RestoreStage::Done)), "c2"), Step::Founded("c2".to_owned()));
    assert_eq!(seen(None, "c2"), Step::Founded("c2".to_owned()));
    assert_eq!(reason(seen(Some(Record::Others(RestoreStage::Done)), "c2")), "ClusterChanged");
}

#[test]
fn a_revision_that_was_seen_before_is_no_success() {
    let verified = |revision| {
        let mut world = World { founded: Some("c2".to_owned()), ..world(Phase::Verifying) };
        world.cluster = Some(Cluster { id: world.founded.clone(), ready: true, revision, ..Cluster::default() });
        plan(&world)
    };
    assert_eq!(reason(verified(None)), "Verifying");
    assert_eq!(reason(verified(Some(9))), "RevisionTooLow");
    assert_eq!(verified(Some(10)), Step::Advance(Phase::Succeeded));
}

#[test]
fn what_another_has_made_is_not_rolled_back_nor_what_has_no_volumes() {
    let back = |founded: Option<&str>, id: &str, aside| {
        let founded = founded.map(str::to_owned);
        let mut world = World { founded, rollback: true, aside, ..world(Phase::Succeeded) };
        world.cluster.as_mut().unwrap().id = Some(id.to_owned());
        plan(&world)
    };
    assert_eq!(back(Some("c2"), "c2", 3), Step::Advance(Phase::RollingBack));
    assert_eq!(reason(back(Some("c2"), "c2", 0)), "VolumesMissing");
    assert_eq!(reason(back(Some("c2"), "c3", 3)), "ClusterChanged");
    let failed = World { rollback: true, ..world(Phase::Failed) };
    assert_eq!(plan(&failed), Step::Advance(Phase::RolledBack));
}

#[test]
fn a_volume_is_gone_on_with_when_all_were_looked_at_and_it_was_confirmed_by_a_token_of_its_own() {
    let told = |member: &str| {
        (member.to_owned(), Looked::Told(Candidate { member: member.to_owned(), ..Candidate::default() }))
    };
    let seen = |looked: &[(String, Looked)], choice: Option<&str>, confirm: &str| {
        let chosen = choice.map(|token| Plan { survivor: Some("a".to_owned()), ..shown(token) });
        let survivors = Survivors { looked: looked.to_vec(), choice: chosen, salvage: Salvage::Absent };
        let mut world = World { survivors: Some(survivors), confirm: confirm.to_owned(), ..world(Phase::Inspecting) };
        let cluster = world.cluster.as_mut().unwrap();
        (cluster.record, cluster.id) = (Some(Record::Own(RestoreStage::Starting)), None);
        world
    };
    let step = |looked: &[(String, Looked)], choice, confirm| plan(&seen(looked, choice, confirm));
    let half = [told("a"), ("b".to_owned(), Looked::Not)];
    assert_eq!(step(&half, None, "t1"), Step::Inspect("b".to_owned()));
    let waiting = [told("a"), ("b".to_owned(), Looked::At("at work".to_owned()))];
    assert_eq!(reason(step(&waiting, None, "t1")), "Inspecting");
    let all = [told("a"), told("b")];
    assert_eq!(reason(step(&all, None, "t1")), "NoSurvivor");
    // The first token let the members end, and does no more than that.
    assert!(matches!(step(&all, Some("t2"), "t1"), Step::Choose(plan) if plan.token == "t2"));
    let mut chosen = seen(&all, Some("t2"), "t1");
    chosen.shown.clone_from(&chosen.survivors.as_ref().unwrap().choice);
    assert_eq!(reason(plan(&chosen)), "WrongToken");
    chosen.confirm = "t2".to_owned();
    assert_eq!(plan(&chosen), Step::Advance(Phase::Salvaging));

    chosen.phase = Phase::Salvaging;
    assert_eq!(plan(&chosen), Step::Salvage("a".to_owned()));
    let mut with = |salvage| {
        chosen.survivors.as_mut().unwrap().salvage = salvage;
        plan(&chosen)
    };
    assert_eq!(reason(with(Salvage::Running(String::new()))), "Salvaging");
    assert_eq!(reason(with(Salvage::Failed(String::new()))), "SalvageFailed");
    assert_eq!(with(Salvage::Taken), Step::Advance(Phase::Restoring));
}

// === the model ===

#[derive(Debug, Clone, Copy)]
enum Event {
    Tick,
    TypeToken,
    TypeNonsense,
    /// The source becomes another one.
    Replan,
    Rollback,
    LoseBackup,
    Fail,
    /// The record in the EtcdCluster is lost.
    LoseRecord,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => Just(Event::Tick),
        4 => Just(Event::TypeToken),
        1 => Just(Event::TypeNonsense),
        1 => Just(Event::Replan),
        1 => Just(Event::Rollback),
        1 => Just(Event::LoseBackup),
        1 => Just(Event::Fail),
        1 => Just(Event::LoseRecord),
    ]
}

struct Model {
    world: World,
    plans: usize,
    confirmed: Option<Plan>,
}

impl Model {
    fn new(safety: bool) -> Self {
        let safety = safety.then_some(Safety::Absent);
        Self { world: World { shown: None, safety, ..world(Phase::Planning) }, plans: 1, confirmed: None }
    }

    fn happen(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Tick => {}
            Event::TypeToken => {
                if let Some(shown) = &world.shown {
                    world.confirm.clone_from(&shown.token);
                }
            }
            Event::TypeNonsense => world.confirm = "nonsense".to_owned(),
            Event::Replan => {
                self.plans += 1;
                world.proposal = Ok(shown(&format!("t{}", self.plans)));
            }
            Event::Rollback => world.rollback = true,
            Event::LoseBackup => world.proposal = Err(obstacle("BackupMissing", "")),
            Event::Fail => {
                if let Some(Safety::Running(_)) = world.safety {
                    world.safety = Some(Safety::Failed("no space".to_owned()));
                }
            }
            Event::LoseRecord => {
                if let Some(cluster) = &mut world.cluster {
                    cluster.record = None;
                }
            }
        }
    }

    /// The EtcdCluster and the safety backup go on by a step, as the status has them do.
    fn go_on(&mut self) {
        let world = &mut self.world;
        match &world.safety {
            Some(Safety::Running(why)) if why.is_empty() => {
                world.safety = Some(Safety::Running("it is taken".to_owned()))
            }
            Some(Safety::Running(_)) => world.safety = Some(Safety::Succeeded),
            _ => {}
        }
        let cluster = world.cluster.as_mut().unwrap();
        let forward = matches!(world.phase, Phase::Stopping | Phase::Restoring);
        let back = world.phase == Phase::RollingBack;
        let new = Some("c2".to_owned());
        match (cluster.record, cluster.id.as_deref()) {
            (Some(Record::Own(RestoreStage::Stopping)), _) => {
                (world.aside, cluster.id, cluster.ready) = (3, None, false);
                cluster.record = Some(Record::Own(RestoreStage::Starting));
            }
            (Some(Record::Own(RestoreStage::Starting)), _) | (_, None) => {
                cluster.record = Some(Record::Own(RestoreStage::Done));
                (cluster.id, cluster.revision, world.aside) =
                    if back { (Some("c1".to_owned()), Some(9), 0) } else { (new, Some(1_000_009), 3) };
            }
            (_, Some("c1")) if forward => cluster.record = Some(Record::Own(RestoreStage::Stopping)),
            (_, Some("c2")) if back => cluster.record = Some(Record::Own(RestoreStage::Stopping)),
            _ => cluster.ready = true,
        }
    }

    fn judge(&self, step: &Step) {
        let World { phase, shown, confirm, safety, .. } = &self.world;
        if let Step::Confirm(plan) = step {
            assert_eq!(shown.as_ref().map(|shown| &shown.token), Some(&plan.token), "it was not shown");
            assert_eq!(confirm, &plan.token);
        }
        if let Step::Advance(to) = step
            && to.replaces()
        {
            assert!(self.confirmed.is_some(), "{step:?} from {phase:?} is not confirmed");
            let saved = matches!(safety, None | Some(Safety::Succeeded));
            assert!(saved, "{step:?} with the safety backup {safety:?}");
        }
        if self.confirmed.is_some() {
            assert_eq!(shown, &self.confirmed, "what was confirmed is another plan");
        }
        if *step == Step::Advance(Phase::Succeeded) {
            let cluster = self.world.cluster.as_ref().unwrap();
            assert!(cluster.ready && cluster.id != shown.as_ref().map(|plan| plan.cluster_id.clone()), "{cluster:?}");
        }
    }

    fn turn(&mut self) -> Step {
        self.go_on();
        let step = plan(&self.world);
        self.judge(&step);
        let world = &mut self.world;
        match &step {
            Step::Rest | Step::Wait(_) => {}
            Step::Propose(plan) => (world.phase, world.shown) = (Phase::AwaitingConfirmation, Some(plan.clone())),
            Step::Withdraw(_) => (world.phase, world.shown) = (Phase::Planning, None),
            Step::Confirm(plan) => {
                (world.phase, world.shown) = (Phase::SafetyBackup, Some(plan.clone()));
                self.confirmed = Some(plan.clone());
            }
            Step::TakeSafetyBackup => world.safety = Some(Safety::Running(String::new())),
            Step::Inspect(_) | Step::Choose(_) | Step::Salvage(_) => panic!("{step:?}: the source is a file"),
            Step::Advance(phase) => world.phase = *phase,
            Step::Founded(id) => (world.phase, world.founded) = (Phase::Reforming, Some(id.clone())),
            Step::Fail { .. } => world.phase = Phase::Failed,
        }
        step
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_people_do_only_what_was_confirmed_is_done_and_it_comes_to_an_end(
        safety in any::<bool>(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut model = Model::new(safety);
        for event in events {
            model.happen(event);
            model.turn();
        }
        model.happen(Event::Replan);
        model.turn();
        model.happen(Event::TypeToken);
        let rollback = model.world.rollback;
        let steps: Vec<_> = (0..60).map(|_| model.turn()).collect();
        let World { phase, cluster, .. } = &model.world;
        let id = cluster.as_ref().and_then(|cluster| cluster.id.as_deref());
        let wanted = match phase {
            Phase::RolledBack => rollback && id == Some("c1"),
            Phase::Succeeded => !rollback && id == Some("c2"),
            Phase::Failed => matches!(model.world.safety, Some(Safety::Failed(_))) && id == Some("c1"),
            _ => false,
        };
        prop_assert!(wanted, "{phase:?} {id:?}: {steps:?}\n{:#?}", model.world);
    }
}
