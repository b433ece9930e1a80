//! What a scenario is and what it is given: a folder of its own, the program under test and the tools.

use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::bail;

/// Which step of `cargo xtask test` runs the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Cluster,
    K8s,
}

/// A scenario says how many checks held, or what did not.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub tier: Tier,
    /// Promised by ours and not by etcd: left out of a control run.
    pub ours_only: bool,
    pub run: fn(&Lab) -> anyhow::Result<u32>,
}

/// Where one scenario runs.
pub struct Lab {
    pub dir: PathBuf,
    pub server: PathBuf,
    /// The server on a disk whose unsynced bytes die with the process.
    pub volatile: Option<PathBuf>,
    pub tools: PathBuf,
    pub control: bool,
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
            other => bail!("no tier {other}: cluster or k8s"),
        }
    }
}

// === impl Lab ===

impl Lab {
    pub fn new(
        dir: PathBuf,
        server: &Path,
        volatile: Option<&Path>,
        tools: &Path,
        control: bool,
        seed: u64,
        kill_seconds: u64,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self {
            dir,
            server: server.to_owned(),
            volatile: volatile.map(Path::to_owned),
            tools: tools.to_owned(),
            control,
            seed,
            kill_seconds,
        })
    }

    /// The path of a tool.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
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
