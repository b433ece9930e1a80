//! Looking at the data directory of a member that does not run: for whoever has to choose among the disks that are left.
//!
//! Invariants: nothing is changed on disk, not even by recovery (what the database repairs when it is opened stays in memory);
//! what is damaged costs what stands in it and no more, and is named.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use garboard_mvcc::Applier;
use garboard_mvcc::Store;
use garboard_mvcc::StoreOptions;
use garboard_storage::DataDir;
use garboard_storage::backend;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendError;
use garboard_storage::backend::BackendOptions;
use garboard_storage::disk::CowDisk;
use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::wal::LogId;
use garboard_storage::wal::TornTail;
use garboard_storage::wal::Vote;
use garboard_storage::wal::WalError;
use garboard_storage::wal::survey::Survey;
use garboard_storage::wal::survey::survey;
use parking_lot::Mutex;

use crate::backend::Database;
use crate::consensus::MemberNode;
use crate::consensus::StoredMembership;
use crate::consensus::apply_entry;
use crate::consensus::membership_of;
use crate::identity;
use crate::start::check_together;
use crate::start::installed;

/// Why a data directory was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A running member has it, or it is none.
    #[error("{0}")]
    DataDir(io::Error),
    /// The log's directory, the same.
    #[error("{0}")]
    WalDir(io::Error),
}

/// What a data directory holds.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Where the log is.
    pub wal_dir: PathBuf,
    /// Which member of which cluster it is.
    pub identity: Option<Identified>,
    /// The log.
    pub log: Option<Logged>,
    /// The database.
    pub db: Option<Stored>,
    /// The state as the database has it.
    pub applied: Option<Standing>,
    /// The state after the last entry that is known to be committed.
    pub committed: Option<Standing>,
    /// The state after the last entry of the log: what `--force-new-cluster` goes on with.
    pub last: Option<Standing>,
    /// The last membership that the log or the database has.
    pub members: Option<MembersKnown>,
    /// What a start would refuse.
    pub damage: Vec<Damage>,
}

/// What the identity file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identified {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// The number of this data directory.
    pub incarnation: u64,
    /// Whether it joined a cluster that was there.
    pub joined: bool,
    /// Whether it was removed from it.
    pub removed: bool,
}

/// What can be read of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Format version of its segments.
    pub version: Option<u32>,
    /// The last vote.
    pub vote: Option<Vote>,
    /// The first entry that is there.
    pub first: Option<LogId>,
    /// The last entry, or what was purged when there is none.
    pub last: Option<LogId>,
    /// The last entry that is known to be committed; more may be.
    pub committed: Option<LogId>,
    /// The last entry that was dropped, since the database has it.
    pub purged: Option<LogId>,
    /// First and last index of each run of entries: one run, unless some are lost.
    pub ranges: Vec<(u64, u64)>,
    /// The remains of a write that was never acknowledged.
    pub torn: Option<TornTail>,
    /// Segment files.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The database's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its format version, when it could be opened.
    pub version: Option<u64>,
    /// Bytes as Maintenance.Status counts them: (all, in use), when it could be opened.
    pub sizes: Option<(u64, u64)>,
}

/// The state after one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The entry.
    pub at: LogId,
    /// The store's revision.
    pub revision: i64,
    /// The compact revision; -1 if there was no compaction.
    pub compact_revision: i64,
    /// HashKV at that revision; `None` when rows are damaged.
    pub hash: Option<u32>,
    /// Keys that exist; `None` as above.
    pub keys: Option<u64>,
}

/// A membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersKnown {
    /// The entry that brought it.
    pub at: Option<LogId>,
    /// Whether that entry is known to be committed.
    pub committed: bool,
    /// Who votes: two sets while one takes over from the other.
    pub voters: Vec<BTreeSet<u64>>,
    /// All members.
    pub members: BTreeMap<u64, MemberNode>,
    /// Who was removed.
    pub removed: BTreeSet<u64>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the directory when its files do not belong together.
    pub path: PathBuf,
    /// Where in the file, in bytes; `None` when it is not in one place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// Looks at the directory of a member that does not run. While it does, no member starts on it.
///
/// # Errors
/// A member runs on it, or it is no data directory. Damage is no error.
pub fn inspect(disk: &Arc<dyn Disk>, dir: &Path, wal_dir: Option<&Path>) -> Result<Inspection, InspectError> {
    let data_dir = DataDir::open_to_read(Arc::clone(disk), dir).map_err(InspectError::DataDir)?;
    let wal_dir = wal_dir.map_or_else(|| data_dir.wal_dir(), Path::to_owned);
    let _log_lock = disk.lock_shared(&wal_dir.join("lock")).map_err(InspectError::WalDir)?;
    let mut found = Inspection { wal_dir, ..Inspection::default() };
    found.read_identity(&data_dir);
    let known = found.identity.map(|identity| (identity.cluster_id, identity.member_id));
    let log = match survey(&**disk, &found.wal_dir, known) {
        Ok(log) => Some(log),
        Err(error) => {
            found.damage.push(in_log(&error));
            None
        }
    };
    if let Some(log) = &log {
        found.damage.extend(log.damage.iter().map(in_log));
        found.log = Some(logged(log, &mut found.damage));
    }
    found.read_state(disk, &data_dir, log.as_ref());
    Ok(found)
}

