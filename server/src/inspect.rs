//! `garboard inspect <data directory>`: what the disk of a member that does not run holds, as JSON. Reads only.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use garboard_node::Identified;
use garboard_node::InspectError;
use garboard_node::Inspection;
use garboard_node::Logged;
use garboard_node::MembersKnown;
use garboard_node::Standing;
use garboard_node::Stored;
use garboard_node::inspect;
use garboard_storage::disk::Disk;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Vote;
use serde_json::Value;
use serde_json::json;

use crate::arguments::flag;
use crate::arguments::only;
use crate::arguments::value_of;

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Arguments(String),
    #[error("cannot inspect {}: {source}", dir.display())]
    Inspect { dir: PathBuf, source: InspectError },
}

/// Runs `inspect` with the arguments behind it; returns what to print, and whether all that there is can be read.
///
/// # Errors
/// The arguments make no sense, a member runs on the directory, or it is none. Damage is told in what is printed.
pub fn run(arguments: &[&str], disk: &Arc<dyn Disk>) -> Result<(String, bool), CommandError> {
    let (dir, wal_dir) = parse(arguments)?;
    let found =
        inspect(disk, &dir, wal_dir.as_deref()).map_err(|source| CommandError::Inspect { dir: dir.clone(), source })?;
    Ok((format!("{:#}\n", told(&dir, &found)), found.damage.is_empty()))
}

fn parse(arguments: &[&str]) -> Result<(PathBuf, Option<PathBuf>), CommandError> {
    let wrong = CommandError::Arguments;
    let (mut dirs, mut wal_dir) = (Vec::new(), None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match flag(argument) {
            Some(("wal-dir", value)) => {
                wal_dir = Some(PathBuf::from(value_of(argument, value, &mut rest).map_err(wrong)?))
            }
            Some(_) => return Err(wrong(format!("inspect: unknown flag: {argument}"))),
            None => dirs.push(PathBuf::from(argument)),
        }
    }
    let dir = only(dirs).ok_or_else(|| wrong("inspect requires exactly one data directory".to_owned()))?;
    Ok((dir, wal_dir))
}

fn told(dir: &Path, found: &Inspection) -> Value {
    let own = found.identity.map_or(0, |identity| identity.member_id);
    let name = found.members.as_ref().and_then(|known| known.members.get(&own)).map(|node| node.name.clone());
    let damage = found.damage.iter().map(|damage| {
        let file = Some(damage.path.display().to_string()).filter(|file| !file.is_empty());
        json!({ "file": file, "offset": damage.offset, "reason": damage.reason })
    });
    json!({
        "dataDir": dir.display().to_string(),
        "walDir": found.wal_dir.display().to_string(),
        "identity": found.identity.map(identity),
        "name": name,
        "log": found.log.as_ref().map(log),
        "db": found.db.as_ref().map(db),
        "applied": found.applied.map(standing),
        "committed": found.committed.map(standing),
        "last": found.last.map(standing),
        "membership": found.members.as_ref().map(membership),
        "damage": damage.collect::<Vec<_>>(),
    })
}

/// Ids as the log lines have them: a JSON number of 64 bits is not read by all.
fn hex(id: u64) -> String {
    format!("{id:x}")
}

fn place(at: LogId) -> Value {
    json!({ "index": at.index, "term": at.term })
}

fn identity(identity: Identified) -> Value {
    let Identified { cluster_id, member_id, incarnation, joined, removed } = identity;
    json!({
        "clusterId": hex(cluster_id), "memberId": hex(member_id), "incarnation": hex(incarnation),
        "joined": joined, "removed": removed,
    })
}

fn log(log: &Logged) -> Value {
    let vote = |Vote { term, node_id, committed }: Vote| json!({ "term": term, "votedFor": hex(node_id), "committed": committed });
    let torn = log
        .torn
        .as_ref()
        .map(|torn| json!({ "file": torn.path.display().to_string(), "offset": torn.offset, "bytes": torn.bytes }));
    let ranges = log.ranges.iter().map(|(first, last)| json!({ "first": first, "last": last }));
    json!({
        "formatVersion": log.version,
        "segments": log.segments,
        "bytes": log.bytes,
        "vote": log.vote.map(vote),
        "first": log.first.map(place),
        "last": log.last.map(place),
        "committed": log.committed.map(place),
        "purged": log.purged.map(place),
        "ranges": ranges.collect::<Vec<_>>(),
        "torn": torn,
    })
}

fn db(db: &Stored) -> Value {
    json!({
        "file": db.path.display().to_string(),
        "formatVersion": db.version,
        "bytes": db.bytes,
        "sizeBytes": db.sizes.map(|sizes| sizes.0),
        "inUseBytes": db.sizes.map(|sizes| sizes.1),
    })
}

fn standing(standing: Standing) -> Value {
    let Standing { at, revision, compact_revision, hash, keys } = standing;
    json!({
        "index": at.index, "term": at.term, "revision": revision, "compactRevision": compact_revision,
        "hash": hash, "keys": keys,
    })
}

fn membership(known: &MembersKnown) -> Value {
    let members = known.members.iter().map(|(id, node)| {
        json!({
            "id": hex(*id), "name": node.name, "peerURLs": node.peer_urls, "clientURLs": node.client_urls,
            "isLearner": node.is_learner, "incarnation": hex(node.incarnation),
        })
    });
    let voters = known.voters.iter().map(|set| set.iter().copied().map(hex).collect::<Vec<_>>());
    json!({
        "at": known.at.map(place),
        "committed": known.committed,
        "voters": voters.collect::<Vec<_>>(),
        "members": members.collect::<Vec<_>>(),
        "removed": known.removed.iter().copied().map(hex).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_one_directory() {
        let both = (PathBuf::from("d"), Some(PathBuf::from("w")));
        assert_eq!(parse(&["d"]).unwrap(), (both.0.clone(), None));
        assert_eq!(parse(&["--wal-dir=w", "d"]).unwrap(), both);
        assert_eq!(parse(&["d", "--wal-dir", "w"]).unwrap(), both);
        for (line, error) in [
            (&[][..], "exactly one"),
            (&["a", "b"], "exactly one"),
            (&["d", "--name=x"], "unknown flag: --name=x"),
            (&["d", "--wal-dir"], "needs an argument"),
        ] {
            let said = parse(line).unwrap_err().to_string();
            assert!(said.contains(error), "{line:?}: {said}");
        }
    }
}
