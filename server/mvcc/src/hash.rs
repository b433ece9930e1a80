//! HashKV: CRC-32C over the revision table as etcd computes it (`HashByRev`), so that members, and a migrated etcd, can
//! be compared.
//!
//! Hashed are the bytes `key`, then key and value of each row up to the revision. Rows at or below the compact revision
//! count only if they are what a reader at the hashed revision sees; a tombstone at exactly the compact revision never
//! does. So the hash does not depend on how far the compaction got.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::error::Error;
use crate::index::{KeyRange, RangeEnd};
use crate::revision::{Revision, RowKey};
use crate::row::RowView;
use crate::store::{Store, View};

/// The name of etcd's bucket for revisions, which its hash begins with.
const BUCKET: &[u8] = b"key";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    /// The store's revision.
    pub revision: i64,
    /// The compact revision that the hash was computed under; -1 if there was no compaction.
    pub compact_revision: i64,
    /// The revision up to which rows were hashed.
    pub hash_revision: i64,
}

impl Store {
    /// Hashes up to `revision`, 0 for all. Reads the whole table: not for a thread that serves others. Two members with
    /// equal `compact_revision` and `hash_revision` have equal hashes, or one is corrupt.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        self.read(|view| self.hash_of(view, revision))
    }

    fn hash_of(&self, view: &View<'_>, revision: i64) -> Result<HashKv, Error> {
        if revision > 0 && revision < view.compact {
            return Err(Error::Compacted);
        }
        if revision > view.current {
            return Err(Error::FutureRevision);
        }
        let at = if revision == 0 { view.current } else { revision };
        let scope = Scope { view, at, sees_any: sees_any(view, at)? };
        let mut hash = crc32c::crc32c(BUCKET);
        self.scan_rows(0, at, &mut |revision, tombstone, row| {
            if scope.hashes(revision, tombstone, row)? {
                let key = RowKey::new(revision, tombstone);
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key.as_bytes()), row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(HashKv { hash, revision: view.current, compact_revision: view.compact, hash_revision: at })
    }

    /// Hashes all state: revisions, leases, alarms, and what the members agreed on of versions. For tests of members that applied the same entries; etcd's Hash
    /// covers its file's buckets and is never equal.
    pub fn hash(&self) -> Result<u32, Error> {
        let mut hash = self.hash_kv(0)?.hash;
        let leases = self.leases.read();
        for lease in leases.views() {
            hash = crc32c::crc32c_append(hash, &leases.record(lease.id).unwrap_or_default());
            for key in leases.keys(lease.id) {
                hash = crc32c::crc32c_append(hash, &key);
            }
        }
        for alarm in self.alarms() {
            hash = crc32c::crc32c_append(hash, &crate::alarm::row_key(&alarm));
        }
        hash = crc32c::crc32c_append(hash, &self.format_version().to_be_bytes());
        for version in [self.cluster_version(), self.downgrade_target()] {
            let version = version.unwrap_or_default();
            // With its length: what ends one begins no other.
            hash = crc32c::crc32c_append(hash, &[u8::try_from(version.len()).unwrap_or(u8::MAX)]);
            hash = crc32c::crc32c_append(hash, version.as_bytes());
        }
        Ok(hash)
    }
}

struct Scope<'a> {
    view: &'a View<'a>,
    at: i64,
    sees_any: bool,
}

impl Scope<'_> {
    fn hashes(&self, revision: Revision, tombstone: bool, row: &[u8]) -> Result<bool, Error> {
        if revision.main > self.view.compact {
            return Ok(true);
        }
        if tombstone && revision.main == self.view.compact {
            return Ok(false);
        }
        let key = RowView::parse(row)?.key;
        let index = self.view.store.index.read();
        // With nothing visible at all etcd hashes whatever compaction left over; it has left this when it is done.
        Ok(if self.sees_any {
            index.keys.get(key, self.at).is_some_and(|version| version.revision == revision)
        } else {
            index.keys.survives(key, revision, self.view.compact)
        })
    }
}

/// Whether etcd would keep anything, were it compacted at `at`. A key that was deleted and put again at `at` itself does not count there: etcd
/// looks at the generation that ended (`keyIndex.doCompact`).
fn sees_any(view: &View<'_>, at: i64) -> Result<bool, Error> {
    let mut ended = BTreeSet::new();
    view.store.scan_rows(at, at, &mut |_, tombstone, row| {
        if tombstone {
            ended.insert(RowView::parse(row)?.key.to_vec());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut any = false;
    view.visit(KeyRange { start: b"", end: RangeEnd::Unbounded }, at, &mut |key, _| {
        any = !ended.contains(key);
        if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    Ok(any)
}
