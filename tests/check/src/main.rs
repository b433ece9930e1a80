//! `check FILE..`: judges histories. Exit code 0: all are right; 1: one is wrong; 2: one cannot be read; 3: one is undecided.
#![forbid(unsafe_code)]
// Nothing here is part of the server: files and the clock are used as by any program.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;
use std::time::Instant;

use garboard_check::Options;
use garboard_check::faults;
use garboard_check::history::History;
use garboard_check::judge;
use garboard_check::report::Report;
use garboard_check::report::Verdict;

const USAGE: &str = "usage: check FILE.. [--heal-at UNIX_NS].. [--serving-within S] [--members-serving-within S]
             [--lease-slack-s N] [--faults FILE] [--foreign-writes]

  --heal-at                 from then on nothing is wrong with the cluster; may be given again
  --serving-within          how long after a heal a write may take to succeed
  --members-serving-within  the same through each member that has to answer at the end
  --lease-slack-s           how long after its TTL a lease may keep its keys, outside of faults
  --faults                  JSON lines with begin_unix_ns and end_unix_ns: when something was wrong
  --foreign-writes          others write to the store too, to other keys";

#[derive(Default)]
struct Arguments {
    files: Vec<String>,
    heals_unix_ns: Vec<i64>,
    faults: Option<String>,
    options: Options,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("check: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let (mut wrong, mut undecided, mut unread) = (0, 0, 0);
    for file in &arguments.files {
        let begin = Instant::now();
        match judge_file(file, &arguments) {
            Ok(report) => {
                let verdict = report.verdict();
                println!("{file}: {} ({:.1} s)\n{report}", word(verdict), begin.elapsed().as_secs_f64());
                wrong += usize::from(verdict == Verdict::Wrong);
                undecided += usize::from(verdict == Verdict::Undecided);
            }
            Err(why) => {
                println!("{file}: {why}");
                unread += 1;
            }
        }
    }
    let files = arguments.files.len();
    println!("check: {files} histories, {wrong} wrong, {undecided} undecided, {unread} unreadable");
    match (wrong, unread, undecided) {
        (0, 0, 0) => ExitCode::SUCCESS,
        (0, 0, _) => ExitCode::from(3),
        (0, ..) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Right => "right",
        Verdict::Wrong => "WRONG",
        Verdict::Undecided => "UNDECIDED",
    }
}

fn judge_file(file: &str, arguments: &Arguments) -> Result<Report, String> {
    let source = File::open(file).map_err(|error| error.to_string())?;
    let history = History::read(BufReader::with_capacity(1 << 20, source)).map_err(|error| error.to_string())?;
    let mut options = arguments.options.clone();
    options.heals = arguments.heals_unix_ns.iter().map(|unix_ns| history.start.time_of(*unix_ns)).collect();
    if let Some(path) = &arguments.faults {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        options.faults =
            faults::read(&history, &text).map_err(|(line, error)| format!("{path}: line {line}: {error}"))?;
    }
    Ok(judge(&history, &options))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--heal-at" => parsed.heals_unix_ns.push(number(&value()?)?),
            "--serving-within" => parsed.options.serving_within_s = Some(number(&value()?)?),
            "--members-serving-within" => parsed.options.members_serving_within_s = Some(number(&value()?)?),
            "--lease-slack-s" => parsed.options.lease_slack_s = Some(number(&value()?)?),
            "--faults" => parsed.faults = Some(value()?),
            "--foreign-writes" => parsed.options.foreign_writes = true,
            other if other.starts_with("--") => return Err(format!("there is no option {other}")),
            _ => parsed.files.push(argument),
        }
    }
    if parsed.files.is_empty() {
        return Err("no history is named".to_owned());
    }
    Ok(parsed)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}
