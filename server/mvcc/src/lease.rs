//! Leases and the keys attached to them. When a lease ends is `garboard-node`'s to know: here are only what the log
//! said, the granted and the remaining lifetimes.
//!
//! Invariant: `by_key` and the leases' key sets are two views of one relation, and hold only keys that exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use garboard_proto::raft::LeaseRecord;
use prost::Message as _;

use crate::error::Error;

/// etcd's bound on a lease's lifetime.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// A lease as the log left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    pub id: i64,
    pub ttl_s: i64,
    /// From the last checkpoint; 0 if there was none since the lease was granted or renewed.
    pub remaining_ttl_s: i64,
    /// Attached keys in order; left empty in lists of leases.
    pub keys: Vec<Bytes>,
}

#[derive(Default)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
    by_key: HashMap<Arc<[u8]>, i64>,
}

struct Lease {
    ttl_s: i64,
    remaining_ttl_s: i64,
    keys: BTreeSet<Arc<[u8]>>,
}

impl LeaseTable {
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub fn grant(&mut self, id: i64, ttl_s: i64, remaining_ttl_s: i64) {
        let before = self.leases.insert(id, Lease { ttl_s, remaining_ttl_s, keys: BTreeSet::new() });
        assert!(before.is_none(), "a lease is granted once");
    }

    /// Writes a remaining lifetime down; false if there is no such lease (any more).
    pub fn checkpoint(&mut self, id: i64, remaining_ttl_s: i64) -> bool {
        let lease = self.leases.get_mut(&id);
        lease.map(|lease| lease.remaining_ttl_s = remaining_ttl_s).is_some()
    }

    /// The keys attached to a lease, in order.
    pub fn keys(&self, id: i64) -> Vec<Arc<[u8]>> {
        self.leases.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Removes a lease whose keys are deleted already.
    pub fn remove(&mut self, id: i64) {
        let lease = self.leases.remove(&id);
        assert!(lease.is_none_or(|lease| lease.keys.is_empty()), "a lease goes after its keys");
    }

    /// Makes the key follow its newest put: attached to `lease` and to no other, to none if it is 0 or unknown.
    pub fn attach(&mut self, key: &[u8], lease: i64) {
        if lease == 0 && self.by_key.is_empty() {
            return;
        }
        if self.by_key.get(key).copied().unwrap_or(0) == lease {
            return;
        }
        if let Some((key, old)) = self.by_key.remove_entry(key)
            && let Some(old) = self.leases.get_mut(&old)
        {
            old.keys.remove(&key);
        }
        if let Some(new) = self.leases.get_mut(&lease) {
            let key: Arc<[u8]> = key.into();
            new.keys.insert(key.clone());
            self.by_key.insert(key, lease);
        }
    }

    pub fn view(&self, id: i64) -> Option<LeaseView> {
        let lease = self.leases.get(&id)?;
        let keys = lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
        Some(LeaseView { id, ttl_s: lease.ttl_s, remaining_ttl_s: lease.remaining_ttl_s, keys })
    }

    /// All leases by id, without their keys.
    pub fn views(&self) -> Vec<LeaseView> {
        let view = |(&id, lease): (&i64, &Lease)| LeaseView {
            id,
            ttl_s: lease.ttl_s,
            remaining_ttl_s: lease.remaining_ttl_s,
            keys: Vec::new(),
        };
        self.leases.iter().map(view).collect()
    }

    pub fn attached_keys(&self) -> usize {
        self.by_key.len()
    }

    /// The row of a lease.
    pub fn record(&self, id: i64) -> Option<Bytes> {
        let lease = self.leases.get(&id)?;
        let record = LeaseRecord { id, ttl_s: lease.ttl_s, remaining_ttl_s: lease.remaining_ttl_s };
        Some(Bytes::from(record.encode_to_vec()))
    }

    /// Takes a row back; it may come from elsewhere.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let record = LeaseRecord::decode(value).map_err(|error| Error::Damaged(format!("lease row: {error}")))?;
        let lives = record.ttl_s <= LEASE_TTL_MAX_S && record.remaining_ttl_s <= LEASE_TTL_MAX_S;
        // Under another key, it would outlive its own end.
        if record.id == 0 || self.contains(record.id) || row_key(record.id) != key || !lives {
            return Err(Error::Damaged(format!("lease row of id {}", record.id)));
        }
        self.grant(record.id, record.ttl_s, record.remaining_ttl_s);
        Ok(())
    }
}

/// The key of a lease's row.
pub(crate) fn row_key(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}
