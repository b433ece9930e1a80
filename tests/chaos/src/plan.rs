//! The plan of a run, drawn from its seed alone: which kinds of faults, when, for how long, with what choices.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cluster::Layout;
use crate::fault::Fault;
use crate::fault::KINDS;
use crate::fault::Kind;
use crate::fault::Lane;
use crate::fault::Need;
use garboard_e2e::random::Random;

/// What is asked of a plan.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub seed: u64,
    pub members: usize,
    pub seconds: u64,
    /// The kinds to draw from; any without one.
    pub only: &'a [String],
    /// There is a server whose unsynced bytes die with it.
    pub volatile: bool,
    /// The server is a real etcd.
    pub control: bool,
}

pub struct Plan {
    pub seed: u64,
    pub kinds: Vec<&'static Kind>,
    pub layout: Layout,
    pub length: Duration,
    /// The members run on disks whose unsynced bytes die with them.
    pub volatile: bool,
    pub lanes: BTreeMap<Lane, Vec<Step>>,
}

/// A fault at a time since the start of the plan.
pub struct Step {
    pub kind: &'static Kind,
    pub at: Duration,
    pub lasts: Duration,
    seed: u64,
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Why a kind cannot be part of the run.
    pub fn refuses(&self, kind: &Kind) -> Option<&'static str> {
        match kind.need {
            Need::Volatile if !self.volatile => Some("needs --volatile"),
            Need::Ours if self.control => Some("is more than etcd promises"),
            _ => None,
        }
    }
}

// === impl Step ===

impl Step {
    pub fn fault(&self, layout: &Layout) -> Box<dyn Fault> {
        (self.kind.make)(&mut Random::new(self.seed), layout)
    }
}

// === impl Plan ===

impl Plan {
    pub fn draw(wanted: &Wanted) -> anyhow::Result<Self> {
        let mut kinds = choose(wanted, &mut Random::new(wanted.seed))?;
        // From here on the plan depends on the seed and these kinds alone: naming them draws it again when there are more to choose from.
        kinds.sort_by_key(|kind| kind.name);
        let mut random = Random::new(!wanted.seed);
        let mut layout = layout(wanted.members, &kinds, &mut random);
        layout.lease_reads = !wanted.control && random.pick(&[false, false, true]);
        let length = Duration::from_secs(wanted.seconds);
        let mut lanes = BTreeMap::new();
        for lane in [Lane::Member, Lane::Network, Lane::Upkeep] {
            let mut own: Vec<&Kind> = kinds.iter().copied().filter(|kind| kind.lane == lane).collect();
            let mut random = Random::new(wanted.seed ^ (lane as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
            random.shuffle(&mut own);
            if !own.is_empty() {
                lanes.insert(lane, steps(&own, length, &mut random));
            }
        }
        ensure!(lanes.values().any(|steps| !steps.is_empty()), "no fault fits into {} s", wanted.seconds);
        let volatile = kinds.iter().any(|kind| kind.need == Need::Volatile);
        Ok(Self { seed: wanted.seed, kinds, layout, length, volatile, lanes })
    }

    /// One fault alone, for as long as it takes to see it.
    pub fn of_one(kind: &'static Kind, seed: u64, members: usize) -> Self {
        let mut random = Random::new(seed);
        let layout = layout(members, &[kind], &mut random);
        let lasts = Duration::from_secs(3).clamp(kind.shortest, kind.longest);
        let step = Step { kind, at: Duration::from_millis(500), lasts, seed: random.draw() };
        let length = step.at + lasts;
        let volatile = kind.need == Need::Volatile;
        Self { seed, kinds: vec![kind], layout, length, volatile, lanes: [(kind.lane, vec![step])].into() }
    }

    /// One line per step, in the order of time.
    pub fn describe(&self) -> String {
        let mut steps: Vec<&Step> = self.lanes.values().flatten().collect();
        steps.sort_by_key(|step| step.at);
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name).collect();
        let mut text = format!("seed {}: {} s of {}\n", self.seed, self.length.as_secs_f64(), names.join(", "));
        text += &format!("{:?}{}\n", self.layout, if self.volatile { ", volatile disks" } else { "" });
        for step in steps {
            let (at, lasts) = (step.at.as_secs_f64(), step.lasts.as_secs_f64());
            let fault = step.fault(&self.layout).describe();
            text += &format!("{at:8.3} s  {:<15} for {lasts:.3} s: {fault}\n", step.kind.name);
        }
        text
    }

    pub fn needs(&self, need: Need) -> bool {
        self.kinds.iter().any(|kind| kind.need == need)
    }
}

/// The kinds of this run: those asked for, or a few of different lanes, so that each seed goes deep into its own.
fn choose(wanted: &Wanted, random: &mut Random) -> anyhow::Result<Vec<&'static Kind>> {
    if !wanted.only.is_empty() {
        return named(wanted);
    }
    let mut pool: Vec<&'static Kind> = KINDS.iter().filter(|kind| wanted.refuses(kind).is_none()).collect();
    random.shuffle(&mut pool);
    let count = random.between(3, 6) as usize;
    let first = |lane| pool.iter().position(|kind| kind.lane == lane).map(|at| pool[at]);
    let mut chosen: Vec<&'static Kind> = [Lane::Member, Lane::Network].into_iter().filter_map(first).collect();
    for kind in pool {
        let apart = |other: &&Kind| !std::ptr::eq(*other, kind) && compatible(other.need, kind.need);
        if chosen.len() < count && chosen.iter().all(apart) {
            chosen.push(kind);
        }
    }
    Ok(chosen)
}

