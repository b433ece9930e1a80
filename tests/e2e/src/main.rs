//! Proves from the outside that the server behaves as etcd does: real clients, real processes, real kills.
//!
//! `e2e --server PATH --tools DIR` runs the scenarios against one server program; with `--control` that program is a real etcd, which
//! shows that the scenarios ask for no more than etcd gives. A scenario that fails keeps its folder and names it.
#![forbid(unsafe_code)]
// Nothing here is part of the server: the runner reads the clock, opens files and spawns threads as any program does.
#![allow(clippy::disallowed_methods)]

mod certs;
mod etcdctl;
mod http;
mod process;
mod scenario;
mod scenarios;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

use crate::scenario::Lab;
use crate::scenario::Scenario;
use crate::scenario::Tier;

const USAGE: &str = "usage: e2e --server PATH --tools DIR [--volatile PATH] [--control] [--only NAME[,NAME]] [--tier cluster|k8s] [--seed N] [--kill-seconds N] [--list]

  --server        the program under test, called with etcd's flags
  --volatile      the same on a disk whose unsynced bytes die with the process (server/examples/volatile.rs)
  --tools         folder with etcd, etcdctl, kube-apiserver, kubectl and the compiled suites (cargo xtask tools)
  --control       the program is a real etcd: leave out what only ours promises
  --only          run the scenarios whose name contains one of these
  --tier          run the scenarios of one tier
  --seed          repeat the random choices of a run
  --kill-seconds  how long to kill and restart (default 240)
  --list          name the scenarios and stop";

struct Options {
    server: PathBuf,
    volatile: Option<PathBuf>,
    tools: PathBuf,
    control: bool,
    only: Vec<String>,
    tier: Option<Tier>,
    seed: u64,
    kill_seconds: u64,
    list: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options() -> anyhow::Result<Options> {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64 >> 1);
    let mut options = Options {
        server: PathBuf::new(),
        volatile: None,
        tools: PathBuf::new(),
        control: false,
        only: Vec::new(),
        tier: None,
        seed,
        kill_seconds: 240,
        list: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--server" => options.server = std::path::absolute(value()?)?,
            "--volatile" => options.volatile = Some(std::path::absolute(value()?)?),
            "--tools" => options.tools = std::path::absolute(value()?)?,
            "--control" => options.control = true,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--tier" => options.tier = Some(value()?.parse()?),
            "--seed" => options.seed = value()?.parse()?,
            "--kill-seconds" => options.kill_seconds = value()?.parse()?,
            "--list" => options.list = true,
            other => bail!("unknown argument {other}\n{USAGE}"),
        }
    }
    if !options.list && (options.server.as_os_str().is_empty() || options.tools.as_os_str().is_empty()) {
        bail!("{USAGE}");
    }
    Ok(options)
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let chosen: Vec<Scenario> = scenarios::all()
        .into_iter()
        .filter(|s| options.tier.is_none_or(|tier| s.tier == tier))
        .filter(|s| options.only.is_empty() || options.only.iter().any(|name| s.name.contains(name.as_str())))
        .filter(|s| !(options.control && s.ours_only))
        .collect();
    if options.list {
        for scenario in &chosen {
            println!("{:<28} {}", scenario.name, scenario.what);
        }
        return Ok(true);
    }
    if chosen.is_empty() {
        bail!("no such scenario; --list names them");
    }
    let root = std::env::temp_dir().join(format!("garboard-e2e-{}", std::process::id()));
    println!("e2e: {} scenarios on {}, seed {}", chosen.len(), options.server.display(), options.seed);
    let (mut passed, mut failed) = (0, 0);
    for scenario in chosen {
        let lab = Lab::new(
            root.join(scenario.name),
            &options.server,
            options.volatile.as_deref(),
            &options.tools,
            options.control,
            options.seed,
            options.kill_seconds,
        )?;
        let start = Instant::now();
        let result = (scenario.run)(&lab);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(checks) => {
                passed += checks;
                println!("{:<28} ok, {checks} checks ({seconds:.1} s)", scenario.name);
                lab.discard();
            }
            Err(error) => {
                failed += 1;
                println!(
                    "{:<28} FAILED ({seconds:.1} s)\n    {}",
                    scenario.name,
                    format!("{error:#}").replace('\n', "\n    ")
                );
                println!("    kept: {}", lab.dir.display());
            }
        }
    }
    // Only the folders of failures are left; the root goes when there are none.
    let _ = std::fs::remove_dir(&root);
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}
