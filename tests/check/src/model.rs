//! The store as etcd's API describes it, for one revision at a time: small, slow and obvious.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::Bound;

use crate::history::Compare;
use crate::history::DeleteRequest;
use crate::history::DeleteResponse;
use crate::history::KeyValue;
use crate::history::PutRequest;
use crate::history::PutResponse;
use crate::history::RangeRequest;
use crate::history::RangeResponse;
use crate::history::Relation;
use crate::history::Request;
use crate::history::Response;
use crate::history::Target;
use crate::history::Text;
use crate::history::TxnRequest;
use crate::history::TxnResponse;

/// What happened to a key at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Text,
    /// None: deleted.
    pub now: Option<KeyValue>,
    pub prev: Option<KeyValue>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(BTreeMap<Text, KeyValue>);

// === impl State ===

impl State {
    pub fn new(base: &[KeyValue]) -> Self {
        Self(base.iter().map(|kv| (kv.key.clone(), kv.clone())).collect())
    }

    /// Does what `request` asks for at `revision`; None for what is no matter of keys.
    pub fn apply(&mut self, request: &Request, revision: i64, changes: &mut Vec<Change>) -> Option<Response> {
        match request {
            Request::Range(range) => Some(Response::Range(self.range(range))),
            Request::Put(put) => Some(Response::Put(self.put(put, revision, changes))),
            Request::Delete(delete) => Some(Response::Delete(self.delete(delete, changes))),
            Request::Txn(txn) => Some(Response::Txn(self.txn(txn, revision, changes))),
            Request::Compact(_) | Request::Grant(_) | Request::KeepAlive(_) | Request::Revoke(_) | Request::Ttl(_) => {
                None
            }
        }
    }

    pub fn range(&self, request: &RangeRequest) -> RangeResponse {
        let mut response = RangeResponse { kvs: Vec::new(), more: false, count: 0 };
        for kv in self.within(&request.key, &request.end) {
            response.count += 1;
            if request.count_only {
                continue;
            }
            if request.limit > 0 && response.count > request.limit {
                response.more = true;
                continue;
            }
            let mut kv = kv.clone();
            if request.keys_only {
                kv.value = "".into();
            }
            response.kvs.push(kv);
        }
        response
    }

    fn put(&mut self, request: &PutRequest, revision: i64, changes: &mut Vec<Change>) -> PutResponse {
        let prev = self.0.get(&request.key).cloned();
        let now = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            create: prev.as_ref().map_or(revision, |prev| prev.create),
            modified: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: request.lease,
        };
        self.0.insert(request.key.clone(), now.clone());
        changes.push(Change { key: request.key.clone(), now: Some(now), prev: prev.clone() });
        PutResponse { prev_kv: prev.filter(|_| request.prev_kv) }
    }

    fn delete(&mut self, request: &DeleteRequest, changes: &mut Vec<Change>) -> DeleteResponse {
        let keys: Vec<Text> = self.within(&request.key, &request.end).map(|kv| kv.key.clone()).collect();
        let mut response = DeleteResponse { deleted: 0, prev_kvs: Vec::new() };
        for key in keys {
            let prev = self.remove(&key, changes);
            response.deleted += 1;
            if request.prev_kv {
                response.prev_kvs.extend(prev);
            }
        }
        response
    }

    /// Deletes a key for whatever reason.
    pub fn remove(&mut self, key: &Text, changes: &mut Vec<Change>) -> Option<KeyValue> {
        let prev = self.0.remove(key);
        changes.push(Change { key: key.clone(), now: None, prev: prev.clone() });
        prev
    }

    /// Sets a key to what somebody saw, for whatever reason.
    pub fn set(&mut self, kv: &KeyValue, changes: &mut Vec<Change>) {
        let prev = self.0.insert(kv.key.clone(), kv.clone());
        changes.push(Change { key: kv.key.clone(), now: Some(kv.clone()), prev });
    }

    fn txn(&mut self, request: &TxnRequest, revision: i64, changes: &mut Vec<Change>) -> TxnResponse {
        // etcd takes all compares, also the nested ones, before the first write.
        let mut path = VecDeque::new();
        self.decide(request, &mut path);
        self.run(request, &mut path, revision, changes)
    }

    fn decide(&self, request: &TxnRequest, path: &mut VecDeque<bool>) {
        let succeeded = request.compares.iter().all(|compare| self.holds(compare));
        path.push_back(succeeded);
        for op in branch(request, succeeded) {
            if let Request::Txn(nested) = op {
                self.decide(nested, path);
            }
        }
    }

    fn run(
        &mut self,
        request: &TxnRequest,
        path: &mut VecDeque<bool>,
        revision: i64,
        changes: &mut Vec<Change>,
    ) -> TxnResponse {
        let succeeded = path.pop_front().unwrap_or_default();
        let mut responses = Vec::new();
        for op in branch(request, succeeded) {
            responses.extend(match op {
                Request::Txn(nested) => Some(Response::Txn(self.run(nested, path, revision, changes))),
                op => self.apply(op, revision, changes),
            });
        }
        TxnResponse { succeeded, responses }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut kvs = self.within(&compare.key, &compare.end).peekable();
        if kvs.peek().is_none() {
            return holds_for(compare, None);
        }
        kvs.all(|kv| holds_for(compare, Some(kv)))
    }

    fn within<'a>(&'a self, key: &'a str, end: &'a str) -> impl Iterator<Item = &'a KeyValue> {
        let upper = match end {
            "" => Bound::Included(key),
            "\0" => Bound::Unbounded,
            _ => Bound::Excluded(end),
        };
        // A range that ends before it begins is empty, and no range to a map.
        let wrong_way = matches!(upper, Bound::Excluded(end) if end <= key);
        let bounds: (Bound<&str>, Bound<&str>) = (Bound::Included(key), upper);
        (!wrong_way).then(|| self.0.range::<str, _>(bounds)).into_iter().flatten().map(|(_, kv)| kv)
    }

    /// Keys by the lease that they are attached to.
    pub fn leases(&self) -> BTreeMap<i64, Vec<Text>> {
        let mut leases: BTreeMap<i64, Vec<Text>> = BTreeMap::new();
        for kv in self.0.values().filter(|kv| kv.lease != 0) {
            leases.entry(kv.lease).or_default().push(kv.key.clone());
        }
        leases
    }

    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.0.get(key)
    }
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[Request] {
    if succeeded { &request.then } else { &request.otherwise }
}

fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let order = match compare.target {
        Target::Value => match kv {
            Some(kv) => kv.value.as_bytes().cmp(compare.value.as_bytes()),
            // The value of a key that is not there is neither equal nor different.
            None => return false,
        },
        Target::Version => kv.map_or(0, |kv| kv.version).cmp(&compare.number),
        Target::Create => kv.map_or(0, |kv| kv.create).cmp(&compare.number),
        Target::Mod => kv.map_or(0, |kv| kv.modified).cmp(&compare.number),
        Target::Lease => kv.map_or(0, |kv| kv.lease).cmp(&compare.number),
    };
    match compare.result {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Request {
        serde_json::from_str(json).unwrap()
    }

    fn apply(state: &mut State, json: &str, revision: i64) -> (Response, Vec<Change>) {
        let mut changes = Vec::new();
        let response = state.apply(&request(json), revision, &mut changes).unwrap();
        (response, changes)
    }

    #[test]
    fn versions_count_from_each_creation() {
        let mut state = State::default();
        apply(&mut state, r#"{"put":{"key":"a","value":"1"}}"#, 2);
        apply(&mut state, r#"{"put":{"key":"a","value":"2"}}"#, 3);
        let kv = state.get("a").unwrap();
        assert_eq!((kv.create, kv.modified, kv.version), (2, 3, 2));
        let (response, changes) = apply(&mut state, r#"{"delete":{"key":"a","prev_kv":true}}"#, 4);
        let Response::Delete(delete) = response else { panic!("{response:?}") };
        assert_eq!((delete.deleted, delete.prev_kvs.len(), changes.len()), (1, 1, 1));
        apply(&mut state, r#"{"put":{"key":"a","value":"3"}}"#, 5);
        let kv = state.get("a").unwrap();
        assert_eq!((kv.create, kv.modified, kv.version), (5, 5, 1));
    }

    #[test]
    fn a_txn_reads_its_own_writes_and_takes_one_branch() {
        let mut state = State::default();
        let txn = r#"{"txn":{"compares":[{"key":"a","target":"create","result":"=","number":0}],
            "then":[{"put":{"key":"a","value":"1"}},{"range":{"key":"a"}},
                {"txn":{"compares":[{"key":"a","target":"version","result":"=","number":0}],"then":[{"put":{"key":"b","value":"2"}}]}}],
            "else":[{"delete":{"key":"a"}}]}}"#;
        let (response, changes) = apply(&mut state, txn, 2);
        let Response::Txn(answer) = response else { panic!("{response:?}") };
        assert!(answer.succeeded);
        assert_eq!(changes.len(), 2);
        assert!(matches!(&answer.responses[1], Response::Range(range) if range.kvs[0].modified == 2));
        let (response, changes) = apply(&mut state, txn, 3);
        assert!(matches!(response, Response::Txn(answer) if !answer.succeeded && answer.responses.len() == 1));
        assert!(changes[0].now.is_none() && state.get("a").is_none());
    }

    #[test]
    fn compares_of_missing_keys_are_etcds() {
        let state = State::default();
        let holds = |json: &str| state.holds(&serde_json::from_str(json).unwrap());
        assert!(!holds(r#"{"key":"a","target":"value","result":"!=","value":"1"}"#));
        assert!(!holds(r#"{"key":"a","end":"z","target":"create","result":">"}"#));
        assert!(holds(r#"{"key":"a","end":"z","target":"version","result":"="}"#));
    }

    #[test]
    fn ranges_count_beyond_their_limit() {
        let mut state = State::default();
        for (revision, key) in (2..).zip(["a", "b", "c"]) {
            apply(&mut state, &format!(r#"{{"put":{{"key":"{key}","value":"1"}}}}"#), revision);
        }
        let range = |json: &str| match request(json) {
            Request::Range(range) => state.range(&range),
            other => panic!("{other:?}"),
        };
        let limited = range(r#"{"range":{"key":"a","end":"c","limit":1}}"#);
        assert_eq!((limited.kvs.len(), limited.more, limited.count), (1, true, 2));
        let counted = range(r#"{"range":{"key":"b","end":"\u0000","count_only":true,"limit":1}}"#);
        assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 2));
        assert_eq!(range(r#"{"range":{"key":"c","end":"a"}}"#).count, 0);
    }
}
