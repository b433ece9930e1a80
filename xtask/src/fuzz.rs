//! `cargo xtask fuzz`: the targets of `server/fuzz` under libFuzzer, each for a time box, from its seeds and the inputs that were kept.
//!
//! No nightly compiler is needed: LLVM's own pass counts coverage, and this program, as cargo's `RUSTC_WRAPPER`, asks for it where it
//! guides the search: in our crates. See `docs/fuzzing.md`.

mod options;
mod outcome;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use anyhow::bail;

use crate::cache;
use crate::step::Tally;
use crate::step::must;
pub use options::Options;
pub use options::PART_SECONDS;
pub use options::SECONDS;
use outcome::Outcome;

/// The longest first, so that two abreast end together.
pub const TARGETS: [&str; 5] = ["bolt_read", "requests", "wal_segments", "config", "wal_record"];

/// Makes this program a compiler that counts coverage.
const AS_RUSTC: &str = "GARBOARD_FUZZ_AS_RUSTC";

/// Counters for edges, a table of them, and comparisons told to libFuzzer, which then tries their operands.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// One input may take this long, and the process this much memory; `server/fuzz` bounds what is allocated and not touched, too.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 1024;
/// Longest input, in bytes. What is kept in the tree is no longer.
const INPUT_BYTES_MAX: u32 = 8 << 10;

/// `cargo xtask fuzz`.
pub fn run(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    let options = Options::parse(args)?;
    if options.help {
        println!("{}", options::USAGE);
        return Ok(true);
    }
    let tally = search(root, &options)?;
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// Searches as `options` say; each target is one check.
pub fn search(root: &Path, options: &Options) -> anyhow::Result<Tally> {
    let search = Search { root, programs: build(root)?, seed: options.seed.unwrap_or_else(new_seed), options };
    if let Some(input) = &options.input {
        return search.repeat(input);
    }
    println!("{} targets, {} s each, seed {}", options.targets.len(), options.seconds, search.seed);
    let waiting = Mutex::new(options.targets.iter());
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    let held = search.target(target).unwrap_or_else(|error| {
                        println!("FAILED {target}: {error:#}");
                        false
                    });
                    let mut tally = lock(&tally);
                    tally.passed += u64::from(held);
                    tally.failed += u64::from(!held);
                }
            });
        }
    });
    Ok(tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn next<'a>(waiting: &Mutex<std::slice::Iter<'a, &'static str>>) -> Option<&'a &'static str> {
    lock(waiting).next()
}

fn new_seed() -> u32 {
    // libFuzzer takes 0 for "choose one".
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos().max(1))
}

/// Builds the targets; returns the folder that they are in.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    // Cargo does not know of the wrapper's flags: other flags, other folder.
    let mut flags = cache::Fingerprint::new();
    COVERAGE.iter().for_each(|flag| flags.add(flag.as_bytes()));
    let target_dir = cache::dir()?.join("fuzz").join(format!("target-{}", flags.hex()));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args([
        "build",
        "--locked",
        "--profile=fuzz",
        "--package=garboard-fuzz",
        "--features=engine",
    ]);
    cargo.env("CARGO_TARGET_DIR", &target_dir).env("RUSTC_WRAPPER", std::env::current_exe()?).env(AS_RUSTC, "1");
    must(&mut cargo)?;
    Ok(target_dir.join("fuzz"))
}

/// Whether cargo has called this program as a compiler.
pub fn is_rustc() -> bool {
    std::env::var_os(AS_RUSTC).is_some()
}

/// Becomes the compiler that the first argument names.
pub fn rustc() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let compiler = args.next().unwrap_or_else(|| "rustc".into());
    let args: Vec<OsString> = args.collect();
    let mut command = Command::new(compiler);
    if crate_name(&args).is_some_and(is_instrumented) {
        command.args(COVERAGE);
    }
    let error = command.args(args).exec();
    eprintln!("xtask: start {}: {error}", command.get_program().display());
    ExitCode::FAILURE
}

fn crate_name(args: &[OsString]) -> Option<&str> {
    args.iter().position(|arg| arg == "--crate-name").and_then(|at| args.get(at + 1)?.to_str())
}

