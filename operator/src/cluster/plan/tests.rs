//! The plan against a model of a cluster that obeys its steps while everything else goes wrong.

mod in_place;
mod leader;
mod leave;
mod restore;
mod roll;
mod space;

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use self::in_place::Replaced;
use self::space::Databases;
use super::super::world::Leaving;
use super::super::world::Pod;
use super::super::world::Recorded;
use super::super::world::Restore;
use super::super::world::Volume;
use super::super::world::Wanted;
use super::*;
use crate::crd::status::RestoreStage;

const CLUSTER: u64 = 0xc1;
/// Steps within which a cluster that nobody disturbs is as it is wanted.
const STEPS_MAX: usize = 400;
/// Time between two passes, in seconds: where there is something to do, and where there is not. Odd: see what volumes take to grow.
const BUSY_S: i64 = 1;
const IDLE_S: i64 = 31;

/// What may happen between two steps.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Nothing: time goes by, what was begun comes true.
    Tick,
    Resize(usize),
    Outdate,
    LosePod(usize),
    FinishPod(usize),
    DeleteVolume(usize),
    Wipe(usize),
    LoseNode(usize),
    DeleteObject(usize),
    Hide,
    MoveLeader(usize),
    /// The certificates of one member cannot be used, or those that all need.
    Uncertify(usize),
    UncertifyAll,
    Certify,
    /// Larger volumes are wanted.
    Grow,
    /// A class whose volumes do not grow, and one whose do.
    Fix(bool),
    /// The node of a member is cordoned, or all of them are open again.
    Cordon(usize),
    Uncordon,
    /// Data, or a revision more of what is there.
    Write(bool),
    /// What was live is history.
    Delete,
    RaiseQuota,
    Corrupt(usize),
    Mend,
    Reclaim(bool),
    /// The alarms cannot be read, this once.
    Deafen,
    /// The next thing that is asked for is not heard: the operator has died before it asked.
    Swallow,
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..9usize;
    prop_oneof![
        150 => Just(Event::Tick),
        2 => (1..=5usize).prop_map(Event::Resize),
        2 => Just(Event::Outdate),
        2 => who.clone().prop_map(Event::LosePod),
        1 => who.clone().prop_map(Event::FinishPod),
        1 => who.clone().prop_map(Event::DeleteVolume),
        1 => who.clone().prop_map(Event::Wipe),
        1 => who.clone().prop_map(Event::LoseNode),
        1 => who.clone().prop_map(Event::DeleteObject),
        1 => Just(Event::Hide),
        2 => who.clone().prop_map(Event::MoveLeader),
        1 => who.clone().prop_map(Event::Uncertify),
        1 => Just(Event::UncertifyAll),
        4 => Just(Event::Certify),
        1 => Just(Event::Grow),
        1 => any::<bool>().prop_map(Event::Fix),
        3 => who.clone().prop_map(Event::Cordon),
        1 => Just(Event::Uncordon),
        20 => any::<bool>().prop_map(Event::Write),
        2 => Just(Event::Delete),
        1 => Just(Event::RaiseQuota),
        1 => who.prop_map(Event::Corrupt),
        4 => Just(Event::Mend),
        2 => any::<bool>().prop_map(Event::Reclaim),
        1 => Just(Event::Deafen),
        2 => Just(Event::Swallow),
    ]
}

/// A cluster and its API server, simpler than any real one.
struct Model {
    world: World,
    /// The store's own list: voters and learners, and who leads.
    entries: Vec<Entry>,
    leader: u64,
    /// Whose data is whole.
    whole: BTreeMap<u64, bool>,
    founded: bool,
    /// Of the store.
    cluster: u64,
    replaced: Replaced,
    /// That was asked for.
    restore: Option<Restore>,
    names: usize,
    /// Whether volumes may grow.
    expandable: bool,
    /// The members cannot be asked, this once.
    hidden: bool,
    /// Steps of members that are lost were forced by events that cost the quorum.
    broken: bool,
    databases: Databases,
    /// Until the next turn.
    pass_s: i64,
}

