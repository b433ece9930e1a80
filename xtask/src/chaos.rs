//! `cargo xtask chaos`: clusters of real processes under faults, and two judges of their histories.

use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::image;
use crate::step::Tally;
use crate::step::counted_beside;
use crate::step::must;
use crate::test;
use crate::tools;

/// Runs that once failed, as they were.
const CASES: &str = "tests/chaos/cases.txt";
/// So many runs beside each other: one spends most of its time waiting.
const LANES: u64 = 2;
/// Runs on new seeds go on for so long in each lane, where time is not short,
const MINUTES_MAX: u64 = 10;
/// and for so long where it is.
const MINUTES_MIN: u64 = 2;
/// Short enough to be typed again.
const SEEDS: u64 = 1_000_000_000;

/// With arguments of its own, one call of the harness; without, the runs that once failed and new ones.
pub fn run(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    if !args.is_empty() {
        return Ok(Harness::build(root)?.command(root).args(args).status()?.success());
    }
    let tally = cases(root)? + new_seeds(root, MINUTES_MAX)?;
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// The runs that once failed, as they were.
pub fn cases(root: &Path) -> anyhow::Result<Tally> {
    Harness::build(root)?.tally(root, &["--cases", CASES], |lane| vec!["--part".to_owned(), format!("{lane}/{LANES}")])
}

/// Runs that nobody has made before. `left`: the minutes that the whole run still has.
pub fn new_seeds(root: &Path, left: u64) -> anyhow::Result<Tally> {
    let minutes = left.clamp(MINUTES_MIN, MINUTES_MAX).to_string();
    let begin = UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64) % SEEDS;
    // Each lane goes on from a seed of its own.
    let seed = |lane: u64| vec!["--seed".to_owned(), (begin + lane * SEEDS).to_string()];
    Harness::build(root)?.tally(root, &["--minutes", &minutes], seed)
}

/// What a run needs, built.
struct Harness {
    server: std::path::PathBuf,
    volatile: std::path::PathBuf,
    tools: std::path::PathBuf,
    debug: std::path::PathBuf,
}

// === impl Harness ===

impl Harness {
    fn build(root: &Path) -> anyhow::Result<Self> {
        for package in ["garboard-check", "garboard-chaos"] {
            must(test::cargo(root).args(["build", "--quiet", "--locked", "--package", package]))?;
        }
        Ok(Self {
            server: image::server(root)?,
            volatile: test::build_examples(root)?.join("volatile"),
            tools: tools::build(root)?,
            debug: test::target_dir(root)?.join("debug"),
        })
    }

    fn command(&self, root: &Path) -> Command {
        let mut command = Command::new(self.debug.join("chaos"));
        command.current_dir(root).arg("--server").arg(&self.server).arg("--volatile").arg(&self.volatile);
        command.arg("--tools").arg(&self.tools).arg("--check").arg(self.debug.join("check"));
        command.arg("--second").arg(self.tools.join("porcupine"));
        command
    }

    /// One call of the harness in each lane, with `args` and with what `own` adds for the lane.
    fn tally(&self, root: &Path, args: &[&str], own: impl Fn(u64) -> Vec<String>) -> anyhow::Result<Tally> {
        let lane = |number| {
            let mut command = self.command(root);
            command.args(args).args(own(number));
            command
        };
        let mut lanes: Vec<_> = (0..LANES).map(lane).collect();
        counted_beside(&mut lanes, count)
    }
}

/// `chaos: seed 7: ok`: each run ends with a line of its own.
fn count(line: &str, tally: &mut Tally) {
    if let Some((_, verdict)) = line.strip_prefix("chaos: seed ").and_then(|rest| rest.split_once(": ")) {
        match verdict.starts_with("ok") {
            true => tally.passed += 1,
            false => tally.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_counts_once() {
        let mut tally = Tally::default();
        for line in ["chaos: seed 7: ok", "kept: /tmp/x", "chaos: seed 8: FAILED, /tmp/x", "chaos: plan"] {
            count(line, &mut tally);
        }
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }
}
