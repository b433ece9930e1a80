//! `lab-node SPEC`: the first process of a node (see [`garboard_lab`]). It makes the node's file systems, runs its services and waits for every
//! process that has lost its parent. When it ends, all of the node does.
#![forbid(unsafe_code)]
// Nothing here is part of the server: it reads the clock, opens files and spawns threads as any program does.
#![allow(clippy::disallowed_methods)]

mod control;
mod forward;
mod mounts;
mod supervisor;

use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::spec::Spec;

use supervisor::Supervisor;

/// Ends of processes and requests that wait for their turn.
const EVENTS_MAX: usize = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "a node's first process is started by `unshare --pid --fork`");
    let path = std::env::args().nth(1).context("usage: lab-node SPEC")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let spec: Spec = serde_json::from_str(&text).with_context(|| path.clone())?;
    mounts::set_up(&spec)?;
    rustix::system::sethostname(spec.name.as_bytes()).context("set the host's name")?;
    let (events, queue) = mpsc::sync_channel(EVENTS_MAX);
    supervisor::watch_ends(events.clone())?;
    if let Some(to) = spec.forward {
        forward::serve(to)?;
    }
    control::serve(events)?;
    Supervisor::new(spec.services).run(&queue)
}
