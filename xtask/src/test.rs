//! `cargo xtask test`: all that must hold, in tiers.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use crate::cache;
use crate::chaos;
use crate::fuzz;
use crate::image;
use crate::lab;
use crate::previous;
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

/// What the scenarios are given, each with its argument.
type Parts = Vec<(&'static str, PathBuf)>;

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
        self == tier || self == Self::All
    }
}

/// With an empty cache everything else takes longer; what can use any amount of time ends after so many minutes.
const MINUTES: u64 = 80;
/// So many scenarios beside each other: each waits for most of its time. Those that must be alone are.
const JOBS: &str = "2";

/// Scenarios whose operators die at steps that they choose.
const OPERATORS_DIE: [&str; 4] =
    ["operator-matrix", "operator-upkeep", "operator-restore-in-place", "operator-recover"];

/// Runs a tier and says whether all of it held. `full`: also what a run otherwise takes a part of, however long it takes.
pub fn run(root: &Path, tier: Tier, full: bool) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut report = Report::default();
    if tier.includes(Tier::Quick) {
        quick(root, full, &mut report);
    }
    if tier.includes(Tier::Cluster) || tier.includes(Tier::K8s) {
        end_to_end(root, tier, full, &mut report);
    }
    if tier.includes(Tier::Cluster) {
        report.step("faults that once found something", || chaos::cases(root));
        let gone = if full { 0 } else { begun.elapsed().as_secs() / 60 };
        let left = MINUTES.saturating_sub(gone);
        report.step("faults on new seeds", || chaos::new_seeds(root, left));
    }
    Ok(report.finish())
}

fn quick(root: &Path, full: bool, report: &mut Report) {
    report.step("format", || gate(cargo(root).args(["fmt", "--all", "--check"])));
    report.step("clippy", || {
        gate(cargo(root).args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    });
    report.step("licences, bans, sources", || deny(root));
    report.step("tidy", || tidy::run(root));
    report.step("unit and property tests", || {
        counted(cargo(root).args(["test", "--workspace", "--locked", "--no-fail-fast"]), count_cargo)
    });
    let seconds = if full { fuzz::SECONDS } else { fuzz::PART_SECONDS };
    report.step("fuzz targets", || fuzz::search(root, &fuzz::Options { seconds, ..fuzz::Options::default() }));
}

fn end_to_end(root: &Path, tier: Tier, full: bool, report: &mut Report) {
    let mut parts = Parts::new();
    let mut build = |name, part, make: fn(&Path) -> anyhow::Result<PathBuf>| {
        report.step(name, || {
            parts.push((part, make(root)?));
            Ok(Tally::one(true))
        })
    };
    let mut built = build("server", "--server", image::server);
    built &= build("servers of other kinds", "--examples", build_examples);
    built &= build("tools", "--tools", tools::build);
    // Chosen here, since the choice decides on what is built.
    let seed = UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64 >> 1).to_string();
    let of_tier = |name| {
        let mut args = vec!["--seed", seed.as_str(), "--tier", name];
        args.extend(full.then_some("--full"));
        // Of those on labs a run takes two, which say where they are as they go.
        if full || name != "lab" {
            args.extend(["--jobs", JOBS]);
        }
        args
    };
    if tier.includes(Tier::K8s) {
        built &= report.step("Kubernetes and the product", || {
            parts.extend(parts_on_kubernetes(root, &of_tier("lab"))?);
            Ok(Tally::one(true))
        });
    }
    if tier.includes(Tier::Cluster) {
        report.step("go vet", || tools::vet(root).map(|()| Tally::one(true)));
    }
    let scenarios = [
        (Tier::Cluster, "scenarios", "cluster"),
        (Tier::K8s, "Kubernetes on the store", "k8s"),
        (Tier::K8s, "the product on a lab", "lab"),
    ];
    for (wanted, name, argument) in scenarios {
        match built {
            _ if !tier.includes(wanted) => {}
            true => drop(report.step(name, || counted(runner(root, &parts).args(of_tier(argument)), count_sum))),
            false => report.blocked(name, "a build"),
        }
    }
    if full && tier.includes(Tier::K8s) {
        report.step("images for the other architecture", || image::all_foreign(root).map(|_| Tally::one(true)));
    }
}

