//! What the first process of a node is told: `lab-node` reads it, [`crate::Lab`] writes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

/// Where a node finds what is its own, whatever the machine has there.
pub const OWN: &str = "/run/lab/node";
/// Where it finds the programs of the lab.
pub const PROGRAMS: &str = "/run/lab/bin";
/// The socket in a node's folder that its first process listens on: see [`crate::control`].
pub const CONTROL: &str = "control";

/// A node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    /// The node's folder on the machine: `etc`, `log`, `var` and [`CONTROL`].
    pub folder: PathBuf,
    pub programs: PathBuf,
    pub services: Vec<Service>,
    /// Where connections lead that come in on the listening socket that is its standard input.
    pub forward: Option<SocketAddr>,
}

/// A program that is started when somebody asks for it, and again whenever it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub argv: Vec<String>,
    /// Besides what every service has in its environment.
    pub env: BTreeMap<String, String>,
}
