//! Services: each that is wanted runs; one that ends is started again after a moment.
//!
//! Invariant: one thread alone decides, by events; a child is waited for in one place, whoever's child it was.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use garboard_lab::control::Request;
use garboard_lab::control::STOP_LIMIT;
use garboard_lab::spec::OWN;
use garboard_lab::spec::PROGRAMS;
use garboard_lab::spec::Service;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitOptions;
use rustix::process::kill_process;
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

/// Between the end of a service and its next start.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at what has a time.
const TICK: Duration = Duration::from_secs(3600);

/// Whom to tell how a request went.
type Reply = SyncSender<Result<String, String>>;

/// What happens.
pub enum Event {
    /// A process has ended, and how.
    Ended(Pid, String),
    Asked(Request, Reply),
}

/// A service and what is known of it.
struct Supervised {
    service: Service,
    id: Option<Pid>,
    wanted: bool,
    starts: u32,
    /// When it is started again, or killed because it does not stop.
    due: Option<Instant>,
    stopping: Vec<Reply>,
}

pub struct Supervisor {
    services: Vec<Supervised>,
}

/// Reports the end of every child, also of those that became ours when their parents ended.
pub fn watch_ends(events: SyncSender<Event>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGCHLD]).context("handle SIGCHLD")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // One signal may stand for several children.
            while let Ok(Some((id, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                if events.send(Event::Ended(id, format!("{status:?}"))).is_err() {
                    return;
                }
            }
        }
    });
    Ok(())
}

// === impl Supervisor ===

impl Supervisor {
    pub fn new(services: Vec<Service>) -> Self {
        let services = services.into_iter().map(|service| Supervised {
            service,
            id: None,
            wanted: false,
            starts: 0,
            due: None,
            stopping: Vec::new(),
        });
        Self { services: services.collect() }
    }

    pub fn run(mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            let due = self.services.iter().filter_map(|supervised| supervised.due).min();
            let limit = due.map_or(TICK, |due| due.saturating_duration_since(now));
            match events.recv_timeout(limit) {
                Ok(Event::Ended(id, how)) => self.ended(id, &how),
                Ok(Event::Asked(request, reply)) => self.asked(&request, reply),
                Err(RecvTimeoutError::Timeout) => self.services.iter_mut().for_each(Supervised::look),
                Err(RecvTimeoutError::Disconnected) => bail!("nobody is left to ask"),
            }
        }
    }

    fn ended(&mut self, id: Pid, how: &str) {
        if let Some(supervised) = self.services.iter_mut().find(|supervised| supervised.id == Some(id)) {
            supervised.ended(how);
        }
    }

    fn asked(&mut self, request: &Request, reply: Reply) {
        let (Request::Start(name) | Request::Stop(name) | Request::Kill(name) | Request::Starts(name)) = request else {
            return;
        };
        // Nobody who listens: nobody who cares.
        let answer = |answer: Result<String, String>, reply: Reply| drop(reply.send(answer));
        let Some(supervised) = self.services.iter_mut().find(|supervised| supervised.service.name == *name) else {
            return answer(Err(format!("no service {name} here")), reply);
        };
        match request {
            Request::Start(_) => answer(supervised.start(), reply),
            Request::Stop(_) => supervised.stop(reply),
            Request::Kill(_) => answer(supervised.kill(), reply),
            _ => answer(Ok(supervised.starts.to_string()), reply),
        }
    }
}

// === impl Supervised ===

impl Supervised {
    fn start(&mut self) -> Result<String, String> {
        self.wanted = true;
        if self.id.is_some() {
            return Ok(String::new());
        }
        self.due = None;
        self.starts += 1;
        match spawn(&self.service) {
            Ok(id) => {
                eprintln!("lab-node: {} started, process {id}", self.service.name);
                self.id = Some(id);
                Ok(String::new())
            }
            Err(error) => {
                eprintln!("lab-node: {}: {error:#}", self.service.name);
                self.due = Some(Instant::now() + PAUSE);
                Err(format!("{error:#}").replace('\n', " "))
            }
        }
    }

    fn stop(&mut self, reply: Reply) {
        self.wanted = false;
        self.due = None;
        let Some(id) = self.id else {
            return drop(reply.send(Ok(String::new())));
        };
        let _ = kill_process(id, Signal::TERM);
        self.due = Some(Instant::now() + STOP_LIMIT);
        self.stopping.push(reply);
    }

    fn kill(&mut self) -> Result<String, String> {
        let id = self.id.ok_or_else(|| format!("{} does not run", self.service.name))?;
        kill_process(id, Signal::KILL).map_err(|error| error.to_string())?;
        Ok(String::new())
    }

    fn ended(&mut self, how: &str) {
        eprintln!("lab-node: {} ended: {how}", self.service.name);
        self.id = None;
        self.due = self.wanted.then(|| Instant::now() + PAUSE);
        for reply in self.stopping.drain(..) {
            drop(reply.send(Ok(String::new())));
        }
    }

    /// Does what is due.
    fn look(&mut self) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        match self.id {
            Some(id) if !self.wanted => drop(kill_process(id, Signal::KILL)),
            None if self.wanted => drop(self.start()),
            _ => {}
        }
    }
}

fn spawn(service: &Service) -> anyhow::Result<Pid> {
    let log = Path::new(OWN).join("log").join(format!("{}.log", service.name));
    let log =
        File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
    let (program, args) = service.argv.split_first().context("no program")?;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", format!("{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("HOME", "/var/tmp")
        .env("TMPDIR", "/var/tmp")
        .envs(&service.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A signal to the node's first process is for that alone.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    id.with_context(|| format!("{program} has no process id"))
}
