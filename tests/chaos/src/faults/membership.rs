//! Members go and come while the rest of the world breaks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cluster::Change;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

/// How long one turn tries: partitions meanwhile can make a change wait.
const TURN: Duration = Duration::from_secs(12);

struct Membership {
    text: String,
    slot: usize,
    change: Change,
    /// What takes the change back, for one that is only for a while.
    back: Option<Change>,
}

pub fn cycle(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let (slot, learner) = (random.below(layout.members), random.once_in(2));
    let text = format!("remove member {slot}, add a new {} in its place", role(learner));
    Box::new(Membership { text, slot, change: Change::replace(slot, false, learner), back: None })
}

pub fn replace(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let (slot, learner) = (random.below(layout.members), random.once_in(2));
    let text = format!("SIGKILL and remove member {slot}, add a new {} in its place", role(learner));
    Box::new(Membership { text, slot, change: Change::replace(slot, true, learner), back: None })
}

pub fn grow(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let (slot, learner) = (layout.spare_slot(), random.once_in(2));
    let text = format!("add a {} for a while", role(learner));
    Box::new(Membership { text, slot, change: Change::add(slot, learner), back: Some(Change::remove(slot)) })
}

fn role(learner: bool) -> &'static str {
    if learner { "learner, and promote it," } else { "voter" }
}

impl Fault for Membership {
    fn describe(&self) -> String {
        self.text.clone()
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        if let Err(error) = self.change.advance(cluster, TURN) {
            // Healing goes on with it.
            cluster.timeline.note("unfinished", &self.text, &[self.slot], &format!("{error:#}"));
        }
        Ok(Outcome::Hit(vec![self.slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.change.advance(cluster, TURN)?;
        self.back.as_mut().map_or(Ok(()), |back| back.advance(cluster, TURN))
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        ensure!(self.change.is_done(), "only {}", self.change.progress());
        let name = cluster.slots[self.slot].name();
        let listed = cluster.ask(None, |url| cluster.ctl.members(url, 3))?;
        let member =
            listed.iter().find(|member| member.name == name).with_context(|| format!("{name} is not listed"))?;
        let urls = listed.iter().filter(|other| other.peer_url == member.peer_url).count();
        ensure!(urls == 1 && !member.learner, "{listed:?}");
        Ok(format!("{}; listed as {:x}", self.change.progress(), member.id))
    }
}
