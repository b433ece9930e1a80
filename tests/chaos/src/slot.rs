//! A place for a member: a namespace, an address, certificates; and the process of the member that has the place now.
//!
//! Invariant: the process is started, ended and asked for under one lock, so an end that nobody has asked for is always noticed.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_e2e::certs::Identity;
use rustix::process::Signal;

use crate::cleanup::Kept;
use crate::cleanup::may_start;
use crate::cleanup::send;
use crate::rules::CLIENT_PORT;
use crate::rules::PEER_PORT;

/// How long a member may take to end on SIGTERM.
const TERM_LIMIT: Duration = Duration::from_secs(20);

pub struct Slot {
    pub index: usize,
    pub address: Ipv4Addr,
    /// Where the others call it.
    pub peer_url: String,
    pub identity: Identity,
    dir: PathBuf,
    life: Mutex<Life>,
}

struct Life {
    child: Option<Running>,
    /// How often a member began anew here, which is part of its name and of its folder.
    generation: u32,
    starts: u32,
    /// Whether the member of this generation has been started.
    begun: bool,
    /// The cluster that the member is told of, and whether it is new or existing.
    cluster: (String, &'static str),
    /// It has a member of the cluster: one that should run when all faults are healed.
    active: bool,
    /// A fault makes its end something to expect.
    may_end: bool,
    /// It has been told to end, and whoever told it waits for that.
    told_to_end: bool,
}

/// A process, and what ends it should the run be ended. Whatever starts it in its namespace becomes it.
struct Running {
    process: Child,
    _kept: Kept,
}

/// A process that ended though nobody ended it.
pub struct Ended {
    pub status: ExitStatus,
    pub expected: bool,
    pub log: PathBuf,
}

// === impl Slot ===

impl Slot {
    pub fn new(index: usize, address: Ipv4Addr, peer_url: String, identity: Identity, dir: &Path) -> Self {
        let life = Life {
            child: None,
            generation: 0,
            starts: 0,
            begun: false,
            cluster: (String::new(), "new"),
            active: false,
            may_end: false,
            told_to_end: false,
        };
        Self { index, address, peer_url, identity, dir: dir.to_owned(), life: Mutex::new(life) }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn client_url(&self) -> String {
        format!("https://{}:{CLIENT_PORT}", self.address)
    }

    pub fn name(&self) -> String {
        name(self.index, self.life().generation)
    }

    /// The folder of all data that members have had here.
    pub fn home(&self) -> PathBuf {
        self.dir.join(format!("m{}", self.index))
    }

    fn data_dir(&self, generation: u32) -> PathBuf {
        self.home().join(format!("data-{generation}"))
    }

    fn log(&self, starts: u32) -> PathBuf {
        self.dir.join(format!("m{}-{starts:03}.log", self.index))
    }

    /// What the member has logged since its last start.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log(self.life().starts)).unwrap_or_default()
    }

    /// Whether a member here has logged such a line, in this life or an earlier one.
    pub fn has_ever_logged(&self, line: impl Fn(&str) -> bool) -> bool {
        let read = |starts| std::fs::read_to_string(self.log(starts)).unwrap_or_default();
        (1..=self.life().starts).any(|starts| read(starts).lines().any(&line))
    }

    /// What a member that starts here is told of the cluster.
    pub fn joins(&self, initial_cluster: String, state: &'static str) {
        let mut life = self.life();
        life.cluster = (initial_cluster, state);
        life.active = true;
    }

    /// The next member here has a name and a folder of its own; the data of the last one is gone.
    pub fn begins_anew(&self) -> anyhow::Result<()> {
        self.wipe()?;
        self.life().generation += 1;
        Ok(())
    }

    /// The data of the member is gone.
    pub fn wipe(&self) -> anyhow::Result<()> {
        let mut life = self.life();
        ensure!(life.child.is_none(), "member {} runs and cannot begin anew", self.index);
        let old = self.data_dir(life.generation);
        if old.exists() {
            std::fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
        }
        life.begun = false;
        Ok(())
    }

    /// The member of this generation was started and is no more.
    pub fn has_ended(&self) -> bool {
        let life = self.life();
        life.begun && life.child.is_none()
    }

    /// No member of the cluster has this place.
    pub fn leaves(&self) {
        self.life().active = false;
    }

    pub fn is_active(&self) -> bool {
        self.life().active
    }

    pub fn set_may_end(&self, may_end: bool) {
        self.life().may_end = may_end;
    }

    /// The process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.life().child.as_ref().map(|running| running.process.id())
    }

    /// etcd's flags for it; `command` starts the program in its namespace.
    pub fn start(&self, mut command: Command, authority: &Path, extra: &[String]) -> anyhow::Result<()> {
        let mut life = self.life();
        ensure!(life.child.is_none(), "member {} runs already", self.index);
        let _until_started = may_start().context("the run is being ended")?;
        life.starts += 1;
        life.begun = true;
        let log = self.log(life.starts);
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.args(self.arguments(&life, authority)).args(extra);
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        let process = child.with_context(|| format!("start member {}", self.index))?;
        life.child = Some(Running { _kept: Kept::new(process.id()), process });
        Ok(())
    }

