//! The plan on tables of cases, and against a model of a schedule that lives through anything.

use std::collections::BTreeMap;

use k8s_openapi::jiff::tz::TimeZone;
use proptest::prelude::*;

use super::super::retention::Limits;
use super::super::seen::Backup;
use super::super::seen::State;
use super::super::seen::Wanted;
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn wanted(schedule: &str) -> Wanted {
    Wanted {
        cron: schedule.parse().unwrap(),
        zone: TimeZone::UTC,
        suspend: false,
        starting_deadline: SignedDuration::from_mins(10),
        concurrency: ConcurrencyPolicy::Forbid,
        offset: SignedDuration::ZERO,
        limits: Limits::default(),
    }
}

fn backup(name: &str, state: State) -> Backup {
    Backup {
        name: name.to_owned(),
        uid: name.to_owned(),
        state,
        bytes: 1,
        verified: false,
        in_use: false,
        deleting: false,
    }
}

/// An hourly schedule at a minute past ten, with ten o'clock recorded as the next time.
fn planned(change: impl FnOnce(&mut Wanted), recorded: &str, now: &str, backups: &[Backup]) -> Planned {
    let mut wanted = wanted("0 * * * *");
    change(&mut wanted);
    let recorded = Some(at(recorded));
    plan(&Seen { name: "s", wanted: &wanted, recorded, fresh_since: None, backups, now: at(now) })
}

fn create(text: &str) -> Step {
    Step::Create { name: backup_name("s", at(text)), at: at(text) }
}

const TEN: &str = "2026-05-01T10:00:00Z";
const ELEVEN: &str = "2026-05-01T11:00:00Z";

#[test]
fn a_backup_is_made_in_time_and_once() {
    assert_eq!(backup_name("s", at(TEN)), "s-29627160");
    assert_eq!(planned(|_| {}, TEN, "2026-05-01T09:59:59Z", &[]).step, Step::Wait(at(TEN)));
    let due = planned(|_| {}, TEN, TEN, &[]);
    // The time stays open until the backup is seen.
    assert_eq!((due.step, due.next), (create(TEN), Some(at(TEN))));
    let made = [backup("s-29627160", State::Active)];
    let done = planned(|_| {}, TEN, "2026-05-01T10:00:01Z", &made);
    assert_eq!((done.step, done.next), (Step::Wait(at(ELEVEN)), Some(at(ELEVEN))));
    // It is seen late: that is no time missed.
    let made = [backup("s-29627160", State::Succeeded(at(TEN)))];
    assert_eq!(planned(|_| {}, TEN, ELEVEN, &made).step, create(ELEVEN));
}

#[test]
fn the_latest_time_that_was_missed_is_made_up_for_until_its_deadline() {
    let missed = planned(|_| {}, "2026-05-01T07:00:00Z", "2026-05-01T10:05:00Z", &[]);
    let from = at("2026-05-01T07:00:00Z");
    assert_eq!((missed.step, missed.next), (Step::Skip { from, times: 3, why: Why::Superseded }, Some(at(TEN))));
    assert_eq!(planned(|_| {}, TEN, "2026-05-01T10:10:00Z", &[]).step, create(TEN));
    let late = planned(|_| {}, TEN, "2026-05-01T10:10:01Z", &[]);
    assert_eq!((late.step, late.next), (Step::Skip { from: at(TEN), times: 1, why: Why::Late }, Some(at(ELEVEN))));
    let years = planned(|wanted| *wanted = self::wanted("* * * * *"), "2016-05-01T07:00:00Z", TEN, &[]);
    assert!(matches!(years.step, Step::Skip { times: SKIPPED_MAX, .. }), "{years:?}");
}

#[test]
fn a_policy_decides_beside_a_backup_that_has_not_ended() {
    let now = "2026-05-01T10:01:00Z";
    let with = |policy| move |wanted: &mut Wanted| wanted.concurrency = policy;
    let one = [backup("s-1", State::Active)];
    let waits = planned(with(ConcurrencyPolicy::Forbid), TEN, now, &one);
    assert_eq!((waits.step, waits.next), (Step::Wait(at("2026-05-01T10:10:00Z")), Some(at(TEN))));
    let skipped = planned(with(ConcurrencyPolicy::Forbid), TEN, "2026-05-01T10:11:00Z", &one);
    assert_eq!(skipped.step, Step::Skip { from: at(TEN), times: 1, why: Why::Busy });
    assert_eq!(planned(with(ConcurrencyPolicy::Allow), TEN, now, &one).step, create(TEN));
    let ten: Vec<_> = (0..10).map(|number| backup(&format!("s-{number}"), State::Active)).collect();
    assert!(matches!(planned(with(ConcurrencyPolicy::Allow), TEN, now, &ten).step, Step::Wait(_)));
    assert_eq!(planned(with(ConcurrencyPolicy::Replace), TEN, now, &one).step, Step::Replace(vec!["s-1".into()]));
    let going = [Backup { deleting: true, ..one[0].clone() }];
    assert_eq!(planned(with(ConcurrencyPolicy::Replace), TEN, now, &going).step, create(TEN));
    assert!(matches!(planned(with(ConcurrencyPolicy::Forbid), TEN, now, &going).step, Step::Wait(_)));
}

