//! `cargo xtask test`: all that must hold, in tiers.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::bail;

use crate::cache;
use crate::chaos;
use crate::fuzz;
use crate::image;
use crate::lab;
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
        self == tier || self == Self::All
    }
}

/// Runs a tier and says whether all of it held. `full`: also what a run otherwise takes a part of, however long it takes.
pub fn run(root: &Path, tier: Tier, full: bool) -> anyhow::Result<bool> {
    let mut report = Report::default();
    if tier.includes(Tier::Quick) {
        quick(root, &mut report);
    }
    if tier.includes(Tier::Cluster) || tier.includes(Tier::K8s) {
        end_to_end(root, tier, full, &mut report);
    }
    if tier.includes(Tier::Cluster) {
        report.step("faults that once found something", || chaos::cases(root));
        report.step("faults on new seeds", || chaos::new_seeds(root));
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

fn end_to_end(root: &Path, tier: Tier, full: bool, report: &mut Report) {
    let mut server = None;
    report.step("server", || {
        server = Some(image::server(root)?);
        Ok(Tally::one(true))
    });
    let mut examples = None;
    report.step("servers of other kinds", || {
        examples = Some(build_examples(root)?);
        Ok(Tally::one(true))
    });
    let mut bin = None;
    report.step("tools", || {
        bin = Some(tools::build(root)?);
        Ok(Tally::one(true))
    });
    let mut kubernetes = None;
    let mut images = None;
    let mut operator = None;
    if tier.includes(Tier::K8s) {
        report.step("Kubernetes", || {
            kubernetes = Some(lab::parts_with_cert_manager(root)?);
            Ok(Tally::one(true))
        });
        report.step("images", || {
            images = Some(image::all(root)?);
            Ok(Tally::one(true))
        });
        report.step("operator that can be made to die", || {
            operator = Some(build_operator(root)?);
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
        if !tier.includes(wanted) {
            continue;
        }
        match (&server, &examples, &bin) {
            (Some(server), Some(examples), Some(bin)) => {
                let mut runner = runner(root, server, examples, bin);
                let folders = [("--kubernetes", &kubernetes), ("--images", &images), ("--operator", &operator)];
                for (argument, path) in folders {
                    if let Some(path) = path {
                        runner.arg(argument).arg(path);
                    }
                }
                if full {
                    runner.arg("--full");
                }
                report.step(name, || counted(runner.args(["--tier", argument]), count_sum));
            }
            _ => report.blocked(name, "a build"),
        }
    }
}

/// `cargo xtask e2e` and `cargo xtask control`: the scenarios alone.
pub fn scenarios(root: &Path, control: bool, args: &[&str]) -> anyhow::Result<bool> {
    let bin = tools::build(root)?;
    let server = if control { bin.join("etcd") } else { image::server(root)? };
    let mut command = runner(root, &server, &build_examples(root)?, &bin);
    if control {
        command.arg("--control");
    }
    let asks_for = chosen(root, args)?;
    if asks_for("lab-") || asks_for("operator-") {
        let parts = match asks_for("operator-cert-manager") {
            true => lab::parts_with_cert_manager(root)?,
            false => lab::parts(root)?,
        };
        command.arg("--kubernetes").arg(parts).arg("--images").arg(image::all(root)?);
        command.arg("--operator").arg(build_operator(root)?);
    } else if asks_for("kube-") {
        command.arg("--kubernetes").arg(tools::build_kubernetes(root)?);
    }
    Ok(gate(command.args(args))?.failed == 0)
}

/// Whether a scenario whose name begins so is among the chosen: what some need takes long to build.
fn chosen(root: &Path, args: &[&str]) -> anyhow::Result<impl Fn(&str) -> bool> {
    let mut list = cargo(root);
    list.args(["run", "--quiet", "--locked", "--package", "garboard-e2e", "--", "--list"]).args(args);
    let names = String::from_utf8_lossy(&list.output()?.stdout).into_owned();
    Ok(move |start: &str| names.lines().any(|line| line.starts_with(start)))
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

fn runner(root: &Path, server: &Path, examples: &Path, bin: &Path) -> Command {
    let mut command = cargo(root);
    command.args(["run", "--quiet", "--locked", "--package", "garboard-e2e", "--"]);
    command.arg("--server").arg(server).arg("--examples").arg(examples).arg("--tools").arg(bin);
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
