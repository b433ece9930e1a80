//! MoveLeader to another member, as an operator does before taking a machine down.

use std::sync::Arc;

use anyhow::ensure;

use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

struct MoveLeader {
    /// Which of the others, counted from the leader.
    distance: usize,
    moved: Option<(usize, usize)>,
}

pub fn make(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(MoveLeader { distance: 1 + random.below(layout.members - 1), moved: None })
}

impl Fault for MoveLeader {
    fn describe(&self) -> String {
        format!("move the leadership by {}", self.distance)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let active = cluster.active();
        let statuses = cluster.statuses(&active, 1);
        let leader = statuses.iter().position(|(_, status)| {
            status.as_ref().is_ok_and(|status| status.leader != 0 && status.leader == status.member_id)
        });
        let Some(leader) = leader else { return Ok(Outcome::Missed("no leader".to_owned())) };
        let (target, status) = &statuses[(leader + self.distance) % statuses.len()];
        let Ok(status) = status else { return Ok(Outcome::Missed(format!("member {target} does not answer"))) };
        let from = statuses[leader].0;
        let id = format!("{:x}", status.member_id);
        let output = cluster.ctl.run(&cluster.slots[from].client_url(), 5, &["move-leader", &id])?;
        if !output.status.success() {
            // Refused or too late is no fault: the other faults see to that.
            return Ok(Outcome::Missed(output.stderr.trim().to_owned()));
        }
        self.moved = Some((from, *target));
        Ok(Outcome::Hit(vec![from, *target]))
    }

    fn heal(&mut self, _: &Arc<Cluster>) -> anyhow::Result<()> {
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let leader = cluster.leader(std::time::Duration::from_secs(4));
        ensure!(
            leader.is_some() && leader == self.moved.map(|moved| moved.1),
            "{leader:?} leads, not {:?}",
            self.moved
        );
        Ok(format!("the leadership moved: {:?}", self.moved))
    }
}
