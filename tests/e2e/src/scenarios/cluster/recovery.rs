//! After the quorum is lost: one disk that is left becomes the cluster, or a snapshot does; whoever comes back later is refused.

use anyhow::Context as _;
use anyhow::ensure;

use super::Cluster;
use super::EXIT_REMOVED;
use super::PATIENCE;
use super::joining;
use super::restore;
use super::until;
use crate::scenario::Lab;
use crate::scenarios::inspect::inspected;
use crate::server::Member;
use crate::server::Server;

const KEYS: usize = 40;

/// Two of three are lost for good; the third goes on alone, grows again, and the two are refused when they come back.
pub fn quorum_lost(lab: &Lab) -> anyhow::Result<u32> {
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &["--backend-batch-interval=10m"])?;
    let mut checks = cluster.check_writes("three")?;
    let put = |cluster: &Cluster<'_>, keys: std::ops::Range<usize>| -> anyhow::Result<()> {
        for i in keys {
            cluster.ctl(0).ok(&["put", &format!("key{i:03}"), &format!("value{i}")])?;
        }
        Ok(())
    };
    put(&cluster, 0..KEYS / 2)?;
    // The leader goes first, so that who is left was not told by it what is committed.
    let leader = cluster.leader()?;
    let behind = cluster.kill(leader)?;
    cluster.leader()?;
    put(&cluster, KEYS / 2..KEYS)?;
    let revision = cluster.ctl(0).json(&["endpoint", "status"])?[0]["Status"]["header"]["revision"].clone();
    let leader = cluster.leader()?;
    let other = cluster.kill(leader)?;
    let mut left = cluster.kill(0)?;

    // What a person would look at to choose.
    let (on_left, on_behind) = (inspected(&left)?, inspected(&behind)?);
    ensure!(on_left["last"]["revision"] == revision, "{revision} was acknowledged: {on_left:#}");
    ensure!(on_behind["last"]["revision"].as_u64() < revision.as_u64(), "{on_behind:#}");
    ensure!(on_left["membership"]["members"].as_array().is_some_and(|members| members.len() == 3), "{on_left:#}");
    checks += 3;

    // etcd's way: the flag for one start, which may be repeated.
    let without_flag = left.extra.clone();
    left.extra.push("--force-new-cluster".to_owned());
    for _ in 0..2 {
        cluster.add(&left)?;
        let listed = cluster.member_list()?;
        ensure!(listed.len() == 1 && listed[0]["name"] == left.name.as_str(), "{listed:?}");
        let count = cluster.ctl(0).ok(&["get", "key0", "--prefix", "--keys-only"])?;
        let keys = count.lines().filter(|line| !line.is_empty()).count();
        ensure!(keys == KEYS, "{keys} of {KEYS} keys that were acknowledged");
        cluster.kill(0)?;
        checks += 2;
    }
    left.extra = without_flag;
    cluster.add(&left)?;
    let header = cluster.ctl(0).json(&["endpoint", "status"])?[0]["Status"]["header"].clone();
    let id = |value: &serde_json::Value| value.as_u64().map(|id| format!("{id:x}"));
    ensure!(
        id(&header["cluster_id"]).as_deref() == on_left["identity"]["clusterId"].as_str(),
        "another cluster: {header}"
    );
    ensure!(
        id(&header["member_id"]).as_deref() == on_left["identity"]["memberId"].as_str(),
        "another member: {header}"
    );
    checks += 2 + cluster.check_writes("alone")?;

    let mut new = joining(lab, "d")?;
    cluster.ctl(0).ok(&["member", "add", "d", &format!("--peer-urls={}", new.peer_url)])?;
    new.initial_cluster = Some(format!("{},{}", left.entry(), new.entry()));
    cluster.add(&new)?;
    checks += cluster.check_writes("grown again")? + cluster.check_hashes()?;

    // Both at once: they would be a majority of what they remember.
    let came_back = [behind.spawn()?, other.spawn()?];
    for mut process in came_back {
        let status = process.wait(PATIENCE).with_context(|| format!("an old member goes on:\n{}", process.output()))?;
        ensure!(status.code() == Some(EXIT_REMOVED), "an old member ended with {status}");
        checks += 1;
    }
    let (status, output) = behind.refusal()?;
    ensure!(status.code() == Some(EXIT_REMOVED) && output.contains("permanently removed"), "{status}: {output}");
    ensure!(cluster.member_list()?.len() == 2, "{:?}", cluster.member_list()?);
    checks += 2 + cluster.check_writes("after they came back")?;

    // The flag on what it is not meant for.
    let (status, output) = Member::new(lab, "nothing")?.with("--force-new-cluster").refusal()?;
    ensure!(status.code() == Some(1) && output.contains("there is no member in it"), "{status}: {output}");
    Ok(checks + 1)
}

/// Three members' snapshot becomes a cluster on two of their machines and a new one; the third comes back, of the old cluster.
pub fn old_member(lab: &Lab) -> anyhow::Result<u32> {
    let mut old = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let mut checks = old.check_writes("old")?;
    let file = lab.path("store.snapshot").display().to_string();
    old.ctl(0).ok(&["snapshot", "save", &file])?;
    let [a, b, c] = [old.kill(0)?, old.kill(0)?, old.kill(0)?];

    let mut members = vec![a, b, Member::new(lab, "d")?.named("d")];
    members.iter_mut().for_each(|member| member.data_dir = lab.path(&format!("restored-{}", member.name)));
    let cluster = restore(lab, &file, members)?;
    checks += cluster.check_writes("restored")?;

    // It calls the machines that it knows, and others live there now.
    let process = c.spawn()?;
    until("refusal", PATIENCE, || {
        let refused = |server: &Server| server.process.output().contains("cluster ID mismatch");
        Ok(cluster.servers.iter().any(refused).then_some(()))
    })?;
    checks += 1 + cluster.check_writes("with a member of the old cluster")?;
    ensure!(!process.output().contains("ready to serve client requests"), "it serves:\n{}", process.output());
    ensure!(cluster.member_list()?.len() == 3, "{:?}", cluster.member_list()?);
    let told = until("its own word that there is no leader", PATIENCE, || {
        let status = crate::etcdctl::Etcdctl::new(lab, &c.client_url).json(&["endpoint", "status"]);
        Ok(status.ok().map(|status| status[0]["Status"].clone()))
    })?;
    ensure!(told["leader"].is_null() || told["leader"] == 0, "it has a leader: {told}");
    Ok(checks + 3 + cluster.check_hashes()?)
}
