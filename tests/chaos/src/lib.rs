//! Runs a cluster of real processes, breaks it in ways drawn from a seed, heals it, and tells whether it serves again.
//!
//! Each member has a network namespace on a bridge of the run. What the clients saw is recorded by a program of its own and judged by
//! another; this crate breaks, heals, and keeps the timeline. The same seed gives the same plan of faults and times.
#![forbid(unsafe_code)]
// Nothing here is part of the server: the runner reads the clock, opens files and spawns threads as any program does.
#![allow(clippy::disallowed_methods)]

mod cleanup;
mod cluster;
mod ctl;
mod fault;
mod faults;
mod final_state;
mod links;
mod liveness;
mod network;
pub mod options;
mod plan;
mod proxy;
mod puts;
mod rules;
mod run;
mod slot;
mod ticker;
mod timeline;
mod traffic;

pub use options::Options;
pub use run::main;
