//! SIGSTOP: the member stands still with all of its connections, and goes on as if nothing had been.

use std::sync::Arc;

use anyhow::Context as _;
use anyhow::ensure;
use rustix::process::Signal;

use super::any_member;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

struct Pause {
    target: Target,
    hit: Option<usize>,
}

pub fn one(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Pause { target: any_member(random, layout), hit: None })
}

pub fn leader(_: &mut Random, _: &Layout) -> Box<dyn Fault> {
    Box::new(Pause { target: Target::Leader, hit: None })
}

impl Fault for Pause {
    fn describe(&self) -> String {
        format!("SIGSTOP {}", self.target)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        self.hit = cluster.find(self.target).filter(|slot| cluster.slots[*slot].signal(Signal::STOP));
        Ok(match self.hit {
            Some(slot) => Outcome::Hit(vec![slot]),
            None => Outcome::Missed("no process to stop".to_owned()),
        })
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        if let Some(slot) = self.hit {
            cluster.slots[slot].signal(Signal::CONT);
        }
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let slot = self.hit.context("nothing is stopped")?;
        let pid = cluster.slots[slot].pid().context("the process is gone")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let state = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        ensure!(state == "T", "process {pid} is in state {state}");
        Ok(format!("process {pid} of member {slot} is in state T"))
    }
}
