//! `etcdctl snapshot save`, and what etcd's own tools and etcd itself make of the file.

use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::etcdctl::Etcdctl;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;

pub fn snapshot(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    let file = lab.path("store.snapshot").display().to_string();
    let mut checks = 0;

    // A store without anything in it, and one with everything: deleted keys, leases, a compaction, values of many pages.
    ctl.ok(&["snapshot", "save", &file])?;
    ensure!(status(lab, &file)?["totalKey"] == 0, "an empty store has keys");
    std::fs::remove_file(&file)?;
    checks += 1;
    fill(&ctl)?;
    ctl.ok(&["snapshot", "save", &file])?;
    let (revision, hash) = (revision_of(&ctl)?, hash_of(&ctl)?);
    ensure!(
        status(lab, &file)?["revision"] == revision,
        "the file is not at revision {revision}: {}",
        status(lab, &file)?
    );
    checks += 1;

    let mut check = Command::new(lab.tool("bolt"));
    run(check.arg("check").env("BOLT_FILE", &file))?.success("bbolt's own check of the file")?;
    checks += 1;

    // A real etcd that is restored from it has the same keys, history, hash and leases.
    let restored = Member::reference(lab, "restored")?;
    let mut restore = Command::new(lab.tool("etcdutl"));
    restore.args(["snapshot", "restore", &file, "--name=default"]);
    restore.arg(format!("--data-dir={}", restored.data_dir.display()));
    restore.arg(format!("--initial-cluster=default={}", restored.peer_url));
    restore.arg(format!("--initial-advertise-peer-urls={}", restored.peer_url));
    run(&mut restore)?.success("etcdutl snapshot restore")?;
    let etcd = restored.start()?;
    let theirs = Etcdctl::new(lab, etcd.url());
    ensure!(revision_of(&theirs)? == revision, "restored to revision {}, not {revision}", revision_of(&theirs)?);
    ensure!(hash_of(&theirs)? == hash, "restored with hash {:?}, not {hash:?}", hash_of(&theirs)?);
    for args in [
        &["get", "--prefix", "", "-w", "fields"][..],
        &["get", "--prefix", "", "--rev=60", "-w", "fields"],
        &["lease", "list"],
        &["alarm", "list"],
    ] {
        let (ours, restored) = (told(&ctl, args)?, told(&theirs, args)?);
        ensure!(ours == restored, "etcdctl {args:?}\nours:\n{ours}\nrestored:\n{restored}");
        checks += 1;
    }
    theirs.ok(&["put", "after", "the restore"])?;
    Ok(checks + 2)
}

fn fill(ctl: &Etcdctl) -> anyhow::Result<()> {
    for i in 0..40 {
        ctl.ok(&["put", &format!("key{:02}", i % 30), &"v".repeat(1 + i * 300)])?;
    }
    ctl.ok(&["put", "large", &"l".repeat(120_000)])?;
    ctl.ok(&["put", "empty", ""])?;
    let granted = ctl.ok(&["lease", "grant", "3600"])?;
    let lease = granted.split_whitespace().nth(1).context("etcdctl names no lease")?.to_owned();
    ctl.ok(&["put", "leased", "v", &format!("--lease={lease}")])?;
    ctl.ok(&["del", "key05"])?;
    ctl.ok(&["compact", "20"])?;
    for i in 0..30 {
        ctl.ok(&["put", &format!("more{i:02}"), "v"])?;
    }
    ctl.ok(&["del", "--prefix", "more1"])?;
    Ok(())
}

/// What etcdutl says of the file.
fn status(lab: &Lab, file: &str) -> anyhow::Result<Value> {
    let mut command = Command::new(lab.tool("etcdutl"));
    let output = run(command.args(["snapshot", "status", file, "-w", "json"]))?.success("etcdutl snapshot status")?;
    serde_json::from_str(&output.stdout).with_context(|| output.stdout)
}

fn revision_of(ctl: &Etcdctl) -> anyhow::Result<i64> {
    ctl.json(&["get", "none"])?["header"]["revision"].as_i64().context("no revision")
}

fn hash_of(ctl: &Etcdctl) -> anyhow::Result<(Value, Value)> {
    let answer = ctl.json(&["endpoint", "hashkv"])?;
    let hash = &answer[0]["HashKV"];
    Ok((hash["hash"].clone(), hash["compact_revision"].clone()))
}

/// What etcdctl prints, without what is each server's own.
fn told(ctl: &Etcdctl, args: &[&str]) -> anyhow::Result<String> {
    let own = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\"", "remaining"];
    Ok(ctl
        .ok(args)?
        .lines()
        .filter(|line| !own.iter().any(|name| line.contains(name)))
        .map(|line| line.to_owned() + "\n")
        .collect())
}
