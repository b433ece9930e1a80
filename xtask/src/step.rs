//! Steps of a test run: a header, the output as it comes, a count and a time.

use std::fmt;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;

/// Lines kept of what a failed check says.
const REASON_LINES: usize = 12;

/// Checks that held and that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// What says which did not, and why, in lines: repeated at the end of the run, where a log cut short still has it.
    pub reasons: Vec<String>,
}

/// The lines of an output that say what failed.
#[derive(Default)]
struct Reasons {
    lines: Vec<String>,
    /// So many lines may still belong to the last of them,
    left: usize,
    /// whether they are set in or not.
    any: bool,
}

/// All steps of a run so far.
#[derive(Default)]
pub struct Report {
    steps: Vec<(String, Tally, Duration)>,
}

// === impl Tally ===

impl Tally {
    pub fn one(held: bool) -> Self {
        Self { passed: u64::from(held), failed: u64::from(!held), reasons: Vec::new() }
    }

    fn failure(reason: String) -> Self {
        Self { reasons: vec![reason], ..Self::one(false) }
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let reasons = [self.reasons, other.reasons].concat();
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed, reasons }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| sum + tally)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

// === impl Report ===

impl Report {
    /// Runs one step. An error counts as one failure and does not stop the run; returns whether all of the step held.
    pub fn step(&mut self, name: &str, run: impl FnOnce() -> anyhow::Result<Tally>) -> bool {
        println!("\n=== {name}");
        let start = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("{error:#}");
            Tally::failure(format!("{error:#}"))
        });
        let time = start.elapsed();
        println!("=== {name}: {tally} ({:.1} s)", time.as_secs_f64());
        let held = tally.failed == 0;
        self.steps.push((name.to_owned(), tally, time));
        held
    }

    /// A step that cannot run since another has failed.
    pub fn blocked(&mut self, name: &str, by: &str) {
        self.step(name, || bail!("not run: {by} has failed"));
    }

    /// Prints the table and, as the last line of all, the sum.
    pub fn finish(&self) -> bool {
        let total: Tally = self.steps.iter().map(|(_, tally, _)| tally.clone()).sum();
        let time: Duration = self.steps.iter().map(|(_, _, time)| *time).sum();
        println!("\n=== all steps, {:.1} s", time.as_secs_f64());
        for (name, tally, time) in &self.steps {
            let mark = if tally.failed == 0 { "ok    " } else { "FAILED" };
            println!("{mark} {:>8.1} s  {name}: {tally}", time.as_secs_f64());
        }
        total.reasons.iter().for_each(|reason| println!("    {reason}"));
        println!("{total}");
        // Whoever reads a pipe must have the last line even if the process ends at once.
        let _ = std::io::stdout().flush();
        total.failed == 0
    }
}

// === impl Reasons ===

impl Reasons {
    /// `test name ... FAILED`, `scenario  FAILED (1.0 s)`, `FAILED: reason` and the like, with the lines under it that are set in;
    /// and what a thread that panicked says.
    fn read(&mut self, line: &str) {
        let panicked = line.contains("' panicked at ") || line.contains(") panicked at ");
        if line.contains("FAILED") && !line.starts_with("test result: ") || panicked {
            self.lines.push(line.to_owned());
            self.left = if panicked { 1 } else { REASON_LINES };
            self.any = panicked;
        } else if self.left > 0 && (self.any || line.starts_with("    ")) {
            self.lines.push(line.to_owned());
            self.left -= 1;
        } else {
            self.left = 0;
        }
    }
}

/// Runs a program whose success is one check.
pub fn gate(command: &mut Command) -> anyhow::Result<Tally> {
    let status = command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        println!("{} ended with {status}", command.get_program().display());
    }
    Ok(Tally::one(status.success()))
}

/// Runs what must succeed for anything to follow.
pub fn must(command: &mut Command) -> anyhow::Result<()> {
    if gate(command)?.failed > 0 {
        bail!("{} failed", command.get_program().display());
    }
    Ok(())
}

/// Runs a program, shows its output as it comes and lets `count` read each line.
/// A program that fails without a failure counted is one failure.
pub fn counted(command: &mut Command, count: impl FnMut(&str, &mut Tally)) -> anyhow::Result<Tally> {
    read(command, "", count)
}

/// The same with several programs beside each other, each line with its program's number before it.
pub fn counted_beside(commands: &mut [Command], count: fn(&str, &mut Tally)) -> anyhow::Result<Tally> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = commands
            .iter_mut()
            .enumerate()
            .map(|(number, command)| scope.spawn(move || read(command, &format!("{number}| "), count)))
            .collect();
        let tallies = readers.into_iter().map(|reader| match reader.join() {
            Ok(tally) => tally,
            Err(_) => bail!("a reader of a program's output has panicked"),
        });
        tallies.sum()
    })
}

