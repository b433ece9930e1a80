//! A cluster that makes way for another one, and comes back.

use std::collections::BTreeSet;

use super::super::super::world::Aside;
use super::super::super::world::File;
use super::*;
use crate::backup::Obstacle;
use crate::crd;
use crate::crd::restore::RestoreSource;
use crate::crd::status::RestoreInPlace;

const RESTORE: &str = "r";

/// What is known of clusters that have made way.
#[derive(Default)]
pub(super) struct Replaced {
    /// Their members.
    entries: BTreeMap<u64, Vec<Entry>>,
    /// Of all that ever had data.
    pub(super) urls: BTreeSet<String>,
    volumes: BTreeMap<String, Volume>,
    /// The EtcdRestore that was confirmed, and the clusters for which one ever was.
    restore: Option<RestoreInPlace>,
    confirmed: Vec<u64>,
    /// The last that has made way.
    old: Option<u64>,
}

/// What becomes of EtcdRestore and records between two steps.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Stays,
    /// Whether it is known what the new cluster is to begin with.
    Confirm(bool),
    Choose,
    Rollback,
    /// Somebody deletes the EtcdRestore.
    Withdraw,
    /// The status of the EtcdCluster is lost.
    Wipe,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        60 => Just(Turn::Stays),
        2 => any::<bool>().prop_map(Turn::Confirm),
        4 => Just(Turn::Choose),
        2 => Just(Turn::Rollback),
        1 => Just(Turn::Withdraw),
        1 => Just(Turn::Wipe),
    ]
}

fn backup() -> Backup {
    Backup { claim: "backups".into(), file: File::Path("first.db.zst".into()), revision_bump: 1 }
}

fn restore(old: u64, back: bool) -> RestoreInPlace {
    let from = crd::restore::Restore { source: RestoreSource::default(), revision_bump: 1 };
    RestoreInPlace {
        name: RESTORE.to_owned(),
        uid: format!("of-{old:x}"),
        stage: RestoreStage::Stopping,
        cluster_id: format!("{old:x}"),
        rollback: back,
        from: (!back).then_some(from),
    }
}

impl Model {
    fn under_way(&self) -> Option<&RestoreInPlace> {
        self.world.recorded.restore.as_ref().filter(|restore| restore.is_under_way())
    }

    /// What a cluster that is not founded yet begins with.
    pub(super) fn to_restore(&self) -> Option<Restore> {
        match self.under_way() {
            Some(record) if record.rollback => None,
            Some(record) => {
                let unknown = Obstacle { reason: "NotChosen", message: "it is not chosen".to_owned() };
                let backup = record.from.as_ref().map(|_| backup()).ok_or(unknown);
                Some(Restore { backup, trouble: None })
            }
            None => self.restore.clone(),
        }
    }

    /// A founder on a volume without data: whoever was here is not any more, or there are two.
    pub(super) fn makes_way_for(&mut self, url: &String) -> bool {
        if self.replaced.urls.contains(url) {
            return false;
        }
        // A cluster of which neither record nor volume is left is founded anew.
        let aside = self.world.aside.iter().any(|volume| volume.cluster_id == Some(self.cluster));
        let here = |(name, member): (&String, &Member)| member.volume.is_some() && self.id_of(name).is_some();
        let confirmed = self.replaced.confirmed.contains(&self.cluster);
        let left = aside || self.world.members.iter().any(here);
        assert!(confirmed || !left, "{:x} makes way, and nobody has asked for it", self.cluster);
        for (name, member) in &self.world.members {
            let runs = member.pod.is_some() && self.id_of(name).is_some();
            assert!(!runs, "{name} of the cluster {:x} runs beside a founder", self.cluster);
        }
        let next = self.replaced.entries.keys().chain([&self.cluster]).max().map_or(CLUSTER, |id| id + 1);
        self.shelve(next, Vec::new());
        true
    }

    fn shelve(&mut self, next: u64, entries: Vec<Entry>) {
        let before = std::mem::replace(&mut self.entries, entries);
        self.replaced.entries.insert(self.cluster, before);
        (self.cluster, self.broken, self.leader) = (next, false, 0);
        self.databases.alarms = Default::default();
    }

