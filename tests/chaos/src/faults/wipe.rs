//! A member loses its disk and comes back as what it was: it must neither vote nor serve, and is replaced.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cluster::Change;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::READY;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

/// How long a member may take to learn that it is refused.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);
const REPLACE_LIMIT: Duration = Duration::from_secs(12);

struct Wipe {
    slot: usize,
    change: Option<Change>,
}

pub fn make(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Wipe { slot: random.below(layout.members), change: None })
}

impl Fault for Wipe {
    fn describe(&self) -> String {
        format!("SIGKILL member {}, remove its data, start it, replace it", self.slot)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let slot = &cluster.slots[self.slot];
        if !slot.kill() {
            return Ok(Outcome::Missed("no process to kill".to_owned()));
        }
        self.change = Some(Change::replace(self.slot, true, false));
        slot.wipe()?;
        slot.set_may_end(true);
        cluster.start(self.slot)?;
        Ok(Outcome::Hit(vec![self.slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.change.as_mut().map_or(Ok(()), |change| change.advance(cluster, REPLACE_LIMIT))
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let slot = &cluster.slots[self.slot];
        cluster.wait("the end of a member without its data", REFUSED_LIMIT, || {
            cluster.notice_ends();
            Ok(slot.pid().is_none())
        })?;
        let log = slot.logged();
        ensure!(!log.contains(READY), "member {} has served without its data", self.slot);
        let last = log.lines().last().context("it has ended without a word")?;
        Ok(format!("it has ended: {}", last.chars().take(300).collect::<String>()))
    }
}