/// `cargo xtask e2e` and `cargo xtask control`: the scenarios alone.
pub fn scenarios(root: &Path, control: bool, args: &[&str]) -> anyhow::Result<bool> {
    let bin = tools::build(root)?;
    let server = if control { bin.join("etcd") } else { image::server(root)? };
    let mut parts = vec![("--server", server), ("--examples", build_examples(root)?), ("--tools", bin)];
    parts.extend(parts_on_kubernetes(root, args)?);
    let mut command = runner(root, &parts);
    if control {
        command.arg("--control");
    }
    Ok(gate(command.args(args))?.failed == 0)
}

/// What those of the chosen scenarios need that run on Kubernetes: all of it takes long to build.
fn parts_on_kubernetes(root: &Path, args: &[&str]) -> anyhow::Result<Parts> {
    let chosen = chosen(root, args)?;
    let asks_for = |start: &str| chosen.iter().any(|name| name.starts_with(start));
    let mut parts = Parts::new();
    if asks_for("lab-") || asks_for("operator-") {
        let programs = lab::parts(root, asks_for("operator-cert-manager"))?;
        if asks_for("operator-monitoring") {
            tools::build_prometheus(root, &programs)?;
        }
        parts.push(("--kubernetes", programs));
        parts.push(("--images", image::all(root)?));
    } else if asks_for("kube-") {
        parts.push(("--kubernetes", tools::build_kubernetes(root)?));
    }
    if OPERATORS_DIE.iter().any(|name| asks_for(name)) {
        parts.push(("--operator", build_operator(root)?));
    }
    if asks_for("operator-upgrade") {
        parts.push(("--previous", previous::build(root)?));
    }
    Ok(parts)
}

/// The names of the scenarios that `args` choose.
fn chosen(root: &Path, args: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut list = cargo(root);
    list.args(["run", "--quiet", "--locked", "--package", "garboard-e2e", "--", "--list"]).args(args);
    let output = list.output().context("start cargo")?;
    ensure!(output.status.success(), "the scenarios cannot be listed: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Installs a program of crates.io into a folder.
pub fn cargo_install(root: &Path, package: &[&str], folder: &Path) -> anyhow::Result<()> {
    let built = folder.join("target");
    // What it does takes seconds: what takes long is to build it.
    let mut install = cargo(root);
    install.args(["install", "--quiet", "--locked", "--debug"]).args(package).arg("--root").arg(folder);
    must(install.env("CARGO_TARGET_DIR", &built).env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    // The build tree is not needed again.
    let _ = std::fs::remove_dir_all(built);
    Ok(())
}

/// The operator with the places where a test makes it die.
fn build_operator(root: &Path) -> anyhow::Result<PathBuf> {
    let features = ["--features", "fail-points"];
    must(cargo(root).args(["build", "--locked", "--package", "garboard-operator"]).args(features))?;
    Ok(target_dir(root)?.join("debug/garboard-operator"))
}

/// The folder with the server whose unsynced bytes die with it (`volatile`), the one of a later release (`later`), and what makes the data of a
/// member another (`alter`).
pub fn build_examples(root: &Path) -> anyhow::Result<PathBuf> {
    for package in ["garboard", "garboard-storage"] {
        must(cargo(root).args(["build", "--locked", "--package", package, "--examples"]))?;
    }
    Ok(target_dir(root)?.join("debug/examples"))
}

pub fn target_dir(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = tidy::metadata(root)?;
    match metadata["target_directory"].as_str() {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => bail!("cargo metadata names no target directory"),
    }
}

fn runner(root: &Path, parts: &Parts) -> Command {
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--locked", "--package", "garboard-e2e", "--"]);
    for (part, path) in parts {
        command.arg(part).arg(path);
    }
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
        cargo_install(root, &["cargo-deny"], &own)?;
    }
    println!("advisories are not checked here: their database is a git repository, no package registry serves it");
    gate(Command::new(program).current_dir(root).args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}