impl Model {
    fn new(size: usize) -> Self {
        let wanted = Wanted {
            size,
            paused: false,
            volumes: true,
            volume_size: 1,
            healing: true,
            node_lost_for: SignedDuration::from_secs(60),
            stabilization: SignedDuration::from_secs(5),
            reclaim: true,
            final_backup: false,
        };
        let world = World {
            wanted,
            recorded: Recorded::default(),
            members: BTreeMap::new(),
            uncertified: None,
            restore: None,
            leaving: Leaving::default(),
            asked: None,
            aside: Vec::new(),
            store: Store::Unknown,
            now: Timestamp::UNIX_EPOCH,
            fresh_name: "m0".to_owned(),
        };
        Self {
            world,
            entries: Vec::new(),
            leader: 0,
            whole: BTreeMap::new(),
            founded: false,
            cluster: CLUSTER,
            replaced: Replaced::default(),
            restore: None,
            names: 0,
            expandable: true,
            hidden: false,
            broken: false,
            databases: Databases::new(),
            pass_s: BUSY_S,
        }
    }

    fn url(name: &str) -> String {
        format!("http://{name}:2380")
    }

    fn member(&mut self, name: &str) -> &mut Member {
        let member = self.world.members.entry(name.to_owned()).or_default();
        member.peer_url = Self::url(name);
        member
    }

    fn nth(&self, at: usize) -> Option<String> {
        (!self.world.members.is_empty())
            .then(|| self.world.members.keys().nth(at % self.world.members.len()).cloned())
            .flatten()
    }

    fn id_of(&self, name: &str) -> Option<u64> {
        let url = Self::url(name);
        self.entries.iter().find(|entry| entry.peer_urls.contains(&url)).map(|entry| entry.id)
    }

    /// The Pod that may found the cluster does so, unless it cannot restore what it is to.
    fn found(&mut self) {
        let may =
            |member: &&Member| member.pod.as_ref().is_some_and(|pod| pod.founds && !pod.deleting && !pod.finished);
        let founder = self.world.members.values().find(may).map(|member| member.peer_url.clone());
        let refused = self.restore.as_ref().is_some_and(|restore| restore.trouble.is_some());
        let Some(url) = founder.filter(|url| (!self.founded || self.makes_way_for(url)) && !refused) else { return };
        self.founded = true;
        let id = self.fresh_id();
        self.replaced.urls.insert(url.clone());
        self.entries.push(Entry { id, peer_urls: vec![url], ours: true, ..Entry::default() });
        self.whole.insert(id, true);
    }

    fn fresh_id(&self) -> u64 {
        self.whole.keys().max().map_or(1, |id| id + 1)
    }

    /// What is true now: who is well, and what the members say.
    fn settle(&mut self) {
        self.come_back();
        self.found();
        self.world.restore = self.to_restore().filter(|_| self.world.recorded.cluster_id.is_none());
        self.world.now = self.world.now.checked_add(SignedDuration::from_secs(self.pass_s)).unwrap();
        let (now, expandable, volumes) = (self.world.now, self.expandable, self.world.wanted.volumes);
        let names: Vec<String> = self.world.members.keys().cloned().collect();
        for name in names {
            let id = self.id_of(&name);
            let member = self.member(&name);
            let gone = member.pod.as_ref().is_some_and(|pod| pod.deleting);
            let ended = member.pod.as_ref().is_some_and(|pod| pod.finished);
            if gone {
                member.pod = None;
            }
            if (gone || ended)
                && !volumes
                && let Some(id) = id
            {
                self.whole.insert(id, false);
            }
            let whole = id.is_some_and(|id| self.whole.get(&id) == Some(&true));
            let member = self.member(&name);
            if member.pod.is_none() && member.volume.as_ref().is_some_and(|volume| volume.deleting) {
                member.volume = None;
            }
            if let Some(volume) = &mut member.volume {
                // What was asked for comes a turn later.
                volume.capacity = Some(volume.requested)
                    .filter(|_| !volume.is_growing() || now.as_second() % 2 == 0)
                    .or(volume.capacity);
                volume.expandable = expandable;
            }
            let Some(pod) = &mut member.pod else { continue };
            let runs = whole && !pod.finished && pod.node_lost_since.is_none();
            // It makes no difference what has become of the data: each happens to some.
            pod.exit = id.filter(|_| !whole).map(|id| if id % 2 == 0 { Exit::Damaged } else { Exit::Wiped });
            if runs && !pod.ready {
                (pod.ready, pod.ready_since) = (true, Some(now));
            } else if !runs {
                (pod.ready, pod.ready_since) = (false, None);
            }
        }
        for entry in &mut self.entries {
            let member = self.world.members.values().find(|member| entry.peer_urls.contains(&member.peer_url));
            entry.healthy = member.and_then(|member| member.pod.as_ref()).is_some_and(|pod| pod.ready);
            if entry.healthy {
                entry.name = "started".to_owned();
            }
        }
        self.databases.settle(&mut self.entries);
        let voters = self.entries.iter().filter(|entry| !entry.learner).count();
        let healthy: Vec<u64> = self.entries.iter().filter(|e| !e.learner && e.healthy).map(|entry| entry.id).collect();
        let serves = voters > 0 && healthy.len() >= quorum(voters);
        if !healthy.contains(&self.leader) {
            self.leader = healthy.first().copied().unwrap_or(0);
        }
        self.world.store = if serves && !self.hidden {
            let alarms = Some(self.databases.alarms.clone()).filter(|_| !self.databases.deaf);
            let entries = self.entries.clone();
            Store::Known(Known {
                cluster_id: self.cluster,
                leader: self.leader,
                entries,
                revision: space::REVISION,
                alarms,
            })
        } else {
            Store::Unknown
        };
        (self.hidden, self.databases.deaf) = (false, false);
        if self.databases.alarms.no_space.is_empty() {
            self.world.recorded.reclaim = None;
        }
        let lost = |id: &u64| self.whole.get(id) != Some(&true);
        let left =
            self.entries.iter().filter(|entry| !entry.learner && !lost(&entry.id) && !self.is_stuck(entry)).count();
        self.broken |= voters > 0 && left < quorum(voters);
        self.world.fresh_name = format!("m{}", self.names);
    }

