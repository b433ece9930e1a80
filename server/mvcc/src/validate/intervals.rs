//! A key may be put once in a branch, and not be put and deleted. etcd's check, in its order, which lets pass what it
//! does not see: a put nested before a delete nested, and deletes that end with "\0" (taken as the key, not as "all").

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::{DeleteRangeRequest, RequestOp};

use super::Invalid;

/// Refuses a branch with overlapping writes.
pub fn check(ops: &[RequestOp]) -> Result<(), Invalid> {
    branch(ops).map(drop)
}

#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

/// A union of deleted keys and ranges; ranges are disjoint.
#[derive(Default)]
struct Deletes<'a> {
    keys: BTreeSet<&'a [u8]>,
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    fn insert(&mut self, request: &'a DeleteRangeRequest) {
        if request.range_end.is_empty() {
            self.keys.insert(&request.key);
        } else {
            self.insert_range(&request.key, &request.range_end);
        }
    }

    fn insert_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if end <= start {
            return;
        }
        // Swallow every range that touches this one.
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back()
            && other_end >= start
        {
            self.ranges.remove(other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        let begun = (Bound::Unbounded, Bound::Included(key));
        let in_range = self.ranges.range::<[u8], _>(begun).next_back().is_some_and(|(_, &end)| key < end);
        in_range || self.keys.contains(key)
    }

    fn extend(&mut self, mut other: Deletes<'a>) {
        if other.keys.len() > self.keys.len() {
            std::mem::swap(&mut self.keys, &mut other.keys);
        }
        if other.ranges.len() > self.ranges.len() {
            std::mem::swap(&mut self.ranges, &mut other.ranges);
        }
        self.keys.extend(other.keys);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }
}

fn branch(ops: &[RequestOp]) -> Result<Writes<'_>, Invalid> {
    let mut writes = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            writes.deletes.insert(request);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let (then, otherwise) = (branch(&nested.success)?, branch(&nested.failure)?);
            // Only one of the two is executed: they may put the same key.
            for &key in then.puts.iter().chain(otherwise.puts.difference(&then.puts)) {
                if writes.puts.contains(key) {
                    return Err(Invalid::DuplicateKey);
                }
            }
            for &key in then.puts.iter().chain(&otherwise.puts) {
                if writes.deletes.contains(key) {
                    return Err(Invalid::DuplicateKey);
                }
            }
            writes.puts.extend(then.puts);
            writes.puts.extend(otherwise.puts);
            writes.deletes.extend(then.deletes);
            writes.deletes.extend(otherwise.deletes);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            let key = &put.key[..];
            if writes.deletes.contains(key) || !writes.puts.insert(key) {
                return Err(Invalid::DuplicateKey);
            }
        }
    }
    Ok(writes)
}
