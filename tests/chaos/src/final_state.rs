//! What must be so once all is healed and quiet: one membership, one leader, one history, no alarm.

use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;

use crate::cluster::Cluster;

/// Members that were away have this long to catch up.
const LIMIT: Duration = Duration::from_secs(20);

/// All that does not hold.
pub fn check(cluster: &Cluster) -> Vec<String> {
    let checks: [(&str, fn(&Cluster) -> anyhow::Result<()>); 4] =
        [("membership", membership), ("leader", leader), ("hash", hash), ("alarms", alarms)];
    let mut failed = Vec::new();
    for (what, check) in checks {
        if let Err(error) = cluster.wait(what, LIMIT, || check(cluster).map(|()| true)) {
            failed.push(format!("{error:#}"));
        }
    }
    failed
}

/// Every member lists the members that run, and no others.
fn membership(cluster: &Cluster) -> anyhow::Result<()> {
    let mut expected: Vec<(String, String)> =
        cluster.active().iter().map(|s| (cluster.slots[*s].name(), cluster.slots[*s].peer_url.clone())).collect();
    expected.sort();
    let mut ids = None;
    for slot in cluster.active() {
        let listed = cluster.ctl.members(&cluster.slots[slot].client_url(), 3)?;
        ensure!(listed.iter().all(|member| !member.learner), "a learner is left: {listed:?}");
        let mut seen: Vec<_> = listed.iter().map(|m| (m.name.clone(), m.peer_url.clone())).collect();
        seen.sort();
        ensure!(seen == expected, "member {slot} lists {seen:?}, {expected:?} run");
        let mut own: Vec<u64> = listed.iter().map(|member| member.id).collect();
        own.sort_unstable();
        let first = ids.get_or_insert_with(|| own.clone());
        ensure!(*first == own, "members list different ids: {first:?}, {own:?}");
    }
    Ok(())
}

/// All agree on one leader, which is one of them.
fn leader(cluster: &Cluster) -> anyhow::Result<()> {
    let mut agreed = None;
    let mut members = Vec::new();
    for (slot, status) in cluster.statuses(&cluster.active(), 3) {
        let status = status?;
        ensure!(status.leader != 0, "member {slot} has no leader");
        let seen = (status.cluster_id, status.leader);
        let first = *agreed.get_or_insert(seen);
        ensure!(first == seen, "members disagree on cluster and leader: {first:x?}, {seen:x?}");
        members.push(status.member_id);
    }
    ensure!(agreed.is_some_and(|(_, leader)| members.contains(&leader)), "the leader is none of {members:x?}");
    Ok(())
}

/// At one revision that all have, all have the same hash.
fn hash(cluster: &Cluster) -> anyhow::Result<()> {
    let mut revision = u64::MAX;
    for (_, status) in cluster.statuses(&cluster.active(), 3) {
        revision = revision.min(status?.revision);
    }
    let mut first = None;
    for slot in cluster.active() {
        let (hash, compacted) = cluster.ctl.hash(&cluster.slots[slot].client_url(), 5, revision)?;
        let (_, seen) = *first.get_or_insert((slot, (hash, compacted)));
        // Compaction reaches members one after the other, and is part of what is hashed.
        ensure!(seen.1 == compacted, "members have compacted at {} and {compacted}", seen.1);
        if seen.0 != hash {
            bail!("at revision {revision} member {slot} has hash {hash}, others {}", seen.0);
        }
    }
    Ok(())
}

fn alarms(cluster: &Cluster) -> anyhow::Result<()> {
    let raised = cluster.ask(None, |url| cluster.ctl.alarms(url, 3))?;
    ensure!(raised.is_empty(), "alarms: {raised:?}");
    Ok(())
}