    /// The members of a cluster whose volumes are used again are the store's.
    pub(super) fn come_back(&mut self) {
        let volumes = || self.world.members.values().filter_map(|member| member.volume.as_ref()?.cluster_id);
        if volumes().any(|id| id == self.cluster) {
            return;
        }
        let back = volumes().find_map(|id| Some((id, self.replaced.entries.get(&id)?.clone())));
        if let Some((id, entries)) = back {
            self.shelve(id, entries);
        }
    }

    pub(super) fn is_aside(&self, entry: &Entry) -> bool {
        self.world.aside.iter().any(|volume| entry.peer_urls.contains(&Self::url(&volume.name)))
    }

    /// Whether the step is one of a restore, by which other laws hold.
    pub(super) fn judge_in_place(&self, step: &Step) -> bool {
        if let Step::CreatePod { start: Start::Found(_), .. } | Step::GrantBootstrap { .. } = step {
            let back = self.under_way().is_some_and(|record| record.rollback);
            let lost =
                self.under_way().is_none() && !self.world.aside.is_empty() && self.world.recorded.bootstrap.is_none();
            assert!(!back && !lost, "{step:?} beside volumes that were put aside");
        }
        if let Step::BeginRestore(begun) = step {
            let asked = self.replaced.restore.as_ref().is_some_and(|asked| asked.cluster_id == begun.cluster_id);
            assert!(asked || begun.rollback, "{step:?}: nobody has asked for it");
            return true;
        }
        let stops = self.under_way().filter(|record| record.stage == RestoreStage::Stopping);
        let works = matches!(step, Step::PutAside { .. } | Step::Forget);
        let Some(record) = stops else {
            assert!(!works, "{step:?} is not recorded");
            let taken_back = self.under_way().is_some_and(|record| record.rollback);
            assert!(taken_back || !matches!(step, Step::TakeBack { .. }), "{step:?} is not recorded");
            return false;
        };
        let id = |name: &String| self.world.members[name].volume.as_ref().and_then(|volume| volume.cluster_id);
        match step {
            Step::PutAside { name, .. } => {
                let running: Vec<_> = self
                    .world
                    .members
                    .iter()
                    .filter(|(other, member)| {
                        member.pod.is_some() && !(record.rollback && id(other).is_some_and(|id| record.is_of_old(id)))
                    })
                    .collect();
                assert!(running.is_empty(), "{step:?} while {running:?} run");
                let of_old = id(name).map(|id| record.is_of_old(id));
                assert_ne!(of_old, Some(record.rollback), "{step:?}: it is to stay");
            }
            Step::DeletePod { name, .. } => {
                let of_old = id(name).map(|id| record.is_of_old(id));
                assert_ne!(of_old, Some(record.rollback), "{step:?}: it is to stay");
            }
            Step::DeleteMember { .. } | Step::Forget | Step::Wait(_) => {}
            _ => panic!("{step:?} while a cluster makes way"),
        }
        true
    }

    pub(super) fn replace(&mut self, step: Step) {
        match step {
            Step::BeginRestore(restore) => self.world.recorded.restore = Some(restore),
            Step::PutAside { name, uid } => {
                let Some(volume) = self.member(&name).volume.take() else { return };
                let cluster_id = volume.cluster_id;
                self.replaced.volumes.insert(name.clone(), volume);
                self.world.aside.push(Aside { name, uid, restore: RESTORE.to_owned(), deleting: false, cluster_id });
            }
            Step::TakeBack { name, .. } => {
                self.world.aside.retain(|volume| volume.name != name);
                self.member(&name).volume = self.replaced.volumes.remove(&name);
            }
            Step::Forget => {
                let restore = self.world.recorded.restore.take();
                let restore = restore.map(|restore| RestoreInPlace { stage: RestoreStage::Starting, ..restore });
                self.world.recorded = Recorded { restore, ..Recorded::default() };
            }
            _ => {}
        }
    }

