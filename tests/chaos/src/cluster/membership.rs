//! Changes of membership as an operator makes them: one step after the other, each tried again until it is seen done.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use super::Cluster;
use super::READY;
use crate::ctl::Listed;
use crate::slot::Slot;

/// A member that goes, a member that comes, or both in this order in one slot.
#[derive(Debug)]
pub struct Change {
    slot: usize,
    learner: bool,
    steps: Vec<Step>,
    done: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// SIGKILL, so that the cluster removes a member that is dead.
    Kill,
    Remove,
    /// The removed member ends by itself; after a while it is ended.
    End,
    Add,
    Start,
    Promote,
    /// It has all that the others have, and counts: from now on another may be lost for good.
    Settle,
}

/// What members log at the end of a change of the voters, with all of them.
const VOTES: &str = "the voters have changed";
/// How long a removed member may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(8);

// === impl Change ===

impl Change {
    /// The member is replaced by a new one with a new name and no data.
    pub fn replace(slot: usize, killed: bool, learner: bool) -> Self {
        let mut steps = if killed { vec![Step::Kill, Step::Remove] } else { vec![Step::Remove, Step::End] };
        steps.extend(Self::joining(learner));
        Self::of(slot, learner, steps)
    }

    pub fn add(slot: usize, learner: bool) -> Self {
        Self::of(slot, learner, Self::joining(learner))
    }

    pub fn remove(slot: usize) -> Self {
        Self::of(slot, false, vec![Step::Remove, Step::End])
    }

    fn joining(learner: bool) -> Vec<Step> {
        if learner {
            vec![Step::Add, Step::Start, Step::Promote, Step::Settle]
        } else {
            vec![Step::Add, Step::Start, Step::Settle]
        }
    }

    fn of(slot: usize, learner: bool, mut steps: Vec<Step>) -> Self {
        steps.reverse();
        Self { slot, learner, steps, done: Vec::new() }
    }

    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// What has been done so far.
    pub fn progress(&self) -> String {
        self.done.join(", ")
    }

