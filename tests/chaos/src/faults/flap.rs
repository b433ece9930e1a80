//! A member that is cut off, connected, cut off: each time for a moment, often about as long as an election takes.

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
use crate::rules::Cuts;
use crate::ticker::Ticker;
use garboard_e2e::random::Random;

struct Flap {
    target: Target,
    period: Duration,
    ticker: Option<Ticker>,
    turns: Arc<AtomicU64>,
}

pub fn make(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = any_or_leader(random, layout);
    let period = random.log_scaled(Duration::from_millis(100), Duration::from_millis(2500));
    Box::new(Flap { target, period, ticker: None, turns: Arc::default() })
}

impl Fault for Flap {
    fn describe(&self) -> String {
        format!("cut {} off and connect it every {:?}", self.target, self.period)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(slot) = cluster.find(self.target) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        let (cluster, turns) = (cluster.clone(), self.turns.clone());
        self.ticker = Some(Ticker::new(self.period, move |turn| {
            let others: Vec<usize> = cluster.active().into_iter().filter(|other| *other != slot).collect();
            let cuts = if turn % 2 == 0 { Cuts::between(&[slot], &others) } else { Cuts::default() };
            match cluster.cut(cuts) {
                Ok(()) => _ = turns.fetch_add(1, Ordering::Relaxed),
                Err(error) => cluster.violation(format!("the runner cannot cut: {error:#}")),
            }
        }));
        Ok(Outcome::Hit(vec![slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.ticker = None;
        cluster.cut(Cuts::default())
    }

    fn evidence(&mut self, _: &Arc<Cluster>) -> anyhow::Result<String> {
        let turns = self.turns.load(Ordering::Relaxed);
        ensure!(turns >= 2, "only {turns} turns");
        Ok(format!("cut or connected {turns} times"))
    }
}
