//! What is done about NOSPACE.

use super::super::super::world::Alarms;
use super::super::super::world::Size;
use super::*;

/// The newest one.
pub(super) const REVISION: i64 = 7;
/// What a member may store at first, and what one write adds.
const QUOTA: u64 = 100;
const WRITE: u64 = 20;
/// Turns that a defragmentation takes.
const DEFRAGMENTATION: u32 = 2;

/// What the members have stored.
#[derive(Default)]
pub(super) struct Databases {
    /// Bytes of data, and of revisions that a compaction drops.
    live: u64,
    history: u64,
    sizes: BTreeMap<u64, Size>,
    /// Turns that are left of what was asked for.
    defragmented: BTreeMap<u64, u32>,
    pub(super) quota: u64,
    pub(super) alarms: Alarms,
    pub(super) deaf: bool,
    pub(super) swallows: bool,
}

// === impl Databases ===

impl Databases {
    pub(super) fn new() -> Self {
        Self { quota: QUOTA, ..Self::default() }
    }

    /// What the members that run have come to since the last turn.
    pub(super) fn settle(&mut self, entries: &mut [Entry]) {
        let stored = self.live + self.history;
        for entry in entries {
            entry.size = None;
            let first = Size { total: stored, in_use: stored, quota: self.quota };
            let size = self.sizes.entry(entry.id).or_insert(first);
            if !entry.healthy {
                continue;
            }
            // What is added is there at once, what a compaction frees is not.
            size.in_use = stored.max(size.in_use.saturating_sub(WRITE));
            size.total = size.total.max(size.in_use);
            size.quota = self.quota;
            if let Some(left) = self.defragmented.get_mut(&entry.id) {
                *left -= 1;
                if *left == 0 {
                    size.total = size.in_use;
                    self.defragmented.remove(&entry.id);
                }
            }
            entry.size = Some(*size);
        }
    }

    pub(super) fn write(&mut self, data: bool, entries: &[Entry]) {
        let voters = || entries.iter().filter(|entry| !entry.learner);
        let sizes: Vec<_> = voters().filter_map(|entry| Some((entry.id, entry.size?))).collect();
        let raised = !self.alarms.no_space.is_empty() || !self.alarms.corrupt.is_empty();
        if raised || sizes.len() < quorum(voters().count()) {
            return;
        }
        let full = sizes.iter().filter(|(_, size)| size.total + WRITE > size.quota).map(|(id, _)| *id);
        self.alarms.no_space = full.collect();
        if self.alarms.no_space.is_empty() {
            *if data { &mut self.live } else { &mut self.history } += WRITE;
        }
    }

    pub(super) fn delete(&mut self) {
        let deleted = self.live.min(WRITE);
        self.live -= deleted;
        self.history += deleted;
    }

    fn says(&self, bytes: impl Fn(&Size) -> u64, id: u64) -> bool {
        self.sizes.get(&id).is_some_and(|size| bytes(size) * 100 >= size.quota * 80)
    }

    fn is_full(&self, id: u64) -> bool {
        self.says(|size| size.total, id)
    }

    fn stays_full(&self, id: u64) -> bool {
        self.says(|size| size.in_use, id)
    }
}

// === impl Model ===

impl Model {
    pub(super) fn judge_space(&self, step: &Step, known: &Known) {
        let reclaims = matches!(step, Step::Begin(operation) if operation.kind == OperationType::ReclaimSpace);
        let works = matches!(step, Step::Compact { .. } | Step::Defragment { .. } | Step::FallShort(_));
        if !(reclaims || works || matches!(step, Step::Disarm { .. })) {
            return;
        }
        let Databases { alarms, .. } = &self.databases;
        assert!(self.world.wanted.reclaim, "{step:?}: nobody has asked for it");
        assert!(!alarms.no_space.is_empty() && alarms.corrupt.is_empty(), "{step:?} with {alarms:?}");
        assert!(known.voters().all(|entry| entry.healthy), "{step:?} of {known:?}");
        assert!(!works || self.operates(OperationType::ReclaimSpace), "{step:?} is not recorded");
        let recorded = self.world.recorded.operation.as_ref();
        let ids = || known.voters().map(|entry| entry.id);
        let helped = |id: &u64| self.databases.is_full(*id) && !self.databases.stays_full(*id);
        match step {
            Step::Begin(operation) => {
                assert!(recorded.is_none() || self.operates(OperationType::ReclaimSpace), "{step:?}, {recorded:?}");
                let leads = operation.member_id == Some(format!("{:x}", known.leader));
                assert!(!leads || ids().filter(helped).eq([known.leader]), "{step:?}: the leader is not the last");
            }
            Step::Compact { revision } => {
                assert_eq!(*revision, REVISION);
                assert!(ids().any(|id| self.databases.stays_full(id)), "{step:?}: it is not needed");
            }
            Step::Defragment { name } => assert!(helped(&self.id_of(name).unwrap()), "{step:?} does not help"),
            Step::Disarm { id } => {
                assert!(alarms.no_space.contains(id), "{step:?} with {alarms:?}");
                assert!(!ids().any(|id| self.databases.is_full(id)), "{step:?} of {known:?}");
            }
            _ => {}
        }
    }

