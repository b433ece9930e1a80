//! `snapshot restore`: a data directory from a snapshot, ours or etcd's.
//!
//! The new member is the founder of a new cluster, with ids of its own, whose log begins behind what the snapshot holds. Its identity is
//! written last: a directory without one does not start, so that a restore that was cut short is never taken for a whole one. The file
//! `restoring` is written first: what is beside it, and has no identity, may be removed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use garboard_bolt::Database;
use garboard_mvcc::Position;
use garboard_mvcc::RowKey;
use garboard_mvcc::Store;
use garboard_mvcc::StoreOptions;
use garboard_mvcc::meta;
use garboard_proto::raft as pb;
use garboard_storage::DataDir;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendOptions;
use garboard_storage::backend::Table;
use garboard_storage::backend::WriteBatch;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::wal::LogId;
use garboard_storage::wal::Vote;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalOptions;
use prost::Message as _;

use super::file::SnapshotFile;
use super::file::SnapshotFileError;
use super::file::io_error;
use crate::backend::Database as RowsOf;
use crate::config::NodeConfig;
use crate::consensus::node_to_proto;
use crate::identity;
use crate::identity::Identity;
use crate::members::founders;
use crate::start::found;

/// Where the log of the new member begins: the entry that is taken to have brought all of the snapshot.
const BEGIN: LogId = LogId { term: 1, index: 1 };
/// In the data directory while it is restored into.
pub(crate) const RESTORING: &str = "restoring";
/// Bytes of rows in one transaction.
const BATCH_BYTES: usize = 8 << 20;

/// What to restore, and to where.
#[derive(Debug, Clone)]
pub struct RestoreConfig {
    /// The snapshot.
    pub snapshot: PathBuf,
    /// The new member: name, directories, cluster, token and peer URLs are read of it.
    pub member: NodeConfig,
    /// Take a file without a hash: one copied out of a member.
    pub skip_hash_check: bool,
    /// Goes on with a revision higher by this, so that clients do not see it go back.
    pub revision_bump: i64,
    /// Counts all history up to the new revision as compacted, so that caches and watchers begin anew.
    pub mark_compacted: bool,
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The store's revision.
    pub revision: i64,
    /// Rows of history.
    pub rows: u64,
    /// The new cluster's id.
    pub cluster_id: u64,
    /// The new member's id.
    pub member_id: u64,
}

/// Restores into an empty or new directory.
///
/// # Errors
/// The file is unsound or holds what this release cannot keep, the directory is in use, or it cannot be written.
pub fn restore(config: &RestoreConfig, disk: &Arc<dyn Disk>) -> Result<Restored, SnapshotFileError> {
    restore_over(config, disk, false)
}

/// As [`restore`], where an earlier one may have been cut short: what that has left is removed. `None`: it was finished, and the snapshot
/// is not read.
///
/// # Errors
/// As [`restore`]; the directory is another member's.
pub fn resume(config: &RestoreConfig, disk: &Arc<dyn Disk>) -> Result<Option<Restored>, SnapshotFileError> {
    if is_finished(config, disk)? {
        return Ok(None);
    }
    let dir = &config.member.data_dir;
    let begun = disk.exists(&dir.join(RESTORING)).map_err(|error| io_error("looking into", dir, error))?;
    restore_over(config, disk, begun).map(Some)
}

/// `begun`: the directory has what an earlier restore has left.
fn restore_over(config: &RestoreConfig, disk: &Arc<dyn Disk>, begun: bool) -> Result<Restored, SnapshotFileError> {
    let file = SnapshotFile::open(&**disk, &config.snapshot)?;
    if !config.skip_hash_check {
        file.check_hash()?;
    }
    let database = Database::open(&file)?;
    refuse_users(&database)?;
    let record = found(&config.member).map_err(|error| SnapshotFileError::Refused(error.to_string()))?;
    let identity = record.identity;
    if !begun {
        check_empty(config, &**disk)?;
    }

    let dir = &config.member.data_dir;
    mark(&**disk, dir).map_err(|error| io_error("writing in", dir, error))?;
    let data_dir = DataDir::open(Arc::clone(disk), dir).map_err(|error| io_error("opening", dir, error))?;
    clear(config, &data_dir).map_err(|error| io_error("removing half a restore in", dir, error))?;
    let backend = Backend::open(Arc::clone(disk), &data_dir.db_path(), BackendOptions::default())?;
    let mut copy = Copy { backend: &backend, batch: WriteBatch::default(), bytes: 0 };
    let history = copy_rows(&database, &mut copy)?;
    let revision = copy_meta(&database, config, history.newest, &mut copy)?;
    backend.commit_durable(&copy.batch)?;
    check_rows(backend)?;

    let wal_dir = config.member.wal_dir.clone().unwrap_or_else(|| data_dir.wal_dir());
    begin_log(disk, wal_dir, config.member.wal_segment_bytes, identity)?;
    identity::write(&data_dir.files(), &record).map_err(|error| io_error("writing the identity in", dir, error))?;
    unmark(&**disk, dir).map_err(|error| io_error("writing in", dir, error))?;
    let Identity { cluster_id, member_id, .. } = identity;
    Ok(Restored { revision, rows: history.rows, cluster_id, member_id })
}

