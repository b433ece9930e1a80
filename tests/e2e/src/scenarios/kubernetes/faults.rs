//! Kubernetes on three members: each is killed, stopped and replaced in its turn, under clients that write and watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use super::apiserver::ControlPlane;
use super::inventory::KINDS;
use super::script::agree;
use super::script::prepare;
use super::store::StoreCerts;
use super::traffic::LiveWriter;
use super::watch::Watcher;
use crate::cluster::Cluster;
use crate::output;
use crate::scenario::Lab;
use crate::server::Member;
use crate::wait::PATIENCE;
use crate::wait::until;

const WRITERS: usize = 8;
/// From the beginning of a fault until each client has written again.
const SERVED_AGAIN: Duration = Duration::from_secs(10);
/// The same of etcd, which leaves a write to a leader that is gone without an answer for seven seconds.
const SERVED_AGAIN_BY_ETCD: Duration = Duration::from_secs(20);
/// How long a member is stopped: more than an election takes.
const STOPPED: Duration = Duration::from_secs(4);

#[derive(Clone, Copy)]
enum Fault {
    /// SIGKILL, and a start on the same data.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// Removed, and added again with nothing.
    Replace,
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Stop => "stopped",
            Self::Replace => "removed",
        }
    }
}

pub fn kube_apiserver_cluster(lab: &Lab) -> anyhow::Result<u32> {
    let start = Instant::now();
    let step = |what: &str| output::line(format_args!("    {:5.1} s  {what}", start.elapsed().as_secs_f64()));
    let certs = StoreCerts::new(lab)?;
    let members = ["a", "b", "c"].iter().map(|name| certs.member(lab, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut cluster = Cluster::found(lab, members)?.tls(&certs.authority, &certs.client);
    let urls: Vec<&str> = cluster.servers.iter().map(|server| server.url()).collect();
    let mut plane = ControlPlane::start(lab, &certs, &urls)?;
    step("kube-apiserver is ready on three members");
    prepare(&plane)?;
    let mut writers: Vec<LiveWriter> = (0..WRITERS).map(|n| LiveWriter::new(&plane, n)).collect();
    let watched = KINDS.iter().filter(|kind| writers.iter().any(|writer| writer.kind() == kind.name));
    let watchers = watched.map(|kind| Watcher::start(&plane, *kind)).collect::<anyhow::Result<Vec<_>>>()?;
    let progress: Vec<_> = writers.iter().map(LiveWriter::progress).collect();
    let stop = AtomicBool::new(false);
    let faults = std::thread::scope(|scope| {
        let threads: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run(&stop))).collect();
        let faults = all_faults(lab, &mut cluster, &progress, &step);
        stop.store(true, Ordering::Relaxed);
        let wrote = threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        wrote.and(faults)
    })?;

    let acknowledged: u64 = writers.iter().map(LiveWriter::acknowledged).sum();
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in writers.iter().flat_map(|writer| &writer.failures) {
        *failures.entry(reason).or_default() += count;
    }
    let failed: u64 = failures.values().sum();
    step(&format!("{acknowledged} writes acknowledged, {failed} not"));
    failures.iter().for_each(|(reason, count)| output::line(format_args!("             {count} x {reason}")));

    plane.wait_ready(SERVED_AGAIN)?;
    writers.iter().try_for_each(LiveWriter::check)?;
    let mut checks = faults + agree(&plane, &watchers, 0)?;
    for writer in &writers {
        let watcher = watchers.iter().find(|watcher| watcher.kind.name == writer.kind()).context("nobody watched")?;
        let missed = watcher.missed(&writer.versions);
        ensure!(missed.is_empty(), "no event showed the acknowledged versions {missed:?} of {}", writer.kind());
        checks += 1;
    }
    let unnamed = failures.keys().find(|reason| reason.starts_with("no answer"));
    ensure!(unnamed.is_none(), "kube-apiserver itself did not answer: {unnamed:?}");
    // A client has one request under way, and a fault strikes each of those at most once.
    let most = u64::from(faults) * WRITERS as u64;
    ensure!(failed <= most, "{failed} of {acknowledged} requests failed, {most} were under way when something broke");
    Ok(checks + cluster.check_hashes()?)
}