/// The parser of YAML is not ours, and decides how far a configuration gets.
fn is_instrumented(name: &str) -> bool {
    name.starts_with("garboard") || name == "saphyr_parser"
}

struct Search<'a> {
    root: &'a Path,
    programs: PathBuf,
    seed: u32,
    options: &'a Options,
}

// === impl Search ===

impl Search<'_> {
    /// libFuzzer's command line, but for the inputs.
    fn program(&self, target: &str) -> Command {
        let mut command = Command::new(self.programs.join(target));
        command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
        command
    }

    /// Runs one target for its time and says whether nothing was found.
    fn target(&self, target: &str) -> anyhow::Result<bool> {
        let kept = self.root.join("server/fuzz/corpus").join(target);
        let work = cache::dir()?.join("fuzz").join(target);
        let (seeds, found, faults) = (work.join("seeds"), work.join("found"), work.join("faults"));
        for folder in [&seeds, &found] {
            // Each search begins with what is in the tree.
            let _ = std::fs::remove_dir_all(folder);
        }
        for folder in [&kept, &seeds, &found, &faults] {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let log_path = work.join("log");
        let mut command = self.program(target);
        command.arg(format!("-max_total_time={}", self.options.seconds)).arg(format!("-seed={}", self.seed));
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", faults.display()));
        command.env("GARBOARD_FUZZ_SEEDS", &seeds).args([&found, &seeds, &kept]);
        let log = std::fs::File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
        let status = command.stdout(log.try_clone()?).stderr(log).status()?;
        let text = String::from_utf8_lossy(&std::fs::read(&log_path)?).into_owned();
        let outcome = Outcome::read(&text);
        if !status.success() {
            self.explain(target, &outcome, &log_path);
            return Ok(false);
        }
        let Some(runs) = outcome.runs.filter(|runs| *runs > 0) else { bail!("it ran nothing: {}", log_path.display()) };
        println!("ok     {target}: {runs} inputs, {} edges", outcome.edges.unwrap_or(0));
        if self.options.keep {
            self.keep(target, &kept, &found)?;
        }
        Ok(true)
    }

    fn explain(&self, target: &str, outcome: &Outcome, log: &Path) {
        let mut text = format!("FAILED {target}: {}\n", outcome.reason.as_deref().unwrap_or("ended without a reason"));
        outcome.panic.iter().for_each(|line| text.push_str(&format!("       {line}\n")));
        match &outcome.artifact {
            Some(path) => text.push_str(&format!("       repeat: cargo xtask fuzz {target} --input {path}\n")),
            None => text.push_str(&format!("       repeat: cargo xtask fuzz {target} --seed {}\n", self.seed)),
        }
        // In one piece: two targets run at once.
        let _ = std::io::stdout().write_all(format!("{text}       log: {}\n", log.display()).as_bytes());
    }

    /// Adds the fewest found inputs that reach what the kept ones do not.
    fn keep(&self, target: &str, kept: &Path, found: &Path) -> anyhow::Result<()> {
        let before = std::fs::read_dir(kept)?.count();
        let mut command = self.program(target);
        let output = command.args(["-set_cover_merge=1", "-use_counters=0"]).args([kept, found]).output()?;
        if !output.status.success() {
            bail!("the merge failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        println!("       {target}: {} inputs kept, {before} before", std::fs::read_dir(kept)?.count());
        Ok(())
    }

    /// One input again.
    fn repeat(&self, input: &Path) -> anyhow::Result<Tally> {
        let [target] = self.options.targets[..] else { bail!("--input needs one target") };
        let status = self.program(target).arg(input).env("RUST_BACKTRACE", "1").status()?;
        Ok(Tally::one(status.success()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_guides_the_search_is_instrumented() {
        let args = |name: &str| ["--edition=2024", "--crate-name", name, "src/lib.rs"].map(OsString::from);
        for (name, instrumented) in
            [("garboard_storage", true), ("saphyr_parser", true), ("build_script_build", false), ("redb", false)]
        {
            assert_eq!(crate_name(&args(name)).map(is_instrumented), Some(instrumented), "{name}");
        }
        assert_eq!(crate_name(&["-vV".into()]), None);
    }
}
