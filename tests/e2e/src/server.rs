//! The program under test, started the way an operator starts etcd.

use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitStatus;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;

use crate::certs::Authority;
use crate::certs::Identity;
use crate::process::Process;
use crate::scenario::Lab;

/// The log line that every framework around etcd waits for.
const READY: &str = "ready to serve client requests";
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How to start a member; the same value starts it again on the same data and address.
#[derive(Clone)]
pub struct Member {
    pub name: String,
    pub program: PathBuf,
    pub data_dir: PathBuf,
    pub client_url: String,
    pub extra: Vec<String>,
    /// What starts the program; nothing does otherwise.
    pub prefix: Vec<String>,
    pub peer_url: String,
    /// The members that its cluster begins with, or has when it joins; `None`: itself.
    pub initial_cluster: Option<String>,
    log: PathBuf,
}

/// A member that runs.
pub struct Server {
    pub process: Process,
    pub member: Member,
}

// === impl Member ===

impl Member {
    /// A member of its own cluster, on a free port, with its files under `<folder>/<name>`.
    pub fn new(lab: &Lab, name: &str) -> anyhow::Result<Self> {
        Self::of(&lab.server, &lab.dir, name)
    }

    /// The same with real etcd.
    pub fn reference(lab: &Lab, name: &str) -> anyhow::Result<Self> {
        Self::of(&lab.tool("etcd"), &lab.dir, name)
    }

    fn of(program: &Path, dir: &Path, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: "default".to_owned(),
            initial_cluster: None,
            program: program.to_owned(),
            data_dir: dir.join(format!("{name}.data")),
            client_url: format!("http://127.0.0.1:{}", free_port()?),
            peer_url: format!("http://127.0.0.1:{}", free_port()?),
            log: dir.join(format!("{name}.log")),
            extra: Vec::new(),
            prefix: Vec::new(),
        })
    }

    /// Where its first start logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Under another name than `default`.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The same member by another program.
    pub fn run_by(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub fn with(mut self, arg: impl Into<String>) -> Self {
        self.extra.push(arg.into());
        self
    }

    pub fn at(mut self, client_url: impl Into<String>) -> Self {
        self.client_url = client_url.into();
        self
    }

    /// Serves `served` over TLS and asks for certificates that `clients` has signed.
    pub fn with_tls(self, served: &Identity, clients: &Authority) -> Self {
        let url = self.client_url.replace("http:", "https:");
        self.with(format!("--cert-file={}", served.cert.display()))
            .with(format!("--key-file={}", served.key.display()))
            .with(format!("--trusted-ca-file={}", clients.cert.display()))
            .with("--client-cert-auth=true")
            .at(url)
    }

    /// Shows the other members `identity`, and asks them for certificates that `authority` has signed.
    pub fn with_peer_tls(mut self, identity: &Identity, authority: &Authority) -> Self {
        self.peer_url = self.peer_url.replace("http:", "https:");
        self.with(format!("--peer-cert-file={}", identity.cert.display()))
            .with(format!("--peer-key-file={}", identity.key.display()))
            .with(format!("--peer-trusted-ca-file={}", authority.cert.display()))
            .with("--peer-client-cert-auth=true")
    }

    pub fn command(&self) -> Command {
        let mut words = self.prefix.iter().map(AsRef::as_ref).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(self.program.as_os_str()));
        command
            .args(words)
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .arg(format!("--listen-client-urls={}", self.client_url))
            .arg(format!("--advertise-client-urls={}", self.advertised()))
            .arg(format!("--listen-peer-urls={}", self.peer_url))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url))
            .arg(format!("--initial-cluster={}", self.cluster()))
            .args(&self.extra);
        command
    }

    fn cluster(&self) -> String {
        self.initial_cluster.clone().unwrap_or_else(|| self.entry())
    }

    /// How an initial cluster names it.
    pub fn entry(&self) -> String {
        format!("{}={}", self.name, self.peer_url)
    }

    /// A unix socket cannot be advertised.
    fn advertised(&self) -> &str {
        if self.client_url.starts_with("unix") { "http://127.0.0.1:1" } else { &self.client_url }
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> anyhow::Result<Server> {
        let mut process = self.spawn()?;
        process.wait_output("readiness", READY_LIMIT, |text| text.contains(READY))?;
        Ok(Server { process, member: self.clone() })
    }

    /// Starts it only.
    pub fn spawn(&self) -> anyhow::Result<Process> {
        // The logs of earlier starts stay beside the newest.
        let mut log = self.log.clone();
        let mut n = 1;
        while log.exists() {
            n += 1;
            log = self.log.with_extension(format!("{n}.log"));
        }
        Process::spawn(self.command(), &log)
    }

    /// Starts it where it must refuse, and returns how it ended with what it said.
    pub fn refusal(&self) -> anyhow::Result<(ExitStatus, String)> {
        let mut process = self.spawn()?;
        let status = process.wait(Duration::from_secs(30))?;
        Ok((status, process.output()))
    }
}

// === impl Server ===

impl Server {
    pub fn url(&self) -> &str {
        &self.member.client_url
    }

    pub fn kill(self) -> anyhow::Result<Member> {
        self.process.kill()?;
        Ok(self.member)
    }

    pub fn terminate(self) -> anyhow::Result<ExitStatus> {
        self.process.terminate()
    }
}

/// Waits until a started process says that it serves.
pub fn wait_ready(process: &mut Process) -> anyhow::Result<()> {
    process.wait_output("readiness", READY_LIMIT, |text| text.contains(READY)).map(drop)
}

/// A port that nobody listens on, and that was not given before. Below those that the kernel gives to connections: one of these could be in
/// use again before it is listened on.
pub fn free_port() -> anyhow::Result<u16> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Runs beside each other begin at different ones.
    let begin = std::process::id().wrapping_mul(61);
    for _ in 0..COUNT {
        let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::SeqCst));
        let port = u16::try_from(FIRST + number % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}
