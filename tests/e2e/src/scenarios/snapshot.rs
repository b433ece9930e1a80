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
    let revision = revision_of(&ctl)?;
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
    let source = Told::by(&ctl)?;
    let restored = Member::reference(lab, "restored")?;
    run(restore(&mut Command::new(lab.tool("etcdutl")), &file, &restored))?.success("etcdutl snapshot restore")?;
    let etcd = restored.start()?;
    let theirs = Etcdctl::new(lab, etcd.url());
    checks += source.same(&Told::by(&theirs)?)?;
    theirs.ok(&["put", "after", "the restore"])?;
    if lab.control {
        return Ok(checks);
    }
    let etcds = lab.path("etcd.snapshot").display().to_string();
    theirs.ok(&["snapshot", "save", &etcds])?;
    checks += from_ours(lab, &file, &source)?;
    checks += from_etcd(lab, &etcds, &Told::by(&theirs)?)?;
    Ok(checks + refused(lab, &etcds)?)
}

pub(super) fn restore<'a>(command: &'a mut Command, file: &str, member: &Member) -> &'a mut Command {
    command.args(["snapshot", "restore", file, "--name=default"]);
    command.arg(format!("--data-dir={}", member.data_dir.display()));
    command.arg(format!("--initial-cluster=default={}", member.peer_url));
    command.arg(format!("--initial-advertise-peer-urls={}", member.peer_url))
}

/// What etcdutl says of a snapshot, and the server's own subcommand in the same words.
pub(super) fn status_of_both(lab: &Lab, file: &str) -> anyhow::Result<Value> {
    for form in ["simple", "json"] {
        let said = |program| -> anyhow::Result<String> {
            let output = run(Command::new(program).args(["snapshot", "status", file, "-w", form]))?;
            Ok(output.success("snapshot status")?.stdout)
        };
        let (ours, etcds) = (said(lab.server.clone())?, said(lab.tool("etcdutl"))?);
        ensure!(ours == etcds, "status: {ours}, etcdutl: {etcds}");
    }
    status(lab, file)
}

/// The server's own subcommands on its own snapshot: the status of etcdutl, and a member as it was.
fn from_ours(lab: &Lab, file: &str, source: &Told) -> anyhow::Result<u32> {
    status_of_both(lab, file)?;
    let member = Member::new(lab, "from-ours")?;
    run(restore(&mut Command::new(&lab.server), file, &member))?.success("snapshot restore")?;
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    let checks = source.same(&Told::by(&ctl)?)?;
    ctl.ok(&["put", "after", "the restore"])?;
    // And again from its own log.
    let server = server.kill()?.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    ensure!(
        ctl.ok(&["get", "after", "--print-value-only"])?.trim() == "the restore",
        "a write after the restore is lost"
    );
    Ok(checks + 3)
}

/// From etcd's snapshot, with a revision that clients have not seen yet.
fn from_etcd(lab: &Lab, file: &str, source: &Told) -> anyhow::Result<u32> {
    let member = Member::new(lab, "from-etcd")?;
    run(restore(&mut Command::new(&lab.server), file, &member))?.success("snapshot restore")?;
    let server = member.start()?;
    let checks = source.same(&Told::by(&Etcdctl::new(lab, server.url()))?)?;
    drop(server);

    let member = Member::new(lab, "bumped")?;
    let mut command = Command::new(&lab.server);
    restore(&mut command, file, &member).args(["--bump-revision=1000000", "--mark-compacted"]);
    run(&mut command)?.success("snapshot restore --bump-revision")?;
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    let revision = revision_of(&ctl)?;
    ensure!(revision == source.revision + 1_000_000, "revision {revision} after {}", source.revision);
    let old = ctl.run(&["get", "after", "--rev", &source.revision.to_string()])?;
    ensure!(old.stderr.contains("required revision has been compacted"), "history of before: {old:?}");
    ensure!(ctl.ok(&["get", "after"])? == "after\nthe restore\n", "a key of the snapshot is lost");
    Ok(checks + 3)
}

/// What must not become a member: a damaged file, and a directory that is in use.
fn refused(lab: &Lab, file: &str) -> anyhow::Result<u32> {
    let member = Member::new(lab, "refused")?;
    let damaged = lab.path("damaged.snapshot").display().to_string();
    let mut bytes = std::fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes)?;
    let output = run(restore(&mut Command::new(&lab.server), &damaged, &member))?;
    ensure!(!output.status.success() && output.stderr.contains("expected sha256"), "a damaged file: {output:?}");
    ensure!(!member.data_dir.exists(), "a refused restore leaves a directory");
    std::fs::create_dir_all(member.data_dir.join("member"))?;
    let output = run(restore(&mut Command::new(&lab.server), file, &member))?;
    ensure!(!output.status.success() && output.stderr.contains("not empty"), "a directory in use: {output:?}");
    Ok(2)
}

/// What a store tells its clients.
struct Told {
    revision: i64,
    hash: (Value, Value),
    answers: Vec<(&'static [&'static str], String)>,
}

impl Told {
    fn by(ctl: &Etcdctl) -> anyhow::Result<Self> {
        let asked: [&[&str]; 4] = [
            &["get", "--prefix", "", "-w", "fields"],
            &["get", "--prefix", "", "--rev=60", "-w", "fields"],
            &["lease", "list"],
            &["alarm", "list"],
        ];
        let answers = asked.into_iter().map(|args| Ok((args, told(ctl, args)?))).collect::<anyhow::Result<_>>()?;
        Ok(Self { revision: revision_of(ctl)?, hash: hash_of(ctl)?, answers })
    }

    fn same(&self, other: &Self) -> anyhow::Result<u32> {
        ensure!(self.revision == other.revision, "revision {}, restored {}", self.revision, other.revision);
        ensure!(self.hash == other.hash, "hash {:?}, restored {:?}", self.hash, other.hash);
        for ((args, ours), (_, restored)) in self.answers.iter().zip(&other.answers) {
            ensure!(ours == restored, "etcdctl {args:?}\nsource:\n{ours}\nrestored:\n{restored}");
        }
        Ok(2 + self.answers.len() as u32)
    }
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