#[test]
fn an_offset_moves_the_begin_and_the_deadline_and_no_name() {
    let with = |wanted: &mut Wanted| wanted.offset = SignedDuration::from_secs(90);
    let waits = planned(with, TEN, "2026-05-01T10:01:29Z", &[]);
    assert_eq!((waits.step, waits.next), (Step::Wait(at("2026-05-01T10:01:30Z")), Some(at(TEN))));
    assert_eq!(planned(with, TEN, "2026-05-01T10:01:30Z", &[]).step, create(TEN));
    assert_eq!(planned(with, TEN, "2026-05-01T10:11:30Z", &[]).step, create(TEN));
    assert!(matches!(planned(with, TEN, "2026-05-01T10:11:31Z", &[]).step, Step::Skip { .. }));
}

#[test]
fn offsets_stay_as_they_are() {
    assert_eq!(offset("n", "s", 0), SignedDuration::ZERO);
    assert_eq!(offset("n", "s", 3600), SignedDuration::from_secs(3117));
    let offsets: std::collections::BTreeSet<_> = (0..100).map(|name| offset("n", &name.to_string(), 3600)).collect();
    assert!(offsets.len() > 90 && offsets.iter().all(|offset| offset.as_secs() < 3600), "{offsets:?}");
}

#[test]
fn times_before_a_change_do_not_count() {
    let now = "2026-05-01T10:30:10Z";
    // Recorded by a schedule for another time, and by one for the same time among others.
    for (recorded, next) in [("2026-05-01T10:17:00Z", ELEVEN), ("2026-05-02T03:00:00Z", ELEVEN)] {
        let changed = planned(|_| {}, recorded, now, &[]);
        assert_eq!((changed.step, changed.next), (Step::Wait(at(next)), Some(at(next))), "{recorded}");
    }
    // Also with an offset: the run of half past ten would only begin.
    let half = |wanted: &mut Wanted| {
        *wanted = Wanted { offset: SignedDuration::from_secs(60), ..self::wanted("30 * * * *") };
    };
    assert_eq!(planned(half, ELEVEN, now, &[]).next, Some(at("2026-05-01T11:30:00Z")));
}

#[test]
fn a_new_schedule_begins_with_the_first_time_after_it_was_made() {
    let wanted = wanted("0 * * * *");
    let fresh = |made, now| {
        let fresh_since = Some(at(made));
        plan(&Seen { name: "s", wanted: &wanted, recorded: None, fresh_since, backups: &[], now: at(now) }).step
    };
    assert_eq!(fresh("2026-05-01T10:00:00Z", "2026-05-01T10:00:01Z"), Step::Wait(at(ELEVEN)));
    assert_eq!(fresh("2026-05-01T09:59:59Z", "2026-05-01T10:00:01Z"), create(TEN));
}

#[test]
fn nothing_is_done_while_it_is_suspended() {
    let backups = [backup("s-1", State::Succeeded(at(TEN))), backup("s-2", State::Succeeded(at(TEN)))];
    let suspend = |wanted: &mut Wanted| {
        wanted.suspend = true;
        wanted.limits.keep_last = Some(1);
    };
    let planned = planned(suspend, TEN, "2026-05-01T10:00:30Z", &backups);
    assert_eq!((planned.step, planned.next), (Step::Wait(at(ELEVEN)), Some(at(ELEVEN))));
}

#[test]
fn retention_works_between_runs_and_while_one_waits() {
    let mut backups = vec![backup("s-1", State::Succeeded(at(TEN))), backup("s-2", State::Succeeded(at(TEN)))];
    let keep = |wanted: &mut Wanted| wanted.limits.keep_last = Some(1);
    assert_eq!(planned(keep, ELEVEN, TEN, &backups).step, Step::Delete(vec!["s-1".into()]));
    backups.push(backup("s-3", State::Active));
    assert_eq!(planned(keep, TEN, TEN, &backups).step, Step::Delete(vec!["s-1".into()]));
    backups.extend((100..200).map(|number| backup(&format!("s-{number}"), State::Succeeded(Timestamp::UNIX_EPOCH))));
    assert!(matches!(planned(keep, TEN, TEN, &backups).step, Step::Delete(names) if names.len() == DELETIONS_MAX));
}