fn in_log(error: &WalError) -> Damage {
    let (path, offset) = match error {
        WalError::Corrupt { path, offset, .. } => (path.clone(), Some(*offset)),
        WalError::Io { path, .. } | WalError::Identity { path, .. } => (path.clone(), None),
        _ => (PathBuf::new(), None),
    };
    Damage { path, offset, reason: error.to_string() }
}

fn in_database(path: &Path, error: &BackendError) -> Damage {
    Damage { path: path.to_owned(), offset: error.offset(), reason: error.to_string() }
}

fn logged(log: &Survey, damage: &mut Vec<Damage>) -> Logged {
    let ranges = log.ranges();
    let first = ranges.first().and_then(|(first, _)| match log.entry(*first) {
        Ok(entry) => entry.map(|entry| entry.log_id),
        Err(error) => {
            damage.push(in_log(&error));
            None
        }
    });
    Logged {
        version: log.version,
        vote: log.state.vote,
        first,
        last: log.state.last,
        committed: log.state.committed,
        purged: log.state.purged,
        ranges,
        torn: log.torn.clone(),
        segments: log.segments,
        bytes: log.bytes,
    }
}

/// The state while the log is applied to it.
struct Replay {
    store: Arc<Store>,
    applier: Applier,
    membership: StoredMembership,
}

// === impl Replay ===

impl Replay {
    /// Applies the entries up to `upto`; false when one of them cannot be read.
    fn advance(&mut self, log: &Survey, upto: u64, damage: &mut Vec<Damage>) -> bool {
        // The first entry of a log has index 0, and that is also where a state stands to which nothing was applied.
        let applied = self.store.applied().index;
        let next = if applied == 0 { 0 } else { applied + 1 };
        for index in next..=upto {
            let entry = match log.entry(index) {
                Ok(Some(entry)) => entry,
                // Told as damage of the log already.
                Ok(None) => return false,
                Err(error) => {
                    damage.push(in_log(&error));
                    return false;
                }
            };
            if let Err(error) = apply_entry(&mut self.applier, &mut self.membership, entry) {
                let reason = format!("entry {index} cannot be applied: {error}");
                damage.push(Damage { path: PathBuf::new(), offset: None, reason });
                return false;
            }
        }
        true
    }

    fn standing(&self, known: Option<Standing>) -> Standing {
        let position = self.store.applied();
        let at = LogId { term: position.term, index: position.index };
        if let Some(known) = known.filter(|known| known.at == at) {
            return known;
        }
        Standing {
            at,
            revision: self.store.revision(),
            compact_revision: self.store.compact_revision(),
            hash: self.store.hash_kv(0).ok().map(|hashed| hashed.hash),
            keys: u64::try_from(self.store.keys()).ok(),
        }
    }
}

// === impl Inspection ===

impl Inspection {
    fn read_identity(&mut self, data_dir: &DataDir) {
        let files = data_dir.files();
        let reason = match identity::read(&files) {
            Ok(Some(record)) => {
                let identity::Identity { cluster_id, member_id, incarnation } = record.identity;
                let identity =
                    Identified { cluster_id, member_id, incarnation, joined: record.joined, removed: record.removed };
                self.identity = Some(identity);
                return;
            }
            Ok(None) => "the file that says which member this is does not exist".to_owned(),
            Err(error) => error.to_string(),
        };
        self.damage.push(Damage { path: files.path(identity::FILE), offset: None, reason });
    }

    /// The database, and what the log makes of it.
    fn read_state(&mut self, disk: &Arc<dyn Disk>, data_dir: &DataDir, log: Option<&Survey>) {
        let path = data_dir.db_path();
        let file = disk.open(&path, OpenOptions::read()).and_then(|file| file.len());
        let mut db = Stored { path: path.clone(), bytes: file.unwrap_or(0), ..Stored::default() };
        let unreadable = Arc::new(Mutex::new(None));
        let told = Arc::clone(&unreadable);
        let at = path.clone();
        let options = BackendOptions {
            on_unreadable: Arc::new(move |error| {
                told.lock().get_or_insert_with(|| in_database(&at, error));
            }),
            ..BackendOptions::default()
        };
        let cow: Arc<dyn Disk> = Arc::new(CowDisk::new(Arc::clone(disk)));
        match Backend::open(cow, &path, options) {
            Ok(backend) => {
                let size = backend.size();
                (db.version, db.sizes) = (Some(backend::VERSION), Some((size.total_bytes, size.in_use_bytes)));
                if let Err(damage) = self.replay(data_dir.path(), Arc::new(backend), log) {
                    let damage = Damage { path: path.clone(), ..damage };
                    self.damage.push(unreadable.lock().take().unwrap_or(damage));
                }
            }
            Err(error) => self.damage.push(in_database(&path, &error)),
        }
        // A row that was read for a hash.
        self.damage.extend(unreadable.lock().take());
        self.db = Some(db);
        if self.members.is_none() {
            self.members = log.and_then(|log| members_in(log, &mut self.damage));
        }
    }

