//! What a scenario is and what it is given: a folder of its own, the program under test and the tools.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::bail;

/// Which step of `cargo xtask test` runs the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Cluster,
    K8s,
    /// On a Kubernetes of several nodes.
    Nodes,
}

/// A scenario says how many checks held, or what did not.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub tier: Tier,
    /// Promised by ours and not by etcd: left out of a control run.
    pub ours_only: bool,
    /// Others would disturb it, or it them.
    pub alone: bool,
    pub run: fn(&Lab) -> anyhow::Result<u32>,
}

/// Where one scenario runs.
pub struct Lab {
    pub dir: PathBuf,
    pub server: PathBuf,
    /// Where the examples of the server and of its storage are.
    pub examples: Option<PathBuf>,
    pub tools: PathBuf,
    /// Where the programs of Kubernetes are, and what else a lab consists of.
    pub kubernetes: Option<PathBuf>,
    /// Where the images of the product are.
    pub images: Option<PathBuf>,
    /// The operator, built so that it can be made to die.
    pub operator: Option<PathBuf>,
    /// Where the images of the release before are, and its sources.
    pub previous: Option<PathBuf>,
    pub control: bool,
    /// Everything is tried, however long it takes.
    pub full: bool,
    pub seed: u64,
    pub kill_seconds: u64,
}

// === impl Tier ===

impl FromStr for Tier {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "cluster" => Ok(Self::Cluster),
            "k8s" => Ok(Self::K8s),
            "lab" => Ok(Self::Nodes),
            other => bail!("no tier {other}: cluster, k8s or lab"),
        }
    }
}

// === impl Scenario ===

impl Scenario {
    /// Runs only when nothing else does.
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

// === impl Lab ===

impl Lab {
    /// The path of a tool.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }

    /// The path of a program of Kubernetes.
    pub fn kubernetes(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.kubernetes.as_ref().context("--kubernetes names no folder")?.join(name))
    }

    /// The path of an example: `volatile`, the server on a disk whose unsynced bytes die with the process; `later`, the server as a later
    /// release; `alter`, which makes the data of a member that is down another.
    pub fn example(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.examples.as_ref().context("--examples names no folder")?.join(name))
    }

    /// A path in the scenario's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes the folder of a scenario that held.
    pub fn discard(&self) {
        // What cannot be removed is only clutter in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
