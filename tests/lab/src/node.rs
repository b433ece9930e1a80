//! One node of a lab, and what can be done to it.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;

use crate::cgroup;
use crate::config::node_name;
use crate::control::Control;
use crate::control::Request;
use crate::lab::Lab;
use crate::namespaces::First;
use crate::network;
use crate::process::Output;
use crate::process::run;
use crate::services;
use crate::spec::CONTROL;
use crate::wait::until;

/// containerd answers within this after its start.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(120);
/// Enough for a drain that waits for Pods to end.
const DRAIN_LIMIT: &str = "120s";

/// A node, or, as number 0, the control plane.
#[derive(Clone)]
pub struct Node<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) number: usize,
}

// === impl Node ===

impl Node<'_> {
    pub fn name(&self) -> String {
        match self.number {
            0 => "control".to_owned(),
            n => node_name(n),
        }
    }

    pub fn folder(&self) -> PathBuf {
        self.lab.home().join(self.name())
    }

    /// Where the volumes of the class local-path are that Pods here have.
    pub fn volumes(&self) -> PathBuf {
        self.folder().join("var/lib/local-path")
    }

    /// The same for the class expandable: a file for each.
    pub fn expandable_volumes(&self) -> PathBuf {
        self.folder().join("var/lib/csi-volumes")
    }

    /// Its cgroup, below the root of each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("garboard-lab-{}-{}", self.lab.name(), self.name())
    }

    fn first_file(&self) -> PathBuf {
        self.folder().join("first.json")
    }

    /// Its first process, if it has one that runs.
    pub(crate) fn first(&self) -> anyhow::Result<First> {
        let file = self.first_file();
        let text = std::fs::read_to_string(&file).with_context(|| format!("{} has not been started", self.name()))?;
        let first: First = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        if !first.runs() {
            bail!("{} does not run", self.name());
        }
        Ok(first)
    }

    pub fn runs(&self) -> bool {
        self.first().is_ok()
    }

    fn control(&self) -> anyhow::Result<Control> {
        Control::connect(&self.folder().join(CONTROL))
    }

    /// Waits until its first process listens, and remembers it.
    pub(crate) fn meet(&self, limit: Duration, alive: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<Control> {
        let control = until("answer of a node's first process", limit, || {
            alive()?;
            Ok(self.control().ok())
        })
        .with_context(|| self.name())?;
        let first = First::new(control.peer()?)?;
        std::fs::write(self.first_file(), serde_json::to_string(&first)?)?;
        Ok(control)
    }

    fn ask(&self, request: &Request) -> anyhow::Result<String> {
        self.control()?.ask(request).with_context(|| self.name())
    }

    /// A program on the node, with its files and its network.
    pub fn command(&self, program: &str, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.first()?.command(program);
        command.args(args);
        Ok(command)
    }

    /// A program of this machine in the node's network, which ends when it is killed.
    pub fn beside(&self, program: &Path, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.first()?.beside(program);
        command.args(args);
        Ok(command)
    }

    /// Runs a program there to its end.
    pub fn exec(&self, program: &str, args: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.command(program, args)?)
    }

    pub fn start_service(&self, name: &str) -> anyhow::Result<()> {
        self.ask(&Request::Start(name.to_owned())).map(drop)
    }

    /// Ends a service for as long as nobody starts it.
    pub fn stop_service(&self, name: &str) -> anyhow::Result<()> {
        self.ask(&Request::Stop(name.to_owned())).map(drop)
    }

    /// SIGKILL; the service comes back by itself.
    pub fn kill_service(&self, name: &str) -> anyhow::Result<()> {
        self.ask(&Request::Kill(name.to_owned())).map(drop)
    }

    /// How often a service has been started.
    pub fn starts(&self, name: &str) -> anyhow::Result<u32> {
        Ok(self.ask(&Request::Starts(name.to_owned()))?.parse()?)
    }

    /// The newest of what a service has written.
    pub fn log(&self, service: &str) -> String {
        let path = self.folder().join("log").join(format!("{service}.log"));
        crate::process::tail(&std::fs::read_to_string(path).unwrap_or_default())
    }

    /// Ends everything on the node at once, as a power cut does. Its disk stays.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.plugged()?;
        self.first()?.end()?;
        self.lab.let_go(self.number);
        cgroup::remove(&self.cgroup())
    }

    /// Starts it on the disk that it had.
    pub fn start(&self) -> anyhow::Result<()> {
        self.plugged()?;
        self.lab.boot(self.number)?;
        self.start_containerd()?;
        self.join()
    }

    pub(crate) fn start_containerd(&self) -> anyhow::Result<()> {
        self.start_service(services::CONTAINERD)?;
        until("answer of containerd", CONTAINERD_LIMIT, || Ok(self.ctr(&["version"])?.status.success().then_some(())))
            .with_context(|| self.name())
    }

    pub(crate) fn join(&self) -> anyhow::Result<()> {
        for service in [services::KUBELET, services::KUBE_PROXY, services::CSI_DRIVER, services::CSI_PROVISIONER] {
            self.start_service(service)?;
        }
        Ok(())
    }

    /// containerd's own client, in the namespace of its images that kubelet uses.
    fn ctr(&self, args: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.ctr_command(args)?)
    }

    fn ctr_command(&self, args: &[&str]) -> anyhow::Result<Command> {
        self.command(&format!("{}/ctr", crate::spec::PROGRAMS), &[&["--namespace", "k8s.io"], args].concat())
    }

    /// Gives the node an image from an archive.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        // By its input: the node need not have the file where the machine has it.
        let output = self.ctr_command(&["images", "import", "-"])?.stdin(file).output().context("start nsenter")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("import {} on {}: {}", archive.display(), self.name(), said.trim_end());
        }
        Ok(())
    }

    /// Gives an image that it has another name.
    pub fn tag_image(&self, from: &str, to: &str) -> anyhow::Result<()> {
        self.ctr(&["images", "tag", "--force", from, to])?.success("ctr images tag")?;
        Ok(())
    }

    /// Cuts it off from all others. It sees no broken link: what it sends is lost.
    pub fn cut(&self) -> anyhow::Result<()> {
        network::cut(self.lab.control().first()?.id, self.plugged()?)
    }

    pub fn heal(&self) -> anyhow::Result<()> {
        network::heal(self.lab.control().first()?.id, self.plugged()?)
    }

    fn plugged(&self) -> anyhow::Result<usize> {
        if self.number == 0 {
            bail!("the control plane holds the bridge of all others: this can be done to nodes");
        }
        Ok(self.number)
    }

    /// Moves its Pods elsewhere and lets no new ones come; those with the label `app=KEPT` stay.
    pub fn drain(&self, kept: Option<&str>) -> anyhow::Result<()> {
        let timeout = format!("--timeout={DRAIN_LIMIT}");
        let moved = kept.map(|app| format!("--pod-selector=app!={app}"));
        let name = self.name();
        let mut args = vec!["drain", &name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", &timeout];
        args.extend(moved.as_deref());
        self.lab.kubectl_ok(&args).map(drop)
    }

    /// Nothing is scheduled on it any more.
    pub fn cordon(&self) -> anyhow::Result<()> {
        self.lab.kubectl_ok(&["cordon", &self.name()]).map(drop)
    }

    pub fn uncordon(&self) -> anyhow::Result<()> {
        self.lab.kubectl_ok(&["uncordon", &self.name()]).map(drop)
    }
}
