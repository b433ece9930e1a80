//! The network of a lab: addresses, the bridge in the namespaces of the control plane, and each node's plug in it.
//!
//! All labs use the same addresses: none of them is seen outside its own namespaces.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde::Serialize;

use crate::process::run_with_input;
use crate::wait::until;

pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The API server's, on all addresses of the control plane.
pub const API_PORT: u16 = 6443;

const NODES_BEGIN: usize = 10;
/// The kernel takes links of namespaces that have ended away some time after.
const LINK_LIMIT: Duration = Duration::from_secs(20);

/// Which addresses nodes, Pods and Services have. With both, those of IPv4 come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    Ipv4,
    Ipv6,
    Dual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

// === impl Family ===

impl Family {
    fn control(self) -> &'static str {
        match self {
            Self::V4 => "10.99.0.1",
            Self::V6 => "fd00:99::1",
        }
    }

    /// How many bits of the addresses on the bridge are its own.
    fn bridge_prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    /// How many bits an address has.
    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn services(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.0/16",
            Self::V6 => "fd00:96::/112",
        }
    }

    /// The first of the services' addresses.
    fn api_service(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.1",
            Self::V6 => "fd00:96::1",
        }
    }

    fn dns(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.10",
            Self::V6 => "fd00:96::a",
        }
    }

    fn all_pods(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:244::/48",
        }
    }

    fn pods(self, n: usize) -> String {
        match self {
            Self::V4 => format!("10.244.{n}.0/24"),
            Self::V6 => format!("fd00:244:0:{n:x}::/64"),
        }
    }

    fn node(self, n: usize) -> String {
        match self {
            Self::V4 => format!("10.99.0.{}", NODES_BEGIN + n),
            Self::V6 => format!("fd00:99::{:x}", NODES_BEGIN + n),
        }
    }

    fn everywhere(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0/0",
            Self::V6 => "::/0",
        }
    }

    /// Without a look for another one who has the address: there is none.
    fn add(self, address: &str) -> String {
        let flags = if self == Self::V6 { " nodad" } else { "" };
        format!("address add {address}/{} dev eth0{flags}", self.bridge_prefix())
    }
}

// === impl Families ===

impl FromStr for Families {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            "dual" => Ok(Self::Dual),
            other => bail!("no addresses {other}: ipv4, ipv6 or dual"),
        }
    }
}

impl Families {
    fn each(self) -> &'static [Family] {
        match self {
            Self::Ipv4 => &[Family::V4],
            Self::Ipv6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }

    fn first(self) -> Family {
        if self == Self::Ipv6 { Family::V6 } else { Family::V4 }
    }

    /// Whether this machine has what it asks for.
    pub fn possible(self) -> bool {
        self == Self::Ipv4 || Path::new("/proc/net/if_inet6").exists()
    }

    fn map(self, of: impl Fn(Family) -> String) -> Vec<String> {
        self.each().iter().map(|family| of(*family)).collect()
    }

    /// The control plane's own.
    pub fn control(self) -> &'static str {
        self.first().control()
    }

    /// Where the API server is, for nodes and Pods.
    pub fn api_url(self) -> String {
        let host = match self.first() {
            Family::V4 => self.control().to_owned(),
            Family::V6 => format!("[{}]", self.control()),
        };
        format!("https://{host}:{API_PORT}")
    }

    /// All addresses of the API server.
    pub fn api(self) -> Vec<String> {
        [self.map(|family| family.control().to_owned()), self.map(|family| family.api_service().to_owned())].concat()
    }

    /// What a server binds to that is to be reached at all of them.
    pub fn any(self) -> &'static str {
        if self == Self::Ipv4 { "0.0.0.0" } else { "::" }
    }

    pub fn services(self) -> String {
        self.map(|family| family.services().to_owned()).join(",")
    }

    pub fn dns(self) -> &'static str {
        self.first().dns()
    }

    pub fn all_pods(self) -> String {
        self.map(|family| family.all_pods().to_owned()).join(",")
    }

    /// The Pods of node `n`.
    pub fn pods(self, n: usize) -> Vec<String> {
        self.map(|family| family.pods(n))
    }

    /// Node `n`, of 1 and up.
    pub fn node(self, n: usize) -> Vec<String> {
        self.map(|family| family.node(n))
    }

    /// The same as networks of one address each.
    pub fn node_alone(self, n: usize) -> Vec<String> {
        self.map(|family| format!("{}/{}", family.node(n), family.bits()))
    }

    /// The networks of all addresses.
    pub fn everywhere(self) -> Vec<String> {
        self.map(|family| family.everywhere().to_owned())
    }
}

fn port(n: usize) -> String {
    format!("port{n}")
}

/// Makes the bridge, in the network of the process `control`.
pub fn make_bridge(control: i32, nodes: usize, families: Families) -> anyhow::Result<()> {
    let mut lines = vec!["link set lo up".to_owned(), "link add eth0 type bridge".to_owned()];
    lines.extend(families.map(|family| family.add(family.control())));
    lines.push("link set eth0 up".to_owned());
    for n in 1..=nodes {
        lines.extend(families.map(|family| format!("route add {} via {}", family.pods(n), family.node(n))));
    }
    ip(control, &lines)
}

/// Connects node `n`, whose first process is `id`, with the bridge.
pub fn plug(control: i32, id: i32, n: usize, nodes: usize, families: Families) -> anyhow::Result<()> {
    let port = port(n);
    let add = [format!("link add {port} type veth peer name eth0 netns {id}")];
    until("free port of the bridge", LINK_LIMIT, || match ip(control, &add) {
        Err(error) if format!("{error:#}").contains("File exists") => Ok(None),
        other => other.map(Some),
    })?;
    ip(control, &[format!("link set {port} master eth0 up")])?;
    let mut lines = vec!["link set lo up".to_owned()];
    lines.extend(families.map(|family| family.add(&family.node(n))));
    lines.push("link set eth0 up".to_owned());
    // It leads nowhere. Without a route, connections to the addresses of services are refused before kube-proxy's rules see them.
    lines.extend(families.map(|family| format!("route add {} dev eth0", family.everywhere())));
    for other in (1..=nodes).filter(|other| *other != n) {
        lines.extend(families.map(|family| format!("route add {} via {}", family.pods(other), family.node(other))));
    }
    ip(id, &lines)
}

/// Takes the plug of node `n` out of the bridge: what it sends is lost, and it sees no broken link.
pub fn cut(control: i32, n: usize) -> anyhow::Result<()> {
    ip(control, &[format!("link set {} nomaster", port(n))])
}

pub fn heal(control: i32, n: usize) -> anyhow::Result<()> {
    ip(control, &[format!("link set {} master eth0", port(n))])
}

/// `ip`, a line for each call, in the network of a process.
fn ip(id: i32, lines: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new("nsenter");
    command.args(["--target", &id.to_string(), "--net", "ip", "-batch", "-"]);
    run_with_input(&mut command, &(lines.join("\n") + "\n"))?.success(&format!("ip: {}", lines.join("; ")))?;
    Ok(())
}
