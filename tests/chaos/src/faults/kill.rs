//! SIGKILL, and a start after a while.

use std::sync::Arc;

use anyhow::ensure;

use super::any_member;
use super::any_or_leader;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

struct Kill {
    /// All without one.
    target: Option<Target>,
    hit: Vec<usize>,
}

pub fn one(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Kill { target: Some(any_member(random, layout)), hit: Vec::new() })
}

pub fn leader(_: &mut Random, _: &Layout) -> Box<dyn Fault> {
    Box::new(Kill { target: Some(Target::Leader), hit: Vec::new() })
}

pub fn one_or_leader(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Kill { target: Some(any_or_leader(random, layout)), hit: Vec::new() })
}

pub fn all(_: &mut Random, _: &Layout) -> Box<dyn Fault> {
    Box::new(Kill { target: None, hit: Vec::new() })
}

impl Fault for Kill {
    fn describe(&self) -> String {
        match self.target {
            Some(target) => format!("SIGKILL {target}"),
            None => "SIGKILL all members".to_owned(),
        }
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let wanted = cluster.find_or_all(self.target).unwrap_or_default();
        self.hit = wanted.into_iter().filter(|slot| cluster.slots[*slot].kill()).collect();
        Ok(match self.hit.as_slice() {
            [] => Outcome::Missed("no process to kill".to_owned()),
            hit => Outcome::Hit(hit.to_vec()),
        })
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.hit.iter().try_for_each(|slot| cluster.ensure_started(*slot))
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        for (slot, status) in cluster.statuses(&self.hit, 1) {
            ensure!(cluster.slots[slot].pid().is_none() && status.is_err(), "member {slot} still answers");
        }
        Ok(format!("members {:?} answer no more", self.hit))
    }
}
