//! Damage to the write-ahead log and the database: what a crash leaves is repaired, anything else is refused.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::etcdctl::Etcdctl;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::wait_ready;

const WRITES: usize = 60;
/// Of a member whose log or database is damaged.
const EXIT_DAMAGED: i32 = 6;
/// What one write to the log begins with: `docs/formats.md`.
const GROUP_MAGIC: &[u8] = b"GbGr";

/// A member that was killed after acknowledged writes; each value occurs once in the log.
fn killed(lab: &Lab, name: &str) -> anyhow::Result<Member> {
    // The last write is in the log alone: were it in the database too, the log would have lost what it had.
    let server = Member::new(lab, name)?.with("--backend-batch-interval=10m").start()?;
    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..WRITES {
        ctl.ok(&["put", &format!("key{i}"), &marker(i)])?;
    }
    server.kill()
}

fn marker(i: usize) -> String {
    format!("<marker-of-write-{i:04}>")
}

/// The newest log file of a member.
fn newest_segment(member: &Member) -> anyhow::Result<PathBuf> {
    let dir = member.data_dir.join("member/wal");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| format!("list {}", dir.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    // A segment made ready for later holds no record yet.
    let used = files
        .into_iter()
        .rev()
        .find(|file| std::fs::read(file).is_ok_and(|bytes| find(&bytes, b"<marker-of-write-").is_some()));
    used.with_context(|| format!("no log file with the writes in {}", dir.display()))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn last_used_byte(bytes: &[u8]) -> anyhow::Result<usize> {
    bytes.iter().rposition(|byte| *byte != 0).context("an empty log")
}

fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    edit(&mut bytes)?;
    Ok(std::fs::write(path, bytes)?)
}

fn check_writes(lab: &Lab, member: &Member, at_least: usize) -> anyhow::Result<()> {
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..at_least {
        let got = ctl.ok(&["get", &format!("key{i}"), "--print-value-only"])?;
        ensure!(got.trim() == marker(i), "key{i} is {got:?}");
    }
    ctl.ok(&["put", "after", "the repair"])?;
    server.kill()?;
    // And the repaired log is a sound one.
    let server = member.start()?;
    ensure!(
        Etcdctl::new(lab, server.url()).ok(&["get", "after"])? == "after\nthe repair\n",
        "a write after the repair is lost"
    );
    Ok(())
}

pub fn torn_tail(lab: &Lab) -> anyhow::Result<u32> {
    let mut checks = 0;
    // The last write reached the disk in part: its end is missing. Only that write may be lost.
    for missing in [1, 7, 30] {
        let member = killed(lab, &format!("cut-{missing}"))?;
        change(&newest_segment(&member)?, |bytes| {
            let last = last_used_byte(bytes)?;
            bytes[last + 1 - missing..=last].fill(0);
            Ok(())
        })?;
        check_writes(lab, &member, WRITES - 1)?;
        checks += 1;
    }
    // Only the beginning of the last write reached the disk.
    for kept in [1, 13, 40] {
        let member = killed(lab, &format!("kept-{kept}"))?;
        change(&newest_segment(&member)?, |bytes| {
            let last = last_used_byte(bytes)?;
            let begin = bytes[..last].windows(GROUP_MAGIC.len()).rposition(|window| window == GROUP_MAGIC);
            let begin = begin.context("no group in the log")?;
            ensure!(begin + kept < last, "the last group is too short");
            bytes[begin + kept..=last].fill(0);
            Ok(())
        })?;
        check_writes(lab, &member, WRITES - 1)?;
        checks += 1;
    }
    Ok(checks)
}

pub fn bit_flip(lab: &Lab) -> anyhow::Result<u32> {
    let mut checks = 0;
    for (write, bit) in [(3, 0), (WRITES / 2, 3), (WRITES - 5, 7), (WRITES - 1, 5)] {
        let member = killed(lab, &format!("flip-{write}"))?;
        let segment = newest_segment(&member)?;
        let mut offset = 0;
        change(&segment, |bytes| {
            offset = find(bytes, marker(write).as_bytes()).context("the write is not in the log")? + 5;
            bytes[offset] ^= 1 << bit;
            Ok(())
        })?;
        let (status, text) = member.refusal()?;
        ensure!(!status.success(), "it starts with a flipped bit at {offset} of {}", segment.display());
        if !lab.control {
            ensure!(status.code() == Some(EXIT_DAMAGED), "it ended with {status}");
            let name = segment.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(text.contains(&name), "the refusal does not name {name}:\n{text}");
            names_offset(&text, offset)?;
        }
        // The refusal has changed nothing: with the bit put right, every write is there.
        change(&segment, |bytes| {
            bytes[offset] ^= 1 << bit;
            Ok(())
        })?;
        check_writes(lab, &member, WRITES)?;
        checks += 2;
    }
    Ok(checks)
}

/// The offset named must be that of the record around the damage: a little before it.
fn names_offset(text: &str, damaged: usize) -> anyhow::Result<()> {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<usize>().ok());
    let near = damaged.saturating_sub(4096)..=damaged;
    ensure!(
        text.contains("offset") && numbers.into_iter().any(|n| near.contains(&n)),
        "no offset near {damaged} is named:\n{text}"
    );
    Ok(())
}

