//! Packets between members are lost by rules of nft: a member alone, a minority, or one direction only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use super::any_member;
use super::any_or_leader;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use crate::rules::Cuts;
use garboard_e2e::random::Random;

/// How long a member without others may believe that it has a leader: some election timeouts.
const LEADERLESS_LIMIT: Duration = Duration::from_secs(6);

struct Partition {
    shape: Shape,
    /// Clients lose those who are cut off, too.
    clients: bool,
    hit: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Isolate(Target),
    /// This one and as many after it as still are a minority.
    Minority(Target),
    /// What it sends is lost.
    Mute(Target),
    /// What is sent to it is lost.
    Deaf(Target),
}

pub fn isolate(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = any_member(random, layout);
    Box::new(Partition { shape: Shape::Isolate(target), clients: random.once_in(4), hit: Vec::new() })
}

pub fn isolate_leader(random: &mut Random, _: &Layout) -> Box<dyn Fault> {
    // Mostly clients still reach it: it must not answer them with what is no longer true.
    Box::new(Partition { shape: Shape::Isolate(Target::Leader), clients: random.once_in(4), hit: Vec::new() })
}

pub fn split(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = any_or_leader(random, layout);
    Box::new(Partition { shape: Shape::Minority(target), clients: random.once_in(4), hit: Vec::new() })
}

pub fn one_way(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let target = any_or_leader(random, layout);
    let shape = if random.once_in(2) { Shape::Mute(target) } else { Shape::Deaf(target) };
    Box::new(Partition { shape, clients: false, hit: Vec::new() })
}

// === impl Shape ===

impl Shape {
    fn target(self) -> Target {
        match self {
            Self::Isolate(target) | Self::Minority(target) | Self::Mute(target) | Self::Deaf(target) => target,
        }
    }

    /// Who is cut off from the rest of `active`, and how.
    fn cuts(self, slot: usize, active: &[usize]) -> (Vec<usize>, Cuts) {
        let some = match self {
            Self::Minority(_) => {
                let start = active.iter().position(|other| *other == slot).unwrap_or(0);
                active.iter().cycle().skip(start).take((active.len() - 1) / 2).copied().collect()
            }
            _ => vec![slot],
        };
        let others: Vec<usize> = active.iter().copied().filter(|other| !some.contains(other)).collect();
        let cuts = match self {
            Self::Isolate(_) | Self::Minority(_) => Cuts::between(&some, &others),
            Self::Mute(_) => Cuts::towards(&some, &others),
            Self::Deaf(_) => Cuts::towards(&others, &some),
        };
        (some, cuts)
    }
}

impl Fault for Partition {
    fn describe(&self) -> String {
        let text = match self.shape {
            Shape::Isolate(target) => format!("cut {target} off"),
            Shape::Minority(target) => format!("cut a minority with {target} off"),
            Shape::Mute(target) => format!("lose what {target} sends"),
            Shape::Deaf(target) => format!("lose what is sent to {target}"),
        };
        text + if self.clients { ", from clients too" } else { "" }
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(slot) = cluster.find(self.shape.target()) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        let (some, mut cuts) = self.shape.cuts(slot, &cluster.active());
        if self.clients {
            cuts.clients.extend(&some);
        }
        cluster.cut(cuts)?;
        self.hit = some;
        Ok(Outcome::Hit(self.hit.clone()))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        cluster.cut(Cuts::default())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let slot = *self.hit.first().context("nobody is cut off")?;
        let others: Vec<usize> = cluster.active().into_iter().filter(|other| !self.hit.contains(other)).collect();
        if self.clients {
            ensure!(cluster.ctl.status(&cluster.slots[slot].client_url(), 2).is_err(), "clients reach member {slot}");
        } else if matches!(self.shape, Shape::Isolate(_) | Shape::Minority(_)) {
            cluster.wait(&format!("member {slot} without a leader"), LEADERLESS_LIMIT, || {
                Ok(cluster.ctl.status(&cluster.slots[slot].client_url(), 2)?.leader == 0)
            })?;
        }
        let whole = matches!(self.shape, Shape::Isolate(_) | Shape::Minority(_));
        if whole {
            // Those who are the majority elect one of their own and serve.
            let url = cluster.slots[others[0]].client_url();
            cluster.wait("a write by the majority", LEADERLESS_LIMIT, || {
                Ok(cluster.ctl.run(&url, 2, &["put", "chaos/majority", "writes"])?.status.success())
            })?;
        }
        let dropped = cluster.dropped_packets()?;
        ensure!(dropped > 0, "no packet is lost");
        let text = if whole { "the majority writes, they have no leader" } else { "in one direction" };
        Ok(format!("{dropped} packets of {:?} are lost; {text}", self.hit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_never_is_half() {
        for (active, size) in [(vec![0, 1, 2], 1), (vec![0, 1, 2, 3], 1), (vec![0, 1, 2, 3, 4], 2), (vec![1, 2], 0)] {
            let (some, cuts) = Shape::Minority(Target::Slot(1)).cuts(1, &active);
            assert_eq!(some.len(), size, "{active:?}");
            assert_eq!(cuts.links.len(), 2 * size * (active.len() - size));
        }
    }

    #[test]
    fn the_minority_has_the_target() {
        let (some, _) = Shape::Minority(Target::Leader).cuts(4, &[0, 1, 2, 3, 4]);
        assert_eq!(some, [4, 0]);
    }

    #[test]
    fn one_way_is_one_way() {
        let (_, mute) = Shape::Mute(Target::Slot(0)).cuts(0, &[0, 1, 2]);
        let (_, deaf) = Shape::Deaf(Target::Slot(0)).cuts(0, &[0, 1, 2]);
        assert_eq!(mute.links, [(0, 1), (0, 2)].into());
        assert_eq!(deaf.links, [(1, 0), (2, 0)].into());
    }
}
