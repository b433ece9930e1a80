//! Bad links, made by the proxies: late, slow, or with flipped bits.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;

use super::any_or_leader;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use crate::links::Condition;
use crate::links::Counters;
use garboard_e2e::random::Random;

struct Link {
    what: What,
    condition: Condition,
    /// The links of everybody without one.
    target: Option<Target>,
    before: u64,
    ended_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Delay,
    Throttle,
    Corrupt,
}

pub fn delay(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let delay = random.log_scaled(Duration::from_millis(5), Duration::from_millis(1500));
    let condition = Condition { delay, jitter: delay * random.between(0, 2) as u32 / 2, ..Condition::default() };
    link(What::Delay, condition, random, layout)
}

pub fn throttle(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let rate = random.pick(&[4_000, 20_000, 100_000, 1_000_000]);
    link(What::Throttle, Condition { bytes_per_s: Some(rate), ..Condition::default() }, random, layout)
}

pub fn corrupt(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let every = random.pick(&[500, 5_000, 50_000]);
    link(What::Corrupt, Condition { corrupt_every: Some(every), ..Condition::default() }, random, layout)
}

fn link(what: What, condition: Condition, random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = if random.once_in(3) { None } else { Some(any_or_leader(random, layout)) };
    Box::new(Link { what, condition, target, before: 0, ended_before: 0 })
}

// === impl Link ===

impl Link {
    fn counter(&self, counters: &Counters) -> u64 {
        let counter: &AtomicU64 = match self.what {
            What::Delay => &counters.delayed,
            What::Throttle => &counters.throttled,
            What::Corrupt => &counters.corrupted,
        };
        counter.load(Ordering::Relaxed)
    }
}

impl Fault for Link {
    fn describe(&self) -> String {
        let text = match self.what {
            What::Delay => format!("delay {:?} and up to {:?} more", self.condition.delay, self.condition.jitter),
            What::Throttle => format!("{} bytes per second", self.condition.bytes_per_s.unwrap_or_default()),
            What::Corrupt => format!("a flipped bit in {} bytes", self.condition.corrupt_every.unwrap_or_default()),
        };
        match self.target {
            Some(target) => format!("{text} on the links of {target}"),
            None => format!("{text} on all links"),
        }
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(hit) = cluster.find_or_all(self.target) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        self.before = self.counter(&cluster.links.counters);
        self.ended_before = cluster.links.counters.ended_after_corruption.load(Ordering::Relaxed);
        cluster.links.set_around(&hit, self.condition);
        Ok(Outcome::Hit(hit))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        cluster.links.set_all(Condition::default());
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let count = self.counter(&cluster.links.counters) - self.before;
        ensure!(count > 0, "nothing has passed the proxies since");
        if self.what == What::Corrupt {
            // TLS notices, and the member ends the connection.
            let ended = &cluster.links.counters.ended_after_corruption;
            cluster.wait("a member ends a corrupted connection", Duration::from_secs(5), || {
                Ok(ended.load(Ordering::Relaxed) > self.ended_before)
            })?;
            let ended = ended.load(Ordering::Relaxed) - self.ended_before;
            return Ok(format!("{count} flipped bits, {ended} connections ended by members"));
        }
        Ok(format!("{count} chunks held back"))
    }
}
