//! A run: cluster, traffic, faults by plan, healing, liveness, final state, judgement; and what is left of it.

mod lanes;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cleanup;
use crate::cluster::Cluster;
use crate::fault::KINDS;
use crate::fault::Kind;
use crate::fault::Need;
use crate::final_state;
use crate::liveness;
use crate::network;
use crate::options::Options;
use crate::plan::Plan;
use crate::plan::Wanted;
use crate::timeline::Timeline;
use crate::timeline::unix_ns;
use crate::traffic;
use crate::traffic::Traffic;
use garboard_e2e::packages;
use lanes::Report;

const TMPFS_MAGIC: i64 = 0x0102_1994;
/// With fewer writes behind it, a healing is not one that clients have seen.
const SEEN: Duration = Duration::from_secs(5);
/// The last healing tries this long: a member that joins needs some time.
const HEAL_LIMIT: Duration = Duration::from_secs(40);

/// Does what the options say; whether all of it held.
pub fn main(options: &Options) -> anyhow::Result<bool> {
    if options.list {
        for kind in KINDS {
            println!("{:<16} {}", kind.name, kind.what);
        }
        return Ok(true);
    }
    let plan = plan(options, options.seed)?;
    if options.plan {
        print!("{}", plan.describe());
        return Ok(true);
    }
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
    network::sweep();
    cleanup::on_signals()?;
    packages::need("ip", "iproute2")?;
    packages::need("nft", "nftables")?;
    if options.prove {
        return prove(options);
    }
    if let Some(file) = &options.cases {
        return cases(options, file);
    }
    let Some(minutes) = options.minutes else { return one(options, &plan, false) };
    let start = Instant::now();
    for seed in options.seed.. {
        if !one(options, &self::plan(options, seed)?, false)? {
            return Ok(false);
        }
        if start.elapsed() > Duration::from_secs(60 * minutes) {
            break;
        }
    }
    Ok(true)
}

fn plan(options: &Options, seed: u64) -> anyhow::Result<Plan> {
    Plan::draw(&wanted(options, seed))
}

fn wanted(options: &Options, seed: u64) -> Wanted<'_> {
    Wanted {
        seed,
        members: options.members,
        seconds: options.seconds,
        only: &options.only,
        volatile: options.volatile.is_some(),
        control: options.control,
    }
}

/// The runs of a file; lines that begin with # say why they are there.
fn cases(options: &Options, file: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (first, step) = options.part;
    let mut failed = 0;
    for line in lines.skip(first).step_by(step) {
        let case = options.of_case(line).with_context(|| format!("{}: {line}", file.display()))?;
        if !one(&case, &plan(&case, case.seed)?, false)? {
            failed += 1;
        }
    }
    println!("{failed} cases failed");
    Ok(failed == 0)
}

/// Each kind alone on a cluster of its own: it must be felt, and the cluster must come back.
fn prove(options: &Options) -> anyhow::Result<bool> {
    let asked = |kind: &&Kind| options.only.is_empty() || options.only.iter().any(|name| name == kind.name);
    let possible = |kind: &&Kind| wanted(options, options.seed).refuses(kind).is_none();
    let mut failed = Vec::new();
    for kind in KINDS.iter().filter(asked).filter(possible) {
        if !one(options, &Plan::of_one(kind, options.seed, options.members), true)? {
            failed.push(kind.name);
        }
    }
    match failed.as_slice() {
        [] => println!("chaos: seed {}: ok, every fault is felt and healed", options.seed),
        names => println!("chaos: seed {}: FAILED to prove {}", options.seed, names.join(", ")),
    }
    Ok(failed.is_empty())
}

/// One run with its last line. What it made is removed, but for the folder of a run that failed.
fn one(options: &Options, plan: &Plan, prove: bool) -> anyhow::Result<bool> {
    let dir = folder(plan, prove)?;
    print!("{}", plan.describe());
    std::fs::write(dir.join("plan.txt"), plan.describe())?;
    if plan.needs(Need::Strace) {
        packages::need("strace", "strace")?;
    }
    let held = match whole(options, plan, &dir, prove) {
        Ok(failures) if failures.is_empty() => true,
        Ok(failures) => {
            failures.iter().for_each(|failure| println!("FAILED: {}", set_in(failure)));
            false
        }
        Err(error) => {
            println!("FAILED: {}", set_in(&format!("{error:#}")));
            false
        }
    };
    if !held || options.keep {
        println!("    kept: {}", dir.display());
    } else {
        // What cannot be removed is only clutter in the temporary folder.
        let _ = std::fs::remove_dir_all(&dir);
        // Stays while there are failures in it.
        let _ = dir.parent().map(std::fs::remove_dir);
    }
    let what = if prove { format!(" {}", plan.kinds[0].name) } else { String::new() };
    if held {
        println!("chaos: seed {}: ok{what}", plan.seed);
    } else {
        let kinds: Vec<&str> = plan.kinds.iter().map(|kind| kind.name).collect();
        println!("    again: {}", options.again(plan.seed, &kinds));
        println!("chaos: seed {}: FAILED{what}, {}", plan.seed, dir.display());
    }
    Ok(held)
}

