//! Rotations against a model: Secrets that are written one by one, members and clients that read theirs whenever they like.

use proptest::prelude::*;

use super::*;
use crate::cluster::build::authority::Authority;
use crate::cluster::build::authority::Signer;
use crate::cluster::build::foreign::Foreign;
use crate::tls::Pair;

const GRACE: SignedDuration = SignedDuration::from_mins(10);
const VALIDITY: SignedDuration = SignedDuration::from_hours(1000);
/// Rounds in which a rotation that nobody disturbs is over.
const ROUNDS_MAX: usize = 60;

/// What is in a Secret, or what somebody has read of it. CAs are numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    /// Whose signature, and which certificate.
    leaf: (String, u32),
    trust: BTreeSet<String>,
}

/// Somebody with a Secret.
#[derive(Debug, Clone, Default)]
struct Host {
    given: Option<Files>,
    /// Since when it has been given what is signed and trusted by these CAs.
    given_at: Option<Timestamp>,
    loaded: Option<Files>,
    /// It cannot be asked, or its release tells nothing.
    silent: bool,
}

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The operator takes a turn, and dies before it writes a Secret.
    Turn,
    /// One Secret is written, or all are.
    Write(usize),
    WriteAll,
    /// A file is read before the Secret changes, the others after.
    LoadLeaf(usize),
    LoadTrust(usize),
    Load(usize),
    LoadAll,
    /// Its certificate is due.
    Renew(usize),
    DeleteSecret(usize),
    Join,
    Leave(usize),
    Silence(usize),
    Speak,
    Demand,
    /// Whether somebody else is to sign.
    Source(bool),
    /// Their Secret holds what another CA has signed, or nothing.
    Offer,
    OfferNothing,
    /// Minutes go by.
    Pass(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..8usize;
    prop_oneof![
        20 => Just(Event::Turn),
        6 => who.clone().prop_map(Event::Write),
        10 => Just(Event::WriteAll),
        3 => who.clone().prop_map(Event::LoadLeaf),
        3 => who.clone().prop_map(Event::LoadTrust),
        6 => who.clone().prop_map(Event::Load),
        10 => Just(Event::LoadAll),
        2 => who.clone().prop_map(Event::Renew),
        2 => who.clone().prop_map(Event::DeleteSecret),
        2 => Just(Event::Join),
        1 => who.clone().prop_map(Event::Leave),
        1 => who.prop_map(Event::Silence),
        3 => Just(Event::Speak),
        3 => Just(Event::Demand),
        3 => any::<bool>().prop_map(Event::Source),
        3 => Just(Event::Offer),
        1 => Just(Event::OfferNothing),
        10 => (0..12u8).prop_map(Event::Pass),
    ]
}

struct Model {
    authority: Authority,
    /// When each CA ends.
    ends: BTreeMap<String, Timestamp>,
    members: BTreeMap<String, Host>,
    clients: BTreeMap<String, Host>,
    grace: SignedDuration,
    demand: Option<String>,
    wants_foreign: bool,
    /// The CA that has signed what is in the Secret of others.
    offer: Option<String>,
    now: Timestamp,
    count: u32,
}

// === impl Host ===

impl Host {
    fn give(&mut self, files: Files, now: Timestamp) {
        let alike = |given: &Files| given.leaf.0 == files.leaf.0 && given.trust == files.trust;
        if !self.given.as_ref().is_some_and(alike) {
            self.given_at = Some(now);
        }
        self.given = Some(files);
    }
}

fn kept(ca: &str) -> Signer {
    Signer::Kept(Pair { cert: ca.to_owned(), key: String::new() })
}

fn foreign(ca: &str) -> Signer {
    Signer::Foreign(Foreign { secret: None, trust: [ca.to_owned()].into() })
}

