//! `cargo xtask test`: all that must hold, in tiers.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::bail;
use anyhow::ensure;

use crate::cache;
use crate::fuzz;
use crate::step::Report;
use crate::step::Tally;
use crate::step::count_cargo;
use crate::step::count_sum;
use crate::step::counted;
use crate::step::gate;
use crate::step::must;
use crate::tidy;
use crate::tools;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Quick,
    Cluster,
    K8s,
    All,
}

// === impl Tier ===

impl FromStr for Tier {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "quick" => Self::Quick,
            "cluster" => Self::Cluster,
            "k8s" => Self::K8s,
            "all" => Self::All,
            other => bail!("no tier {other}: quick, cluster, k8s or all"),
        })
    }
}

impl Tier {
    fn includes(self, tier: Self) -> bool {
        self == Self::All || self == tier
    }
}

/// Runs a tier and says whether all of it held.
pub fn run(root: &Path, tier: Tier) -> anyhow::Result<bool> {
    let mut report = Report::default();
    if tier.includes(Tier::Quick) {
        quick(root, &mut report);
    }
    if tier.includes(Tier::Cluster) || tier.includes(Tier::K8s) {
        end_to_end(root, tier, &mut report);
    }
    Ok(report.finish())
}

fn quick(root: &Path, report: &mut Report) {
    report.step("format", || gate(cargo(root).args(["fmt", "--all", "--check"])));
    report.step("clippy", || {
        gate(cargo(root).args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    });
    report.step("licences, bans, sources", || deny(root));
    report.step("tidy", || tidy::run(root));
    report.step("unit and property tests", || {
        counted(cargo(root).args(["test", "--workspace", "--locked", "--no-fail-fast"]), count_cargo)
    });
    report.step("fuzz targets", || fuzz::search(root, &fuzz::Options::default()));
}

fn end_to_end(root: &Path, tier: Tier, report: &mut Report) {
    let mut server = None;
    report.step("release build", || {
        server = Some(build_server(root)?);
        Ok(Tally::one(true))
    });
    let mut volatile = None;
    report.step("server on a volatile disk", || {
        volatile = Some(build_volatile(root)?);
        Ok(Tally::one(true))
    });
    let mut bin = None;
    report.step("tools", || {
        bin = Some(tools::build(root)?);
        Ok(Tally::one(true))
    });
    if tier.includes(Tier::Cluster) {
        report.step("go vet", || tools::vet(root).map(|()| Tally::one(true)));
    }
    for (wanted, name, argument) in [(Tier::Cluster, "scenarios", "cluster"), (Tier::K8s, "kubernetes", "k8s")] {
        if !tier.includes(wanted) {
            continue;
        }
        match (&server, &volatile, &bin) {
            (Some(server), Some(volatile), Some(bin)) => {
                report
                    .step(name, || counted(runner(root, server, volatile, bin).args(["--tier", argument]), count_sum));
            }
            _ => report.blocked(name, "a build"),
        }
    }
}

/// `cargo xtask e2e` and `cargo xtask control`: the scenarios alone.
pub fn scenarios(root: &Path, control: bool, args: &[&str]) -> anyhow::Result<bool> {
    let bin = tools::build(root)?;
    let server = if control { bin.join("etcd") } else { build_server(root)? };
    let mut command = runner(root, &server, &build_volatile(root)?, &bin);
    if control {
        command.arg("--control");
    }
    Ok(gate(command.args(args))?.failed == 0)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The server as it is released.
pub fn build_server(root: &Path) -> anyhow::Result<PathBuf> {
    must(cargo(root).args(["build", "--release", "--locked", "--package", "garboard"]))?;
    let path = target_dir(root)?.join("release/garboard");
    ensure!(path.exists(), "{} is not there", path.display());
    Ok(path)
}

/// The server whose unsynced bytes die with it.
fn build_volatile(root: &Path) -> anyhow::Result<PathBuf> {
    must(cargo(root).args(["build", "--locked", "--package", "garboard", "--example", "volatile"]))?;
    Ok(target_dir(root)?.join("debug/examples/volatile"))
}

fn target_dir(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = tidy::metadata(root)?;
    match metadata["target_directory"].as_str() {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => bail!("cargo metadata names no target directory"),
    }
}

fn runner(root: &Path, server: &Path, volatile: &Path, bin: &Path) -> Command {
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--locked", "--package", "garboard-e2e", "--"]);
    command.arg("--server").arg(server).arg("--volatile").arg(volatile).arg("--tools").arg(bin);
    command
}

/// cargo-deny on what needs no download; installs it when it is missing.
fn deny(root: &Path) -> anyhow::Result<Tally> {
    let own = cache::dir()?.join("cargo-tools");
    let program = if Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success()) {
        PathBuf::from("cargo-deny")
    } else {
        own.join("bin/cargo-deny")
    };
    if program.is_absolute() && !program.exists() {
        println!("cargo-deny is missing: installing it into {}", own.display());
        let mut install = cargo(root);
        must(
            install
                .args(["install", "--quiet", "--locked", "cargo-deny", "--root"])
                .arg(&own)
                .env("CARGO_TARGET_DIR", own.join("target")),
        )?;
        // The build tree is not needed again.
        let _ = std::fs::remove_dir_all(own.join("target"));
    }
    println!("advisories are not checked here: their database is a git repository, no package registry serves it");
    gate(Command::new(program).current_dir(root).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}
