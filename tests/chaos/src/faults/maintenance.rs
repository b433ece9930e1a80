//! Compaction near the newest revision, and defrag of one member after the other, as fast as they are done.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::ensure;

use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::fault::Fault;
use crate::fault::Outcome;
use crate::ticker::Ticker;
use garboard_e2e::random::Random;

struct Maintenance {
    period: Duration,
    /// How many revisions are left.
    left: u64,
    ticker: Option<Ticker>,
    done: Arc<Done>,
}

#[derive(Default)]
struct Done {
    compactions: AtomicU64,
    defrags: AtomicU64,
}

pub fn make(random: &mut Random, _: &Layout) -> Box<dyn Fault> {
    let period = random.log_scaled(Duration::from_millis(200), Duration::from_millis(1500));
    Box::new(Maintenance { period, left: random.pick(&[1, 20, 200]), ticker: None, done: Arc::default() })
}

impl Fault for Maintenance {
    fn describe(&self) -> String {
        format!("defragment a member, or compact all but {} revisions, every {:?}", self.left, self.period)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let members = cluster.active();
        let (cluster, done, left) = (cluster.clone(), self.done.clone(), self.left);
        self.ticker = Some(Ticker::new(self.period, move |turn| {
            // What is refused or comes too late is done next time.
            if turn % 2 == 0 && cluster.compacts {
                if compact(&cluster, left).is_ok() {
                    done.compactions.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            let active = cluster.active();
            let slot = active[(turn / 2) as usize % active.len()];
            if cluster.ctl.ok(&cluster.slots[slot].client_url(), 3, &["defrag"]).is_ok() {
                done.defrags.fetch_add(1, Ordering::Relaxed);
            }
        }));
        Ok(Outcome::Hit(members))
    }

    fn heal(&mut self, _: &Arc<Cluster>) -> anyhow::Result<()> {
        self.ticker = None;
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let (compactions, defrags) =
            (self.done.compactions.load(Ordering::Relaxed), self.done.defrags.load(Ordering::Relaxed));
        ensure!(defrags > 0 && (compactions > 0 || !cluster.compacts), "{compactions} compactions, {defrags} defrags");
        Ok(format!("{compactions} compactions, {defrags} defrags"))
    }
}

/// Compacts all but the last `left` revisions.
pub fn compact(cluster: &Cluster, left: u64) -> anyhow::Result<u64> {
    let revision = cluster.ask(None, |url| Ok(cluster.ctl.status(url, 2)?.revision))?.saturating_sub(left);
    ensure!(revision > 1, "nothing to compact");
    cluster.ask(None, |url| cluster.ctl.ok(url, 3, &["compaction", &revision.to_string()]))?;
    Ok(revision)
}
