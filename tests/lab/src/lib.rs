//! A real Kubernetes of several nodes on one machine, which stores in garboard: for tests of the operator and to look around in.
//!
//! A node is a process with mount, network, process, host name and IPC namespaces of its own, and in it what is in any node: containerd,
//! kubelet, kube-proxy. One more such process holds the control plane and the bridge that is all the network there is. Everything of a lab
//! lies in one folder and hangs on these processes: when they end, the kernel ends all that runs in them and takes mounts and links away.
//!
//! [`Lab::up`] is where to begin; `docs/lab.md` says what it is for.
#![forbid(unsafe_code)]
// Nothing here is part of the server: it reads the clock, opens files and spawns threads as any program does.
#![allow(clippy::disallowed_methods)]

mod cert_manager;
mod cgroup;
mod config;
pub mod control;
mod images;
mod lab;
mod namespaces;
mod network;
mod node;
pub mod packages;
mod pki;
pub mod process;
mod services;
pub mod spec;
mod trace;
pub mod wait;

pub use lab::Extra;
pub use lab::Lab;
pub use lab::Options;
pub use lab::Store;
pub use network::Families;
pub use node::Node;
