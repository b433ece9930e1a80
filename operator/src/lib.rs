//! The operator: it makes each EtcdCluster what its spec asks for, one safe step at a time.
//!
//! A pass (`cluster`) reads: fetch -> validate -> plan -> status -> act. `plan` is pure.
#![forbid(unsafe_code)]
// The seams for clocks, files and tasks are the server's: `plan` is where the operator can be simulated, and it has none of them.
#![allow(clippy::disallowed_methods)]

pub mod archive;
mod backup;
pub mod cluster;
pub mod crd;
pub mod names;
pub mod schedule;
pub mod store;
pub mod tls;

mod arguments;
mod controller;
mod fail;
mod in_place;
mod leadership;
mod metrics;
mod report;
mod serve;
mod smoke;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use arguments::Command;

/// The program.
pub fn main() -> ExitCode {
    let command = match arguments::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("garboard-operator: {error}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Backup(command) => return archive::run(&command),
        Command::Crds(dir) => crds(dir.as_deref()),
        Command::Run(options) => controller::run(options),
        Command::Smoke(options) => smoke::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("garboard-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn crds(dir: Option<&Path>) -> anyhow::Result<()> {
    for (name, text) in crd::definitions()? {
        match dir {
            Some(dir) => {
                std::fs::write(dir.join(&name), text).with_context(|| dir.join(&name).display().to_string())?
            }
            None => print!("---\n{text}"),
        }
    }
    Ok(())
}
