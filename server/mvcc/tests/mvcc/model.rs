//! The plainest store there is: a full copy of all keys for each revision. What the real one answers must be what this
//! one answers, whatever was flushed, cached or compacted meanwhile.

use std::collections::BTreeMap;

use bytes::Bytes;
use garboard_mvcc::Error;
use garboard_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use garboard_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::response_op::Response;
use garboard_proto::etcdserverpb::*;
use garboard_proto::mvccpb::KeyValue;

type Keys = BTreeMap<Bytes, KeyValue>;

pub struct Model {
    /// By main revision; the first is that of the empty store.
    revisions: Vec<Keys>,
    /// What a transaction has written so far.
    open: Option<Keys>,
    pub compacted: i64,
    pub leases: BTreeMap<i64, i64>,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn contains(key: &Bytes, range_end: &Bytes, candidate: &Bytes) -> bool {
    match &range_end[..] {
        b"" => candidate == key,
        b"\0" => candidate >= key,
        end => candidate >= key && &candidate[..] < end,
    }
}

impl Model {
    pub fn new() -> Model {
        let revisions = vec![Keys::new(), Keys::new()];
        Model { revisions, open: None, compacted: -1, leases: BTreeMap::new() }
    }

    pub fn revision(&self) -> i64 {
        self.revisions.len() as i64 - 1
    }

    fn current(&self) -> i64 {
        self.revision() + i64::from(self.open.is_some())
    }

    fn keys(&self) -> &Keys {
        self.open.as_ref().unwrap_or(&self.revisions[self.revisions.len() - 1])
    }

    fn keys_mut(&mut self) -> &mut Keys {
        if self.open.is_none() {
            self.open = self.revisions.last().cloned();
        }
        self.open.as_mut().expect("just opened")
    }

    fn publish(&mut self) {
        self.revisions.extend(self.open.take());
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        if request.revision > self.current() {
            return Err(Error::FutureRevision);
        }
        let at = if request.revision <= 0 { self.current() } else { request.revision };
        if at < self.compacted {
            return Err(Error::Compacted);
        }
        let keys = if at == self.current() { self.keys() } else { &self.revisions[at as usize] };
        let mut kvs: Vec<KeyValue> =
            keys.values().filter(|kv| contains(&request.key, &request.range_end, &kv.key)).cloned().collect();
        let mut response =
            RangeResponse { header: header(self.current()), count: kvs.len() as i64, ..Default::default() };
        if request.count_only {
            return Ok(response);
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if request.sort_order == SortOrder::None as i32 && filters == [0; 4] && limit > 0 {
            // The odd rule: no order means that the limit comes before the sort.
            kvs.truncate(limit + 1);
        }
        let [min_mod, max_mod, min_create, max_create] = filters;
        kvs.retain(|kv| min_mod == 0 || kv.mod_revision >= min_mod);
        kvs.retain(|kv| max_mod == 0 || kv.mod_revision <= max_mod);
        kvs.retain(|kv| min_create == 0 || kv.create_revision >= min_create);
        kvs.retain(|kv| max_create == 0 || kv.create_revision <= max_create);
        match SortTarget::try_from(request.sort_target).expect("valid") {
            SortTarget::Key => {}
            SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
        }
        if request.sort_order == SortOrder::Descend as i32 {
            kvs.reverse();
        }
        response.more = limit > 0 && kvs.len() > limit;
        if response.more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        Ok(response)
    }

    fn check_key(&self, request: &PutRequest) -> Result<(), Error> {
        let ignores = request.ignore_value || request.ignore_lease;
        if ignores && !self.keys().contains_key(&request.key) { Err(Error::KeyNotFound) } else { Ok(()) }
    }

    fn check_lease(&self, request: &PutRequest) -> Result<(), Error> {
        let found = request.lease == 0 || self.leases.contains_key(&request.lease);
        if found { Ok(()) } else { Err(Error::LeaseNotFound) }
    }

    fn put_open(&mut self, request: &PutRequest) -> PutResponse {
        let revision = self.revision() + 1;
        let previous = self.keys().get(&request.key).cloned();
        let (create_revision, version) =
            previous.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let kept = previous.clone().unwrap_or_default();
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision,
            mod_revision: revision,
            version,
            value: if request.ignore_value { kept.value } else { request.value.clone() },
            lease: if request.ignore_lease { kept.lease } else { request.lease },
        };
        self.keys_mut().insert(request.key.clone(), kv);
        PutResponse { header: header(revision), prev_kv: previous.filter(|_| request.prev_kv) }
    }