    pub(super) fn make_room(&mut self, step: Step) {
        let (now, heard) = (self.world.now, !self.databases.swallows);
        match step {
            Step::Compact { .. } | Step::Defragment { .. } => {
                self.world.recorded.operation.as_mut().unwrap().asked_at = Some(Time(now));
                self.databases.swallows = false;
            }
            Step::FallShort(_) => self.world.recorded.operation = None,
            _ => {}
        }
        match step {
            Step::Compact { .. } if heard => self.databases.history = 0,
            Step::Defragment { name } if heard => {
                let id = self.id_of(&name).unwrap();
                self.databases.defragmented.insert(id, DEFRAGMENTATION);
            }
            Step::Disarm { id } => self.databases.alarms.no_space.retain(|raised| *raised != id),
            Step::FallShort(reclaim) => self.world.recorded.reclaim = Some(reclaim),
            _ => {}
        }
    }

    /// Where the data leaves none, somebody has to decide.
    pub(super) fn has_room(&self) -> bool {
        let Databases { live, quota, alarms, .. } = &self.databases;
        !self.world.wanted.reclaim || alarms.no_space.is_empty() || live * 100 >= quota * 80
    }

    /// Three members whose database is full, of data or of history.
    pub(super) fn full(data: bool) -> Self {
        let mut model = steady(3);
        while model.databases.alarms.no_space.is_empty() {
            model.happen(Event::Write(data));
            model.settle();
        }
        model
    }

    /// Until nothing is to be done, or for so many turns.
    fn steps(&mut self, turns: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while steps.len() < turns && steps.last() != Some(&Step::Steady) {
            steps.push(self.turn());
        }
        steps
    }

    /// The alarm is gone, and there is room.
    fn is_free(&self) -> bool {
        self.databases.alarms.no_space.is_empty() && !self.entries.iter().any(|entry| self.databases.is_full(entry.id))
    }
}

/// As the steps come, without what is waited for and written down.
fn deeds(steps: &[Step]) -> Vec<&'static str> {
    let deed = |step: &Step| match step {
        Step::Compact { .. } => Some("compact"),
        Step::Defragment { .. } => Some("defragment"),
        Step::Disarm { .. } => Some("disarm"),
        Step::FallShort(_) => Some("fall short"),
        Step::ExpandVolume { .. } => Some("expand"),
        Step::Begin(operation) if operation.kind == OperationType::RemoveMember => Some("remove"),
        _ => None,
    };
    steps.iter().filter_map(deed).collect()
}

#[test]
fn history_is_compacted_and_one_after_the_other_is_defragmented_the_leader_last() {
    let mut model = Model::full(false);
    let steps = model.steps(STEPS_MAX);
    let all = ["compact", "defragment", "defragment", "defragment", "disarm", "disarm", "disarm"];
    assert_eq!(deeds(&steps), all, "{steps:#?}");
    let last = steps.iter().rev().find_map(|step| match step {
        Step::Defragment { name } => Some(name),
        _ => None,
    });
    assert_eq!(model.id_of(last.unwrap()), Some(model.leader));
    assert!(model.is_free() && model.world.recorded.operation.is_none(), "{:#?}", model.world);
}

#[test]
fn what_others_have_compacted_is_not_compacted_again() {
    let mut model = Model::full(false);
    model.databases.history = 0;
    (0..5).for_each(|_| model.settle());
    let steps = model.steps(STEPS_MAX);
    assert_eq!(deeds(&steps)[..3], ["defragment"; 3], "{steps:#?}");
    assert!(model.is_free());
}

#[test]
fn with_room_again_the_alarm_is_disarmed_and_nothing_else_done() {
    let mut model = Model::full(true);
    model.happen(Event::RaiseQuota);
    let steps = model.steps(STEPS_MAX);
    assert_eq!(deeds(&steps), ["disarm"; 3], "{steps:#?}");
    assert!(!steps.iter().any(|step| matches!(step, Step::Begin(_))), "{steps:#?}");
}