fn named(wanted: &Wanted) -> anyhow::Result<Vec<&'static Kind>> {
    let mut chosen: Vec<&'static Kind> = Vec::new();
    for name in wanted.only {
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let kind = kind.with_context(|| format!("no fault {name}: --list names them"))?;
        if let Some(why) = wanted.refuses(kind) {
            anyhow::bail!("{name} {why}");
        }
        let against = chosen.iter().find(|other| !compatible(other.need, kind.need));
        if let Some(other) = against {
            anyhow::bail!("{name} and {} need different disks", other.name);
        }
        if !chosen.iter().any(|other| std::ptr::eq(*other, kind)) {
            chosen.push(kind);
        }
    }
    Ok(chosen)
}

/// A disk that loses what is not synced is in memory: it has no size, and strace sees none of its syncs.
fn compatible(one: Need, other: Need) -> bool {
    let real = [Need::SmallDisk, Need::Strace];
    !(one == Need::Volatile && real.contains(&other) || other == Need::Volatile && real.contains(&one))
}

fn layout(members: usize, kinds: &[&Kind], random: &mut Random) -> Layout {
    let needs = |need| kinds.iter().any(|kind| kind.need == need);
    let (snapshot_count, catchup_entries) = random.pick(&[(50, 20), (500, 100), (5_000, 1_000), (10_000, 5_000)]);
    let often = needs(Need::Snapshots);
    Layout {
        members,
        proxies: needs(Need::Proxies),
        small_disk: needs(Need::SmallDisk),
        snapshot_count: if often { 50 } else { snapshot_count },
        catchup_entries: if often { 20 } else { catchup_entries },
        lease_reads: false,
    }
}

/// Faults one after the other with pauses; each kind comes once before one comes again.
fn steps(kinds: &[&'static Kind], length: Duration, random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = Duration::from_millis(random.between(200, 2_500));
    for turn in 0.. {
        let kind = if turn < kinds.len() { kinds[turn] } else { random.pick(kinds) };
        let lasts = random.log_scaled(kind.shortest, kind.longest);
        let (seed, pause) = (random.draw(), random.log_scaled(Duration::from_millis(300), Duration::from_secs(5)));
        let left = length.saturating_sub(at);
        if left < Duration::from_millis(500) {
            return steps;
        }
        // One that does not fit in any more is left out, a long one of those that do is cut short.
        if kind.shortest > left {
            if turn >= kinds.len() {
                return steps;
            }
            continue;
        }
        let lasts = lasts.min(left);
        steps.push(Step { kind, at, lasts, seed });
        at += lasts + pause;
    }
    steps
}

#[cfg(test)]
mod tests;