/// Bits flipped in the database while the member is down: where a value stands, and anywhere in what is in use.
pub fn bit_flip_in_database(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "sound")?.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..WRITES {
        ctl.ok(&["put", &format!("key{i}"), &marker(i)])?;
    }
    let sound = server.member.clone();
    // It writes its checkpoint when it is told to stop.
    server.terminate()?;
    let database = std::fs::read(sound.data_dir.join("member/db"))?;
    let mut places = Vec::new();
    for i in [1, WRITES / 2, WRITES - 1] {
        places.push(find(&database, marker(i).as_bytes()).context("the value is not in the database")? + 5);
    }
    let used: Vec<usize> = (0..database.len()).filter(|at| database[*at] != 0).collect();
    let mut at = lab.seed;
    for _ in 0..9 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        places.push(used[(at >> 33) as usize % used.len()]);
    }
    let mut refused = 0;
    for (n, place) in places.iter().enumerate() {
        let mut member = Member::new(lab, &format!("flip-{n}"))?;
        // The same member at other addresses: what it is stands in its data.
        member.peer_url.clone_from(&sound.peer_url);
        copy_dir(&sound.data_dir, &member.data_dir)?;
        change(&member.data_dir.join("member/db"), |bytes| {
            bytes[*place] ^= 1 << (n % 8);
            Ok(())
        })?;
        if !serves_only_what_was_written(lab, &member, *place)? {
            refused += 1;
        }
    }
    ensure!(refused >= 3, "only {refused} of {} flipped bits were noticed", places.len());
    Ok(u32::try_from(places.len())?)
}

/// Reads everything; false when the member refused to start or ended, which it must do naming the file and a byte near the damage.
fn serves_only_what_was_written(lab: &Lab, member: &Member, place: usize) -> anyhow::Result<bool> {
    let mut process = member.spawn()?;
    // One that refuses ends before it is ready.
    if wait_ready(&mut process).is_ok() {
        let read = ["get", "key", "--prefix", "--sort-by=CREATE", "--print-value-only", "--command-timeout=5s"];
        if let Ok(got) = Etcdctl::new(lab, &member.client_url).ok(&read) {
            let values: Vec<&str> = got.lines().filter(|line| !line.is_empty()).collect();
            let written: Vec<String> = (0..WRITES).map(marker).collect();
            ensure!(values == written, "with a bit flipped at byte {place} of the database these are read: {values:?}");
            return Ok(true);
        }
    }
    let status = process.wait(Duration::from_secs(30))?;
    ensure!(!status.success(), "it ended as if all were well: {status}");
    let text = process.output();
    let database = member.data_dir.join("member/db").display().to_string();
    ensure!(text.contains(&database), "the database is not named:\n{text}");
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<usize>().ok());
    // A page is named by its first byte; a flipped bit in a block of checksums speaks against one of its pages.
    let (page, in_checksums) = (place - place % 4096, (place / 4096).is_multiple_of(1023));
    ensure!(
        text.contains("at byte") && numbers.into_iter().any(|n| n == page || in_checksums),
        "no byte near {place} is named:\n{text}"
    );
    Ok(false)
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