/// The lines after the first belong to it, which shows.
fn set_in(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

fn folder(plan: &Plan, prove: bool) -> anyhow::Result<PathBuf> {
    let run = std::env::temp_dir().join(format!("{}{}", network::FOLDER, std::process::id()));
    let dir = run.join(if prove { plan.kinds[0].name.to_owned() } else { format!("seed-{}", plan.seed) });
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let disk = rustix::fs::statfs(&dir)?;
    // A memory disk syncs by doing nothing, which hides what is not synced.
    ensure!(disk.f_type as i64 != TMPFS_MAGIC, "{} is in memory: set TMPDIR to a real disk", dir.display());
    Ok(dir)
}

/// The run itself; all that did not hold.
fn whole(options: &Options, plan: &Plan, dir: &Path, prove: bool) -> anyhow::Result<Vec<String>> {
    let server = match &options.volatile {
        Some(volatile) if plan.volatile => volatile,
        _ => &options.server,
    };
    let timeline = Timeline::new(dir)?;
    let (program, etcdctl) = (options.traffic(), options.tools.join("etcdctl"));
    // A judge must know of every compaction: where there is a history, the traffic compacts.
    let compacts = program.is_none();
    let cluster = Cluster::new(server, &etcdctl, plan.layout, dir, timeline, (compacts, options.control))?;
    cluster.bootstrap()?;
    let traffic = Traffic::start(&cluster, program.as_deref(), plan.seed, plan.length)?;
    let mut report = lanes::run(&cluster, plan, !options.never_heal, prove);
    let mut failures = std::mem::take(&mut report.failures);
    if report.hits == 0 {
        failures.push("no fault has hit anything".to_owned());
    }
    if !options.never_heal {
        heal(&cluster, &mut report, &mut failures);
    }
    let healed_unix_ns = traffic.goes_on(SEEN).then(unix_ns);
    match liveness::check(&cluster) {
        Ok(times) => {
            let text = times.iter().map(|(slot, time)| format!("member {slot} after {:.3} s", time.as_secs_f64()));
            cluster.timeline.note("serves", "", &cluster.active(), &text.collect::<Vec<_>>().join(", "));
        }
        Err(error) => {
            cluster.timeline.note("dead", "", &[], &format!("{error:#}"));
            failures.push(format!("{error:#}"));
            // Without a cluster that serves there is nothing to ask for; what was promised until now still counts.
            if let Some(history) = traffic.abandon() {
                judge(options, &cluster, &history, None, &mut failures);
            }
            failures.extend(cluster.violations());
            return Ok(failures);
        }
    }
    aftermath(&cluster, prove, &mut report, &mut failures);
    let history = match traffic.finish(&cluster) {
        Ok((history, text)) => {
            cluster.timeline.note("traffic", "", &[], &text);
            history
        }
        Err(error) => {
            failures.push(format!("{error:#}"));
            None
        }
    };
    failures.extend(final_state::check(&cluster));
    end(&cluster, &mut failures);
    if let Some(history) = history {
        judge(options, &cluster, &history, healed_unix_ns, &mut failures);
    }
    failures.extend(cluster.violations());
    Ok(failures)
}

/// Asks the judges; how soon clients were served is theirs to say where the cluster did come back.
fn judge(
    options: &Options,
    cluster: &Cluster,
    history: &Path,
    healed_unix_ns: Option<u64>,
    failures: &mut Vec<String>,
) {
    let first = options.check.as_ref().map(|check| traffic::judge(check, history, healed_unix_ns, options.control));
    let second = options.second.as_ref().map(|second| traffic::judge_again(second, history));
    for verdict in [first, second].into_iter().flatten() {
        match verdict {
            Ok(text) => cluster.timeline.note("judged", "", &[], &text),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
}

/// Takes back whatever the lanes have not, and makes all members run.
fn heal(cluster: &Arc<Cluster>, report: &mut Report, failures: &mut Vec<String>) {
    let start = Instant::now();
    for struck in &mut report.unhealed {
        while let Err(error) = struck.fault.heal(cluster) {
            if start.elapsed() > HEAL_LIMIT {
                failures.push(format!("{} is not healed: {error:#}", struck.name));
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.timeline.window(struck.begin_unix_ns, struck.name);
    }
    if let Err(error) = cluster.restore() {
        failures.push(format!("the members are not back: {error:#}"));
    }
    cluster.timeline.note("healed", "", &cluster.active(), "everything is taken back");
}

/// What shows only after the healing, such as a snapshot that was received.
fn aftermath(cluster: &Arc<Cluster>, prove: bool, report: &mut Report, failures: &mut Vec<String>) {
    for struck in report.proved.iter_mut().filter(|_| prove) {
        match struck.fault.aftermath(cluster) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => cluster.timeline.note("after", struck.name, &[], &text),
            Err(error) => failures.push(format!("{}: {error:#}", struck.name)),
        }
    }
}

/// SIGTERM to all members, at once.
fn end(cluster: &Arc<Cluster>, failures: &mut Vec<String>) {
    cluster.notice_ends();
    let ends: Vec<anyhow::Result<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cluster.slots.iter().map(|slot| scope.spawn(|| slot.terminate())).collect();
        threads.into_iter().map(crate::cluster::joined).collect()
    });
    failures.extend(ends.into_iter().filter_map(|end| end.err().map(|error| format!("{error:#}"))));
}
