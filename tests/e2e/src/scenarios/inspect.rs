//! `garboard inspect` on the disk of a member that was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::etcdctl::Etcdctl;
use crate::process::Output;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;

/// The exit code when something is damaged.
const EXIT_DAMAGED: i32 = 5;

fn run_on(member: &Member) -> anyhow::Result<Output> {
    run(Command::new(&member.program).arg("inspect").arg(&member.data_dir))
}

/// What is told of a whole disk.
pub fn inspected(member: &Member) -> anyhow::Result<Value> {
    let output = run_on(member)?.success("inspect")?;
    Ok(serde_json::from_str(&output.stdout)?)
}

/// Content and time of every file.
fn files(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, (Vec<u8>, SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        found.insert(dir.clone(), (Vec::new(), dir.metadata()?.modified()?));
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.clone(), (std::fs::read(&path)?, path.metadata()?.modified()?));
            }
        }
    }
    Ok(found)
}

/// Flips a bit wherever `value` stands in a file (a database has pages that nobody reads any more); where that is.
fn flip(path: &Path, value: &str) -> anyhow::Result<Vec<usize>> {
    let mut bytes = std::fs::read(path)?;
    let windows = bytes.windows(value.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| *window == value.as_bytes()).map(|(at, _)| at).collect();
    ensure!(!places.is_empty(), "{value} is not in {}", path.display());
    places.iter().for_each(|at| bytes[*at] ^= 2);
    std::fs::write(path, bytes)?;
    Ok(places)
}

/// What it tells is what the member said before; it changes nothing, and names what is damaged.
pub fn inspect(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "killed")?.with("--backend-batch-interval=10m").start()?;
    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..40 {
        ctl.ok(&["put", &format!("key{i}"), &format!("<value-{i:04}>")])?;
    }
    ctl.ok(&["compact", "20"])?;
    // Which also brings the database up to here; the writes behind it stand in the log alone.
    let before = ctl.json(&["endpoint", "hashkv"])?[0]["HashKV"].clone();
    for i in 40..60 {
        ctl.ok(&["put", &format!("key{i}"), &format!("<value-{i:04}>")])?;
    }
    let status = ctl.json(&["endpoint", "status"])?[0]["Status"].clone();
    let used = run_on(&server.member)?;
    let lock = server.member.data_dir.join("lock").display().to_string();
    ensure!(used.status.code() == Some(1) && used.stderr.contains(&lock), "of a member that runs: {used:?}");
    ensure!(used.stdout.is_empty(), "{}", used.stdout);
    let member = server.kill()?;

    let disk = files(&member.data_dir)?;
    let first = run_on(&member)?.success("inspect")?;
    let second = run_on(&member)?.success("inspect again")?;
    ensure!(first.stdout == second.stdout, "told twice:\n{}{}", first.stdout, second.stdout);
    let changed: Vec<_> =
        files(&member.data_dir)?.into_iter().filter(|(path, file)| disk.get(path) != Some(file)).collect();
    ensure!(changed.is_empty(), "files were changed: {:?}", changed.iter().map(|(path, _)| path).collect::<Vec<_>>());
    let found: Value = serde_json::from_str(&first.stdout)?;
    let hex = |id: &Value| id.as_u64().map(|id| format!("{id:x}"));
    for (what, told, said) in [
        ("cluster", &found["identity"]["clusterId"], Value::from(hex(&status["header"]["cluster_id"]))),
        ("member", &found["identity"]["memberId"], Value::from(hex(&status["header"]["member_id"]))),
        ("vote", &found["log"]["vote"]["votedFor"], Value::from(hex(&status["header"]["member_id"]))),
        ("term", &found["log"]["vote"]["term"], status["raftTerm"].clone()),
        ("index", &found["last"]["index"], status["raftIndex"].clone()),
        ("revision", &found["last"]["revision"], status["header"]["revision"].clone()),
        ("compact revision", &found["last"]["compactRevision"], Value::from(20)),
        ("keys", &found["last"]["keys"], Value::from(60)),
        ("name", &found["name"], Value::from("default")),
        ("the database's revision", &found["applied"]["revision"], before["header"]["revision"].clone()),
        ("the database's hash", &found["applied"]["hash"], before["hash"].clone()),
    ] {
        ensure!(*told == said && !said.is_null(), "{what} is {said}, and told as {told}:\n{found:#}");
    }
    // The hash behind the last entry, by a start on the same disk.
    let server = member.start()?;
    let after = Etcdctl::new(lab, server.url()).json(&["endpoint", "hashkv"])?[0]["HashKV"].clone();
    ensure!(found["last"]["hash"] == after["hash"], "{after} told as {found:#}");
    let member = server.kill()?;

    let mut checks = 17;
    let segment = std::fs::read_dir(member.data_dir.join("member/wal"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .context("no segment")?;
    for (file, value) in [(segment, "<value-0003>"), (member.data_dir.join("member/db"), "<value-0030>")] {
        let whole = std::fs::read(&file)?;
        let places = flip(&file, value)?;
        let output = run_on(&member)?;
        ensure!(output.status.code() == Some(EXIT_DAMAGED), "{}", output.status);
        let found: Value = serde_json::from_str(&output.stdout)?;
        let damage = &found["damage"][0];
        ensure!(damage["file"] == file.display().to_string().as_str(), "{found:#}");
        let offset = damage["offset"].as_u64().context("no offset")? as usize;
        let near = places.iter().any(|at| (offset..offset + 4096).contains(at));
        ensure!(near, "damage at {places:?} is told to be at {offset}");
        // The rest is there.
        ensure!(found["log"]["last"]["index"].as_u64() >= status["raftIndex"].as_u64(), "{found:#}");
        ensure!(found["log"]["vote"]["term"].is_u64(), "{found:#}");
        ensure!(found["membership"]["members"][0]["name"] == "default", "{found:#}");
        std::fs::write(&file, whole)?;
        checks += 4;
    }
    ensure!(inspected(&member)?["damage"] == Value::Array(Vec::new()), "the bits were put right");
    Ok(checks + 1)
}
