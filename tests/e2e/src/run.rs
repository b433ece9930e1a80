//! The arguments, and the scenarios that they choose.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

use crate::lanes;
use crate::output;
use crate::scenario::Lab;
use crate::scenario::Scenario;
use crate::scenario::Tier;
use crate::scenarios;

const USAGE: &str = "usage: e2e --server PATH --tools DIR [--examples DIR] [--kubernetes DIR] [--images DIR] [--operator PATH] [--previous DIR] [--control] [--full] [--only NAME[,NAME]] [--tier cluster|k8s|lab] [--jobs N] [--seed N] [--kill-seconds N] [--list]

  --server        the program under test, called with etcd's flags
  --examples      folder with the programs of server/examples and server/storage/examples
  --tools         folder with etcd, etcdctl and the compiled suites (cargo xtask tools)
  --kubernetes    folder with the programs of Kubernetes and the lab (cargo xtask tools lab); lab-node is beside this program
  --images        folder with the images of server and operator (cargo xtask image)
  --operator      garboard-operator with the feature fail-points
  --previous      folder with images and sources of the release before (cargo xtask test --full)
  --control       the program is a real etcd: leave out what only ours promises
  --only          run the scenarios whose name contains one of these
  --tier          run the scenarios of one tier
  --jobs          so many scenarios beside each other (default 1); last come, one by one, those that must be alone
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
    previous: Option<PathBuf>,
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
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> anyhow::Result<Options> {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64 >> 1);
    let mut options = Options {
        server: PathBuf::new(),
        examples: None,
        tools: PathBuf::new(),
        kubernetes: None,
        images: None,
        operator: None,
        previous: None,
        control: false,
        full: false,
        only: Vec::new(),
        tier: None,
        jobs: 1,
        seed,
        kill_seconds: 150,
        list: false,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--server" => options.server = std::path::absolute(value()?)?,
            "--examples" => options.examples = Some(std::path::absolute(value()?)?),
            "--tools" => options.tools = std::path::absolute(value()?)?,
            "--kubernetes" => options.kubernetes = Some(std::path::absolute(value()?)?),
            "--images" => options.images = Some(std::path::absolute(value()?)?),
            "--operator" => options.operator = Some(std::path::absolute(value()?)?),
            "--previous" => options.previous = Some(std::path::absolute(value()?)?),
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
    let checks = in_turn(options.jobs, chosen, |scenario| one(options, &root, scenario));
    // Only the folders of failures are left; the root goes when there are none.
    let _ = std::fs::remove_dir(&root);
    let (passed, failed) = (checks.iter().flatten().sum::<u32>(), checks.iter().filter(|held| held.is_none()).count());
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Runs those that may be beside others, up to `jobs` of them at a time, each with its output in one piece; then the others, one by one.
fn in_turn<R: Send>(jobs: usize, chosen: Vec<Scenario>, one: impl Fn(&Scenario) -> R + Sync) -> Vec<R> {
    let (alone, beside) = chosen.into_iter().partition(|scenario: &Scenario| scenario.alone || jobs == 1);
    let mut results = lanes::each(jobs, beside, |scenario| {
        let (result, said) = output::held(|| one(&scenario));
        print!("{said}");
        result
    });
    results.extend(alone.iter().map(one));
    results
}

/// What runs on nodes takes hours: a run takes the smoke test and, by its seed, one more; none that only a full run takes.
fn take_part(chosen: &mut Vec<Scenario>, seed: u64) {
    let others: Vec<_> = chosen
        .iter()
        .map(|scenario| scenario.name)
        .filter(|name| ![scenarios::SMOKE, scenarios::UPGRADE].contains(name))
        .collect();
    let Ok(at) = usize::try_from(seed % others.len().max(1) as u64) else { return };
    let taken = others.get(at).copied();
    chosen.retain(|scenario| scenario.name == scenarios::SMOKE || Some(scenario.name) == taken);
}

/// How many checks of a scenario held; `None`: it failed.
fn one(options: &Options, root: &Path, scenario: &Scenario) -> Option<u32> {
    let lab = Lab {
        dir: root.join(scenario.name),
        server: options.server.clone(),
        examples: options.examples.clone(),
        tools: options.tools.clone(),
        kubernetes: options.kubernetes.clone(),
        images: options.images.clone(),
        operator: options.operator.clone(),
        previous: options.previous.clone(),
        control: options.control,
        full: options.full,
        seed: options.seed,
        kill_seconds: options.kill_seconds,
    };
    let start = Instant::now();
    let result = checked(&lab, scenario);
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(checks) => {
            output::line(format_args!("{:<28} ok, {checks} checks ({seconds:.1} s)", scenario.name));
            lab.discard();
            Some(checks)
        }
        Err(error) => {
            let why = format!("{error:#}").replace('\n', "\n    ");
            let kept = lab.dir.display();
            output::line(format_args!("{:<28} FAILED ({seconds:.1} s)\n    {why}\n    kept: {kept}", scenario.name));
            None
        }
    }
}

