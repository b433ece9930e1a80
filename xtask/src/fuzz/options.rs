//! The command line of the search.

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use super::TARGETS;

pub const USAGE: &str = "cargo xtask fuzz [TARGET...] [OPTIONS]

Searches for inputs that do harm: bolt_read, requests, wal_segments, config, wal_record (default: all, two at a time).

  --seconds N   search each target this long (default: 60)
  --seed N      libFuzzer's seed, as an earlier run has printed it
  --input PATH  run one target on this input alone
  --keep        then add what was found to server/fuzz/corpus: the fewest inputs that reach something new";

/// How long each target is searched,
pub const SECONDS: u64 = 60;
/// and in a `cargo xtask test` that takes a part of everything: three rounds of two targets in a minute.
pub const PART_SECONDS: u64 = 20;

pub struct Options {
    pub targets: Vec<&'static str>,
    pub seconds: u64,
    pub seed: Option<u32>,
    pub input: Option<PathBuf>,
    pub keep: bool,
    pub help: bool,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self { targets: TARGETS.to_vec(), seconds: SECONDS, seed: None, input: None, keep: false, help: false }
    }
}

impl Options {
    pub fn parse(args: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut targets = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match *arg {
                "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
                "--seed" => options.seed = Some(value()?.parse().context("--seed")?),
                "--input" => options.input = Some(PathBuf::from(value()?)),
                "--keep" => options.keep = true,
                "-h" | "--help" => options.help = true,
                name => match TARGETS.iter().find(|target| **target == name) {
                    Some(target) => targets.push(*target),
                    None => bail!("unknown: {name}\n\n{USAGE}"),
                },
            }
        }
        ensure!(options.seconds > 0, "--seconds 0 searches for ever");
        ensure!(options.seed != Some(0), "--seed 0 is no seed");
        ensure!(options.input.is_none() || targets.len() == 1, "--input needs one target");
        if !targets.is_empty() {
            options.targets = targets;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["config", "--seconds", "5", "--seed", "7", "--keep"]).unwrap();
        assert_eq!((&options.targets[..], options.seconds, options.seed), (&["config"][..], 5, Some(7)));
        assert_eq!(Options::parse(&[]).unwrap().targets, TARGETS);
        for wrong in [&["nothing"][..], &["--seconds"], &["--seconds", "0"], &["--seed", "0"], &["--input", "x"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
