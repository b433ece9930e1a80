//! The connections of a member, or all of them, are reset again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;

use super::any_or_leader;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use crate::ticker::Ticker;
use garboard_e2e::random::Random;

struct Reset {
    /// Everybody's without one.
    target: Option<Target>,
    period: Duration,
    ticker: Option<Ticker>,
    before: u64,
}

pub fn make(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = if random.once_in(3) { None } else { Some(any_or_leader(random, layout)) };
    let period = random.log_scaled(Duration::from_millis(50), Duration::from_secs(3));
    Box::new(Reset { target, period, ticker: None, before: 0 })
}

impl Fault for Reset {
    fn describe(&self) -> String {
        match self.target {
            Some(target) => format!("reset the connections of {target} every {:?}", self.period),
            None => format!("reset all connections every {:?}", self.period),
        }
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(hit) = cluster.find_or_all(self.target) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        self.before = cluster.links.counters.reset.load(Ordering::Relaxed);
        let (links, members) = (cluster.links.clone(), hit.clone());
        self.ticker = Some(Ticker::new(self.period, move |_| links.reset(&members)));
        Ok(Outcome::Hit(hit))
    }

    fn heal(&mut self, _: &Arc<Cluster>) -> anyhow::Result<()> {
        self.ticker = None;
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let count = cluster.links.counters.reset.load(Ordering::Relaxed) - self.before;
        ensure!(count > 0, "no connection was there to reset");
        Ok(format!("{count} connections reset"))
    }
}