    /// Goes on until all is done or the time is over; then the error says what could not be done.
    pub fn advance(&mut self, cluster: &Cluster, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(step) = self.steps.last().copied() {
            match self.step(cluster, step) {
                Ok(done) => {
                    self.steps.pop();
                    self.done.push(done);
                }
                Err(error) if start.elapsed() > limit => {
                    return Err(error.context(format!("{step:?} of member {}", self.slot)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
        Ok(())
    }

    fn step(&self, cluster: &Cluster, step: Step) -> anyhow::Result<String> {
        let slot = &cluster.slots[self.slot];
        match step {
            Step::Kill => {
                slot.kill();
                Ok("killed".to_owned())
            }
            Step::Remove => self.remove_member(cluster),
            Step::End => self.end(cluster),
            Step::Add => self.add_member(cluster),
            Step::Start => {
                // It may end while it cannot reach the cluster that it joins, and is started again.
                slot.set_may_end(true);
                if cluster.control && slot.has_ended() {
                    // etcd asks any peer who it is: one that lags takes it for the member that had the address before.
                    cluster.timeline.note("again", "", &[self.slot], "without the data that it began with");
                    slot.wipe()?;
                }
                cluster.ensure_started(self.slot)?;
                ensure!(slot.logged().contains(READY), "{} does not serve yet", slot.name());
                slot.set_may_end(false);
                Ok(format!("started {}", slot.name()))
            }
            Step::Promote => self.promote(cluster),
            Step::Settle => self.settle(cluster),
        }
    }

    /// The entry of this slot's peer URL in the member list, if there is one.
    fn listed(&self, cluster: &Cluster) -> anyhow::Result<(Vec<Listed>, Option<Listed>)> {
        let members = cluster.ask(Some(self.slot), |url| cluster.ctl.members(url, 3))?;
        let own = members.iter().find(|member| member.peer_url == cluster.slots[self.slot].peer_url).cloned();
        Ok((members, own))
    }

    fn remove_member(&self, cluster: &Cluster) -> anyhow::Result<String> {
        // An earlier try may have worked though it was not answered.
        if let (_, Some(member)) = self.listed(cluster)? {
            // From now on its end is no surprise.
            cluster.slots[self.slot].set_may_end(true);
            let id = format!("{:x}", member.id);
            cluster.ask(Some(self.slot), |url| cluster.ctl.ok(url, 3, &["member", "remove", &id]))?;
        }
        cluster.slots[self.slot].leaves();
        Ok(format!("removed {}", cluster.slots[self.slot].name()))
    }

    fn end(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let (slot, start) = (&cluster.slots[self.slot], Instant::now());
        while slot.pid().is_some() {
            if start.elapsed() > END_LIMIT {
                slot.kill();
                return Ok("killed: it did not end when it was removed".to_owned());
            }
            cluster.notice_ends();
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok("ended when it was removed".to_owned())
    }

    fn add_member(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let slot = &cluster.slots[self.slot];
        let (mut members, own) = self.listed(cluster)?;
        if own.is_none() {
            // The name is for the operator alone: the cluster learns it when the member starts.
            let url = format!("--peer-urls={}", slot.peer_url);
            let mut args = vec!["member", "add", "joining", &url];
            if self.learner {
                args.push("--learner");
            }
            cluster.ask(Some(self.slot), |url| cluster.ctl.ok(url, 5, &args))?;
            members = self.listed(cluster)?.0;
        }
        if !members.iter().any(|member| member.peer_url == slot.peer_url) {
            bail!("the added member is not listed");
        }
        slot.begins_anew().context("begin anew")?;
        let entries: Vec<String> = members
            .iter()
            .map(|member| {
                // Named by its slot: a member that has just started may not have told its name yet.
                let slot = cluster.slots.iter().find(|slot| slot.peer_url == member.peer_url);
                format!("{}={}", slot.map_or(member.name.clone(), Slot::name), member.peer_url)
            })
            .collect();
        slot.joins(entries.join(","), "existing");
        Ok(format!("added {}", slot.name()))
    }

    fn settle(&self, cluster: &Cluster) -> anyhow::Result<String> {
        cluster.ensure_started(self.slot)?;
        let url = cluster.slots[self.slot].client_url();
        let newest = cluster.ask(Some(self.slot), |url| Ok(cluster.ctl.status(url, 3)?.raft_index))?;
        // Acknowledged by a quorum, through the member itself.
        cluster.ctl.ok(&url, 3, &["put", "chaos/joined", &cluster.slots[self.slot].name()])?;
        let status = cluster.ctl.status(&url, 3)?;
        ensure!(status.raft_index >= newest, "the new member lacks entries");
        if !cluster.control {
            let id = format!("{:x}", status.member_id);
            let said = |line: &str| line.contains(VOTES) && line.contains(&id);
            ensure!(
                cluster.slots.iter().any(|slot| slot.has_ever_logged(said)),
                "the new member is not yet one of the voters alone"
            );
        }
        Ok("settled".to_owned())
    }

    fn promote(&self, cluster: &Cluster) -> anyhow::Result<String> {
        cluster.ensure_started(self.slot)?;
        let member = self.listed(cluster)?.1.context("the learner is not listed")?;
        if member.learner {
            let id = format!("{:x}", member.id);
            cluster.ask(Some(self.slot), |url| cluster.ctl.ok(url, 3, &["member", "promote", &id]))?;
        }
        Ok(format!("promoted {}", cluster.slots[self.slot].name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_goes_before_another_comes() {
        let order = |change: Change| change.steps.into_iter().rev().collect::<Vec<_>>();
        assert_eq!(
            order(Change::replace(0, true, false)),
            [Step::Kill, Step::Remove, Step::Add, Step::Start, Step::Settle]
        );
        assert_eq!(
            order(Change::replace(0, false, true)),
            [Step::Remove, Step::End, Step::Add, Step::Start, Step::Promote, Step::Settle]
        );
        assert_eq!(order(Change::remove(3)), [Step::Remove, Step::End]);
    }
}
