//! The command line.

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;

pub const USAGE: &str = "usage: chaos --server PATH --tools DIR [--members 3|5] [--seed N] [--seconds S] [--only FAULT,..] [--minutes M]
             [--traffic PATH] [--check PATH] [--second PATH] [--volatile PATH] [--cases FILE] [--part I/N] [--control]
             [--prove] [--never-heal] [--plan] [--keep] [--list]

  --server      the program under test, called with etcd's flags
  --tools       folder with etcdctl, and traffic unless --traffic says where it is (cargo xtask tools)
  --members     3 (default) or 5
  --seed        repeat a run: the same faults at the same times
  --seconds     how long to break things (default 60)
  --only        draw from these faults alone; one is enough
  --minutes     run after run on new seeds for so long, until one fails
  --traffic     the program that talks to the cluster and records the history; without one, etcdctl puts keys that must not be lost
  --check       the program that judges the history
  --second      another judge, who is given the history and nothing else
  --volatile    the server on a disk whose unsynced bytes die with the process: run where a fault is a power cut
  --cases       the runs of a file, one a line, each with --seed, --members, --seconds and --only of its own
  --part        of the runs of a file, those whose number leaves I when it is divided by N
  --control     the program is a real etcd: help where etcd is known to need help
  --prove       one cluster for each fault, which must be felt, and healed
  --never-heal  leave all faults in force: the run must fail
  --plan        print the plan of the seed and stop
  --keep        keep the folder of a run that held, too
  --list        name the faults and stop

Namespaces need root. ip, nft and strace are installed with apt-get where they are missing.";

/// Fewer seconds leave no room for two faults.
const SECONDS_MIN: u64 = 5;

#[derive(Clone, Debug)]
pub struct Options {
    pub server: PathBuf,
    pub tools: PathBuf,
    pub traffic: Option<PathBuf>,
    pub check: Option<PathBuf>,
    pub second: Option<PathBuf>,
    pub volatile: Option<PathBuf>,
    pub cases: Option<PathBuf>,
    /// The remainder, and by what is divided.
    pub part: (usize, usize),
    pub members: usize,
    pub seed: u64,
    pub seconds: u64,
    pub minutes: Option<u64>,
    pub only: Vec<String>,
    pub control: bool,
    pub prove: bool,
    pub never_heal: bool,
    pub plan: bool,
    pub keep: bool,
    pub list: bool,
}

// === impl Options ===

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        // Short enough to be typed again.
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64 % 1_000_000_000);
        let mut options = Self {
            server: PathBuf::new(),
            tools: PathBuf::new(),
            traffic: None,
            check: None,
            second: None,
            volatile: None,
            cases: None,
            part: (0, 1),
            members: 3,
            seed,
            seconds: 60,
            minutes: None,
            only: Vec::new(),
            control: false,
            prove: false,
            never_heal: false,
            plan: false,
            keep: false,
            list: false,
        };
        options.read(args)?;
        options.validate()
    }

    /// These options with those of one line of a file of cases.
    pub fn of_case(&self, line: &str) -> anyhow::Result<Self> {
        let mut options = Self { cases: None, ..self.clone() };
        options.read(line.split_whitespace().map(str::to_owned))?;
        options.validate()
    }

    fn read(&mut self, mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--server" => self.server = std::path::absolute(value()?)?,
                "--tools" => self.tools = std::path::absolute(value()?)?,
                "--traffic" => self.traffic = Some(std::path::absolute(value()?)?),
                "--check" => self.check = Some(std::path::absolute(value()?)?),
                "--second" => self.second = Some(std::path::absolute(value()?)?),
                "--volatile" => self.volatile = Some(std::path::absolute(value()?)?),
                "--cases" => self.cases = Some(std::path::absolute(value()?)?),
                "--part" => self.part = part(&value()?)?,
                "--members" => self.members = value()?.parse()?,
                "--seed" => self.seed = value()?.parse()?,
                "--seconds" => self.seconds = value()?.parse()?,
                "--minutes" => self.minutes = Some(value()?.parse()?),
                "--only" => self.only = value()?.split(',').map(str::to_owned).collect(),
                "--control" => self.control = true,
                "--prove" => self.prove = true,
                "--never-heal" => self.never_heal = true,
                "--plan" => self.plan = true,
                "--keep" => self.keep = true,
                "--list" => self.list = true,
                other => bail!("unknown argument {other}\n{USAGE}"),
            }
        }
        Ok(())
    }

    fn validate(self) -> anyhow::Result<Self> {
        if ![3, 5].contains(&self.members) {
            bail!("--members is 3 or 5\n{USAGE}");
        }
        if self.seconds < SECONDS_MIN {
            bail!("--seconds is {SECONDS_MIN} at least\n{USAGE}");
        }
        let runs = !self.list && !self.plan;
        if runs && (self.server.as_os_str().is_empty() || self.tools.as_os_str().is_empty()) {
            bail!("{USAGE}");
        }
        Ok(self)
    }

    /// The traffic program, if there is one.
    pub fn traffic(&self) -> Option<PathBuf> {
        let beside = self.tools.join("traffic");
        self.traffic.clone().or_else(|| beside.exists().then_some(beside))
    }

    /// The command that does the same run again.
    pub fn again(&self, seed: u64, kinds: &[&str]) -> String {
        let mut words = vec![
            format!("chaos --server {} --tools {}", self.server.display(), self.tools.display()),
            format!("--members {} --seed {seed} --seconds {}", self.members, self.seconds),
        ];
        let programs = [
            ("traffic", &self.traffic),
            ("check", &self.check),
            ("second", &self.second),
            ("volatile", &self.volatile),
        ];
        for (name, path) in programs {
            words.extend(path.as_ref().map(|path| format!("--{name} {}", path.display())));
        }
        words.push(format!("--only {}", kinds.join(",")));
        for (name, set) in [("control", self.control), ("prove", self.prove), ("never-heal", self.never_heal)] {
            words.extend(set.then(|| format!("--{name}")));
        }
        words.join(" ")
    }
}

/// `I/N`
fn part(text: &str) -> anyhow::Result<(usize, usize)> {
    let part = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    part.filter(|(i, n)| i < n).with_context(|| format!("--part {text}: I/N, I below N\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_that_is_printed_does_the_same_run() {
        let line = "--server /a/etcd --tools /t --seed 7 --members 5 --seconds 90 --check /c --only kill,lag --control --never-heal";
        let options = parse(line).unwrap();
        let again = options.again(options.seed, &["kill", "lag"]);
        let read = parse(again.strip_prefix("chaos ").unwrap()).unwrap();
        assert_eq!(format!("{options:?}"), format!("{read:?}"));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        for line in ["", "--server a", "--server a --tools b --members 4", "--server a --tools b --seconds 1", "--what"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("--list").is_ok());
    }

    #[test]
    fn a_case_has_choices_of_its_own() {
        let options = parse("--server /a --tools /t --seed 7 --cases /c").unwrap();
        let case = options.of_case("--seed 9 --members 5 --only kill,flap").unwrap();
        assert_eq!((case.seed, case.members, case.server), (9, 5, options.server.clone()));
        assert!(case.only == ["kill", "flap"] && case.cases.is_none());
        assert!(options.of_case("--seed x").is_err());
    }

    #[test]
    fn a_part_is_one_of_several() {
        assert_eq!(parse("--server /a --tools /t --part 1/3").unwrap().part, (1, 3));
        for wrong in ["3/3", "1", "a/b", "0/0"] {
            assert!(parse(&format!("--server /a --tools /t --part {wrong}")).is_err(), "{wrong}");
        }
    }
}