/// Whether the directory is the one that this restore makes: it may have been cut short behind the last of its writes.
fn is_finished(config: &RestoreConfig, disk: &Arc<dyn Disk>) -> Result<bool, SnapshotFileError> {
    let dir = &config.member.data_dir;
    let failed = |error| io_error("looking into", dir, error);
    if !disk.exists(&dir.join("member").join(identity::FILE)).map_err(failed)? {
        return Ok(false);
    }
    let data_dir = DataDir::open(Arc::clone(disk), dir).map_err(|error| io_error("opening", dir, error))?;
    let Some(record) = identity::read(&data_dir.files()).map_err(failed)? else { return Ok(false) };
    let Identity { cluster_id, member_id, .. } = record.identity;
    let wanted = found(&config.member).map_err(|error| SnapshotFileError::Refused(error.to_string()))?.identity;
    if (cluster_id, member_id) != (wanted.cluster_id, wanted.member_id) {
        let why = format!("{} is the directory of member {member_id:x} of cluster {cluster_id:x}", dir.display());
        return Err(SnapshotFileError::Refused(why));
    }
    unmark(&**disk, dir).map_err(failed)?;
    Ok(true)
}

fn mark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    disk.open(&dir.join(RESTORING), OpenOptions::create())?;
    disk.sync_dir(dir)
}

fn unmark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mark = dir.join(RESTORING);
    if disk.exists(&mark)? {
        disk.remove(&mark)?;
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// Removes what an earlier restore has left.
fn clear(config: &RestoreConfig, data_dir: &DataDir) -> io::Result<()> {
    let (disk, member) = (data_dir.disk(), data_dir.member_dir());
    // Whoever held the lock until now may have finished.
    if identity::read(&data_dir.files())?.is_some() {
        return Err(io::Error::other("another process has restored into it"));
    }
    for entry in disk.list(&member)? {
        let path = member.join(&entry.name);
        if entry.is_dir { disk.remove_dir_all(&path)? } else { disk.remove(&path)? }
    }
    match &config.member.wal_dir {
        Some(dir) if disk.exists(dir)? => disk.remove_dir_all(dir),
        _ => Ok(()),
    }
}

/// What would be lost without a word.
fn refuse_users(database: &Database<'_>) -> Result<(), SnapshotFileError> {
    for bucket in ["authUsers", "authRoles"] {
        if has(database, bucket) && database.rows(bucket.as_bytes())?.next_row()?.is_some() {
            let why = "the snapshot has users and roles, which this release cannot keep: whoever restored it would open it to all";
            return Err(SnapshotFileError::Refused(why.into()));
        }
    }
    Ok(())
}

fn has(database: &Database<'_>, bucket: &str) -> bool {
    database.buckets().iter().any(|known| known.name() == bucket.as_bytes())
}

fn check_empty(config: &RestoreConfig, disk: &dyn Disk) -> Result<(), SnapshotFileError> {
    let dir = &config.member.data_dir;
    let used = |dir: &Path| -> io::Result<bool> { Ok(disk.exists(dir)? && !disk.list(dir)?.is_empty()) };
    if used(dir).unwrap_or(true) {
        let why = format!("data-dir {:?} not empty or could not be read", dir.display().to_string());
        return Err(SnapshotFileError::Refused(why));
    }
    match &config.member.wal_dir {
        Some(dir) if disk.exists(dir).unwrap_or(true) => {
            Err(SnapshotFileError::Refused(format!("wal-dir {:?} exists", dir.display().to_string())))
        }
        _ => Ok(()),
    }
}

/// Rows on their way into the new database.
struct Copy<'a> {
    backend: &'a Backend,
    batch: WriteBatch,
    bytes: usize,
}

impl Copy<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), SnapshotFileError> {
        self.batch.put(table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        self.bytes += key.len() + value.len();
        if self.bytes >= BATCH_BYTES {
            self.backend.commit(&std::mem::take(&mut self.batch))?;
            self.bytes = 0;
        }
        Ok(())
    }
}

/// Rows were copied unread. Whoever starts the member later must not be the first to find out what is wrong with them.
fn check_rows(backend: Backend) -> Result<(), SnapshotFileError> {
    let opened = Store::open(Arc::new(RowsOf(Arc::new(backend))), StoreOptions::default());
    opened.map(drop).map_err(|error| SnapshotFileError::Content(error.to_string()))
}