impl Model {
    /// Three members and two clients, who have all that they need.
    fn new(grace: SignedDuration) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut model = Self {
            authority: Authority::new(kept("ca0"), None),
            ends: [("ca0".to_owned(), now.checked_add(VALIDITY).unwrap())].into(),
            members: BTreeMap::new(),
            clients: BTreeMap::new(),
            grace,
            demand: None,
            wants_foreign: false,
            offer: None,
            now,
            count: 0,
        };
        for name in ["m0", "m1", "m2"] {
            model.members.insert(name.to_owned(), Host::default());
        }
        for name in ["c0", "c1"].into_iter().filter(|_| !grace.is_zero()) {
            model.clients.insert(name.to_owned(), Host::default());
        }
        model.write_all();
        model.load_all();
        model
    }

    fn hosts(&mut self) -> impl Iterator<Item = &mut Host> {
        self.members.values_mut().chain(self.clients.values_mut())
    }

    fn host(&mut self, at: usize) -> &mut Host {
        let count = self.members.len() + self.clients.len();
        self.hosts().nth(at % count).unwrap()
    }

    fn signer(&self) -> String {
        self.authority.signer().trust().concat()
    }

    fn trusted(&self) -> BTreeSet<String> {
        self.authority.trusted().into_iter().map(str::to_owned).collect()
    }

    fn asked(&self) -> Asked {
        match (self.wants_foreign, &self.offer, self.authority.newest()) {
            (false, _, Signer::Kept(_)) => Asked::TheNewest,
            (true, Some(ca), newest) if *newest == foreign(ca) => Asked::TheNewest,
            (true, None, Signer::Foreign(_)) if self.authority.phase == RotationPhase::Stable => Asked::TheNewest,
            (true, None, _) => Asked::Later("nothing is signed".to_owned()),
            _ => Asked::Another,
        }
    }

    /// What the operator writes into a Secret in which `given` is; `None`: there is nothing to write.
    fn wanted(&mut self, given: Option<&Files>) -> Option<Files> {
        let (signer, trust) = (self.signer(), self.trusted());
        let given = given.map(|given| given.leaf.clone());
        if !self.authority.signer().is_kept() && self.offer.as_ref() != Some(&signer) {
            return Some(Files { leaf: given?, trust });
        }
        self.count += 1;
        Some(Files { leaf: given.filter(|(ca, _)| *ca == signer).unwrap_or((signer, self.count)), trust })
    }

    fn write(&mut self, at: usize) {
        let given = self.host(at).given.clone();
        let now = self.now;
        if let Some(wanted) = self.wanted(given.as_ref()) {
            self.host(at).give(wanted, now);
        }
    }

    fn write_all(&mut self) {
        (0..self.members.len() + self.clients.len()).for_each(|at| self.write(at));
    }

    fn load_all(&mut self) {
        self.hosts().filter(|host| host.given.is_some()).for_each(|host| host.loaded = host.given.clone());
    }

    fn last_end(&self, signer: &Signer) -> Timestamp {
        signer.trust().into_iter().map(|ca| self.ends[ca]).max().unwrap()
    }

    fn lags(&self, host: &Host) -> bool {
        let (is_kept, phase) = (self.authority.signer().is_kept(), self.authority.phase);
        let may_stay = !is_kept && matches!(phase, RotationPhase::Stable | RotationPhase::TrustBoth);
        host.given
            .as_ref()
            .map_or(is_kept, |given| given.trust != self.trusted() || !may_stay && given.leaf.0 != self.signer())
    }

    fn seen(&self) -> Seen {
        let loaded = |files: &Files| Loaded { certificate: format!("{:?}", files.leaf), trust: files.trust.clone() };
        let held = |host: &Host| {
            let said = if host.silent { Err("it is away".to_owned()) } else { Ok(loaded(host.loaded.as_ref()?)) };
            Some(Held { given: host.given.as_ref().map(loaded), said })
        };
        Seen {
            phase: self.authority.phase,
            signer_ends: self.last_end(self.authority.signer()),
            next_ends: self.authority.successor().map(|next| self.last_end(next)),
            asked: self.asked(),
            is_kept: self.authority.signer().is_kept(),
            demanded: self.demand.is_some() && self.demand != self.authority.obeyed,
            renew_before: VALIDITY / 3,
            lags: self
                .members
                .values()
                .chain(self.clients.values())
                .any(|host| self.lags(host))
                .then(|| "a Secret is not written yet".to_owned()),
            members: self.members.iter().filter_map(|(name, host)| Some((name.clone(), held(host)?))).collect(),
            settled_at: self.authority.settled_at,
            grace: self.grace,
            now: self.now,
        }
    }

    fn turn(&mut self) -> Turn {
        let turn = plan(&self.seen());
        let made = format!("ca{}", self.ends.len());
        let make = || match &self.offer {
            Some(ca) if self.wants_foreign && turn == Turn::TrustBoth => Ok(foreign(ca)),
            _ => Ok(kept(&made)),
        };
        if let Some(next) = self.authority.turned(&turn, self.demand.as_ref(), self.now, make).unwrap() {
            if next.newest() == &kept(&made) {
                self.ends.insert(made, self.now.checked_add(VALIDITY).unwrap());
            }
            self.authority = next;
        }
        turn
    }

    fn offer(&mut self) {
        let ca = format!("ca{}", self.ends.len());
        self.ends.insert(ca.clone(), self.now.checked_add(VALIDITY).unwrap());
        self.offer = Some(ca);
    }

    fn pass(&mut self, time: SignedDuration) {
        self.now = self.now.checked_add(time).unwrap();
        let (now, grace) = (self.now, self.grace);
        // They can be relied on for that much.
        for client in self.clients.values_mut() {
            if client.given_at.is_some_and(|at| now.duration_since(at) >= grace) {
                client.loaded = client.given.clone().or(client.loaded.take());
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn => drop(self.turn()),
            Event::Write(at) => self.write(at),
            Event::WriteAll => self.write_all(),
            Event::LoadAll => self.load_all(),
            Event::Load(at) | Event::LoadLeaf(at) | Event::LoadTrust(at) => {
                let host = self.host(at);
                let Some(given) = host.given.clone() else { return };
                let loaded = host.loaded.get_or_insert_with(|| given.clone());
                if !matches!(event, Event::LoadTrust(_)) {
                    loaded.leaf = given.leaf;
                }
                if !matches!(event, Event::LoadLeaf(_)) {
                    loaded.trust = given.trust;
                }
            }
            Event::Renew(at) => {
                let now = self.now;
                if let Some(wanted) = self.wanted(None) {
                    self.host(at).give(wanted, now);
                }
            }
            // It might be that nobody can make it again.
            Event::DeleteSecret(_) if !self.authority.signer().is_kept() => {}
            // A client that has had it until now has read it; members need not have.
            Event::DeleteSecret(at) => {
                let is_client = at % (self.members.len() + self.clients.len()) >= self.members.len();
                let host = self.host(at);
                let given = host.given.take();
                if is_client && given.is_some() {
                    host.loaded = given;
                }
            }
            Event::Join => {
                self.count += 1;
                self.members.insert(format!("m{}", self.count), Host::default());
            }
            Event::Leave(at) => {
                if self.members.len() > 1 {
                    let name = self.members.keys().nth(at % self.members.len()).unwrap().clone();
                    self.members.remove(&name);
                }
            }
            Event::Silence(at) => self.host(at).silent = true,
            Event::Speak => self.hosts().for_each(|host| host.silent = false),
            Event::Demand => {
                self.count += 1;
                self.demand = Some(self.count.to_string());
            }
            Event::Source(foreign) => self.wants_foreign = foreign,
            Event::Offer => self.offer(),
            Event::OfferNothing => self.offer = None,
            Event::Pass(minutes) => self.pass(SignedDuration::from_mins(minutes.into())),
        }
    }

    /// Whoever talks to each other takes what the other shows.
    fn judge(&self) {
        let loaded = |hosts: &BTreeMap<String, Host>| -> Vec<(String, Files)> {
            hosts.iter().filter_map(|(name, host)| Some((name.clone(), host.loaded.clone()?))).collect()
        };
        let (members, clients) = (loaded(&self.members), loaded(&self.clients));
        let takes = |(one, holds): &(String, Files), (other, shows): &(String, Files)| {
            assert!(holds.trust.contains(&shows.leaf.0), "{one} {holds:?} does not trust {other} {shows:?}");
        };
        for member in &members {
            members.iter().chain(&clients).for_each(|other| takes(member, other));
            clients.iter().for_each(|client| takes(client, member));
        }
    }

    /// Until nothing is left to do, with nobody in the way.
    fn settle(&mut self, mut look: impl FnMut(&Self)) {
        self.hosts().for_each(|host| host.silent = false);
        if self.wants_foreign && self.offer.as_ref().is_none_or(|ca| self.ends[ca] <= self.now) {
            self.offer();
        }
        for _ in 0..ROUNDS_MAX {
            self.write_all();
            look(self);
            self.load_all();
            look(self);
            if self.turn() == Turn::Rest {
                assert_eq!((self.asked(), self.authority.phase), (Asked::TheNewest, RotationPhase::Stable));
                let (signer, all) = (self.signer(), self.members.values().chain(self.clients.values()));
                for host in all {
                    let loaded = host.loaded.as_ref().unwrap();
                    assert_eq!((&loaded.leaf.0, &loaded.trust), (&signer, &BTreeSet::from([signer.clone()])));
                }
                return;
            }
            self.pass(self.grace);
        }
        panic!("no end: {:?}, {:?}", self.authority, plan(&self.seen()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_ever_refused_and_the_end_is_one_ca(
        events in prop::collection::vec(event(), 0..150),
        grace in prop_oneof![Just(GRACE), Just(SignedDuration::ZERO)],
    ) {
        let mut model = Model::new(grace);
        for event in events {
            model.happen(event);
            model.judge();
        }
        model.settle(Model::judge);
        if !model.wants_foreign {
            prop_assert_eq!(model.authority.obeyed.clone(), model.demand.clone());
        }
        let changed = model.demand.is_some() || model.wants_foreign;
        prop_assert!(!changed || model.signer() != "ca0", "{:?}", model.authority);
    }

    #[test]
    fn what_has_expired_in_whatever_phase_is_replaced(events in prop::collection::vec(event(), 0..60), half in any::<bool>()) {
        let mut model = Model::new(GRACE);
        for event in events {
            model.happen(event);
        }
        // The operator was away.
        model.pass(if half { VALIDITY / 2 + VALIDITY / 3 } else { VALIDITY * 2 });
        model.demand = None;
        let expired: Vec<String> =
            model.ends.iter().filter(|(_, ends)| **ends <= model.now).map(|(name, _)| name.clone()).collect();
        model.settle(|_| ());
        prop_assert!(!expired.contains(&model.signer()), "{:?}", model.authority);
        let seen = model.seen();
        prop_assert!(!seen.is_kept || seen.signer_ends.duration_since(model.now) >= VALIDITY / 3);
    }
}

/// Rounds of all that the operator and the others do, until a turn is this one.
fn until(model: &mut Model, turn: &Turn) {
    for _ in 0..ROUNDS_MAX {
        model.write_all();
        model.load_all();
        if plan(&model.seen()) == *turn {
            return;
        }
        model.turn();
        model.pass(model.grace);
    }
    panic!("never {turn:?}: {:?}", plan(&model.seen()));
}

#[test]
fn a_member_that_says_nothing_holds_up_each_phase_and_is_named() {
    for turn in [Turn::Reissue, Turn::Retire, Turn::Conclude] {
        let mut model = Model::new(GRACE);
        model.happen(Event::Demand);
        until(&mut model, &turn);
        model.members.get_mut("m1").unwrap().silent = true;
        let said = plan(&model.seen());
        assert_eq!(said, Turn::Wait("m1 does not say what it has loaded: it is away".to_owned()), "{turn:?}");
        model.happen(Event::Speak);
        model.members.get_mut("m2").unwrap().loaded.as_mut().unwrap().leaf.1 += 1000;
        assert_eq!(plan(&model.seen()), Turn::Wait("m2 has not loaded its Secret yet".to_owned()), "{turn:?}");
        model.load_all();
        assert_eq!(plan(&model.seen()), turn);
    }
}

#[test]
fn clients_are_given_their_time_from_when_their_secrets_are_written() {
    for turn in [Turn::Reissue, Turn::Retire] {
        let mut model = Model::new(GRACE);
        model.happen(Event::Demand);
        until(&mut model, &turn);
        model.authority.settled_at = None;
        assert_eq!(model.turn(), Turn::Settle);
        model.pass(GRACE - SignedDuration::from_secs(1));
        assert!(matches!(plan(&model.seen()), Turn::Grace(_)));
        model.pass(SignedDuration::from_secs(1));
        assert_eq!(plan(&model.seen()), turn);
    }
}

#[test]
fn another_ca_is_made_when_a_third_of_the_time_is_left_and_not_before() {
    let mut model = Model::new(GRACE);
    model.pass(VALIDITY / 3 * 2 - SignedDuration::from_hours(1));
    assert_eq!(plan(&model.seen()), Turn::Rest);
    model.pass(SignedDuration::from_hours(2));
    assert_eq!(plan(&model.seen()), Turn::TrustBoth);
    model.settle(Model::judge);
    assert_eq!(model.signer(), "ca1");
}

#[test]
fn an_expired_ca_waits_for_nobody() {
    let mut model = Model::new(GRACE);
    model.members.get_mut("m0").unwrap().silent = true;
    model.pass(VALIDITY);
    assert_eq!(model.turn(), Turn::Renew);
    assert_eq!((model.signer(), model.trusted()), ("ca1".to_owned(), ["ca0", "ca1"].map(str::to_owned).into()));
    model.settle(|_| ());

    // The one that was to follow it is good: those who have loaded it already lose nothing.
    let mut model = Model::new(GRACE);
    model.pass(VALIDITY / 3 * 2 + SignedDuration::from_hours(1));
    assert_eq!(model.turn(), Turn::TrustBoth);
    model.members.get_mut("m0").unwrap().silent = true;
    model.pass(VALIDITY / 3);
    assert_eq!(model.turn(), Turn::Reissue);
    assert_eq!(model.signer(), "ca1");
}
