//! A change of the voters has two steps, and its leader is lost after the first: the next leader takes the second.

use anyhow::Context as _;
use anyhow::ensure;

use super::Cluster;
use super::PATIENCE;
use super::is_caught_up;
use super::joining;
use super::start_learner;
use super::until;
use crate::http::Http;
use crate::packages;
use crate::scenario::Lab;
use crate::scenarios::metrics::Scrape;
use crate::scenarios::stalled_disk::hold_syncs;

/// 1 while two sets of voters decide together.
const JOINT: &str = "garboard_joint_consensus";

pub fn change_halfway(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("strace", "strace")?;
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let mut checks = cluster.check_writes("three")?;
    let mut learner = joining(lab, "d")?;
    cluster.ctl(0).ok(&["member", "add", "d", "--learner", &format!("--peer-urls={}", learner.peer_url)])?;
    learner.initial_cluster = Some(format!("{},{}", cluster.entries(), learner.entry()));
    cluster.servers.push(start_learner(&learner)?);
    until("d as a learner", PATIENCE, || Ok(is_caught_up(&cluster, "d").unwrap_or(false).then_some(())))?;
    let (old, promoted) = (cluster.leader()?, format!("{:x}", cluster.id(3)?));

    // The others take the first step, and cannot say so: the leader waits for a quorum of them before the second.
    let http = Http::new();
    let joint = |cluster: &Cluster<'_>, at: usize| Scrape::of(&http, cluster.servers[at].url())?.value(JOINT);
    let mut holds = Vec::new();
    for other in (0..3).filter(|at| *at != old) {
        let trace = lab.path(&format!("strace.{other}.out"));
        holds.push(hold_syncs(cluster.servers[other].process.id(), &trace)?);
    }
    let mut asked = cluster.ctl(old).spawn(lab, "promote.log", &["member", "promote", &promoted])?;
    for other in (0..3).filter(|at| *at != old) {
        until("first step", PATIENCE, || Ok((joint(&cluster, other)? == 1.0).then_some(())))
            .with_context(|| format!("at {}; {}", cluster.name(other), asked.output()))?;
    }
    cluster.kill(old)?;
    ensure!(!asked.wait(PATIENCE)?.success(), "the promotion was acknowledged: {}", asked.output());
    for hold in holds {
        hold.terminate()?;
    }
    checks += 1;

    cluster.leader()?;
    for at in 0..3 {
        until("end of the change", PATIENCE, || Ok((joint(&cluster, at)? == 0.0).then_some(())))
            .with_context(|| format!("at {}: two sets of voters still decide", cluster.name(at)))?;
    }
    let listed = cluster.member_list()?;
    let d = listed.iter().find(|member| member["name"] == "d").context("d is not listed")?;
    ensure!(listed.len() == 4 && d["isLearner"] != true, "{listed:?}");
    checks += 2 + cluster.check_writes("by three of four")?;
    Ok(checks + cluster.check_hashes()?)
}