#[test]
fn a_time_that_never_comes_is_refused() {
    let refused = planned(|wanted| *wanted = self::wanted("0 0 30 2 *"), TEN, ELEVEN, &[]);
    assert!(matches!(refused, Planned { step: Step::Refuse(_), next: None }), "{refused:?}");
}

/// What may happen between two passes.
#[derive(Debug, Clone)]
enum Event {
    /// Seconds go by.
    Tick(i64),
    /// The operator is away so long, or dies between a record and its deed.
    Away(i64),
    Die,
    /// One that has not ended succeeds, fails, or is deleted, and one that has ended is.
    Succeed(usize),
    Fail(usize),
    Delete(usize),
    /// One that is being deleted is gone.
    Go(usize),
    Suspend(bool),
    Change(&'static str),
    Policy(ConcurrencyPolicy),
    Keep(usize),
}

fn event() -> impl Strategy<Value = Event> {
    const SCHEDULES: &[&str] = &["* * * * *", "*/5 * * * *", "0 * * * *", "30 2 * * *", "15,45 */2 * * *"];
    const POLICIES: &[ConcurrencyPolicy] =
        &[ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Allow, ConcurrencyPolicy::Replace];
    prop_oneof![
        20 => (1..200i64).prop_map(Event::Tick),
        10 => (1..8000i64).prop_map(Event::Tick),
        4 => (1..8000i64).prop_map(Event::Away),
        8 => Just(Event::Die),
        8 => (0..9usize).prop_map(Event::Succeed),
        4 => (0..9usize).prop_map(Event::Fail),
        2 => (0..9usize).prop_map(Event::Delete),
        4 => (0..9usize).prop_map(Event::Go),
        2 => any::<bool>().prop_map(Event::Suspend),
        2 => prop::sample::select(SCHEDULES).prop_map(Event::Change),
        2 => prop::sample::select(POLICIES).prop_map(Event::Policy),
        1 => (1..4usize).prop_map(Event::Keep),
    ]
}

/// A schedule, its API server and its backups.
struct Model {
    wanted: Wanted,
    recorded: Option<Timestamp>,
    made: Timestamp,
    backups: Vec<Backup>,
    now: Timestamp,
    /// When the schedule was changed or suspended for the last time, if no time was open then.
    changed: Option<Timestamp>,
    /// How often a backup was made, by its time.
    runs: BTreeMap<Timestamp, usize>,
    /// The operator dies before its next deed.
    dies: bool,
}

impl Model {
    fn new(offset_s: i64) -> Self {
        let now = at("2026-05-01T08:59:30Z");
        let offset = SignedDuration::from_secs(offset_s);
        Self {
            wanted: Wanted { offset, ..wanted("*/5 * * * *") },
            recorded: None,
            made: now,
            backups: Vec::new(),
            now,
            changed: None,
            runs: BTreeMap::new(),
            dies: false,
        }
    }

    fn nth(&mut self, nth: usize, picked: impl Fn(&Backup) -> bool) -> Option<&mut Backup> {
        let count = self.backups.iter().filter(|backup| picked(backup)).count();
        self.backups.iter_mut().filter(|backup| picked(backup)).nth(nth.checked_rem(count)?)
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now;
        let mut end = |nth, state| {
            if let Some(backup) = self.nth(nth, |backup| backup.is_active() && !backup.deleting) {
                backup.state = state;
            }
        };
        match event {
            Event::Tick(seconds) | Event::Away(seconds) => self.now += SignedDuration::from_secs(*seconds),
            Event::Die => self.dies = true,
            Event::Succeed(nth) => end(*nth, State::Succeeded(now)),
            Event::Fail(nth) => end(*nth, State::Failed(now)),
            Event::Delete(nth) => {
                if let Some(backup) = self.nth(*nth, |_| true) {
                    backup.deleting = true;
                }
            }
            Event::Go(nth) => {
                let gone = self.nth(*nth, |backup| backup.deleting).map(|backup| backup.name.clone());
                self.backups.retain(|backup| Some(&backup.name) != gone.as_ref());
            }
            Event::Suspend(suspend) => self.change(Wanted { suspend: *suspend, ..self.wanted.clone() }),
            Event::Change(schedule) => {
                self.change(Wanted { cron: schedule.parse().unwrap(), ..self.wanted.clone() });
            }
            Event::Policy(concurrency) => self.wanted.concurrency = *concurrency,
            Event::Keep(count) => self.wanted.limits.keep_last = Some(*count),
        }
    }

