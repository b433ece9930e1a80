//! One of three members has other data: it does not start, or is found and named, and nothing is written until it is like the others again.

use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::http::Http;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;
use crate::wait::PATIENCE;
use crate::wait::until;

const TRUE: &str = "what-was-written";
const FALSE: &str = "what-was-never-w";
const PASSED: &str = "initial corruption checking passed; no corruption";
const ALARM: &str = "alarm:CORRUPT";
const REFUSED: &str = "etcdserver: corrupt cluster";

/// When members are compared.
struct Check {
    flags: &'static [&'static str],
    /// What the leader logs when it has done so.
    done: &'static str,
    /// It compares what compactions leave.
    compacts: bool,
}

const INITIAL_AND_COMPACTED: Check = Check {
    flags: &["--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true", "--compact-hash-check-time=1s"],
    done: "finished compaction hash check",
    compacts: true,
};
const PERIODIC: Check =
    Check { flags: &["--corrupt-check-time=1s"], done: "finished peer corruption check", compacts: false };
/// The same check without the one at the start, so that a member with other data gets in.
const COMPACTED_ONLY: &[&str] = &["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];

pub fn corruption(lab: &Lab) -> anyhow::Result<u32> {
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], INITIAL_AND_COMPACTED.flags)?;
    cluster.ctl(0).ok(&["put", "victim", TRUE])?;
    let mut checks = unharmed(&mut cluster, &INITIAL_AND_COMPACTED)?;

    // Restarted as it was, it is let in; altered, it is not.
    let at = follower(&cluster)?;
    let (name, id) = (cluster.name(at).to_owned(), cluster.id(at)?);
    let member = stop(&mut cluster, at)?;
    cluster.add(&member)?;
    let last = cluster.servers.len() - 1;
    ensure!(cluster.servers[last].process.output().contains(PASSED), "{name} was not compared at its start");
    let member = stop(&mut cluster, last)?;
    alter(lab, &member, TRUE, FALSE)?;
    let (status, output) = member.refusal()?;
    ensure!(!status.success(), "{name} with other data starts: {status}");
    let why = if lab.control { "found data inconsistency with peers" } else { "corrupt cluster: at revision" };
    ensure!(output.contains(why), "{name} does not say why it does not start:\n{output}");
    ensure!(cluster.ctl(0).ok(&["alarm", "list"])?.is_empty(), "a member that did not start raises an alarm");
    checks += 3 + cluster.check_writes("without the altered member")?;

    // Let in without the check at the start, it serves what it has, until the leader compares.
    let mut unguarded = member.clone();
    unguarded.extra = COMPACTED_ONLY.iter().map(|flag| (*flag).to_owned()).collect();
    cluster.add(&unguarded)?;
    let served = cluster.ctl(2).ok(&["get", "victim", "--print-value-only"])?;
    ensure!(served.trim() == FALSE, "{name} was not altered: it serves {served}");
    compact(&cluster)?;
    checks += 1 + named(&cluster, id)?;
    checks += closed(&cluster)?;

    // Put right, compared at its start again, and forgiven.
    stop(&mut cluster, 2)?;
    alter(lab, &member, FALSE, TRUE)?;
    cluster.add(&member)?;
    checks += forgiven(&mut cluster)?;
    checks += unharmed(&mut cluster, &INITIAL_AND_COMPACTED)?;

    // The same by the clock.
    let mut members = (0..3).map(|_| stop(&mut cluster, 0)).collect::<anyhow::Result<Vec<_>>>()?;
    for member in &mut members {
        member.extra = PERIODIC.flags.iter().map(|flag| (*flag).to_owned()).collect();
    }
    let mut cluster = Cluster::start_all(lab, members)?;
    checks += unharmed(&mut cluster, &PERIODIC)?;
    let at = follower(&cluster)?;
    let id = cluster.id(at)?;
    let member = stop(&mut cluster, at)?;
    alter(lab, &member, TRUE, FALSE)?;
    cluster.add(&member)?;
    checks += named(&cluster, id)?;
    // Forgiven and not put right, it is named again.
    cluster.ctl(0).ok(&["alarm", "disarm"])?;
    checks += named(&cluster, id)?;
    stop(&mut cluster, 2)?;
    alter(lab, &member, FALSE, TRUE)?;
    cluster.add(&member)?;
    checks += forgiven(&mut cluster)?;
    Ok(checks + unharmed(&mut cluster, &PERIODIC)?)
}

fn follower(cluster: &Cluster<'_>) -> anyhow::Result<usize> {
    Ok((cluster.leader()? + 1) % cluster.servers.len())
}

/// SIGTERM, so that everything is in the database.
fn stop(cluster: &mut Cluster<'_>, at: usize) -> anyhow::Result<Member> {
    let server = cluster.servers.remove(at);
    let member = server.member.clone();
    server.terminate()?;
    Ok(member)
}

