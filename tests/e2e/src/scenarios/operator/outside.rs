//! Operators that run outside of Pods, so that they can be made to die where a test wants it. They have the rights of the chart's account.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Lab as Kubernetes;

use super::store::NAMESPACE;
use super::store::OPERATOR;
use crate::process::Process;
use crate::scenario::Lab;

const DOMAIN: &str = "cluster.local";
/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(20);

/// Where operators die.
#[derive(Clone, Copy, Debug)]
pub enum Dies {
    /// Between a record and its deed.
    Recorded,
    /// After a deed.
    Acted,
}

// === impl Dies ===

impl Dies {
    /// As the operator is told.
    fn place(self) -> &'static str {
        match self {
            // The step that it begins with was recorded by the one that has died there.
            Self::Recorded => "recorded:2",
            Self::Acted => "acted:1",
        }
    }
}

/// How to start operators.
pub struct Outside<'a> {
    cluster: &'a Kubernetes,
    program: PathBuf,
    kubeconfig: PathBuf,
    logs: PathBuf,
    started: AtomicU32,
}

// === impl Outside ===

impl<'a> Outside<'a> {
    /// Ends the operators in Pods.
    pub fn instead(lab: &Lab, cluster: &'a Kubernetes) -> anyhow::Result<Self> {
        let namespace = format!("--namespace={NAMESPACE}");
        cluster.kubectl_ok(&[&namespace, "scale", "deployment", OPERATOR, "--replicas=0"])?;
        let gone = ["wait", "--for=delete", "pods", "--all", "--timeout=120s"];
        cluster.kubectl_ok(&[&[namespace.as_str()], &gone[..]].concat())?;
        let token = cluster.kubectl_ok(&[&namespace, "create", "token", OPERATOR, "--duration=24h"])?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": cluster.api_url(),
                "certificate-authority": cluster.home().join("ca.crt"),
            }}],
            "users": [{"name": "operator", "user": {"token": token.trim()}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "operator"}}],
            "current-context": "lab",
        });
        let kubeconfig = lab.path("operator.kubeconfig");
        std::fs::write(&kubeconfig, config.to_string())?;
        let program = lab.operator.clone().context("--operator names no program")?;
        Ok(Self { cluster, program, kubeconfig, logs: lab.dir.clone(), started: AtomicU32::new(0) })
    }

    fn command(&self, dies: Option<Dies>, died: &BTreeSet<String>) -> anyhow::Result<Command> {
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let node = self.cluster.node(1)?;
        let mut command = node.beside(&self.program, &["run", "--leader-elect=false"])?;
        command.args(["--image=localhost/garboard", &format!("--cluster-domain={DOMAIN}")]);
        command.arg(format!("--operator-image=localhost/garboard-operator:{}", env!("CARGO_PKG_VERSION")));
        command.arg(format!("--listen=127.0.0.1:{}", 18080 + n % 1000));
        command.env("KUBECONFIG", &self.kubeconfig).env("HOSTNAME", format!("outside-{n}"));
        let steps: Vec<_> = died.iter().filter_map(|place| place.split(' ').nth(1)).collect();
        command.env("GARBOARD_OPERATOR_DIED", steps.join(","));
        match dies {
            Some(dies) => command.env("GARBOARD_OPERATOR_DIES", dies.place()),
            None => command.env_remove("GARBOARD_OPERATOR_DIES"),
        };
        Ok(command)
    }

    /// `died`: where others have.
    fn start(&self, dies: Option<Dies>, died: &BTreeSet<String>) -> anyhow::Result<Process> {
        let command = self.command(dies, died)?;
        let n = self.started.load(Ordering::Relaxed);
        Process::spawn(command, &self.logs.join(format!("operator-{n}.log")))
    }

    /// Runs `count` operators beside each other while `work` is done. Where they die, the next one is started at once; the places are told.
    pub fn during<T>(
        &self,
        count: usize,
        dies: Option<Dies>,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, BTreeSet<String>)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let keepers: Vec<_> = (0..count).map(|_| scope.spawn(|| self.keep(dies, &over))).collect();
            let done = work();
            over.store(true, Ordering::Relaxed);
            let mut places = BTreeSet::new();
            for keeper in keepers {
                let died = keeper.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
                places.extend(died);
            }
            Ok((done?, places))
        })
    }

    /// One operator after the other, until `over`.
    fn keep(&self, dies: Option<Dies>, over: &AtomicBool) -> anyhow::Result<BTreeSet<String>> {
        let mut places = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            let mut process = self.start(dies, &places)?;
            let ended = loop {
                if over.load(Ordering::Relaxed) {
                    break None;
                }
                if let Some(status) = process.ended()? {
                    break Some(status);
                }
                std::thread::sleep(PAUSE);
            };
            let Some(status) = ended else { break };
            let text = process.output();
            let place = text.lines().find_map(|line| line.strip_prefix("died: "));
            // Without the API server it ends by itself, as in a Pod.
            ensure!(
                place.is_some() || !status.success(),
                "an operator ended with {status}:\n{}",
                crate::process::tail(&text)
            );
            places.extend(place.map(str::to_owned));
        }
        Ok(places)
    }
}
