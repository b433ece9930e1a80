//! A server that is measured: its program, and one process of it on loopback with a folder of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 15;

/// A program that takes part.
pub struct Contender {
    pub name: &'static str,
    pub program: PathBuf,
    pub ours: bool,
}

/// A member that runs. Dropping it kills it.
pub struct Server {
    child: Child,
    place: Place,
}

/// The data and the addresses of a member, with which it can be started again.
#[derive(Clone)]
pub struct Place {
    folder: PathBuf,
    client: String,
    peer: String,
}

// === impl Contender ===

impl Contender {
    pub fn etcd(name: &'static str, program: PathBuf) -> Self {
        Self { name, program, ours: false }
    }

    pub fn ours(name: &'static str, program: PathBuf) -> Self {
        Self { name, program, ours: true }
    }

    /// The first line that it prints of its version.
    pub fn version(&self) -> anyhow::Result<String> {
        let output =
            Command::new(&self.program).arg("--version").output().with_context(|| format!("start {}", self.name))?;
        ensure!(output.status.success(), "{} --version ended with {}", self.program.display(), output.status);
        Ok(version_of(&String::from_utf8_lossy(&output.stdout)).to_owned())
    }
}

/// Ours says who it is in parentheses, since tools read the version of etcd's API in the first line.
fn version_of(text: &str) -> &str {
    let own = text.split_once("(Garboard ").and_then(|(_, rest)| rest.split([',', ')']).next());
    let etcd = || text.lines().next().and_then(|line| line.strip_prefix("etcd Version: "));
    own.or_else(etcd).unwrap_or("unknown").trim()
}

// === impl Place ===

impl Place {
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Both are held until both are known, so that they differ.
        let (client, peer) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Self {
            folder: folder.to_owned(),
            client: client.local_addr()?.to_string(),
            peer: peer.local_addr()?.to_string(),
        })
    }

    /// HOST:PORT for clients.
    pub fn endpoint(&self) -> &str {
        &self.client
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

// === impl Server ===

impl Server {
    /// Starts a member with the defaults, but for its name, folder and addresses.
    pub fn start(contender: &Contender, place: &Place) -> anyhow::Result<Self> {
        let (client, peer) = (format!("http://{}", place.client), format!("http://{}", place.peer));
        let log = File::options().create(true).append(true).open(place.log())?;
        let child = Command::new(&contender.program)
            .args(["--name", "bench", "--data-dir"])
            .arg(place.folder.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .current_dir(&place.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", contender.program.display()))?;
        Ok(Self { child, place: place.clone() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error once the process has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server has ended with {status}"),
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(self.place.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        format!("the end of the server's log:\n{shown}\n")
    }

    /// SIGTERM, and waits for the end: what is left is what a clean stop leaves.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().context("start kill")?;
        ensure!(status.success(), "kill -TERM ended with {status}");
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < STOP_LIMIT, "the server still runs {STOP_LIMIT:?} after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails when the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_program_and_not_of_the_api() {
        assert_eq!(version_of("etcd Version: 3.7.3\nGit SHA: x\n"), "3.7.3");
        assert_eq!(version_of("etcd Version: 3.6.16\nGo Version: none (Garboard 0.1.0, in Rust)\n"), "0.1.0");
        assert_eq!(version_of(""), "unknown");
    }
}
