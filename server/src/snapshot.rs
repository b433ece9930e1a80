//! `garboard snapshot status|restore`: etcdutl's subcommands with its flags, for snapshots of ours and of etcd.

use std::fmt::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use garboard_node::RestoreConfig;
use garboard_node::Restored;
use garboard_node::SnapshotFileError;
use garboard_node::SnapshotStatus;
use garboard_node::restore;
use garboard_node::resume;
use garboard_node::snapshot_status;
use garboard_storage::disk::Disk;
use serde_json::json;

use crate::arguments::flag;
use crate::arguments::only;
use crate::arguments::value_of;
use crate::config::Config;
use crate::config::ConfigError;
use crate::flags::parse::ParseError;
use crate::flags::parse::Request;
use crate::flags::parse::parse;

/// Flags of the member that a restore takes.
const MEMBER_FLAGS: [&str; 6] =
    ["name", "data-dir", "wal-dir", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"];

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Flags(#[from] ParseError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotFileError),
}

/// Runs `snapshot` with the arguments behind it, and returns what to print.
///
/// # Errors
/// The arguments make no sense, or the snapshot cannot be read or restored.
pub fn run(arguments: &[&str], disk: &Arc<dyn Disk>) -> Result<String, CommandError> {
    match arguments {
        ["status", rest @ ..] => {
            let (file, form) = status_arguments(rest)?;
            let status = snapshot_status(&**disk, &file)?;
            Ok(if form == "json" { json_line(&status) } else { simple_line(&status) })
        }
        ["restore", rest @ ..] => {
            let (config, resumed) = restore_arguments(rest)?;
            let restored = if resumed { resume(&config, disk)? } else { Some(restore(&config, disk)?) };
            Ok(told(&config, restored.as_ref()))
        }
        _ => Err(wrong("snapshot: the subcommands are: status <file>, restore <file>")),
    }
}

fn wrong(text: impl Into<String>) -> CommandError {
    CommandError::Arguments(text.into())
}

fn status_arguments<'a>(arguments: &'a [&'a str]) -> Result<(PathBuf, &'a str), CommandError> {
    let (mut files, mut form) = (Vec::new(), "simple");
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match flag(argument) {
            Some(("w" | "write-out", value)) => form = value_of(argument, value, &mut rest).map_err(wrong)?,
            Some(_) => return Err(wrong(format!("snapshot status: unknown flag: {argument}"))),
            None => files.push(PathBuf::from(argument)),
        }
    }
    if form != "simple" && form != "json" {
        return Err(wrong(format!("snapshot status: --write-out is simple or json, not {form:?}")));
    }
    let file = only(files).ok_or_else(|| wrong("snapshot status requires exactly one argument"))?;
    Ok((file, form))
}

/// Also whether an earlier one is to be gone on with, which etcdutl knows nothing of.
fn restore_arguments(arguments: &[&str]) -> Result<(RestoreConfig, bool), CommandError> {
    let (mut files, mut member) = (Vec::new(), Vec::new());
    let (mut skip_hash_check, mut mark_compacted, mut revision_bump, mut resumed) = (false, false, 0, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match flag(argument) {
            Some(("skip-hash-check", value)) => skip_hash_check = switch(argument, value)?,
            Some(("mark-compacted", value)) => mark_compacted = switch(argument, value)?,
            Some(("resume", value)) => resumed = switch(argument, value)?,
            Some(("bump-revision", value)) => {
                let text = value_of(argument, value, &mut rest).map_err(wrong)?;
                let number = text.parse::<u64>().ok().and_then(|number| i64::try_from(number).ok());
                revision_bump =
                    number.ok_or_else(|| wrong(format!("--bump-revision: {text:?} is no number of revisions")))?;
            }
            // bbolt's; nothing is mapped here.
            Some(("initial-memory-map-size", value)) => {
                value_of(argument, value, &mut rest).map_err(wrong)?;
            }
            Some((name, value)) if MEMBER_FLAGS.contains(&name) => {
                let value = value_of(argument, value, &mut rest).map_err(wrong)?;
                member.push(format!("--{name}={value}"));
            }
            Some(_) => return Err(wrong(format!("snapshot restore: unknown flag: {argument}"))),
            None => files.push(PathBuf::from(argument)),
        }
    }
    let snapshot = only(files).ok_or_else(|| wrong("snapshot restore requires exactly one argument"))?;
    if mark_compacted != (revision_bump > 0) {
        return Err(wrong("--mark-compacted required if --revision-bump > 0"));
    }
    let Request::Serve(settings) = parse(member)? else { return Err(wrong("snapshot restore: no such flag")) };
    let (config, _) = Config::new(settings, || None)?;
    config.validate_bootstrap()?;
    let mut member = config.node(garboard_node::PeerTls::default());
    // Known once the member is started with them.
    member.advertise_client_urls.clear();
    Ok((RestoreConfig { snapshot, member, skip_hash_check, revision_bump, mark_compacted }, resumed))
}