/// Writes another text over one in the database of a member that is down. bbolt has no checksums for its pages.
fn alter(lab: &Lab, member: &Member, old: &str, new: &str) -> anyhow::Result<()> {
    if !lab.control {
        let mut command = Command::new(lab.example("alter")?);
        run(command.arg(member.data_dir.join("member/db")).args([old, new]))?.success("alter")?;
        return Ok(());
    }
    let path = member.data_dir.join("member/snap/db");
    let mut bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, w)| *w == old.as_bytes()).map(|(at, _)| at).collect();
    ensure!(!places.is_empty(), "{old} is not in {}", path.display());
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
    Ok(std::fs::write(&path, bytes)?)
}

fn compact(cluster: &Cluster<'_>) -> anyhow::Result<()> {
    let put = cluster.ctl(0).json(&["put", "more", "recent"])?;
    let revision = put["header"]["revision"].as_i64().context("no revision")?;
    cluster.ctl(0).ok(&["compact", &revision.to_string()])?;
    Ok(())
}

/// Equal members are compared, all of them, and nobody is named.
fn unharmed(cluster: &mut Cluster<'_>, check: &Check) -> anyhow::Result<u32> {
    let leader = cluster.leader()?;
    let compared = |text: &str| text.lines().filter(|line| line.contains(check.done)).count();
    let before = compared(&cluster.servers[leader].process.output());
    if check.compacts {
        compact(cluster)?;
    }
    // The first after this may have begun before it.
    let most = before + if check.compacts { 1 } else { 2 };
    cluster.servers[leader].process.wait_output("comparison", PATIENCE, |text| compared(text) >= most)?;
    ensure!(cluster.leader()? == leader, "another leads");
    let alarms = cluster.ctl(0).ok(&["alarm", "list"])?;
    ensure!(alarms.is_empty(), "an alarm about equal members: {alarms}");
    Ok(1 + cluster.check_writes("unharmed")?)
}

/// The alarm names the member, whoever is asked.
fn named(cluster: &Cluster<'_>, id: u64) -> anyhow::Result<u32> {
    let want = format!("memberID:{id} {ALARM}");
    until("alarm", PATIENCE, || Ok(cluster.ctl(0).ok(&["alarm", "list"])?.contains(ALARM).then_some(())))?;
    for at in 0..cluster.servers.len() {
        let listed = cluster.ctl(at).ok(&["alarm", "list"])?;
        ensure!(listed.split_whitespace().collect::<Vec<_>>().join(" ") == want, "{} lists {listed}", cluster.name(at));
    }
    Ok(1)
}

/// What clients are told while the alarm is raised.
fn closed(cluster: &Cluster<'_>) -> anyhow::Result<u32> {
    let mut checks = 0;
    for at in 0..cluster.servers.len() {
        let ctl = cluster.ctl(at);
        let (lease, compaction) = (["lease", "grant", "60"], ["compact", "3"]);
        for args in [&["put", "x", "y"][..], &["del", "victim"], &lease, &compaction] {
            let output = ctl.run(args)?;
            ensure!(output.stderr.contains(REFUSED), "{}: {args:?}: {output:?}", cluster.name(at));
            checks += 1;
        }
        let output = ctl.run_with_input(&["txn"], "\n\nput x y\n\n\n\n")?;
        ensure!(output.stderr.contains(REFUSED), "{}: txn: {output:?}", cluster.name(at));
        for args in [&["get", "more"][..], &["get", "more", "--consistency=s"], &["member", "list"]] {
            ctl.ok(args).with_context(|| format!("{}, while the alarm is raised", cluster.name(at)))?;
            checks += 1;
        }
        let health = ctl.run(&["endpoint", "health"])?;
        ensure!(!health.status.success(), "{}: {health:?}", cluster.name(at));
        let status = ctl.json(&["endpoint", "status"])?;
        let errors = status[0]["Status"]["errors"].as_array().cloned().unwrap_or_default();
        ensure!(errors.iter().any(|error| error.as_str().is_some_and(|e| e.contains("CORRUPT"))), "{status}");
        let url = cluster.servers[at].url();
        let health: Value = serde_json::from_str(&Http::new().get(&format!("{url}/health"))?.body)?;
        ensure!(health["health"] == "false" && health["reason"] == "ALARM CORRUPT", "{health}");
        let ready = Http::new().get(&format!("{url}/readyz"))?;
        ensure!(ready.status == 503 && ready.body.contains("data_corruption"), "{ready:?}");
        checks += 5;
    }
    Ok(checks)
}

fn forgiven(cluster: &mut Cluster<'_>) -> anyhow::Result<u32> {
    cluster.ctl(0).ok(&["alarm", "disarm"])?;
    ensure!(cluster.ctl(1).ok(&["alarm", "list"])?.is_empty(), "the alarm is not taken back");
    Ok(1 + cluster.check_writes("forgiven")? + cluster.check_hashes()?)
}