#[test]
fn nothing_is_done_about_the_alarm_unless_the_spec_says_so() {
    let mut model = Model::full(false);
    model.world.wanted.reclaim = false;
    assert_eq!(model.turn(), Step::Steady);
    model.world.wanted.reclaim = true;
    model.turn();
    assert!(model.operates(OperationType::ReclaimSpace));
    model.world.wanted.reclaim = false;
    assert_eq!([model.turn(), model.turn()], [Step::End, Step::Steady]);
}

#[test]
fn nothing_is_done_while_a_member_is_corrupt() {
    let mut model = Model::full(false);
    model.happen(Event::Corrupt(0));
    assert_eq!(model.turn(), Step::Steady);
    model.happen(Event::Mend);
    model.turn();
    model.happen(Event::Corrupt(1));
    assert_eq!([model.turn(), model.turn()], [Step::End, Step::Steady]);
    assert_eq!(model.databases.alarms.corrupt.len(), 1);
}

#[test]
fn data_that_leaves_no_room_is_tried_again_when_it_is_less_the_quota_more_or_after_an_hour() {
    for what in ["less", "more", "later"] {
        let mut model = Model::full(true);
        let steps = model.steps(STEPS_MAX);
        assert_eq!(deeds(&steps).last(), Some(&"fall short"), "{steps:#?}");
        assert!(!deeds(&steps).contains(&"disarm"));
        let begin = model.world.now;
        for _ in 0..20 {
            assert_eq!(model.turn(), Step::Steady);
        }
        match what {
            "less" => {
                model.happen(Event::Delete);
                model.happen(Event::Delete);
                model.databases.history = 0;
            }
            "more" => model.happen(Event::RaiseQuota),
            _ => {
                model.happen(Event::Delete);
                model.happen(Event::Delete);
            }
        }
        let turns = (0..STEPS_MAX).take_while(|_| model.turn() == Step::Steady).count();
        let past = model.world.now.duration_since(begin);
        assert_eq!(turns > 50, what == "later", "{what}: {turns} turns, {past:?}");
        assert!(what != "later" || past >= SignedDuration::from_hours(1), "{past:?}");
        model.steps(STEPS_MAX);
        assert!(model.is_free() && model.world.recorded.operation.is_none(), "{what}: {:#?}", model.world);
    }
}

#[test]
fn what_an_operator_did_not_get_to_ask_is_asked_again_after_a_minute() {
    let mut model = Model::full(false);
    for lost in ["compact", "defragment"] {
        model.happen(Event::Swallow);
        while model.databases.swallows {
            model.turn();
        }
        let asked = model.world.now;
        let again = loop {
            let step = model.turn();
            if !matches!(step, Step::Wait(_)) {
                break step;
            }
        };
        assert_eq!(deeds(&[again]), [lost]);
        assert!(model.world.now.duration_since(asked) >= SignedDuration::from_mins(1));
    }
    model.steps(STEPS_MAX);
    assert!(model.is_free());
}

#[test]
fn who_does_not_defragment_ends_the_reclaim() {
    let mut model = Model::full(false);
    let mut steps = Vec::new();
    while !deeds(&steps).contains(&"fall short") {
        model.databases.defragmented.clear();
        steps.push(model.turn());
        assert!(steps.len() < STEPS_MAX, "{steps:#?}");
    }
    assert!(!deeds(&steps).contains(&"disarm"), "{steps:#?}");
    assert_eq!(model.turn(), Step::Steady);
}

#[test]
fn who_is_lost_is_replaced_before_space_is_reclaimed() {
    let mut model = Model::full(false);
    model.turn();
    assert!(model.operates(OperationType::ReclaimSpace));
    model.happen(Event::DeleteVolume(0));
    assert_eq!(model.turn(), Step::End);
    let steps = model.steps(STEPS_MAX);
    assert_eq!(deeds(&steps).first(), Some(&"remove"), "{steps:#?}");
    assert!(model.is_free() && model.is_as_wanted(), "{:#?}", model.world);
}

#[test]
fn volumes_grow_while_space_is_reclaimed() {
    let mut model = Model::full(false);
    model.happen(Event::Grow);
    let steps = model.steps(STEPS_MAX);
    let deeds = deeds(&steps);
    let (first, last) =
        (deeds.iter().position(|deed| *deed == "expand"), deeds.iter().position(|deed| *deed == "disarm"));
    assert!(first < last, "{steps:#?}");
    assert!(model.is_free() && model.is_as_wanted());
}

#[test]
fn alarms_that_cannot_be_read_change_nothing() {
    let mut model = Model::full(false);
    model.happen(Event::Deafen);
    assert_eq!(model.turn(), Step::Steady);
    model.turn();
    model.happen(Event::Deafen);
    assert!(matches!(model.turn(), Step::Wait(_)));
    assert!(model.operates(OperationType::ReclaimSpace));
}