    fn replay(&mut self, dir: &Path, backend: Arc<Backend>, log: Option<&Survey>) -> Result<(), Damage> {
        let failed = |reason: String| Damage { path: PathBuf::new(), offset: None, reason };
        let installed = installed(&backend).map_err(|error| failed(error.to_string()))?;
        let database = Arc::new(Database(Arc::clone(&backend)));
        let (store, applier) = match Store::open(database, StoreOptions::default()) {
            Ok(opened) => opened,
            Err(error) => {
                self.read_meta(&backend);
                return Err(failed(error.to_string()));
            }
        };
        let membership = decode_membership(store.membership().as_deref()).map_err(failed)?;
        let mut replay = Replay { store, applier, membership };
        let applied = replay.store.applied();
        let mut standing = Some(replay.standing(None)).filter(|_| applied.index > 0);
        self.applied = standing;
        let committed = log.and_then(|log| log.state.committed).map_or(0, |id| id.index).max(applied.index);
        if let Some(log) = log {
            let together = check_together(dir, applied, log.state.last, log.state.purged, installed);
            if let Err(error) = together
                && log.damage.is_empty()
            {
                self.damage.push(Damage { path: dir.to_owned(), offset: None, reason: error.to_string() });
            }
            let last = log.state.last.map_or(0, |id| id.index);
            if last >= committed && replay.advance(log, committed, &mut self.damage) {
                standing = Some(replay.standing(standing));
                self.committed = standing;
                if replay.advance(log, last, &mut self.damage) {
                    self.last = Some(replay.standing(standing));
                }
            }
        }
        self.members = Some(members_known(&replay.membership, committed));
        Ok(())
    }

    /// Of a database with damaged rows: what it says of itself.
    fn read_meta(&mut self, backend: &Backend) {
        use garboard_mvcc::meta;
        let names = [meta::APPLIED, meta::REVISION, meta::SCHEDULED_COMPACTION, meta::MEMBERSHIP];
        let Ok(rows) = backend.get_many(backend::Table::Meta, &names.map(str::as_bytes)) else { return };
        let mut rows = rows.into_iter();
        let mut next = || rows.next().flatten();
        let position = next().and_then(|bytes| meta::decode_position(&bytes));
        let revision = next().and_then(|bytes| meta::decode_revision(&bytes));
        let compacted = next().and_then(|bytes| meta::decode_revision(&bytes));
        let Some(position) = position else { return };
        self.applied = Some(Standing {
            at: LogId { term: position.term, index: position.index },
            revision: revision.unwrap_or(1),
            compact_revision: compacted.unwrap_or(-1),
            hash: None,
            keys: None,
        });
        let membership = next().and_then(|bytes| decode_membership(Some(&bytes)).ok());
        self.members = membership.map(|membership| members_known(&membership, position.index));
    }
}

fn decode_membership(bytes: Option<&[u8]>) -> Result<StoredMembership, String> {
    bytes.map_or(Ok(StoredMembership::default()), StoredMembership::decode).map_err(|error| error.to_string())
}

/// The newest membership of the log alone, of those that can be read; whom earlier ones have removed is not known then.
fn members_in(log: &Survey, damage: &mut Vec<Damage>) -> Option<MembersKnown> {
    let committed = log.state.committed.map_or(0, |id| id.index);
    let mut indexes = log.ranges().into_iter().rev().flat_map(|(first, last)| (first..=last).rev());
    indexes.find_map(|index| {
        let brought = match log.entry(index) {
            Ok(entry) => entry.map_or(Ok(None), |entry| membership_of(&entry)),
            Err(error) => {
                damage.push(in_log(&error));
                return None;
            }
        };
        let brought = brought.unwrap_or_else(|error| {
            damage.push(Damage { path: PathBuf::new(), offset: None, reason: error.to_string() });
            None
        });
        brought.map(|stored| members_known(&stored, committed))
    })
}

fn members_known(stored: &StoredMembership, committed: u64) -> MembersKnown {
    let at = stored.membership.log_id().as_ref().map(|id| LogId { term: id.leader_id.term, index: id.index });
    MembersKnown {
        at,
        committed: at.is_some_and(|at| at.index <= committed),
        voters: stored.configs().clone(),
        members: stored.nodes(),
        removed: stored.removed.clone(),
    }
}
