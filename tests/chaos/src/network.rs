//! The network of a run: a bridge, a namespace per member, an address for this process. All names carry the process id of the run.
//!
//! Invariant: `remove(id)` removes everything that a run with that id has made, whatever state it died in, and can be called at any time.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use garboard_e2e::process::run;
use rustix::process::Signal;

use crate::cleanup;

const PREFIX: &str = "gc";
/// The folder of a run, with its process id behind it.
pub const FOLDER: &str = "garboard-chaos-";
const NAMESPACES: &str = "/run/netns";

pub struct Network {
    id: u32,
    /// The first three bytes of all addresses.
    net: [u8; 3],
}

// === impl Network ===

impl Network {
    /// A network with `slots` namespaces.
    pub fn new(slots: usize) -> anyhow::Result<Self> {
        let id = std::process::id();
        let net = free_net(id)?;
        // From here on a failure removes what is there already.
        let network = Self { id, net };
        let bridge = bridge(id);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", network.host()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for slot in 0..slots {
            let (namespace, veth) = (network.namespace(slot), format!("{PREFIX}{id}v{slot}"));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &veth, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &veth, "master", &bridge, "up"])?;
            let address = format!("{}/24", network.address(slot));
            ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// This process's own address on the bridge: clients come from it, and proxies listen there.
    pub fn host(&self) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, 1)
    }

    pub fn address(&self, slot: usize) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, 10 + slot as u8)
    }

    pub fn namespace(&self, slot: usize) -> String {
        format!("{PREFIX}{}n{slot}", self.id)
    }

    /// A program in a member's namespace. It replaces `ip`, so its process id is that of the child.
    pub fn command(&self, slot: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(slot)]).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.id);
    }
}

fn bridge(id: u32) -> String {
    format!("{PREFIX}{id}b")
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(args))?.success(&format!("ip {}", args.join(" "))).map(drop)
}

/// A /24 that this machine does not use: two runs at a time begin to look at different ones.
fn free_net(id: u32) -> anyhow::Result<[u8; 3]> {
    let used = run(Command::new("ip").args(["-4", "-oneline", "route"]))?.success("ip route")?.stdout;
    (0..64)
        .map(|tried| id.wrapping_add(tried * 257))
        .map(|n| [10, 192 | ((n >> 8) & 63) as u8, (n & 255) as u8])
        .find(|[a, b, c]| !used.contains(&format!("{a}.{b}.{c}.")))
        .context("no free 10.192-255.x.0/24")
}

/// Removes what runs have left that ended without doing so themselves.
pub fn sweep() {
    let mut ids: Vec<u32> = owners().into_iter().filter(|id| !alive(*id)).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        println!("removing what run {id} has left");
        remove(id);
    }
}

fn alive(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with("chaos"))
}

/// The runs whose namespaces, bridges or mounts are there.
fn owners() -> Vec<u32> {
    let mut ids: Vec<u32> =
        names(NAMESPACES).iter().chain(&names("/sys/class/net")).filter_map(|name| owner(name)).collect();
    ids.extend(mounts().iter().filter_map(|path| {
        let (_, rest) = path.split_once(FOLDER)?;
        rest.split('/').next()?.parse::<u32>().ok()
    }));
    ids
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The process id in the name of a namespace, a bridge or a link.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (id, kind) = rest.split_at(digits);
    let (kind, number) = kind.split_at(1);
    let ours = match kind {
        "b" => number.is_empty(),
        "n" | "v" => number.parse::<u8>().is_ok(),
        _ => false,
    };
    if ours { id.parse().ok() } else { None }
}

fn mounts() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.contains(FOLDER))
        .map(str::to_owned)
        .collect()
}

/// Ends the processes in the namespaces of a run, and removes its namespaces, links, bridge and mounts.
pub fn remove(id: u32) {
    for namespace in names(NAMESPACES).iter().filter(|name| owner(name) == Some(id)) {
        end_processes(namespace);
        let _ = run(Command::new("ip").args(["netns", "delete", namespace]));
    }
    // A namespace takes its links with it, but only some time later.
    for link in names("/sys/class/net").iter().filter(|name| owner(name) == Some(id)) {
        let _ = run(Command::new("ip").args(["link", "delete", link]));
    }
    let folder = format!("{FOLDER}{id}");
    for mount in mounts().iter().filter(|path| path.split('/').any(|part| part == folder)) {
        let _ = run(Command::new("umount").args(["--lazy", mount]));
    }
}

fn end_processes(namespace: &str) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let Ok(output) = run(Command::new("ip").args(["netns", "pids", namespace])) else { return };
        let ids: Vec<u32> = output.stdout.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|id| cleanup::send(*id, Signal::KILL));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_have_an_owner() {
        assert_eq!(owner("gc123b"), Some(123));
        assert_eq!(owner("gc4194304v3"), Some(4_194_304));
        assert_eq!(owner("gc77n0"), Some(77));
        for other in ["gc", "gcb", "gc12", "gc12bridge", "gc12n", "eth0", "gce1b", "docker0", "gc12nx"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_links_fit_the_kernel() {
        let longest = format!("{PREFIX}{}v9", 4_194_304);
        assert!(longest.len() <= 15, "{longest}");
    }
}
