//! Processes with namespaces of their own: started, entered, ended.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde::Deserialize;
use serde::Serialize;

use crate::wait::until;

/// All of a node's processes are gone within this after its first one was killed.
const END_LIMIT: Duration = Duration::from_secs(60);

/// The first process of a node, by its id out here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    pub id: i32,
    /// In clock ticks since the machine started: tells it from a later process with the same id.
    started: u64,
}

/// The program that a node's first process is: it lies beside the one that runs now.
pub fn lab_node() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own.parent().context("this program is in no folder")?;
    let path = folder.join("lab-node");
    if !path.exists() {
        bail!("{} is not there: cargo build --package garboard-lab", path.display());
    }
    Ok(path)
}

/// Starts `lab-node` with namespaces of its own. What is returned is its parent, which ends with it.
pub fn spawn(spec: &Path, stdin: Stdio, log: &Path) -> anyhow::Result<Child> {
    let file =
        File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
    Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"])
        .arg(lab_node()?)
        .arg(spec)
        .stdin(stdin)
        .stdout(file.try_clone()?)
        .stderr(file)
        // A signal from the terminal is for whoever started it alone.
        .process_group(0)
        .spawn()
        .context("start unshare")
}

// === impl First ===

impl First {
    pub fn new(id: i32) -> anyhow::Result<Self> {
        let started = started(id).with_context(|| format!("process {id} is gone"))?;
        Ok(Self { id, started })
    }

    pub fn runs(self) -> bool {
        started(self.id) == Some(self.started)
    }

    /// Ends it, and with it all that runs in its namespaces.
    pub fn end(self) -> anyhow::Result<()> {
        if let Some(id) = Pid::from_raw(self.id).filter(|_| self.runs()) {
            // Gone since: that is what is wanted.
            let _ = kill_process(id, Signal::KILL);
        }
        until("end of a node's first process", END_LIMIT, || Ok((!self.runs()).then_some(())))
    }

    /// A program in its namespaces.
    pub fn command(self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc"]);
        command.args(["--wd=/", "--", program]);
        command
    }

    /// A program of this machine in its network alone: a child like any other, which ends when it is killed.
    pub fn beside(self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id.to_string(), "--net", "--"]).arg(program);
        command
    }
}

/// When a process was started, if it is there: the 22nd field of its stat, the 20th behind its name, which may hold anything.
fn started(id: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_started() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let first = First::new(child.id() as i32).unwrap();
        assert!(first.runs());
        assert!(!First { started: first.started + 1, ..first }.runs());
        // Its parent takes note of the end.
        let waiter = std::thread::spawn(move || child.wait());
        first.end().unwrap();
        waiter.join().unwrap().unwrap();
        assert!(!first.runs());
    }
}
