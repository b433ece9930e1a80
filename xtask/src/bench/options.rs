//! The command line of the bench.

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use super::workload;
use super::workload::Workload;

pub const USAGE: &str = "cargo xtask bench [OPTIONS]

This server and real etcd under the same loads, in turns, and the ratios of their medians.

  --rounds N              each workload so many times on each server (default: 3)
  --scale F               of the full time and number of keys, up to 1 (default: 1, about an hour; 0.1: ten minutes)
  --only NAME             this workload alone; may be given several times (--list names them)
  --members N             clusters of 1, 3 or 5 members (default: 1)
  --target-leader         of several members, all connections to the leader; otherwise to all in turn, the leader first
  --against 3.6|3.7|both  which etcd to measure (default: both)
  --noise                 also the server against itself: what difference means nothing
  --threads               also where our CPU time went, by name of thread
  --server PATH           a server that is already built
  --write                 also write the table into docs/benchmarks.md, where it has a table for so many members
  --list                  the workloads";

pub struct Options {
    pub rounds: usize,
    pub scale: f64,
    pub members: usize,
    pub target_leader: bool,
    pub against: Against,
    pub noise: bool,
    pub threads: bool,
    pub write: bool,
    pub list: bool,
    pub server: Option<PathBuf>,
    only: Vec<&'static Workload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    One(&'static str),
    Both,
}

// === impl Against ===

impl Against {
    pub fn includes(self, version: &str) -> bool {
        match self {
            Self::One(one) => one == version,
            Self::Both => true,
        }
    }
}

// === impl Options ===

impl Options {
    pub fn parse(args: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self {
            rounds: 3,
            scale: 1.0,
            members: 1,
            target_leader: false,
            against: Against::Both,
            noise: false,
            threads: false,
            write: false,
            list: false,
            server: None,
            only: Vec::new(),
        };
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg {
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--scale" => options.scale = value()?.parse().context("--scale")?,
                "--members" => options.members = value()?.parse().context("--members")?,
                "--target-leader" => options.target_leader = true,
                "--only" => options.only.push(workload::named(value()?)?),
                "--against" => options.against = against(value()?)?,
                "--server" => options.server = Some(value()?.into()),
                "--noise" => options.noise = true,
                "--threads" => options.threads = true,
                "--write" => options.write = true,
                "--list" => options.list = true,
                other => bail!("bench: unknown: {other}\n\n{USAGE}"),
            }
        }
        ensure!((1..=100).contains(&options.rounds), "--rounds is from 1 to 100");
        ensure!(options.scale > 0.0 && options.scale <= 1.0, "--scale is above 0 and at most 1");
        ensure!([1, 3, 5].contains(&options.members), "--members is 1, 3 or 5");
        ensure!(options.members > 1 || !options.target_leader, "--target-leader needs --members");
        Ok(options)
    }

    pub fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        workload::ALL
            .iter()
            .filter(|workload| self.only.is_empty() || self.only.iter().any(|o| o.name == workload.name))
    }
}

fn against(text: &str) -> anyhow::Result<Against> {
    Ok(match text {
        "3.6" => Against::One("3.6"),
        "3.7" => Against::One("3.7"),
        "both" => Against::Both,
        other => bail!("--against {other}: 3.6, 3.7 or both"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workloads_run_unless_some_are_named() {
        assert_eq!(Options::parse(&[]).unwrap().workloads().count(), workload::ALL.len());
        let some = Options::parse(&["--only", "count", "--only", "put-1"]).unwrap();
        assert_eq!(some.workloads().map(|workload| workload.name).collect::<Vec<_>>(), ["put-1", "count"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for args in [
            &["--rounds", "0"][..],
            &["--rounds"],
            &["--scale", "0"],
            &["--scale", "2"],
            &["--scale", "NaN"],
            &["--only", "nothing"],
            &["--members", "2"],
            &["--target-leader"],
            &["--against", "3.5"],
            &["fast"],
        ] {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn one_version_or_both() {
        let one = Options::parse(&["--against", "3.7"]).unwrap().against;
        assert!(one.includes("3.7") && !one.includes("3.6"));
        assert!(Against::Both.includes("3.6") && Against::Both.includes("3.7"));
    }
}