    /// A voter whose node or volume is lost counts no more than one whose data is.
    fn is_stuck(&self, entry: &Entry) -> bool {
        let member = self.world.members.values().find(|member| entry.peer_urls.contains(&member.peer_url));
        if self.is_aside(entry) {
            return false;
        }
        member.is_none_or(|member| {
            (self.world.wanted.volumes && member.volume.as_ref().is_none_or(|volume| volume.deleting))
                || member.pod.as_ref().is_some_and(|pod| pod.node_lost_since.is_some())
        })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Resize(size) => self.world.wanted.size = size,
            Event::Outdate => self.world.members.values_mut().for_each(|member| {
                if let Some(pod) = &mut member.pod {
                    pod.outdated = true;
                }
            }),
            Event::Hide => self.hidden = true,
            Event::Uncertify(at) => {
                let Some(name) = self.nth(at) else { return };
                self.member(&name).uncertified = Some("Secret".to_owned());
            }
            Event::UncertifyAll => self.world.uncertified = Some("Secret".to_owned()),
            Event::Grow => self.world.wanted.volume_size += 1,
            Event::Fix(fixed) => self.expandable = !fixed,
            Event::Cordon(at) => {
                let Some(name) = self.nth(at) else { return };
                if let Some(pod) = &mut self.member(&name).pod {
                    pod.cordoned = true;
                }
            }
            Event::Uncordon => self.world.members.values_mut().for_each(|member| {
                if let Some(pod) = &mut member.pod {
                    pod.cordoned = false;
                }
            }),
            Event::Write(data) => self.databases.write(data, &self.entries),
            Event::Delete => self.databases.delete(),
            Event::RaiseQuota => self.databases.quota += self.databases.quota / 2,
            Event::Corrupt(at) => {
                let ids: Vec<u64> = self.entries.iter().map(|entry| entry.id).collect();
                if !ids.is_empty() {
                    self.databases.alarms.corrupt = vec![ids[at % ids.len()]];
                }
            }
            Event::Mend => self.databases.alarms.corrupt.clear(),
            Event::Reclaim(reclaim) => self.world.wanted.reclaim = reclaim,
            Event::Deafen => self.databases.deaf = true,
            Event::Swallow => self.databases.swallows = true,
            Event::Certify => {
                self.world.uncertified = None;
                self.world.members.values_mut().for_each(|member| member.uncertified = None);
            }
            Event::MoveLeader(at) => {
                let healthy: Vec<u64> = self.entries.iter().filter(|e| e.healthy && !e.learner).map(|e| e.id).collect();
                if !healthy.is_empty() {
                    self.leader = healthy[at % healthy.len()];
                }
            }
            Event::LosePod(at) | Event::FinishPod(at) | Event::LoseNode(at) => {
                let Some(name) = self.nth(at) else { return };
                let now = self.world.now;
                let Some(pod) = self.member(&name).pod.as_mut() else { return };
                match event {
                    Event::LosePod(_) => pod.deleting = true,
                    Event::FinishPod(_) => pod.finished = true,
                    _ => (pod.node_lost_since, pod.node_ready) = (Some(now), false),
                }
            }
            Event::DeleteVolume(at) => {
                let Some(name) = self.nth(at) else { return };
                if let Some(volume) = &mut self.member(&name).volume {
                    volume.deleting = true;
                    if let Some(id) = self.id_of(&name).filter(|_| self.founded) {
                        self.whole.insert(id, false);
                    }
                }
            }
            Event::Wipe(at) => {
                let Some(name) = self.nth(at) else { return };
                if let Some(id) = self.id_of(&name).filter(|_| self.world.recorded.cluster_id.is_some()) {
                    self.whole.insert(id, false);
                }
            }
            Event::DeleteObject(at) => {
                let Some(name) = self.nth(at) else { return };
                let member = self.member(&name);
                (member.object, member.id) = (false, None);
            }
        }
    }

    /// What no step may do, whatever the world looks like.
    fn judge(&self, step: &Step) {
        if let Step::CreatePod { name, .. } | Step::AddLearner { name, .. } = step {
            assert_eq!(self.world.uncertified(&self.world.members[name]), None, "{step:?}: it cannot start");
        }
        if let Step::CreatePod { name, start: Start::Found(from) } = step {
            assert!(self.world.recorded.cluster_id.is_none(), "{name} founds a second cluster");
            assert_eq!(self.world.recorded.bootstrap.as_ref(), Some(name));
            let wanted = self.to_restore().map(|restore| restore.backup.clone().expect("founded without a backup"));
            assert_eq!(*from, wanted, "{name} founds something else than was asked for");
        }
        self.judge_leaving(step);
        if let Step::ExpandVolume { name, .. } = step {
            let mut volumes = self.world.members.values().filter_map(|member| member.volume.as_ref());
            assert!(self.expandable && !volumes.any(|volume| volume.is_growing() && !volume.deleting), "{step:?}");
            let volume = self.world.members[name].volume.as_ref().unwrap();
            assert!(volume.requested < self.world.wanted.volume_size, "{step:?}: a volume never shrinks");
        }
        if self.judge_in_place(step) {
            return;
        }
        let Store::Known(known) = &self.world.store else {
            assert!(
                !matches!(step, Step::Remove { .. } | Step::RetireVolume { .. } | Step::Promote { .. }),
                "{step:?} without a quorum"
            );
            assert!(!matches!(step, Step::MoveLeader { .. } | Step::FallShort(_)), "{step:?} without a quorum");
            assert!(
                !matches!(step, Step::Compact { .. } | Step::Defragment { .. } | Step::Disarm { .. }),
                "{step:?} without a quorum"
            );
            return;
        };
        self.judge_leader(step, known);
        self.judge_space(step, known);
        let voters = known.voters().count();
        let others = |id: u64| known.voters().filter(|entry| entry.healthy && entry.id != id).count();
        match step {
            Step::Remove { id, .. } => {
                assert!(self.operates(OperationType::RemoveMember), "{step:?} is not recorded");
                if known.by_id(*id).is_some_and(|entry| !entry.learner) {
                    assert!(others(*id) >= quorum(voters - 1), "{step:?} of {known:?}");
                }
            }
            Step::RetireVolume { name, .. } => {
                assert!(self.operates(OperationType::RemoveMember), "{step:?} is not recorded");
                assert!(self.id_of(name).is_none(), "{step:?}: it is still a member");
            }
            Step::DeletePod { name, .. } => {
                let member = &self.world.members[name];
                let entry = known.of(member).filter(|entry| entry.healthy && !entry.learner);
                assert!(entry.is_none() || self.world.wanted.volumes, "{step:?}: its data goes with it");
                let founds = member.pod.as_ref().is_some_and(|pod| pod.founds);
                if entry.is_some() {
                    assert_eq!(self.world.uncertified(member), None, "{step:?}: it would not start again");
                }
                if let Some(entry) = entry.filter(|_| !founds) {
                    assert!(self.world.recorded.operation.is_some(), "{step:?} is not recorded");
                    assert!(voters <= 2 || others(entry.id) >= quorum(voters), "{step:?} of {known:?}");
                }
            }
            _ => {}
        }
    }

    fn operates(&self, kind: OperationType) -> bool {
        self.world.recorded.operation.as_ref().is_some_and(|operation| operation.kind == kind)
    }

    fn obey(&mut self, step: Step) {
        match step {
            Step::Steady | Step::Wait(_) | Step::Refuse(_) => {}
            Step::GrantBootstrap { member } => self.world.recorded.bootstrap = Some(member),
            Step::Latch { cluster_id } => {
                (self.world.recorded.cluster_id, self.world.recorded.bootstrap) = (Some(cluster_id), None);
                if let Some(restore) = &mut self.world.recorded.restore {
                    restore.stage = RestoreStage::Done;
                }
            }
            Step::BeginRestore(_) | Step::PutAside { .. } | Step::TakeBack { .. } | Step::Forget => {
                self.replace(step);
            }
            Step::Begin(operation) => self.world.recorded.operation = Some(operation),
            Step::End => self.world.recorded.operation = None,
            Step::CreateMember { name, id } => {
                self.names += 1;
                let member = self.member(&name);
                (member.object, member.id) = (true, id);
            }
            Step::Identify { name, id, cluster_id } => {
                let member = self.member(&name);
                member.id = Some(id);
                if let Some(volume) = &mut member.volume {
                    (volume.member_id, volume.cluster_id) = (Some(id), Some(cluster_id));
                }
            }
            Step::CreateVolume { name } => {
                let requested = self.world.wanted.volume_size;
                let volume = Volume { uid: "v".into(), requested, capacity: Some(requested), ..Volume::default() };
                self.member(&name).volume = Some(volume);
            }
            Step::ExpandVolume { name, .. } => {
                let wanted = self.world.wanted.volume_size;
                if let Some(volume) = &mut self.member(&name).volume {
                    volume.requested = wanted;
                }
            }
            Step::CreatePod { name, start } => {
                let founds = matches!(start, Start::Found(_));
                if founds && self.founded && !self.world.wanted.volumes {
                    self.whole.insert(1, true);
                }
                self.member(&name).pod = Some(Pod { uid: "p".into(), founds, node_ready: true, ..Pod::default() });
                self.found();
            }
            Step::DeletePod { name, .. } => {
                if let Some(pod) = &mut self.member(&name).pod {
                    pod.deleting = true;
                }
            }
            Step::AddLearner { peer_url, .. } => {
                let id = self.fresh_id();
                self.replaced.urls.insert(peer_url.clone());
                self.whole.insert(id, true);
                self.entries.push(Entry {
                    id,
                    peer_urls: vec![peer_url],
                    learner: true,
                    ours: true,
                    ..Entry::default()
                });
            }
            Step::Promote { id, .. } => {
                self.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.learner = false);
            }
            Step::Remove { id, .. } => self.entries.retain(|entry| entry.id != id),
            Step::MoveLeader { to } => self.leader = to,
            Step::RetireVolume { name, .. } => {
                if let Some(volume) = &mut self.member(&name).volume {
                    volume.deleting = true;
                }
            }
            Step::DeleteMember { name } => drop(self.world.members.remove(&name)),
            Step::Compact { .. } | Step::Defragment { .. } | Step::Disarm { .. } | Step::FallShort(_) => {
                self.make_room(step);
            }
            Step::Hold | Step::LetGo(_) | Step::BackUp { .. } => self.leave(step),
        }
        // Nothing is left of who has neither.
        self.world.members.retain(|_, member| member.object || member.pod.is_some() || member.volume.is_some());
    }

    fn turn(&mut self) -> Step {
        self.settle();
        let step = plan(&self.world);
        self.judge(&step);
        self.obey(step.clone());
        self.pass_s = if matches!(step, Step::Steady | Step::Wait(_)) { IDLE_S } else { BUSY_S };
        step
    }

    /// Without volumes, one or two members cannot spare the one that founded the cluster.
    fn must_not_found(&self) -> bool {
        self.world.wanted.volumes || self.world.wanted.size > 2
    }

    /// A single member without a volume cannot be restarted.
    fn is_held_back(&self) -> bool {
        let outdated = |member: &Member| member.pod.as_ref().is_some_and(|pod| pod.outdated);
        !self.world.wanted.volumes && self.world.wanted.size == 1 && self.world.members.values().any(outdated)
    }

    fn is_as_wanted(&self) -> bool {
        self.entries.len() == self.world.wanted.size
            && self.entries.iter().all(|entry| entry.healthy && !entry.learner)
            && self.is_led_from_shelter()
            && self.has_room()
            && self.world.members.len() == self.world.wanted.size
            && self
                .world
                .members
                .values()
                .filter_map(|member| member.volume.as_ref())
                .all(|volume| !self.expandable || volume.capacity == Some(self.world.wanted.volume_size))
            && self.world.members.values().all(|member| {
                member.pod.as_ref().is_some_and(|pod| !(pod.outdated || pod.founds && self.must_not_found()))
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_quorum_stays_and_the_end_is_as_wanted(
        size in 1..=5usize,
        volumes in prop::bool::weighted(0.75),
        reclaim in prop::bool::weighted(0.75),
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut model = Model::new(size);
        (model.world.wanted.volumes, model.world.wanted.reclaim) = (volumes, reclaim);
        for event in events {
            model.happen(event);
            model.turn();
        }
        model.happen(Event::Certify);
        model.happen(Event::Mend);
        let mut last = Step::Steady;
        for _ in 0..STEPS_MAX {
            last = model.turn();
            if last == Step::Steady && model.is_as_wanted() {
                return Ok(());
            }
        }
        // Who has lost the data of a majority waits for a decision.
        prop_assert!(
            model.broken || model.is_held_back() || matches!(last, Step::Refuse(_)),
            "{last:?}\n{:#?}\n{:#?}", model.world, model.entries
        );
    }
}

fn steady(size: usize) -> Model {
    let mut model = Model::new(size);
    for _ in 0..STEPS_MAX {
        if model.turn() == Step::Steady && model.is_as_wanted() {
            return model;
        }
    }
    panic!("{:#?}", model.world);
}

#[test]
fn one_member_founds_and_the_others_join_one_by_one() {
    let mut model = Model::new(3);
    let mut founded = 0;
    for _ in 0..STEPS_MAX {
        let step = model.turn();
        founded += usize::from(matches!(step, Step::CreatePod { start: Start::Found(_), .. }));
        if step == Step::Steady {
            break;
        }
    }
    assert!(model.is_as_wanted());
    assert_eq!(founded, 1);
    assert!(model.world.recorded.bootstrap.is_none());
}

#[test]
fn a_lost_record_is_found_again_in_the_volumes() {
    let mut model = steady(3);
    model.world.recorded = Recorded::default();
    model.world.members.values_mut().for_each(|member| {
        (member.object, member.id, member.pod) = (false, None, None);
    });
    for _ in 0..STEPS_MAX {
        let step = model.turn();
        assert!(
            !matches!(step, Step::GrantBootstrap { .. } | Step::CreatePod { start: Start::Found(_), .. }),
            "{step:?}"
        );
        if step == Step::Steady {
            break;
        }
    }
    assert!(model.is_as_wanted());
}

#[test]
fn a_record_that_is_lost_before_the_founder_is_known_costs_nothing_when_its_pod_is_lost_too() {
    let mut model = Model::new(1);
    while !model.founded {
        model.turn();
    }
    model.world.recorded = Recorded::default();
    while model.world.recorded.cluster_id.is_none() {
        model.turn();
    }
    model.happen(Event::LosePod(0));
    let last = (0..STEPS_MAX).map(|_| model.turn()).last();
    assert!(model.is_as_wanted(), "{last:?}\n{:#?}", model.world);
}

#[test]
fn a_volume_that_nobody_knows_is_no_reason_to_found_over_it() {
    let mut model = Model::new(3);
    model.member("old").volume = Some(Volume::default());
    assert!(matches!(model.turn(), Step::Refuse(_)));
    model.member("old").volume = Some(Volume { cluster_id: Some(1), ..Volume::default() });
    model.member("other").volume = Some(Volume { cluster_id: Some(2), ..Volume::default() });
    assert!(matches!(model.turn(), Step::Refuse(_)));
}

#[test]
fn a_wiped_single_member_does_not_found_again() {
    let mut model = steady(1);
    model.happen(Event::Wipe(0));
    for _ in 0..50 {
        let step = model.turn();
        assert!(
            !matches!(step, Step::CreatePod { start: Start::Found(_), .. } | Step::GrantBootstrap { .. }),
            "{step:?}"
        );
    }
}

#[test]
fn nothing_is_begun_without_certificates_and_all_of_it_with_them() {
    let mut model = Model::new(3);
    model.happen(Event::UncertifyAll);
    for _ in 0..20 {
        assert!(matches!(model.turn(), Step::Wait(_)));
    }
    assert!(model.world.members.is_empty() && model.world.recorded == Recorded::default());
    model.happen(Event::Certify);
    for _ in 0..STEPS_MAX {
        model.turn();
    }
    assert!(model.is_as_wanted());
}

#[test]
fn volumes_grow_one_by_one_even_when_nobody_answers() {
    let mut model = steady(3);
    model.happen(Event::Grow);
    for _ in 0..20 {
        model.happen(Event::Hide);
        model.turn();
    }
    model.turn();
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn volumes_of_a_class_that_does_not_let_them_grow_stop_nothing() {
    let mut model = steady(3);
    model.happen(Event::Fix(true));
    model.happen(Event::Grow);
    model.happen(Event::Outdate);
    let mut steps = Vec::new();
    while steps.last() != Some(&Step::Steady) && steps.len() < STEPS_MAX {
        steps.push(model.turn());
    }
    assert!(model.is_as_wanted());
    assert!(!steps.iter().any(|step| matches!(step, Step::ExpandVolume { .. })), "{steps:?}");
}

#[test]
fn without_volumes_nobody_is_restarted_and_who_can_be_spared_is_replaced() {
    for size in [1, 3] {
        let mut model = Model::new(size);
        model.world.wanted.volumes = false;
        let turns = |model: &mut Model| (0..STEPS_MAX).map(|_| model.turn()).last();
        assert_eq!(turns(&mut model), Some(Step::Steady), "{:#?}", model.world);
        assert!(model.is_as_wanted(), "{:#?}", model.world);
        let names: Vec<String> = model.world.members.keys().cloned().collect();
        model.happen(Event::Outdate);
        let last = turns(&mut model);
        let kept = model.world.members.keys().filter(|name| names.contains(name)).count();
        match size {
            1 => assert!(matches!(last, Some(Step::Wait(_))) && kept == 1, "{last:?}"),
            _ => assert!(model.is_as_wanted() && kept == 0, "{last:?} {:#?}", model.world),
        }
    }
}

#[test]
fn one_of_two_that_is_to_leave_is_needed_until_it_has_left() {
    let mut model = steady(2);
    model.happen(Event::Resize(1));
    while !model.operates(OperationType::RemoveMember) {
        model.turn();
    }
    let leaving = model.world.recorded.operation.clone().unwrap().member;
    model.member(&leaving).pod = None;
    for _ in 0..STEPS_MAX {
        if model.turn() == Step::Steady {
            break;
        }
    }
    assert!(model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn who_has_lost_all_it_had_here_is_replaced_and_a_strangers_member_is_left_alone() {
    for ours in [true, false] {
        let mut model = steady(3);
        let (name, _) = model.world.members.pop_first().unwrap();
        let id = model.id_of(&name).unwrap();
        model.whole.insert(id, false);
        model.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.ours = ours);
        let last = (0..STEPS_MAX).map(|_| model.turn()).last();
        assert_eq!(model.is_as_wanted(), ours, "{last:?} {:#?}", model.entries);
        assert_eq!(model.entries.iter().any(|entry| entry.id == id), !ours, "{last:?}");
    }
}

#[test]
fn nothing_is_done_while_paused() {
    let mut model = steady(3);
    model.world.wanted.paused = true;
    model.happen(Event::LosePod(0));
    model.happen(Event::Resize(5));
    for _ in 0..10 {
        assert!(matches!(model.turn(), Step::Wait(_)));
    }
}
