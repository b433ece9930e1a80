//! A leader's disk takes syncs and does not answer: another member leads, and the old leader follows when its disk is back.
//!
//! strace, attached to the process that runs, holds each sync on its way into the kernel, until it is told to end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cluster::Cluster;
use crate::output;
use crate::packages;
use crate::process::Process;
use crate::scenario::Lab;
use crate::wait::PATIENCE;
use crate::wait::until;

/// What etcd and ours sync by, and what they might sync by instead.
const SYNCS: &str = "fsync,fdatasync,sync_file_range,msync";
/// How long a sync is held: longer than the scenario goes on.
const HELD: Duration = Duration::from_secs(120);
/// From the first sync that is held until another member leads and has acknowledged a write: a few election timeouts, of a second.
const LED_BY_ANOTHER: Duration = Duration::from_secs(8);
/// How long the disk is away after that: several more election timeouts.
const AWAY: Duration = Duration::from_secs(5);

pub fn stalled_disk(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("strace", "strace")?;
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let mut checks = cluster.check_writes("with its disk")?;
    let old = cluster.leader()?;
    let (old_id, others) = (cluster.id(old)?, [(old + 1) % 3, (old + 2) % 3]);

    let trace = lab.path("strace.out");
    let strace = hold_syncs(cluster.servers[old].process.id(), &trace)?;
    let begun = Instant::now();
    let mut acknowledged = 0;
    let mut write = |cluster: &Cluster<'_>, at: usize| -> anyhow::Result<bool> {
        let put = ["put", &format!("held/{acknowledged:04}"), "v", "--command-timeout=1s"].map(str::to_owned);
        let done = cluster.ctl(at).run(&put.each_ref().map(String::as_str))?.status.success();
        acknowledged += u32::from(done);
        Ok(done)
    };
    until("other leader that serves", LED_BY_ANOTHER, || {
        let wrote = write(&cluster, others[0])?;
        let status = cluster.ctl(others[0]).json(&["endpoint", "status"])?;
        let leader = status[0]["Status"]["leader"].as_u64().unwrap_or(0);
        Ok((wrote && leader != 0 && leader != old_id).then_some(()))
    })?;
    output::line(format_args!(
        "    another leads and serves {:.1} s after the disk's last answer",
        begun.elapsed().as_secs_f64()
    ));

    // It stays so for as long as the disk is away, and both others serve.
    let away = Instant::now();
    while away.elapsed() < AWAY {
        for at in others {
            ensure!(write(&cluster, at)?, "{} does not write while the old leader's disk is away", cluster.name(at));
        }
        let status = cluster.ctl(others[1]).json(&["endpoint", "status"])?;
        ensure!(status[0]["Status"]["leader"].as_u64().is_some_and(|id| id != 0 && id != old_id), "{status}");
    }
    checks += 2;
    strace.terminate()?;
    let held = std::fs::read_to_string(&trace)?;
    let held = held.lines().filter(|line| line.contains("detached")).count();
    ensure!(held > 0, "no sync was held to the end: nothing is shown, see {}", trace.display());

    // It has everything, and follows.
    let has = |cluster: &Cluster<'_>| -> anyhow::Result<usize> {
        let read = cluster.ctl(old).ok(&["get", "held/", "--prefix", "--print-value-only", "--consistency=s"])?;
        Ok(read.split_whitespace().count())
    };
    let all = usize::try_from(acknowledged)?;
    until("old leader that has caught up", PATIENCE, || Ok((has(&cluster)? >= all).then_some(())))
        .with_context(|| format!("{acknowledged} were acknowledged, it has {:?}", has(&cluster)))?;
    ensure!(cluster.leader()? != old, "it leads again");
    if !lab.control {
        let said = cluster.servers[old].process.output();
        ensure!(said.contains("giving leadership up"), "it did not say why it gave leadership up");
    }
    checks += 4 + cluster.check_writes("with its disk again")?;
    let ended = cluster.servers[old].process.wait(Duration::ZERO);
    ensure!(ended.is_err(), "it has ended: {ended:?}");
    Ok(checks + cluster.check_hashes()?)
}

/// Every sync of the process stays on its way from now on.
pub(super) fn hold_syncs(pid: u32, trace: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={SYNCS}"), "-e", "signal=none"]);
    command.args(["-e", &format!("inject={SYNCS}:delay_enter={}", HELD.as_micros()), "-o"]).arg(trace);
    let mut strace = Process::spawn(command, &trace.with_extension("log"))?;
    strace.wait_output("attachment", PATIENCE, |text| text.contains("attached"))?;
    Ok(strace)
}
