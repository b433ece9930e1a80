//! fsync and fdatasync of one member take long or fail: strace, attached to the process that runs, makes the kernel's answer.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_e2e::process::Process;
use rustix::process::Signal;

use super::any_or_leader;
use crate::cleanup::send;
use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::cluster::Target;
use crate::fault::Fault;
use crate::fault::Outcome;
use garboard_e2e::random::Random;

const ATTACH_LIMIT: Duration = Duration::from_secs(10);
/// What etcd and ours call, and what they might call instead.
const CALLS: &str = "fsync,fdatasync,sync_file_range,msync";
/// How long a member may take to sync something, and to end when that fails.
const FAIL_LIMIT: Duration = Duration::from_secs(8);

struct Sync {
    what: What,
    target: Target,
    hit: Option<Hit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slow(Duration),
    /// From this sync of a thread on.
    Failing(u64),
}

struct Hit {
    slot: usize,
    strace: Option<Process>,
    trace: PathBuf,
}

pub fn slow(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let delay = random.log_scaled(Duration::from_millis(10), Duration::from_secs(5));
    Box::new(Sync { what: What::Slow(delay), target: any_or_leader(random, layout), hit: None })
}

pub fn failing(random: &mut Random, layout: &Layout) -> Box<dyn Fault> {
    let from = random.between(1, 3);
    Box::new(Sync { what: What::Failing(from), target: any_or_leader(random, layout), hit: None })
}

// === impl Hit ===

impl Hit {
    /// How many calls strace has changed, and how long the longest of them took.
    fn injected(&self) -> (usize, Duration) {
        injected(&std::fs::read_to_string(&self.trace).unwrap_or_default())
    }
}

impl Fault for Sync {
    fn describe(&self) -> String {
        match self.what {
            What::Slow(delay) => format!("each sync of {} takes {delay:?} more", self.target),
            What::Failing(from) => {
                format!("each thread's syncs of {} fail with EIO from number {from} on", self.target)
            }
        }
    }

    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome> {
        let Some(slot) = cluster.find(self.target) else { return Ok(Outcome::Missed("no leader".to_owned())) };
        let Some(pid) = cluster.slots[slot].pid() else { return Ok(Outcome::Missed("no process".to_owned())) };
        let tampering = match self.what {
            What::Slow(delay) => format!("delay_enter={}", delay.as_micros()),
            What::Failing(from) => format!("error=EIO:when={from}+"),
        };
        // A member whose disk fails has to end; one whose disk is slow has not.
        cluster.slots[slot].set_may_end(matches!(self.what, What::Failing(_)));
        let (trace, log) = (cluster.dir.join(format!("strace-{pid}.out")), cluster.dir.join("strace.log"));
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={CALLS}")]);
        command.args(["-e", &format!("inject={CALLS}:{tampering}"), "-e", "signal=none", "-T", "-o"]).arg(&trace);
        let mut strace = Process::spawn(command, &log)?;
        let attached = strace.wait_output("attachment", ATTACH_LIMIT, |text| text.contains("attached"));
        let dead = cluster.slots[slot].pid() != Some(pid);
        self.hit = Some(Hit { slot, strace: Some(strace), trace });
        match attached {
            Ok(_) => Ok(Outcome::Hit(vec![slot])),
            Err(error) if dead => Ok(Outcome::Missed(format!("the member is gone: {error:#}"))),
            Err(error) => Err(error.context("attach strace")),
        }
    }

    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()> {
        let Some(hit) = &mut self.hit else { return Ok(()) };
        if let Some(mut strace) = hit.strace.take() {
            // Told to end it lets go of the member; killed it does so too, but maybe within a call.
            send(strace.id(), Signal::TERM);
            let _ = strace.wait(Duration::from_secs(8));
        }
        if matches!(self.what, What::Failing(_)) && hit.injected().0 > 0 {
            ends(cluster, hit.slot);
        }
        cluster.ensure_started(hit.slot)?;
        cluster.slots[hit.slot].set_may_end(false);
        Ok(())
    }

    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String> {
        let hit = self.hit.as_ref().context("nobody is hit")?;
        cluster.wait("a sync that strace changes", FAIL_LIMIT, || Ok(hit.injected().0 > 0))?;
        let (count, longest) = hit.injected();
        let What::Slow(delay) = self.what else {
            cluster.wait("the end of a member whose syncs fail", FAIL_LIMIT, || {
                cluster.notice_ends();
                Ok(cluster.slots[hit.slot].pid().is_none())
            })?;
            return Ok(format!("{count} failed syncs of member {}, which has ended", hit.slot));
        };
        ensure!(longest >= delay, "the longest of {count} syncs took {longest:?}");
        ensure!(cluster.slots[hit.slot].pid().is_some(), "member {} has ended", hit.slot);
        Ok(format!("{count} late syncs of member {}, the longest took {longest:?}", hit.slot))
    }
}

/// A member that has seen a sync fail ends, maybe a little later; one that goes on starts from its disk all the same.
fn ends(cluster: &Cluster, slot: usize) {
    let ended = cluster.wait("the end of a member whose syncs fail", FAIL_LIMIT, || {
        cluster.notice_ends();
        Ok(cluster.slots[slot].pid().is_none())
    });
    if let Err(error) = ended {
        cluster.timeline.note("goes on", "failing-sync", &[slot], &format!("{error:#}"));
        cluster.slots[slot].kill();
    }
}

/// The changed calls in the output of strace.
fn injected(trace: &str) -> (usize, Duration) {
    let changed = trace.lines().filter(|line| line.contains("(DELAYED)") || line.contains("(INJECTED)"));
    let took = |line: &str| line.rsplit_once('<')?.1.strip_suffix('>')?.parse::<f64>().ok();
    changed.fold((0, Duration::ZERO), |(count, longest), line| {
        (count + 1, took(line).map_or(longest, |seconds| longest.max(Duration::from_secs_f64(seconds))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_calls_are_counted_and_timed() {
        let trace = "11 fdatasync(3)                      = 0 <0.000210>\n\
                     11 fdatasync(3)                      = 0 (DELAYED) <0.300537>\n\
                     12 fdatasync(5)                      = 0 (DELAYED) <0.341852>\n\
                     12 fsync(5) = -1 EIO (Input/output error) (INJECTED) <0.000150>\n\
                     12 fdatasync(3 <detached ...>\n";
        assert_eq!(injected(trace), (3, Duration::from_micros(341_852)));
        assert_eq!(injected(""), (0, Duration::ZERO));
    }
}
