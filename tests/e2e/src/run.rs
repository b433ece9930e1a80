//! The arguments, and the scenarios that they choose.

use std::collections::VecDeque;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

use crate::scenario::Lab;
use crate::scenario::Scenario;
use crate::scenario::Tier;
use crate::scenarios;

const USAGE: &str = "usage: e2e --server PATH --tools DIR [--examples DIR] [--kubernetes DIR] [--images DIR] [--operator PATH] [--control] [--full] [--only NAME[,NAME]] [--tier cluster|k8s|lab] [--jobs N] [--seed N] [--kill-seconds N] [--list]

  --server        the program under test, called with etcd's flags
  --examples      folder with the programs of server/examples and server/storage/examples
  --tools         folder with etcd, etcdctl and the compiled suites (cargo xtask tools)
  --kubernetes    folder with the programs of Kubernetes and the lab (cargo xtask tools lab); lab-node is beside this program
  --images        folder with the images of server and operator (cargo xtask image)
  --operator      garboard-operator with the feature fail-points
  --control       the program is a real etcd: leave out what only ours promises
  --only          run the scenarios whose name contains one of these
  --tier          run the scenarios of one tier
  --jobs          so many scenarios beside each other (default 1)
  --seed          repeat the random choices of a run
  --full          take everything of what a run takes a part of: of tier lab, the smoke test and one more by the seed
  --kill-seconds  how long to kill and restart (default 150)
  --list          name the scenarios and stop";

struct Options {
    server: PathBuf,
    examples: Option<PathBuf>,
    tools: PathBuf,
    kubernetes: Option<PathBuf>,
    images: Option<PathBuf>,
    operator: Option<PathBuf>,
    control: bool,
    full: bool,
    only: Vec<String>,
    tier: Option<Tier>,
    jobs: usize,
    seed: u64,
    kill_seconds: u64,
    list: bool,
}

/// The program: runs the scenarios that the arguments choose, and fails when one of them does.
pub fn main() -> ExitCode {
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
        examples: None,
        tools: PathBuf::new(),
        kubernetes: None,
        images: None,
        operator: None,
        control: false,
        full: false,
        only: Vec::new(),
        tier: None,
        jobs: 1,
        seed,
        kill_seconds: 150,
        list: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--server" => options.server = std::path::absolute(value()?)?,
            "--examples" => options.examples = Some(std::path::absolute(value()?)?),
            "--tools" => options.tools = std::path::absolute(value()?)?,
            "--kubernetes" => options.kubernetes = Some(std::path::absolute(value()?)?),
            "--images" => options.images = Some(std::path::absolute(value()?)?),
            "--operator" => options.operator = Some(std::path::absolute(value()?)?),
            "--full" => options.full = true,
            "--control" => options.control = true,
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            "--tier" => options.tier = Some(value()?.parse()?),
            "--jobs" => options.jobs = value()?.parse::<usize>()?.max(1),
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
    let mut chosen: Vec<Scenario> = scenarios::all()
        .into_iter()
        .filter(|s| options.tier.is_none_or(|tier| s.tier == tier))
        .filter(|s| options.only.is_empty() || options.only.iter().any(|name| s.name.contains(name.as_str())))
        .filter(|s| !(options.control && s.ours_only))
        .collect();
    if options.tier == Some(Tier::Nodes) && options.only.is_empty() && !options.full {
        take_part(&mut chosen, options.seed);
    }
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
    let queue = Mutex::new(VecDeque::from(chosen));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = || {
        let (mut passed, mut failed) = (0, 0);
        while let Some(scenario) = next() {
            match one(options, &root, &scenario)? {
                Some(checks) => passed += checks,
                None => failed += 1,
            }
        }
        anyhow::Ok((passed, failed))
    };
    let (mut passed, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let done = worker.join().map_err(|_| anyhow::anyhow!("a scenario has panicked"))??;
            (passed, failed) = (passed + done.0, failed + done.1);
        }
        anyhow::Ok(())
    })?;
    // Only the folders of failures are left; the root goes when there are none.
    let _ = std::fs::remove_dir(&root);
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// What runs on nodes takes an hour: a run takes the smoke test and, by its seed, one more.
fn take_part(chosen: &mut Vec<Scenario>, seed: u64) {
    let others: Vec<_> = chosen.iter().map(|scenario| scenario.name).filter(|name| *name != scenarios::SMOKE).collect();
    let Ok(at) = usize::try_from(seed % others.len().max(1) as u64) else { return };
    let taken = others.get(at).copied();
    chosen.retain(|scenario| scenario.name == scenarios::SMOKE || Some(scenario.name) == taken);
}

/// How many checks of a scenario held; `None`: it failed.
fn one(options: &Options, root: &Path, scenario: &Scenario) -> anyhow::Result<Option<u32>> {
    let lab = Lab {
        dir: root.join(scenario.name),
        server: options.server.clone(),
        examples: options.examples.clone(),
        tools: options.tools.clone(),
        kubernetes: options.kubernetes.clone(),
        images: options.images.clone(),
        operator: options.operator.clone(),
        control: options.control,
        full: options.full,
        seed: options.seed,
        kill_seconds: options.kill_seconds,
    };
    std::fs::create_dir_all(&lab.dir).with_context(|| format!("create {}", lab.dir.display()))?;
    let start = Instant::now();
    let result = (scenario.run)(&lab);
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(checks) => {
            println!("{:<28} ok, {checks} checks ({seconds:.1} s)", scenario.name);
            lab.discard();
            Ok(Some(checks))
        }
        Err(error) => {
            let why = format!("{error:#}").replace('\n', "\n    ");
            println!("{:<28} FAILED ({seconds:.1} s)\n    {why}\n    kept: {}", scenario.name, lab.dir.display());
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_all_that_runs_on_nodes_and_each_takes_the_smoke_test() {
        let all = || scenarios::all().into_iter().filter(|scenario| scenario.tier == Tier::Nodes).collect::<Vec<_>>();
        let mut reached = std::collections::BTreeSet::new();
        for seed in 0..all().len() as u64 {
            let mut chosen = all();
            take_part(&mut chosen, seed);
            assert_eq!(chosen.len(), 2);
            assert!(chosen.iter().any(|scenario| scenario.name == scenarios::SMOKE));
            reached.extend(chosen.iter().map(|scenario| scenario.name));
        }
        assert_eq!(reached.len(), all().len());
    }
}