fn switch(argument: &str, value: Option<&str>) -> Result<bool, CommandError> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(wrong(format!("invalid argument: {argument}"))),
    }
}

fn simple_line(status: &SnapshotStatus) -> String {
    let size = human_bytes(status.total_size);
    format!("{:x}, {}, {}, {size}, {}\n", status.hash, status.revision, status.total_key, status.version)
}

fn json_line(status: &SnapshotStatus) -> String {
    let value = json!({
        "hash": status.hash, "revision": status.revision, "totalKey": status.total_key, "totalSize": status.total_size,
        "version": status.version,
    });
    format!("{value}\n")
}

/// As etcdutl writes sizes: powers of 1000, one digit behind the point below ten.
fn human_bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if unit > 0 && value < 10.0 { format!("{value:.1} {}", units[unit]) } else { format!("{value:.0} {}", units[unit]) }
}

/// `None`: there was nothing left to do.
fn told(config: &RestoreConfig, restored: Option<&Restored>) -> String {
    let dir: &Path = &config.member.data_dir;
    let Some(restored) = restored else { return format!("{} was restored before\n", dir.display()) };
    let mut text = format!("restored {} rows at revision {} into {}", restored.rows, restored.revision, dir.display());
    if config.mark_compacted {
        text.push_str(", all of it compacted");
    }
    let _ = writeln!(text, "; cluster {:x}, member {:x}", restored.cluster_id, restored.member_id);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_by_etcdutl() {
        let written = [0, 999, 1000, 20_480, 1_250_000, 98_765_432].map(human_bytes);
        assert_eq!(written, ["0 B", "999 B", "1.0 kB", "20 kB", "1.3 MB", "99 MB"]);
    }

    #[test]
    fn flags_of_a_restore() {
        let line = [
            "file",
            "--name=a",
            "--data-dir",
            "d",
            "--initial-cluster=a=http://h:1",
            "--initial-advertise-peer-urls",
            "http://h:1",
            "--bump-revision",
            "1000",
            "--mark-compacted",
            "--initial-memory-map-size=5",
        ];
        let (config, resumed) = restore_arguments(&line).unwrap();
        assert!(!resumed && restore_arguments(&[&line[..], &["--resume"]].concat()).unwrap().1);
        assert_eq!((config.snapshot.to_str(), config.member.name.as_str()), (Some("file"), "a"));
        assert_eq!((config.revision_bump, config.mark_compacted, config.skip_hash_check), (1000, true, false));
        assert_eq!(config.member.data_dir, Path::new("d"));
        for (line, error) in [
            (&["file", "--mark-compacted"][..], "--mark-compacted required"),
            (&["file", "--bump-revision=4"], "--mark-compacted required"),
            (&["file", "--bump-revision=-1", "--mark-compacted"], "no number of revisions"),
            (&["file", "more"], "exactly one argument"),
            (&["--skip-hash-check"], "exactly one argument"),
            (&["file", "--listen-client-urls=http://h:1"], "unknown flag"),
            (&["file", "--name"], "needs an argument"),
            (&["file", "--name=b", "--initial-cluster=a=http://h:1"], "b"),
        ] {
            let said = restore_arguments(line).unwrap_err().to_string();
            assert!(said.contains(error), "{line:?}: {said}");
        }
    }
}