    fn turn_restore(&mut self, turn: Turn) {
        self.see_its_end();
        match turn {
            Turn::Stays => {}
            Turn::Confirm(known) => {
                if let Some(id) = self.world.recorded.cluster_id.filter(|_| self.replaced.restore.is_none()) {
                    let restore = restore(id, false);
                    let from = restore.from.clone().filter(|_| known);
                    self.replaced.restore = Some(RestoreInPlace { from, ..restore });
                    self.replaced.confirmed.push(id);
                }
            }
            Turn::Choose => {
                if let Some(asked) = self.replaced.restore.as_mut().filter(|asked| !asked.rollback) {
                    asked.from = restore(0, false).from;
                }
            }
            Turn::Rollback => {
                if let Some(asked) = &mut self.replaced.restore {
                    (asked.rollback, asked.from) = (true, None);
                } else if let Some(old) = self.replaced.old.filter(|old| self.replaced.entries.contains_key(old)) {
                    self.replaced.restore = Some(restore(old, true));
                }
            }
            Turn::Withdraw => self.replaced.restore = None,
            Turn::Wipe => self.world.recorded = Recorded::default(),
        }
        self.world.asked = self.replaced.restore.clone();
    }

    /// The EtcdRestore's own pass: it is done with once the EtcdCluster is another one.
    fn see_its_end(&mut self) {
        let Some(asked) = &self.replaced.restore else { return };
        let now = self.world.recorded.cluster_id;
        let under_way = self.under_way().is_some();
        let of_old = now.is_some_and(|id| asked.is_of_old(id));
        let ended = match asked.rollback {
            true => of_old && !under_way && !self.world.aside.iter().any(|volume| asked.takes_back(volume)),
            false => now.is_some() && !of_old,
        };
        if ended {
            self.replaced.old = super::super::super::world::parse_id(&asked.cluster_id).filter(|_| !asked.rollback);
            self.replaced.restore = None;
        }
    }

    /// Until nothing is to be done any more, `at` one of the steps something else happens.
    fn restored(&mut self, at: usize, happens: impl Fn(&mut Self)) -> Vec<Step> {
        let mut steps = Vec::new();
        for n in 0..STEPS_MAX {
            self.turn_restore(Turn::Stays);
            if n == at {
                happens(self);
                self.world.asked = self.replaced.restore.clone();
            }
            steps.push(self.turn());
            if n > at && steps.last() == Some(&Step::Steady) && self.is_as_wanted() && self.replaced.restore.is_none() {
                return steps;
            }
        }
        panic!("cut at {at}: {:?}\n{:#?}\n{:#?}", steps.last(), self.world, self.entries);
    }
}

/// Steps of a restore of three members, and some more.
const CUTS: usize = 60;

fn confirmed() -> Model {
    let mut model = steady(3);
    model.turn_restore(Turn::Confirm(true));
    model
}

fn foundings(steps: &[Step]) -> usize {
    steps.iter().filter(|step| matches!(step, Step::CreatePod { start: Start::Found(_), .. })).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cluster_makes_way_for_no_other_than_was_confirmed_and_no_volume_is_deleted_for_it(
        size in 1..=3usize,
        events in prop::collection::vec((event(), turn()), 0..300),
    ) {
        let mut model = Model::new(size);
        for (event, turn) in events {
            model.happen(event);
            model.turn_restore(turn);
            model.turn();
        }
        model.happen(Event::Certify);
        model.happen(Event::Mend);
        let mut last = Step::Steady;
        for _ in 0..STEPS_MAX {
            model.turn_restore(Turn::Choose);
            last = model.turn();
            if last == Step::Steady && model.is_as_wanted() {
                return Ok(());
            }
        }
        prop_assert!(model.broken || matches!(last, Step::Refuse(_)), "{last:?}\n{:#?}\n{:#?}", model.world, model.entries);
    }
}

#[test]
fn nothing_happens_without_a_confirmed_restore_and_another_cluster_begins_with_one() {
    let mut model = steady(3);
    assert_eq!(model.turn(), Step::Steady);
    model.turn_restore(Turn::Confirm(true));
    let steps = model.restored(0, |_| {});
    assert_eq!((foundings(&steps), model.world.recorded.cluster_id), (1, Some(CLUSTER + 1)));
    assert!(matches!(&steps[0], Step::BeginRestore(restore) if !restore.rollback), "{:?}", steps[0]);
    let aside: Vec<_> = model.world.aside.iter().map(|volume| volume.cluster_id).collect();
    assert_eq!(aside, [Some(CLUSTER); 3]);
}