    fn arguments(&self, life: &Life, authority: &Path) -> Vec<String> {
        let (clients, peers) = (self.client_url(), format!("https://{}:{PEER_PORT}", self.address));
        let (cert, key) = (self.identity.cert.display(), self.identity.key.display());
        let (cluster, state) = &life.cluster;
        vec![
            format!("--name={}", name(self.index, life.generation)),
            format!("--data-dir={}", self.data_dir(life.generation).display()),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={}", self.peer_url),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--initial-cluster={cluster}"),
            format!("--initial-cluster-state={state}"),
            "--initial-cluster-token=chaos".to_owned(),
            format!("--cert-file={cert}"),
            format!("--key-file={key}"),
            format!("--trusted-ca-file={}", authority.display()),
            "--client-cert-auth=true".to_owned(),
            format!("--peer-cert-file={cert}"),
            format!("--peer-key-file={key}"),
            format!("--peer-trusted-ca-file={}", authority.display()),
            "--peer-client-cert-auth=true".to_owned(),
            "--logger=zap".to_owned(),
            "--log-outputs=stderr".to_owned(),
        ]
    }

    /// Looks whether the process has ended by itself.
    pub fn poll(&self) -> Option<Ended> {
        let mut life = self.life();
        let status = life.child.as_mut()?.process.try_wait().ok()??;
        life.child = None;
        if life.told_to_end {
            return None;
        }
        Some(Ended { status, expected: life.may_end || !life.active, log: self.log(life.starts) })
    }

    /// SIGKILL. False if no process runs.
    pub fn kill(&self) -> bool {
        let mut life = self.life();
        let Some(mut running) = life.child.take() else { return false };
        // Fails only when it has ended, which is what is wanted.
        let _ = running.process.kill();
        let _ = running.process.wait();
        true
    }

    /// SIGTERM, and its end. False if no process runs.
    pub fn terminate(&self) -> anyhow::Result<bool> {
        self.life().told_to_end = true;
        let told = self.signal(Signal::TERM);
        let start = Instant::now();
        // Others look at the slot meanwhile.
        while self.pid().is_some() && start.elapsed() < TERM_LIMIT {
            self.poll();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.life().told_to_end = false;
        ensure!(self.pid().is_none(), "member {} still runs {TERM_LIMIT:?} after SIGTERM", self.index);
        Ok(told)
    }

    /// Sends a signal to the process; false if none runs.
    pub fn signal(&self, signal: Signal) -> bool {
        match &self.life().child {
            Some(running) => {
                send(running.process.id(), signal);
                true
            }
            None => false,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.kill();
    }
}

fn name(index: usize, generation: u32) -> String {
    if generation == 0 { format!("m{index}") } else { format!("m{index}-{generation}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let identity = Identity { cert: "/run/m2.crt".into(), key: "/run/m2.key".into() };
        let address = Ipv4Addr::new(10, 200, 1, 12);
        Slot::new(2, address, "https://10.200.1.1:7002".to_owned(), identity, Path::new("/run"))
    }

    #[test]
    fn a_member_is_told_all_that_etcd_is() {
        let slot = slot();
        slot.joins("m2=https://10.200.1.1:7002".to_owned(), "new");
        let arguments = slot.arguments(&slot.life(), Path::new("/run/ca.crt"));
        for wanted in [
            "--name=m2",
            "--data-dir=/run/m2/data-0",
            "--listen-peer-urls=https://10.200.1.12:2380",
            // Behind a proxy the others call it elsewhere than where it listens.
            "--initial-advertise-peer-urls=https://10.200.1.1:7002",
            "--advertise-client-urls=https://10.200.1.12:2379",
            "--initial-cluster=m2=https://10.200.1.1:7002",
            "--initial-cluster-state=new",
            "--peer-trusted-ca-file=/run/ca.crt",
        ] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted} is not in {arguments:?}");
        }
    }

    #[test]
    fn a_member_that_begins_anew_has_another_name_and_another_folder() {
        let slot = slot();
        slot.begins_anew().unwrap();
        assert_eq!(slot.name(), "m2-1");
        slot.joins("m2-1=x".to_owned(), "existing");
        let arguments = slot.arguments(&slot.life(), Path::new("/run/ca.crt"));
        for wanted in ["--name=m2-1", "--data-dir=/run/m2/data-1", "--initial-cluster-state=existing"] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted} is not in {arguments:?}");
        }
        assert!(slot.is_active() && slot.pid().is_none() && !slot.kill());
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_noticed() {
        let dir = std::env::temp_dir().join(format!("garboard-chaos-slot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let identity = Identity { cert: "c".into(), key: "k".into() };
        let slot = Slot::new(0, Ipv4Addr::LOCALHOST, "x".to_owned(), identity, &dir);
        slot.joins("m0=x".to_owned(), "new");
        for may_end in [false, true] {
            slot.set_may_end(may_end);
            // It ends with an error, whatever flags follow.
            let mut program = Command::new("sh");
            program.args(["-c", "exit 7"]);
            slot.start(program, Path::new("ca"), &[]).unwrap();
            let ended = loop {
                if let Some(ended) = slot.poll() {
                    break ended;
                }
                std::thread::yield_now();
            };
            assert_eq!((ended.status.code(), ended.expected), (Some(7), may_end));
            assert!(slot.poll().is_none());
        }
        for end in [Slot::kill, |slot: &Slot| slot.terminate().unwrap()] {
            let mut program = Command::new("sh");
            program.args(["-c", "exec sleep 600"]);
            slot.start(program, Path::new("ca"), &[]).unwrap();
            assert!(end(&slot) && slot.pid().is_none() && slot.poll().is_none() && !end(&slot));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