    fn delete_open(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone: Vec<KeyValue> =
            self.keys().values().filter(|kv| contains(&request.key, &request.range_end, &kv.key)).cloned().collect();
        for kv in &gone {
            self.keys_mut().remove(&kv.key);
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
        DeleteRangeResponse { header: header(self.current()), deleted, prev_kvs }
    }

    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        self.check_lease(request)?;
        self.check_key(request)?;
        let response = self.put_open(request);
        self.publish();
        Ok(response)
    }

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let response = self.delete_open(request);
        self.publish();
        response
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs: Vec<KeyValue> =
            self.keys().values().filter(|kv| contains(&compare.key, &compare.range_end, &kv.key)).cloned().collect();
        if kvs.is_empty() {
            if compare.target == CompareTarget::Value as i32 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let order = match compare.target_union.as_ref().expect("given") {
                TargetUnion::Version(version) => kv.version.cmp(version),
                TargetUnion::CreateRevision(revision) => kv.create_revision.cmp(revision),
                TargetUnion::ModRevision(revision) => kv.mod_revision.cmp(revision),
                TargetUnion::Value(value) => kv.value.cmp(value),
                TargetUnion::Lease(lease) => kv.lease.cmp(lease),
            };
            match CompareResult::try_from(compare.result).expect("valid") {
                CompareResult::Equal => order.is_eq(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
                CompareResult::NotEqual => order.is_ne(),
            }
        })
    }

    /// Replaces each transaction by the branch it takes, which nested ones choose before anything is written.
    fn resolve(&self, request: &TxnRequest) -> (bool, Vec<Resolved>) {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &request.success } else { &request.failure };
        let resolved = ops.iter().map(|op| match op.request.as_ref().expect("given") {
            Request::RequestTxn(nested) => {
                let (succeeded, ops) = self.resolve(nested);
                Resolved::Txn(succeeded, ops)
            }
            other => Resolved::Op(other.clone()),
        });
        (succeeded, resolved.collect())
    }

    fn check(&self, ops: &[Resolved]) -> Result<(), Error> {
        ops.iter().try_for_each(|op| match op {
            Resolved::Op(Request::RequestPut(put)) => self.check_key(put).and_then(|()| self.check_lease(put)),
            Resolved::Op(Request::RequestRange(range)) if range.revision > self.revision() => {
                Err(Error::FutureRevision)
            }
            Resolved::Op(Request::RequestRange(range)) if range.revision != 0 && range.revision < self.compacted => {
                Err(Error::Compacted)
            }
            Resolved::Op(_) => Ok(()),
            Resolved::Txn(_, ops) => self.check(ops),
        })
    }

    fn execute(&mut self, succeeded: bool, ops: &[Resolved]) -> TxnResponse {
        let responses = ops.iter().map(|op| {
            let response = match op {
                Resolved::Op(Request::RequestPut(put)) => Response::ResponsePut(self.put_open(put)),
                Resolved::Op(Request::RequestDeleteRange(delete)) => {
                    Response::ResponseDeleteRange(self.delete_open(delete))
                }
                Resolved::Op(Request::RequestRange(range)) => {
                    Response::ResponseRange(self.range(range).expect("checked"))
                }
                Resolved::Op(Request::RequestTxn(_)) => unreachable!("resolved"),
                Resolved::Txn(succeeded, ops) => Response::ResponseTxn(self.execute(*succeeded, ops)),
            };
            ResponseOp { response: Some(response) }
        });
        let responses = responses.collect();
        TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses }
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let (succeeded, ops) = self.resolve(request);
        self.check(&ops)?;
        let mut response = self.execute(succeeded, &ops);
        response.header = header(self.current());
        self.publish();
        Ok(response)
    }

    pub fn grant(&mut self, id: i64, ttl_s: i64) -> Result<(), Error> {
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        self.leases.insert(id, ttl_s);
        Ok(())
    }

    /// The keys that the newest put attached to a lease.
    pub fn leased(&self, id: i64) -> Vec<Bytes> {
        self.keys().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect()
    }

    pub fn revoke(&mut self, id: i64) -> Result<(), Error> {
        if self.leases.remove(&id).is_none() {
            return Err(Error::LeaseNotFound);
        }
        for key in self.leased(id) {
            self.delete_open(&DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
        }
        self.publish();
        Ok(())
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.revision() {
            return Err(Error::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }
}

enum Resolved {
    Op(Request),
    Txn(bool, Vec<Resolved>),
}
