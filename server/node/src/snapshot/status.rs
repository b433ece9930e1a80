//! What a snapshot file holds: `snapshot status`, as etcdutl tells it.

use std::collections::HashSet;
use std::path::Path;

use garboard_bolt::Database;
use garboard_mvcc::RowKey;
use garboard_mvcc::RowView;
use garboard_storage::disk::Disk;

use super::file::SnapshotFile;
use super::file::SnapshotFileError;

/// What etcdutl's `snapshot status` tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// crc32c over all bucket names, keys and values.
    pub hash: u32,
    /// Main revision of the newest row.
    pub revision: i64,
    /// Keys that are not deleted.
    pub total_key: usize,
    /// Bytes of the database.
    pub total_size: u64,
    /// etcd's storage version; empty before 3.6.
    pub version: String,
}

/// Reads the whole file.
///
/// # Errors
/// It cannot be read, or is no sound database of etcd's.
pub fn snapshot_status(disk: &dyn Disk, path: &Path) -> Result<SnapshotStatus, SnapshotFileError> {
    let file = SnapshotFile::open(disk, path)?;
    let database = Database::open(&file)?;
    let mut status = SnapshotStatus { total_size: file.database_len(), ..SnapshotStatus::default() };
    let mut keys: HashSet<Vec<u8>> = HashSet::new();
    for bucket in database.buckets() {
        status.hash = crc32c::crc32c_append(status.hash, bucket.name());
        let mut rows = database.rows(bucket.name())?;
        while let Some(row) = rows.next_row()? {
            status.hash = crc32c::crc32c_append(status.hash, row.key);
            status.hash = crc32c::crc32c_append(status.hash, row.value);
            match bucket.name() {
                b"key" => {
                    let bad = || SnapshotFileError::Content(format!("bad revision {}", row.key.escape_ascii()));
                    let (revision, tombstone) = RowKey::decode(row.key).ok_or_else(bad)?;
                    status.revision = revision.main;
                    let key = RowView::parse(row.value).map_err(|_| bad())?.key;
                    if tombstone {
                        keys.remove(key);
                    } else {
                        keys.insert(key.to_vec());
                    }
                }
                b"meta" if row.key == b"storageVersion" => {
                    status.version = String::from_utf8_lossy(row.value).into_owned();
                }
                _ => {}
            }
        }
    }
    status.total_key = keys.len();
    Ok(status)
}
