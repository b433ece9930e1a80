//! Proves from the outside that the server behaves as etcd does: real clients, real processes, real kills.
//!
//! `e2e --server PATH --tools DIR` runs the scenarios against one server program; with `--control` that program is a real etcd, which
//! shows that the scenarios ask for no more than etcd gives. A scenario that fails keeps its folder and names it.
#![forbid(unsafe_code)]
// Nothing here is part of the server: the runner reads the clock, opens files and spawns threads as any program does.
#![allow(clippy::disallowed_methods)]

pub mod certs;
mod cluster;
mod etcdctl;
mod http;
mod lanes;
mod output;
pub mod random;
mod run;
mod scenario;
mod scenarios;
mod server;

pub use garboard_lab::packages;
pub use garboard_lab::process;
pub use run::main;

use garboard_lab::wait;
