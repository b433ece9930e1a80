//! Child processes with their output in files; none outlives its handle.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

// === impl Process ===

impl Process {
    /// Starts `command` with stdout and stderr in `log`.
    pub fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the output satisfies `done`; an early end or a timeout is an error that shows the output.
    pub fn wait_output(&mut self, what: &str, limit: Duration, done: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let text = self.output();
            if done(&text) {
                return Ok(text);
            }
            if let Some(status) = ended {
                bail!("{} ended with {status} before {what}; {}:\n{}", self.name, self.log.display(), tail(&text));
            }
            if start.elapsed() > limit {
                bail!("{}: no {what} within {limit:?}; {}:\n{}", self.name, self.log.display(), tail(&text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} still runs after {limit:?}; {}:\n{}", self.name, self.log.display(), tail(&self.output()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL; an error if the process had already ended by itself.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.signal() != Some(9) {
            bail!("{} ended by itself with {status}; {}:\n{}", self.name, self.log.display(), tail(&self.output()));
        }
        Ok(())
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let what = format!("kill -{name}");
        run(Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]))?.success(&what)?;
        Ok(())
    }

    /// SIGTERM, and the status with which the process ends.
    pub fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(Duration::from_secs(20))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Output ===

impl Output {
    pub fn success(self, what: &str) -> anyhow::Result<Self> {
        if !self.status.success() {
            bail!("{what}: {}\n{}{}", self.status, tail(&self.stdout), tail(&self.stderr));
        }
        Ok(self)
    }
}

/// Runs a program to its end, at most five minutes.
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    run_with_input(command, "")
}

pub fn run_with_input(command: &mut Command, input: &str) -> anyhow::Result<Output> {
    use std::io::Write as _;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is no error here.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (mut out, mut err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let limiter = limit(&name, child.id(), Duration::from_secs(300));
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes)?;
    let stderr = reader.join().map_err(|_| anyhow::anyhow!("reader of {name} panicked"))??;
    let status = child.wait()?;
    drop(limiter);
    Ok(Output {
        status,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Kills the process unless the returned sender is dropped in time.
fn limit(name: &str, id: u32, limit: Duration) -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let name = name.to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("e2e: {name} still runs after {limit:?}: killed");
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        }
    });
    sender
}

/// The last lines of a log.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..]
        .iter()
        .map(|line| line.chars().take(600).collect::<String>() + "\n")
        .collect()
}