struct History {
    newest: i64,
    rows: u64,
}

/// History, leases and alarms: their rows are the same here.
fn copy_rows(database: &Database<'_>, copy: &mut Copy<'_>) -> Result<History, SnapshotFileError> {
    if !has(database, "key") {
        return Err(SnapshotFileError::Content("it has no bucket \"key\": it is not of etcd".into()));
    }
    let mut history = History { newest: 0, rows: 0 };
    let mut rows = database.rows(b"key")?;
    while let Some(row) = rows.next_row()? {
        let bad = || SnapshotFileError::Content(format!("bad revision {}", row.key.escape_ascii()));
        history.newest = RowKey::decode(row.key).ok_or_else(bad)?.0.main;
        // A row without a value only marks a revision: an earlier restore has raised it.
        if !row.value.is_empty() {
            copy.put(Table::Revisions, row.key, row.value)?;
            history.rows += 1;
        }
    }
    for (bucket, table) in [("lease", Table::Leases), ("alarm", Table::Alarms)] {
        if !has(database, bucket) {
            continue;
        }
        let mut rows = database.rows(bucket.as_bytes())?;
        while let Some(row) = rows.next_row()? {
            copy.put(table, row.key, row.value)?;
        }
    }
    Ok(history)
}

/// What the store knows of itself; returns its revision.
fn copy_meta(
    database: &Database<'_>,
    config: &RestoreConfig,
    newest: i64,
    copy: &mut Copy<'_>,
) -> Result<i64, SnapshotFileError> {
    let mut compactions = BTreeMap::new();
    if has(database, "meta") {
        let mut rows = database.rows(b"meta")?;
        while let Some(row) = rows.next_row()? {
            let name = match row.key {
                b"scheduledCompactRev" => meta::SCHEDULED_COMPACTION,
                b"finishedCompactRev" => meta::FINISHED_COMPACTION,
                _ => continue,
            };
            // An earlier release of etcd may have compacted at 0.
            let main = row.value.get(..8).and_then(meta::decode_revision);
            compactions.insert(name, main.ok_or_else(|| SnapshotFileError::Content(format!("bad {name}")))?);
        }
    }
    let scheduled = compactions.get(meta::SCHEDULED_COMPACTION).copied().unwrap_or(-1);
    let latest = newest.max(scheduled).max(1);
    let too_high =
        || SnapshotFileError::Refused(format!("revision {latest} cannot be raised by {}", config.revision_bump));
    let revision = latest.checked_add(config.revision_bump).ok_or_else(too_high)?;
    if config.mark_compacted {
        compactions.insert(meta::SCHEDULED_COMPACTION, revision);
    }
    for (name, at) in compactions {
        copy.put(Table::Meta, name.as_bytes(), &meta::encode_revision(at))?;
    }
    copy.put(Table::Meta, meta::REVISION.as_bytes(), &meta::encode_revision(revision))?;
    let applied = Position { term: BEGIN.term, index: BEGIN.index };
    copy.put(Table::Meta, meta::APPLIED.as_bytes(), &meta::encode_position(applied))?;
    let members = founders(&config.member);
    let membership = pb::Membership {
        configs: vec![pb::VoterSet { ids: members.keys().copied().collect() }],
        nodes: members.iter().map(|(id, node)| node_to_proto(*id, node)).collect(),
    };
    let at = pb::LogPosition { term: BEGIN.term, index: BEGIN.index };
    let stored = pb::StoredMembership { at: Some(at), membership: Some(membership), removed: Vec::new() };
    copy.put(Table::Meta, meta::MEMBERSHIP.as_bytes(), &stored.encode_to_vec())?;
    Ok(revision)
}

/// A log that holds no entry and goes on behind [`BEGIN`].
fn begin_log(
    disk: &Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    identity: Identity,
) -> Result<(), SnapshotFileError> {
    let path = dir.clone();
    let options = WalOptions {
        segment_bytes,
        // The vote tells of it.
        on_fatal: Arc::new(|_| {}),
        ..WalOptions::new(dir, identity.cluster_id, identity.member_id)
    };
    let (wal, _) = Wal::open(Arc::clone(disk), options)?;
    wal.purge(BEGIN);
    let (tell, told) = mpsc::sync_channel(1);
    // The vote is the last of the writes: once it is synced, all are.
    let vote = Vote { term: BEGIN.term, node_id: identity.member_id, committed: false };
    wal.save_vote(vote, Box::new(move |done| drop(tell.send(done))));
    let written = told.recv().unwrap_or_else(|_| Err(io::Error::other("the log has stopped")));
    written.map_err(|error| io_error("writing the log in", &path, error))?;
    wal.close();
    Ok(())
}
