//! What talks to the cluster meanwhile, and what judges what it saw: programs of their own, so that neither trusts this one.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use garboard_e2e::process::Process;
use garboard_e2e::process::run;
use garboard_e2e::process::tail;

use crate::cleanup::Kept;
use crate::cleanup::may_start;
use crate::cluster::Cluster;
use crate::liveness;
use crate::puts::Puts;
use crate::timeline::FAULTS;

/// Beyond the faults: the healing and what follows is seen by clients, too.
const AFTER: Duration = Duration::from_secs(12);
/// For the last reads on each member.
const FINISH: Duration = Duration::from_secs(120);
/// How long after its TTL a lease may keep its keys where nothing is wrong.
const LEASE_SLACK_S: u32 = 10;
/// What a judge ends with that has looked as long as it may and found neither.
const UNDECIDED: i32 = 3;

pub enum Traffic {
    Program { process: Process, history: PathBuf, start: Instant, length: Duration, _kept: Kept },
    Puts(Puts),
}

// === impl Traffic ===

impl Traffic {
    pub fn start(cluster: &Arc<Cluster>, program: Option<&Path>, seed: u64, faults: Duration) -> anyhow::Result<Self> {
        let Some(program) = program else { return Ok(Self::Puts(Puts::start(cluster))) };
        let urls: Vec<String> = cluster.slots[..cluster.layout.members].iter().map(|slot| slot.client_url()).collect();
        let (history, length) = (cluster.dir.join("history.jsonl"), faults + AFTER);
        let identity = cluster.ctl.identity();
        let mut command = Command::new(program);
        command.arg("--endpoints").arg(urls.join(",")).arg("--cacert").arg(cluster.ctl.authority());
        command.arg("--cert").arg(&identity.cert).arg("--key").arg(&identity.key);
        command.args(["--seed", &seed.to_string(), "--seconds", &length.as_secs().to_string()]);
        command.arg("--history").arg(&history).arg("--final");
        let _until_kept = may_start().context("the run is being ended")?;
        let process = Process::spawn(command, &cluster.dir.join("traffic.log"))?;
        let kept = Kept::new(process.id());
        Ok(Self::Program { process, history, start: Instant::now(), length, _kept: kept })
    }

    /// Whether clients go on for long enough to see how soon they are served.
    pub fn goes_on(&self, time: Duration) -> bool {
        match self {
            Self::Puts(_) => true,
            Self::Program { start, length, .. } => start.elapsed() + time < *length,
        }
    }

    /// Ends it at once; the history so far.
    pub fn abandon(self) -> Option<PathBuf> {
        match self {
            Self::Puts(_) => None,
            // Each line is written at once: killed, it leaves all but its last one.
            Self::Program { process, history, .. } => {
                drop(process);
                Some(history)
            }
        }
    }

    /// Waits for its end; the history that it has left, and a word on it.
    pub fn finish(self, cluster: &Cluster) -> anyhow::Result<(Option<PathBuf>, String)> {
        match self {
            Self::Puts(puts) => Ok((None, format!("{} acknowledged writes, none is lost", puts.finish(cluster)?))),
            Self::Program { mut process, history, length, _kept, .. } => {
                let status = process.wait(length + FINISH)?;
                let text = process.output();
                if !status.success() {
                    bail!("the traffic ended with {status}:\n{}", tail(&text));
                }
                Ok((Some(history), text.lines().last().unwrap_or_default().to_owned()))
            }
        }
    }
}

/// Has a history judged; the last line of the judge, or all of its last lines if it is wrong.
pub fn judge(check: &Path, history: &Path, healed_unix_ns: Option<u64>, control: bool) -> anyhow::Result<String> {
    let faults = history.with_file_name(FAULTS);
    let mut command = Command::new(check);
    // Some faults and the test for liveness write keys of their own.
    command.arg("--foreign-writes").arg("--faults").arg(faults);
    if let Some(unix_ns) = healed_unix_ns {
        command.args(["--heal-at", &unix_ns.to_string()]);
        command.args(["--serving-within", &liveness::limit(control).as_secs().to_string()]);
    }
    command.args(["--lease-slack-s", &LEASE_SLACK_S.to_string()]).arg(history);
    verdict(&mut command)
}

/// The same by a judge that is told of nothing else.
pub fn judge_again(second: &Path, history: &Path) -> anyhow::Result<String> {
    verdict(Command::new(second).arg(history))
}

fn verdict(command: &mut Command) -> anyhow::Result<String> {
    let output = run(command)?;
    let last = output.stdout.lines().last().unwrap_or_default().to_owned();
    match output.status.code() {
        Some(0) => Ok(last),
        Some(UNDECIDED) => Ok(format!("undecided: {last}")),
        _ => bail!("the history is wrong ({}):\n{}{}", output.status, tail(&output.stdout), tail(&output.stderr)),
    }
}