#[test]
fn a_rollback_is_the_cluster_that_was_on_its_own_volumes() {
    let mut model = confirmed();
    let before: Vec<String> = model.world.members.keys().cloned().collect();
    model.restored(0, |_| {});
    model.turn_restore(Turn::Rollback);
    let steps = model.restored(0, |_| {});
    assert_eq!((foundings(&steps), model.world.recorded.cluster_id), (0, Some(CLUSTER)));
    assert!(model.world.members.keys().eq(&before), "{:?} of {before:?}", model.world.members.keys());
    assert!(model.world.aside.iter().all(|volume| volume.cluster_id == Some(CLUSTER + 1)));
}

#[test]
fn records_that_are_lost_at_any_step_cost_neither_the_restore_nor_the_rollback() {
    for at in 0..CUTS {
        let mut model = confirmed();
        let steps = model.restored(at, |model| model.world.recorded = Recorded::default());
        assert_ne!(model.cluster, CLUSTER, "lost at {at}: {steps:?}");
        model.turn_restore(Turn::Rollback);
        let steps = model.restored(at, |model| model.world.recorded = Recorded::default());
        assert_eq!(model.cluster, CLUSTER, "lost at {at}: {steps:?}");
    }
}

#[test]
fn pods_that_are_lost_at_any_step_cost_nothing() {
    for at in 0..CUTS {
        let mut model = confirmed();
        let lose = |model: &mut Model| (0..3).for_each(|n| model.happen(Event::LosePod(n)));
        assert_eq!(foundings(&model.restored(at, lose)).min(1), 1);
        assert_ne!(model.cluster, CLUSTER, "lost at {at}");
    }
}

#[test]
fn one_that_is_rolled_back_or_withdrawn_halfway_leaves_what_was() {
    for (turn, rest) in [(Turn::Rollback, 0), (Turn::Withdraw, 0)] {
        for at in 0..CUTS {
            let mut model = confirmed();
            model.restored(at, |model| model.turn_restore(turn));
            // Once the new cluster has begun there is nothing to withdraw, and a rollback is another one.
            let begun = matches!(turn, Turn::Withdraw) && model.cluster != CLUSTER;
            assert!(begun || model.cluster == CLUSTER, "{turn:?} at {at}");
            let aside = |id| model.world.aside.iter().filter(|volume| volume.cluster_id == Some(id)).count();
            assert_eq!(aside(CLUSTER), if begun { 3 } else { rest }, "{turn:?} at {at}");
        }
    }
}

#[test]
fn what_the_new_cluster_begins_with_may_be_chosen_when_the_old_one_has_made_way() {
    let mut model = steady(3);
    model.turn_restore(Turn::Confirm(false));
    let mut last = Step::Steady;
    for _ in 0..STEPS_MAX {
        model.turn_restore(Turn::Stays);
        last = model.turn();
    }
    assert!(matches!(&last, Step::Wait(why) if why.contains("not chosen")), "{last:?}");
    assert_eq!((model.world.aside.len(), model.world.recorded.cluster_id), (3, None));
    model.turn_restore(Turn::Choose);
    let steps = model.restored(0, |_| {});
    assert_eq!((foundings(&steps), model.world.recorded.cluster_id), (1, Some(CLUSTER + 1)));
}

#[test]
fn beside_volumes_that_were_put_aside_nothing_is_founded_when_nobody_says_what() {
    let mut model = confirmed();
    while model.world.aside.len() < 3 {
        model.turn();
    }
    model.turn_restore(Turn::Withdraw);
    model.world.recorded = Recorded::default();
    let last = (0..STEPS_MAX).map(|_| model.turn()).last();
    assert!(matches!(&last, Some(Step::Refuse(why)) if why.contains("EtcdRestore r has put")), "{last:?}");
    assert!(model.world.recorded.bootstrap.is_none());
}

#[test]
fn where_no_old_volume_is_left_there_is_nothing_to_go_back_to() {
    let mut model = confirmed();
    while model.world.aside.len() < 3 {
        model.turn();
    }
    model.world.aside.clear();
    model.turn_restore(Turn::Rollback);
    let last = (0..STEPS_MAX).map(|_| model.turn()).last();
    assert!(matches!(&last, Some(Step::Refuse(why)) if why.contains("no volume is left")), "{last:?}");
    // Another EtcdRestore of the same cluster goes on from there.
    model.replaced.restore = Some(RestoreInPlace { uid: "other".to_owned(), ..restore(CLUSTER, false) });
    model.restored(0, |_| {});
    assert_eq!(model.world.recorded.cluster_id, Some(CLUSTER + 1));
}