fn read(command: &mut Command, mark: &str, mut count: impl FnMut(&str, &mut Tally)) -> anyhow::Result<Tally> {
    let program = command.get_program().display().to_string();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {program}"))?;
    let output = child.stdout.take().context("no stdout")?;
    let mut tally = Tally::default();
    let mut reasons = Reasons::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{mark}{line}");
        count(&line, &mut tally);
        reasons.read(&line);
    }
    tally.reasons = reasons.lines;
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        println!("{program} ended with {status}");
        tally.failed = 1;
    }
    if status.success() && tally == Tally::default() {
        bail!("{program} has tested nothing");
    }
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; 0 ignored; ...` of cargo test. An ignored test is a failed one: nothing is left out.
pub fn count_cargo(line: &str, tally: &mut Tally) {
    let Some(rest) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
    for part in rest.1.split("; ") {
        let Some((number, what)) = part.split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what {
            "passed" => tally.passed += number,
            "failed" | "ignored" => tally.failed += number,
            _ => {}
        }
    }
}

/// `N passed, N failed`, the last line of the scenarios.
pub fn count_sum(line: &str, tally: &mut Tally) {
    let sum = || {
        let (passed, failed) = line.split_once(" passed, ")?;
        Some((passed.parse::<u64>().ok()?, failed.strip_suffix(" failed")?.parse::<u64>().ok()?))
    };
    if let Some((passed, failed)) = sum() {
        tally.passed += passed;
        tally.failed += failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed, reasons: Vec::new() }
    }

    fn read(count: fn(&str, &mut Tally), lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| count(line, &mut tally));
        tally
    }

    #[test]
    fn cargo_results_are_summed_and_ignored_tests_fail() {
        let ok = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        let bad = "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(read(count_cargo, &["running 12 tests", "test a ... ok", ok, bad]), sum(16, 3));
    }

    #[test]
    fn sums_of_scenarios_are_read() {
        assert_eq!(read(count_sum, &["etcdctl ok, 9 checks", "188 passed, 4 failed"]), sum(188, 4));
        assert_eq!(read(count_sum, &["x passed, 4 failed", "1 passed, 2 failed."]), Tally::default());
    }

    #[test]
    fn a_program_that_fails_or_tests_nothing_does_not_pass() {
        let mut fails = Command::new("sh");
        assert_eq!(counted(fails.args(["-c", "echo '5 passed, 0 failed'; exit 3"]), count_sum).unwrap(), sum(5, 1));
        assert!(counted(Command::new("sh").args(["-c", "true"]), count_sum).is_err());
    }

    #[test]
    fn programs_beside_each_other_are_summed_and_one_that_fails_is_not_lost() {
        let program = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let mut commands =
            ["echo '5 passed, 0 failed'", "echo 'x FAILED'; echo '1 passed, 1 failed'; exit 1"].map(program);
        let tally = counted_beside(&mut commands, count_sum).unwrap();
        assert_eq!((tally.passed, tally.failed, tally.reasons), (6, 1, vec!["x FAILED".to_owned()]));
        assert!(counted_beside(&mut ["echo '5 passed, 0 failed'", "true"].map(program), count_sum).is_err());
    }

    #[test]
    fn what_failed_is_kept_with_what_says_why() {
        let mut reasons = Reasons::default();
        let lines = "kill   ok, 9 checks (1.0 s)
limits FAILED (2.0 s)
    put: no answer
    kept: /tmp/x
large  ok, 1 checks (1.0 s)
test a::b ... FAILED
test a::c ... ok
thread 'a::b' (12) panicked at a.rs:3:4:
left is not right
note: run with a backtrace
test result: FAILED. 1 passed; 1 failed";
        lines.lines().for_each(|line| reasons.read(line));
        let expected = "limits FAILED (2.0 s)
    put: no answer
    kept: /tmp/x
test a::b ... FAILED
thread 'a::b' (12) panicked at a.rs:3:4:
left is not right";
        assert_eq!(reasons.lines.join("\n"), expected);
    }

    #[test]
    fn an_error_in_a_step_is_a_failure_of_the_run() {
        let mut report = Report::default();
        assert!(report.step("fine", || Ok(Tally::one(true))));
        assert!(!report.step("broken", || bail!("reason")));
        assert!(!report.finish());
    }
}