/// What has panicked says so itself; those beside it and after it go on.
fn checked(lab: &Lab, scenario: &Scenario) -> anyhow::Result<u32> {
    std::fs::create_dir_all(&lab.dir).with_context(|| format!("create {}", lab.dir.display()))?;
    catch_unwind(AssertUnwindSafe(|| (scenario.run)(lab))).unwrap_or_else(|_| bail!("it has panicked"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn scenario(name: &'static str, run: fn(&Lab) -> anyhow::Result<u32>) -> Scenario {
        Scenario { name, what: "", tier: Tier::Cluster, ours_only: false, alone: false, run }
    }

    fn holds(_: &Lab) -> anyhow::Result<u32> {
        Ok(3)
    }

    fn fails(_: &Lab) -> anyhow::Result<u32> {
        bail!("a reason")
    }

    fn panics(_: &Lab) -> anyhow::Result<u32> {
        panic!("a panic")
    }

    /// Two that may be beside each other, and two that may not.
    fn four() -> Vec<Scenario> {
        vec![scenario("a", holds), scenario("b", holds).alone(), scenario("c", holds), scenario("d", holds).alone()]
    }

    #[test]
    fn those_that_must_be_alone_come_after_all_others_and_one_by_one() {
        let log = Mutex::new(Vec::new());
        let names = in_turn(2, four(), |scenario| {
            log.lock().unwrap().push(format!("begin {}", scenario.name));
            log.lock().unwrap().push(format!("end {}", scenario.name));
            scenario.name
        });
        assert_eq!(names, ["a", "c", "b", "d"]);
        let mut log = log.into_inner().unwrap();
        assert_eq!(log.split_off(4), ["begin b", "end b", "begin d", "end d"]);
        log.sort();
        assert_eq!(log, ["begin a", "begin c", "end a", "end c"]);
    }

    #[test]
    fn without_lanes_they_run_in_the_order_in_which_they_are_listed() {
        let log = Mutex::new(Vec::new());
        in_turn(1, four(), |scenario| log.lock().unwrap().push(scenario.name));
        assert_eq!(log.into_inner().unwrap(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn one_that_fails_or_panics_ends_neither_the_one_beside_it_nor_the_next() {
        let dir = std::env::temp_dir().join(format!("garboard-e2e-test-{}", std::process::id()));
        let options = options(["--list".to_owned()].into_iter()).unwrap();
        let chosen = vec![scenario("fails", fails), scenario("panics", panics), scenario("holds", holds)];
        let checks = in_turn(2, chosen, |scenario| one(&options, &dir, scenario));
        assert_eq!(checks, [None, None, Some(3)]);
        let left = std::fs::read_dir(&dir).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, 2, "the folders of those that failed are kept, and no other");
    }

    #[test]
    fn seeds_reach_all_that_runs_on_nodes_but_what_takes_too_long_and_each_takes_the_smoke_test() {
        let all = || scenarios::all().into_iter().filter(|scenario| scenario.tier == Tier::Nodes).collect::<Vec<_>>();
        let mut reached = std::collections::BTreeSet::new();
        for seed in 0..all().len() as u64 {
            let mut chosen = all();
            take_part(&mut chosen, seed);
            assert_eq!(chosen.len(), 2);
            assert!(chosen.iter().any(|scenario| scenario.name == scenarios::SMOKE));
            reached.extend(chosen.iter().map(|scenario| scenario.name));
        }
        assert!(!reached.contains(scenarios::UPGRADE));
        assert_eq!(reached.len(), all().len() - 1);
    }
}
