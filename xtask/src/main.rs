//! The project's own commands. `cargo xtask` alone says what there is.
#![forbid(unsafe_code)]
// A program for developers, not part of the server: it reads the clock and opens files as it likes.
#![allow(clippy::disallowed_methods)]

mod bench;
mod cache;
mod chaos;
mod fuzz;
mod image;
mod lab;
mod previous;
mod step;
mod test;
mod tidy;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::bail;

const USAGE: &str = "cargo xtask COMMAND

  test [--tier quick|cluster|k8s|all] [--full]
                                        everything that must hold before a change is done (default: all)
         quick    format, clippy, licences, tidy, unit and property tests, a search of the fuzz targets
         cluster  the server as it is shipped against etcdctl, Go clients, kills and damage
         k8s      kube-apiserver and kubectl on the server; a Kubernetes of three nodes and the operator on it
         --full   also what a run otherwise takes a part of by its seed, however long it takes, and the upgrade from the release before
  tidy                                  the checks on layout and style alone
  fuzz [TARGET...] [--seconds N]        search for inputs that do harm, each target for so long (--help tells the options)
  tools                                 build etcd, etcdctl and the Go suites, and print where they are
  tools lab                             the same for the programs of the lab, kube-apiserver and kubectl among them
  e2e [-- ARGUMENTS]                    build server and tools and run the scenarios with these arguments (--list names them)
  control [-- ARGUMENTS]                the same scenarios on real etcd, which shows that they ask for no more than etcd gives
  chaos [-- ARGUMENTS]                  clusters of real processes under faults, their histories judged (--list names the faults; root)
  lab COMMAND                           a real Kubernetes on this machine that stores in this server (no COMMAND: what there is; root)
  crds                                  write crds/ and those of the chart from the operator's types
  image [OPTIONS]                       images of what is released, as archives (--help tells the options)
  bench [OPTIONS]                       this server beside real etcd 3.6 and 3.7 under the same loads (--help tells the options)

What it builds and fetches is kept in $GARBOARD_CACHE (default: $XDG_CACHE_HOME/garboard or ~/.cache/garboard).";

fn main() -> ExitCode {
    if fuzz::is_rustc() {
        return fuzz::rustc();
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root()?;
    match args.as_slice() {
        [] | ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(true)
        }
        ["test"] => test::run(&root, test::Tier::All, false),
        ["test", "--full"] => test::run(&root, test::Tier::All, true),
        ["test", "--tier", tier] => test::run(&root, tier.parse()?, false),
        ["test", "--tier", tier, "--full"] => test::run(&root, tier.parse()?, true),
        ["tidy"] => {
            let tally = tidy::run(&root)?;
            println!("{tally}");
            Ok(tally.failed == 0)
        }
        ["fuzz", rest @ ..] => fuzz::run(&root, rest),
        ["tools"] => {
            println!("{}", tools::build(&root)?.display());
            Ok(true)
        }
        ["tools", "lab"] => {
            println!("{}", tools::build_for_lab(&root)?.display());
            Ok(true)
        }
        ["e2e", rest @ ..] => test::scenarios(&root, false, passed_on(rest)),
        ["control", rest @ ..] => test::scenarios(&root, true, passed_on(rest)),
        ["chaos", rest @ ..] => chaos::run(&root, passed_on(rest)),
        ["image", rest @ ..] => image::run(&root, rest),
        ["lab", rest @ ..] => lab::run(&root, rest),
        ["bench", rest @ ..] => bench::run(&root, rest),
        ["crds"] => {
            for folder in ["crds", "charts/garboard-operator/files/crds"] {
                let run = ["run", "--quiet", "--locked", "--package", "garboard-operator", "--", "crds", folder];
                step::must(test::cargo(&root).args(run))?;
            }
            Ok(true)
        }
        other => bail!("unknown: {}\n\n{USAGE}", other.join(" ")),
    }
}

fn passed_on<'a>(args: &'a [&'a str]) -> &'a [&'a str] {
    args.strip_prefix(&["--"]).unwrap_or(args)
}

/// The root of the checkout.
fn root() -> anyhow::Result<PathBuf> {
    // As cargo says it now: checkouts that share a build cache share this program.
    let here =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()));
    Ok(here.parent().context("xtask has no parent folder")?.to_owned())
}