    fn change(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.changed = self.recorded.is_some_and(|open| open > self.now).then_some(self.now);
    }

    fn planned(&self) -> Planned {
        plan(&Seen {
            name: "s",
            wanted: &self.wanted,
            recorded: self.recorded,
            fresh_since: self.recorded.is_none().then_some(self.made),
            backups: &self.backups,
            now: self.now,
        })
    }

    /// Passes until nothing is left to do.
    fn settle(&mut self) {
        // Each deed is done once, and each time is looked at twice.
        for _ in 0..self.backups.len() + 20 {
            let planned = self.planned();
            self.recorded = planned.next;
            if let Step::Wait(until) = planned.step {
                assert!(until >= self.now, "it waits for {until}");
                return;
            }
            self.check(&planned.step);
            if std::mem::take(&mut self.dies) {
                // Whoever comes next sees the record alone.
                self.now += SignedDuration::from_secs(15);
                continue;
            }
            self.act(planned.step);
        }
        panic!("no end at {}: {:?}", self.now, self.planned());
    }

    fn check(&self, step: &Step) {
        assert!(!self.wanted.suspend, "{step:?} while suspended");
        match step {
            Step::Create { name, at } => {
                assert_eq!(*name, backup_name("s", *at));
                assert!(self.wanted.has(*at), "it is none of the times");
                let begins = *at + self.wanted.offset;
                assert!(begins <= self.now, "{at} is to come");
                assert!(self.now.duration_since(begins) <= self.wanted.starting_deadline, "{at} is late");
                assert!(*at > self.made, "{at} is before the schedule");
                assert!(self.changed.is_none_or(|changed| *at > changed), "{at} is before {:?}", self.changed);
                let active = |deleting| {
                    self.backups
                        .iter()
                        .filter(move |backup| backup.is_active() && (deleting || !backup.deleting))
                        .count()
                };
                match self.wanted.concurrency {
                    ConcurrencyPolicy::Forbid => assert_eq!(active(true), 0),
                    ConcurrencyPolicy::Allow => assert!(active(true) < ACTIVE_MAX),
                    ConcurrencyPolicy::Replace => assert_eq!(active(false), 0),
                }
            }
            Step::Delete(names) => {
                let deleted = self.backups.iter().filter(|backup| names.contains(&backup.name));
                assert!(deleted.clone().all(|backup| !backup.is_active() && !backup.deleting));
                assert_eq!(deleted.count(), names.len());
            }
            Step::Replace(_) => assert_eq!(self.wanted.concurrency, ConcurrencyPolicy::Replace),
            Step::Skip { .. } | Step::Wait(_) => {}
            Step::Refuse(why) => panic!("{why}"),
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Create { name, at } => {
                assert!(self.backups.iter().all(|backup| backup.name != name), "{name} is there");
                self.backups.push(backup(&name, State::Active));
                let runs = self.runs.entry(at).or_default();
                *runs += 1;
                assert_eq!(*runs, 1, "two backups for {at}");
            }
            Step::Replace(names) | Step::Delete(names) => {
                let named = self.backups.iter_mut().filter(|backup| names.contains(&backup.name));
                named.for_each(|backup| backup.deleting = true);
            }
            Step::Wait(_) | Step::Skip { .. } | Step::Refuse(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_schedule_lives_through_anything(
        offset_s in prop_oneof![Just(0), 1..120i64],
        events in prop::collection::vec(event(), 1..100),
    ) {
        let mut model = Model::new(offset_s);
        model.settle();
        for event in &events {
            model.happen(event);
            if !matches!(event, Event::Away(_)) {
                model.settle();
            }
        }
    }

    /// Whoever looks once in a while, and nobody disturbs it: each time has its backup.
    #[test]
    fn no_time_is_missed_in_quiet(offset_s in 0..120i64, pauses in prop::collection::vec(1..290i64, 1..80)) {
        let mut model = Model::new(offset_s);
        for pause in pauses {
            model.happen(&Event::Tick(pause));
            model.settle();
            model.happen(&Event::Succeed(0));
        }
        let due = std::iter::successors(model.wanted.next(model.made), |at| model.wanted.next(*at));
        let due: Vec<_> = due.take_while(|at| *at + model.wanted.offset <= model.now).collect();
        prop_assert_eq!(due, model.runs.keys().copied().collect::<Vec<_>>());
    }
}
