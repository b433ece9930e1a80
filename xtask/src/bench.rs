//! `cargo xtask bench`: this server and real etcd under the same loads, in turns, and the ratios of their medians.
//!
//! Invariants: each run has members of its own in fresh folders on the same disk, with default flags, and nothing else
//! of ours runs beside it; a run that errs ends the bench; every wait has an end; servers and folders go with their
//! handles.

mod load;
mod machine;
mod options;
mod proc_fs;
mod record;
mod run;
mod server;
mod table;
mod workload;

use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;

use crate::cache;
use crate::step::must;
use crate::test;
use crate::tools;

use options::Options;
use record::Record;
use run::Bench;
use server::Contender;

/// Runs what the arguments ask for and prints the table.
pub fn run(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    if let ["help" | "-h" | "--help"] = args {
        println!("{}", options::USAGE);
        return Ok(true);
    }
    let options = Options::parse(args)?;
    if options.list {
        workload::ALL.iter().for_each(|workload| println!("{:<20} {}", workload.name, workload.title));
        return Ok(true);
    }
    let document = root.join("docs/benchmarks.md");
    if options.write {
        table::check(&document, options.members)?;
    }
    let bin = tools::build_for_bench(root)?;
    let ours = match &options.server {
        Some(path) => path.canonicalize().with_context(|| format!("--server {}", path.display()))?,
        None => release(root)?,
    };
    let folder = Folder::new()?;
    let bench = Bench {
        contenders: contenders(&options, &bin, ours),
        load: bin.join("load"),
        folder: folder.0.clone(),
        scale: options.scale,
        members: options.members,
        target_leader: options.target_leader,
    };
    let begin = Instant::now();
    let mut record = Record::default();
    for workload in options.workloads() {
        for round in 0..options.rounds {
            bench.round(workload, round, &mut record)?;
        }
    }
    let table = table::markdown(&options, &bench.contenders, &record);
    let machine = machine::describe(root, &bench, options.server.is_none())?;
    let took = begin.elapsed().as_secs();
    let heading = table::heading(args, took);
    let mut text = format!("- {heading}\n{machine}\n- {}\n", record.elsewhere());
    if options.members > 1 {
        text.push_str(&format!("- {}\n", record.elections()));
    }
    text.push_str(&format!("\n{table}"));
    println!("\n{text}");
    if options.threads {
        println!("{}", record.threads());
    }
    if options.write {
        table::write(&document, options.members, &text)?;
    }
    Ok(true)
}

/// Ours is last, so that the columns read as the table is meant to be read.
fn contenders(options: &Options, bin: &Path, ours: PathBuf) -> Vec<Contender> {
    let mut contenders = Vec::new();
    if options.against.includes("3.6") {
        contenders.push(Contender::etcd("etcd 3.6", bin.join("etcd")));
    }
    if options.against.includes("3.7") {
        contenders.push(Contender::etcd("etcd 3.7", bin.join("etcd37")));
    }
    contenders.push(Contender::ours("garboard", ours.clone()));
    if options.noise {
        contenders.push(Contender::ours("garboard again", ours));
    }
    contenders
}

/// Where the data of all runs lies: beside the build caches, on a disk and not in memory.
struct Folder(PathBuf);

// === impl Folder ===

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let all = cache::dir()?.join("bench-data");
        sweep(&all);
        let path = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the way of nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what benches that were interrupted have left: folders named by a process that is gone.
fn sweep(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        if pid.is_ok_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The server as cargo builds a release.
fn release(root: &Path) -> anyhow::Result<PathBuf> {
    must(test::cargo(root).args(["build", "--release", "--locked", "--package", "garboard"]))?;
    let path = test::target_dir(root)?.join("release/garboard");
    ensure!(path.exists(), "{} is not there", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_processes_that_are_gone_are_swept() {
        let all = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        // Above the largest process id of Linux.
        let (gone, here, other) = (all.join("4194305"), all.join(std::process::id().to_string()), all.join("notes"));
        for folder in [&gone, &here, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        sweep(&all);
        let left = [&gone, &here, &other].map(|folder| folder.exists());
        std::fs::remove_dir_all(&all).unwrap();
        assert_eq!(left, [false, true, true]);
    }
}
