//! Clients of an EtcdCluster that never stop, in a Pod, and the judgement of what they saw.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_check::history::History;
use garboard_check::report::Verdict;
use garboard_lab::Lab as Kubernetes;

use super::super::kubernetes::Steps;
use super::store::LIMIT;
use super::store::Store;
use super::store::volume_folder;
use crate::wait::until;

const MANIFEST: &str = include_str!("traffic.yaml");
/// Requests a second: a few for each write that a fault can hit.
const RATE: u32 = 100;

pub struct Traffic<'a> {
    cluster: &'a Kubernetes,
    history: PathBuf,
}

// === impl Traffic ===

impl<'a> Traffic<'a> {
    /// Begins on the first node, which is to stay.
    pub fn start(cluster: &'a Kubernetes, seed: u64) -> anyhow::Result<Self> {
        let node = cluster.node(1)?.name();
        let manifest = MANIFEST.replace("SEED", &seed.to_string()).replace("NODE", &node);
        cluster.apply(&manifest.replace("RATE", &RATE.to_string()))?;
        cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/traffic", "--timeout=120s"])?;
        let history = volume_folder(cluster, "traffic")?.join(format!("{seed}.jsonl"));
        let traffic = Self { cluster, history };
        let requests = traffic.requests();
        until("requests", LIMIT, || Ok((traffic.requests() > requests).then_some(())))?;
        Ok(traffic)
    }

    /// How much has been asked and answered so far, in bytes.
    fn requests(&self) -> u64 {
        std::fs::metadata(&self.history).map_or(0, |file| file.len())
    }

    /// Ends it, and has what clients and members say at the end judged.
    pub fn judged(self, store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
        let judged = self.finish()?;
        steps.held(&format!("no client was lied to: {judged}"));
        store.agree()?;
        steps.held("all members have one hash");
        Ok(())
    }

    /// Ends it, and has the history judged; a word on it.
    pub fn finish(self) -> anyhow::Result<String> {
        let pod: serde_json::Value =
            serde_json::from_str(&self.cluster.kubectl_ok(&["get", "pod", "traffic", "--output=json"])?)?;
        ensure!(pod["status"]["phase"] == "Running", "the traffic has ended: {}", pod["status"]);
        self.cluster.kubectl_ok(&["delete", "pod", "traffic", "--wait", "--timeout=180s"])?;
        let file = File::open(&self.history).with_context(|| self.history.display().to_string())?;
        let history = History::read(BufReader::with_capacity(1 << 20, file))
            .map_err(|error| anyhow::anyhow!("{}: {error}", self.history.display()))?;
        ensure!(!history.cut_off, "the traffic did not come to its end: {}", self.history.display());
        let options = garboard_check::Options { foreign_writes: true, ..garboard_check::Options::default() };
        let report = garboard_check::judge(&history, &options);
        ensure!(report.verdict() == Verdict::Right, "{}:\n{report}", self.history.display());
        std::fs::remove_file(&self.history)?;
        Ok(report.to_string().lines().next().unwrap_or_default().to_owned())
    }
}
