//! A server that is measured: its program, and processes of it on loopback, the members of one cluster, each with a folder of its own.

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

/// All members of a cluster, running.
pub struct Cluster(Vec<Server>);

/// A member that runs. Dropping it kills it.
struct Server {
    child: Child,
    place: Place,
}

/// The data and the addresses of all members, with which they can be started again.
pub struct Places(Vec<Place>);

#[derive(Clone)]
struct Place {
    name: String,
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

// === impl Places ===

impl Places {
    pub fn new(folder: &Path, members: usize) -> anyhow::Result<Self> {
        // All are held until all are known, so that they differ.
        let bound = (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let addresses =
            bound.iter().map(|socket| Ok(socket.local_addr()?.to_string())).collect::<anyhow::Result<Vec<_>>>()?;
        let place = |(number, (client, peer)): (usize, (&String, &String))| {
            let name = format!("m{}", number + 1);
            let folder = folder.join(&name);
            std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
            Ok(Place { name, folder, client: client.clone(), peer: peer.clone() })
        };
        let (clients, peers) = addresses.split_at(members);
        Ok(Self(clients.iter().zip(peers).enumerate().map(place).collect::<anyhow::Result<_>>()?))
    }

    /// HOST:PORT of each member for clients.
    pub fn endpoints(&self) -> Vec<&str> {
        self.0.iter().map(|place| place.client.as_str()).collect()
    }

    fn initial_cluster(&self) -> String {
        let members: Vec<String> = self.0.iter().map(|place| format!("{}=http://{}", place.name, place.peer)).collect();
        members.join(",")
    }
}

// === impl Place ===

impl Place {
    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

// === impl Cluster ===

impl Cluster {
    /// Starts the members with the defaults, but for names, folders and addresses.
    pub fn start(contender: &Contender, places: &Places) -> anyhow::Result<Self> {
        let members = places.initial_cluster();
        let servers = places.0.iter().map(|place| Server::start(contender, place, &members));
        Ok(Self(servers.collect::<anyhow::Result<_>>()?))
    }

    /// Of each member, in the order of their endpoints.
    pub fn ids(&self) -> Vec<u32> {
        self.0.iter().map(|server| server.child.id()).collect()
    }

    /// An error once one of the processes has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(Server::alive)
    }

    /// The ends of the logs.
    pub fn last_words(&self) -> String {
        self.0.iter().map(Server::last_words).collect()
    }

    /// SIGTERM, and waits for the end: what is left is what a clean stop leaves.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(Server::stop)
    }
}

// === impl Server ===

impl Server {
    fn start(contender: &Contender, place: &Place, initial_cluster: &str) -> anyhow::Result<Self> {
        let (client, peer) = (format!("http://{}", place.client), format!("http://{}", place.peer));
        let log = File::options().create(true).append(true).open(place.log())?;
        let child = Command::new(&contender.program)
            .args(["--name", &place.name, "--data-dir"])
            .arg(place.folder.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", initial_cluster])
            .current_dir(&place.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", contender.program.display()))?;
        Ok(Self { child, place: place.clone() })
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the server {} has ended with {status}", self.place.name),
            None => Ok(()),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(self.place.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        format!("the end of the log of {}:\n{shown}\n", self.place.name)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let status =
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().context("start kill")?;
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
