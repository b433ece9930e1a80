//! SIGTERM, an orderly end in bounded time, and a start after a while.

use std::sync::Arc;

use anyhow::ensure;

use super::any_member;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

struct Restart {
    target: Target,
    hit: Option<usize>,
}

pub fn one(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Restart { target: any_member(random, layout), hit: None })
}

pub fn leader(_: &mut Random, _: &Layout) -> Box<dyn Fault> {
    Box::new(Restart { target: Target::Leader, hit: None })
}

impl Fault for Restart {
    fn describe(&self) -> String {
        format!("SIGTERM {}", self.target)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(slot) = cluster.find(self.target) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        match cluster.slots[slot].terminate() {
            Ok(true) => {}
            Ok(false) => return Ok(Outcome::Missed("no process to end".to_owned())),
            // One that does not end when told to is at fault itself.
            Err(error) => {
                cluster.violation(format!("{error:#}"));
                cluster.slots[slot].kill();
            }
        }
        self.hit = Some(slot);
        Ok(Outcome::Hit(vec![slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.hit.map_or(Ok(()), |slot| cluster.ensure_started(slot))
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        for (slot, status) in cluster.statuses(self.hit.as_slice(), 1) {
            ensure!(status.is_err(), "member {slot} still answers");
        }
        Ok(format!("member {:?} has ended and does not answer", self.hit))
    }
}
