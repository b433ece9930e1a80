//! A member stays away while the others write so much and forget so much that only a snapshot brings it back.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use super::any_member;
use super::maintenance::compact;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

/// Entries beyond those that the others keep, and beyond two snapshots of their own: they may forget in batches.
const MARGIN: u64 = 300;
const INSTALL_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(18);

struct Lag {
    target: Target,
    hit: Option<usize>,
    behind: u64,
}

pub fn make(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    Box::new(Lag { target: any_member(random, layout), hit: None, behind: 0 })
}

// === impl Lag ===

impl Lag {
    /// The newest entry that any member knows of.
    fn newest(cluster: &Cluster) -> u64 {
        let statuses = cluster.statuses(&cluster.active(), 1);
        statuses.iter().filter_map(|(_, status)| status.as_ref().ok()).map(|s| s.raft_index).max().unwrap_or(0)
    }

    /// Writes beside the clients until `wanted` is reached; what the log has grown to.
    fn write(cluster: &Cluster, wanted: u64) -> anyhow::Result<u64> {
        let start = Instant::now();
        let running = cluster.active().into_iter().filter(|slot| cluster.slots[*slot].pid().is_some());
        let urls: Vec<String> = running.map(|slot| cluster.slots[slot].client_url()).collect();
        // It writes for a minute, and only below a prefix with nothing in it.
        let prefix = format!("--prefix=chaos/lag/{wanted}/");
        let log = cluster.dir.join("lag.log");
        let _load = cluster.ctl.spawn(&urls.join(","), 5, &["check", "perf", "--load=s", &prefix], &log)?;
        loop {
            let newest = Self::newest(cluster);
            if newest >= wanted || start.elapsed() > WRITE_LIMIT {
                return Ok(newest);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Fault for Lag {
    fn describe(&self) -> String {
        format!("SIGKILL {} until it needs a snapshot", self.target)
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let slot = cluster.find(self.target).filter(|slot| cluster.slots[*slot].kill());
        let Some(slot) = slot else { return Ok(Outcome::Missed("no process to kill".to_owned())) };
        self.hit = Some(slot);
        let from = Self::newest(cluster);
        let needed = 2 * cluster.layout.snapshot_count + cluster.layout.catchup_entries + MARGIN;
        self.behind = Self::write(cluster, from + needed)?.saturating_sub(from);
        if cluster.compacts
            && let Err(error) = compact(cluster, 1)
        {
            cluster.timeline.note("unfinished", "lag", &[slot], &format!("compaction: {error:#}"));
        }
        // A slow cluster does not get as far; what counts is that the others no longer have what the member lacks.
        if self.behind <= cluster.layout.catchup_entries {
            return Ok(Outcome::Missed(format!("only {} entries of {needed} written meanwhile", self.behind)));
        }
        Ok(Outcome::Hit(vec![slot]))
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        self.hit.map_or(Ok(()), |slot| cluster.ensure_started(slot))
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let kept = cluster.layout.catchup_entries;
        ensure!(self.behind > kept, "only {} entries behind, {kept} are kept", self.behind);
        Ok(format!("{} entries behind, {kept} are kept", self.behind))
    }

    fn aftermath(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let slot = self.hit.context("nobody was away")?;
        let mut count = 0;
        cluster.wait("the log of the member tells of a snapshot received", INSTALL_LIMIT, || {
            count = told(&cluster.slots[slot].logged());
            Ok(count > 0)
        })?;
        Ok(format!("{count} log lines tell of the snapshot"))
    }
}

/// Lines of a log that tell of a snapshot from another member: etcd receives and applies one, in ours it takes the state's place.
fn told(log: &str) -> usize {
    let of_others = |line: &&str| {
        let line = line.to_lowercase();
        line.contains("snapshot") && ["received", "applied", "has taken"].iter().any(|word| line.contains(word))
    };
    log.lines().filter(of_others).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_is_received_is_told_from_others() {
        assert_eq!(told(r#"{"msg":"applied snapshot"}"#), 1);
        assert_eq!(told(r#"{"msg":"receiving a snapshot"}\n{"msg":"a snapshot has taken the state's place"}"#), 1);
        assert_eq!(told(r#"{"msg":"saved snapshot to disk"}"#), 0);
        assert_eq!(told(r#"{"args":["--snapshot-count=50"]}"#), 0);
    }
}