/// Every fault on every member, the leader first.
fn all_faults(
    lab: &Lab,
    cluster: &mut Cluster<'_>,
    progress: &[Arc<AtomicU64>],
    step: &dyn Fn(&str),
) -> anyhow::Result<u32> {
    let mut faults = 0;
    for fault in [Fault::Kill, Fault::Stop, Fault::Replace] {
        let leader = cluster.leader()?;
        let first = cluster.name(leader).to_owned();
        let mut names = vec![first.clone()];
        names.extend(["a", "b", "c"].map(str::to_owned).into_iter().filter(|name| *name != first));
        for name in names {
            let at = cluster.position(&name)?;
            let leads = if cluster.leader()? == at { ", the leader," } else { "" };
            let said = || format!("{name}{leads} was {}", fault.word());
            let (begun, left) = strike(fault, cluster, at).with_context(said)?;
            // The first of two may have begun before the fault.
            let before: Vec<u64> = progress.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let again = || {
                let on = |(count, before): (&Arc<AtomicU64>, &u64)| count.load(Ordering::Relaxed) >= before + 2;
                Ok(progress.iter().zip(&before).all(on).then_some(()))
            };
            let limit = if lab.control { SERVED_AGAIN_BY_ETCD } else { SERVED_AGAIN };
            until("write of each client", limit.saturating_sub(begun.elapsed()), again).with_context(said)?;
            step(&format!("{}; served again after {:.1} s", said(), begun.elapsed().as_secs_f64()));
            if let Some(member) = left {
                repair(lab, fault, cluster, member).with_context(said)?;
            }
            until("health of all", PATIENCE, || {
                Ok(cluster.all().run(&["endpoint", "health"])?.status.success().then_some(()))
            })?;
            faults += 1;
        }
    }
    Ok(faults)
}

/// Says when the fault began, and leaves the member that has to be started again, if there is one.
fn strike(fault: Fault, cluster: &mut Cluster<'_>, at: usize) -> anyhow::Result<(Instant, Option<Member>)> {
    let begun = Instant::now();
    match fault {
        Fault::Kill => Ok((begun, Some(cluster.kill(at)?))),
        Fault::Stop => {
            cluster.servers[at].process.signal("STOP")?;
            // One that was on its way to a leader that is stopped is not answered.
            let put = ["put", "while", "stopped", "--command-timeout=1s"];
            until("write without it", STOPPED, || {
                Ok(cluster.ctl((at + 1) % 3).run(&put)?.status.success().then_some(()))
            })?;
            std::thread::sleep(STOPPED.saturating_sub(begun.elapsed()));
            cluster.servers[at].process.signal("CONT")?;
            Ok((begun, None))
        }
        Fault::Replace => {
            let id = format!("{:x}", cluster.id(at)?);
            cluster.change((at + 1) % 3, &["member", "remove", &id])?.success("member remove")?;
            let begun = Instant::now();
            let mut removed = cluster.servers.remove(at);
            removed.process.wait(PATIENCE).context("it was removed and goes on")?;
            Ok((begun, Some(removed.member)))
        }
    }
}

fn repair(lab: &Lab, fault: Fault, cluster: &mut Cluster<'_>, mut member: Member) -> anyhow::Result<()> {
    if let Fault::Replace = fault {
        std::fs::remove_dir_all(&member.data_dir)?;
        let urls = format!("--peer-urls={}", member.peer_url);
        cluster.leader()?;
        cluster.change(0, &["member", "add", &member.name, &urls])?.success("member add")?;
        member.initial_cluster = Some(format!("{},{}", cluster.entries(), member.entry()));
        member.extra.push("--initial-cluster-state=existing".to_owned());
    }
    cluster.add(&member)?;
    if let (Fault::Replace, false) = (fault, lab.control) {
        // Ready before it votes; the next fault must find three that do.
        let id = format!("{:x}", cluster.id(cluster.servers.len() - 1)?);
        let votes =
            |log: String| log.lines().any(|line| line.contains(&id) && line.contains("the voters have changed"));
        until("vote for the new member", PATIENCE, || {
            Ok(cluster.servers.iter().any(|server| votes(server.process.output())).then_some(()))
        })?;
    }
    Ok(())
}
