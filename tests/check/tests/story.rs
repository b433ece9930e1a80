//! A short right history, told in JSON, for tests to lie about.
//!
//! Revisions: 2 put a, 3 put b with a lease, 4 a transaction (a, c), 5 put a, 6 delete c, 7 put d (never answered), 8 the lease ends
//! and takes b, 9 delete d (never answered). Two watches see all of it.

use serde_json::Value;
use serde_json::json;

const MS: i64 = 1_000_000;

pub struct Story(Vec<Value>);

/// The events of one response.
pub struct Events<'a>(pub &'a mut Vec<Value>);

pub fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64, lease: i64) -> Value {
    json!({"key": key, "value": value, "create": create, "mod": modified, "version": version, "lease": lease})
}

/// What an event shows of a key that was deleted.
pub fn gone(key: &str, revision: i64) -> Value {
    kv(key, "", 0, revision, 0, 0)
}

pub fn event(kind: &str, kv: Value, prev: Option<Value>) -> Value {
    let mut event = json!({"kv": kv});
    if kind == "delete" {
        event["delete"] = json!(true);
    }
    if let Some(prev) = prev {
        event["prev_kv"] = prev;
    }
    event
}

/// When a line was written.
fn time(line: &Value) -> i64 {
    match line["type"].as_str() {
        Some("start") => i64::MIN,
        Some("base") => i64::MIN + 1,
        _ => line["return"].as_i64().or(line["at"].as_i64()).unwrap_or_default(),
    }
}

impl Story {
    pub fn right() -> Self {
        let mut story = Self(Vec::new());
        let endpoints = json!(["http://m0", "http://m1", "http://m2"]);
        story.push(json!({"type": "start", "seed": 1, "endpoints": endpoints, "prefix": "", "unix_ns": 0}));
        story.push(
            json!({"type": "base", "header": {"revision": 1, "member": 11}, "response": {"range": {"count": 0}}}),
        );
        story.requests();
        story.watches();
        story.ending();
        story.push(json!({"type": "done", "name": "done", "at": 7000 * MS}));
        story
    }

    fn requests(&mut self) {
        let all = json!({"range": {"key": "a", "end": "\0"}});
        self.op("grant", 1000, json!({"grant": {"lease": 7, "ttl": 2}}), 1, json!({"ttl": 2}));
        self.op("put-a", 1100, json!({"put": {"key": "a", "value": "1"}}), 2, json!({"put": {}}));
        self.op("put-b", 1200, json!({"put": {"key": "b", "value": "2", "lease": 7}}), 3, json!({"put": {}}));
        let txn = json!({"txn": {"compares": [{"key": "a", "target": "create", "result": ">", "number": 0}],
            "then": [{"put": {"key": "a", "value": "3"}}, {"put": {"key": "c", "value": "4"}}], "else": [{"delete": {"key": "b"}}]}});
        self.op("txn", 1500, txn, 4, json!({"txn": {"succeeded": true, "responses": [{"put": {}}, {"put": {}}]}}));
        let put = json!({"put": {"key": "a", "value": "5", "prev_kv": true}});
        self.op("put-prev", 1600, put, 5, json!({"put": {"prev_kv": kv("a", "3", 2, 4, 2, 0)}}));
        let delete = json!({"delete": {"deleted": 1, "prev_kvs": [kv("c", "4", 4, 4, 1, 0)]}});
        self.op("delete", 1700, json!({"delete": {"key": "c", "prev_kv": true}}), 6, delete);
        let old = [kv("a", "3", 2, 4, 2, 0), kv("b", "2", 3, 3, 1, 7), kv("c", "4", 4, 4, 1, 0)];
        let request = json!({"range": {"key": "a", "end": "\0", "revision": 4}});
        self.op("read-old", 1800, request, 6, json!({"range": {"kvs": old, "count": 3}}));
        self.op("keepalive", 2000, json!({"keepalive": {"lease": 7}}), 6, json!({"ttl": 2}));
        self.unknown("unknown-put", 4000, json!({"put": {"key": "d", "value": "6"}}));
        let read = json!({"range": {"kvs": [kv("a", "5", 2, 5, 3, 0), kv("d", "6", 7, 7, 1, 0)], "count": 2}});
        self.op("read", 5570, all.clone(), 8, read);
        self.unknown("unknown-delete", 5580, json!({"delete": {"key": "d"}}));
        let read = json!({"range": {"kvs": [kv("a", "5", 2, 5, 3, 0)], "count": 1}});
        self.op("read-end", 5600, all, 9, read);
    }

    fn watches(&mut self) {
        let open = json!({"key": "", "end": "\0", "start": 2, "prev_kv": true});
        self.push(json!({"type": "open", "name": "open-1", "watch": 1, "endpoint": 0, "at": 500 * MS, "open": open}));
        let open = json!({"key": "", "end": "\0", "start": 2});
        self.push(json!({"type": "open", "name": "open-2", "watch": 2, "endpoint": 1, "at": 500 * MS, "open": open}));
        self.insert_events(1120, vec![event("put", kv("a", "1", 2, 2, 1, 0), None)]);
        self.insert_events(1220, vec![event("put", kv("b", "2", 3, 3, 1, 7), None)]);
        let first = event("put", kv("a", "3", 2, 4, 2, 0), Some(kv("a", "1", 2, 2, 1, 0)));
        self.insert_events(1520, vec![first, event("put", kv("c", "4", 4, 4, 1, 0), None)]);
        self.insert_events(1620, vec![event("put", kv("a", "5", 2, 5, 3, 0), Some(kv("a", "3", 2, 4, 2, 0)))]);
        self.insert_events(1720, vec![event("delete", gone("c", 6), Some(kv("c", "4", 4, 4, 1, 0)))]);
        self.insert_events(4100, vec![event("put", kv("d", "6", 7, 7, 1, 0), None)]);
        self.insert_events(5550, vec![event("delete", gone("b", 8), Some(kv("b", "2", 3, 3, 1, 7)))]);
        self.insert_events(5590, vec![event("delete", gone("d", 9), Some(kv("d", "6", 7, 7, 1, 0)))]);
        for (name, at, revision) in [("early-progress", 5500, 7), ("progress", 5650, 9)] {
            let header = json!({"revision": revision, "member": 11});
            self.push(json!({"type": "watch", "name": name, "watch": 1, "at": at * MS, "header": header}));
        }
        for watch in [1, 2] {
            self.push(json!({"type": "drain", "watch": watch, "at": 5950 * MS, "revision": 9}));
        }
    }

    fn ending(&mut self) {
        self.push(json!({"type": "final", "endpoint": -1, "at": 5900 * MS, "left": [0, 1, 2]}));
        let members: Vec<Value> = (0..3).map(|n| json!({"id": 11 + n, "name": format!("m{n}")})).collect();
        for n in 0..3 {
            let mut line = |name: &str, field: &str, value: Value| {
                let header = json!({"revision": 9, "member": 11 + n});
                let mut line = json!({"type": "final", "endpoint": n, "at": 6000 * MS, "header": header});
                line["name"] = json!(format!("{name}-{n}"));
                line[field] = value;
                self.push(line);
            };
            line("hash", "hash", json!({"revision": 9, "hash": 4711, "compact_revision": -1}));
            line("members", "members", json!(members));
            line("status", "status", json!({"leader": 11}));
        }
    }

    pub fn text(&self) -> String {
        let mut lines: Vec<&Value> = self.0.iter().collect();
        lines.sort_by_key(|line| time(line));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    pub fn push(&mut self, line: Value) {
        self.0.push(line);
    }

    /// A request through the first endpoint that is answered within 5 ms.
    pub fn op(&mut self, name: &str, at_ms: i64, request: Value, revision: i64, response: Value) {
        let header = json!({"revision": revision, "member": 11, "cluster": 1});
        let (call, returned) = (at_ms * MS, (at_ms + 5) * MS);
        self.push(json!({"type": "op", "name": name, "client": 1, "endpoint": 0, "call": call, "return": returned,
            "request": request, "header": header, "response": response}));
    }

    /// A request that is given up after 300 ms.
    pub fn unknown(&mut self, name: &str, at_ms: i64, request: Value) {
        let error = json!({"code": "DeadlineExceeded", "text": "context deadline exceeded", "definite": false});
        let (call, returned) = (at_ms * MS, (at_ms + 300) * MS);
        self.push(json!({"type": "op", "name": name, "client": 2, "endpoint": 1, "call": call, "return": returned,
            "request": request, "error": error}));
    }

    /// Writes e and f, because a is there.
    pub fn unknown_txn(&mut self) {
        let txn = json!({"txn": {"compares": [{"key": "a", "target": "version", "result": ">", "number": 0}],
            "then": [{"put": {"key": "e", "value": "30"}}, {"put": {"key": "f", "value": "32"}}],
            "else": [{"put": {"key": "e", "value": "31"}}]}});
        self.unknown("unknown-txn", 5700, txn);
    }

    pub fn line(&mut self, name: &str) -> &mut Value {
        self.0.iter_mut().find(|line| line["name"] == name).unwrap_or_else(|| panic!("no line {name}"))
    }

    pub fn take(&mut self, name: &str) -> Value {
        let index = self.0.iter().position(|line| line["name"] == name).unwrap_or_else(|| panic!("no line {name}"));
        self.0.remove(index)
    }

    pub fn retain(&mut self, wanted: impl Fn(&Value) -> bool) {
        self.0.retain(wanted);
    }

    /// A response of both watches; the second has not asked for previous values.
    pub fn insert_events(&mut self, at_ms: i64, events: Vec<Value>) {
        self.insert_events_to(1, at_ms, events.clone());
        let mut plain = events;
        for event in &mut plain {
            event.as_object_mut().map(|event| event.remove("prev_kv"));
        }
        self.insert_events_to(2, at_ms, plain);
    }

    pub fn insert_events_to(&mut self, watch: u64, at_ms: i64, events: Vec<Value>) {
        let header = json!({"revision": events[0]["kv"]["mod"], "member": 10 + watch});
        self.push(json!({"type": "watch", "watch": watch, "at": at_ms * MS, "header": header, "events": events}));
    }

    /// A put that was there before shows once more, in both watches.
    pub fn again(&mut self, revision: i64, key: &str, value: &str) {
        let event = match key {
            "a" => event("put", kv("a", value, 2, revision, 4, 0), Some(kv("a", "5", 2, 5, 3, 0))),
            _ => event("put", kv(key, value, revision, revision, 1, 0), None),
        };
        self.insert_events(5800, vec![event]);
    }

    /// The index of the response of the first watch that shows a revision.
    fn response(&self, revision: i64) -> usize {
        let shows = |line: &Value| line["watch"] == 1 && line["events"][0]["kv"]["mod"] == revision;
        self.0.iter().position(shows).unwrap_or_else(|| panic!("no response with revision {revision}"))
    }

    /// The events with which the first watch shows a revision.
    pub fn events(&mut self, revision: i64) -> Events<'_> {
        let index = self.response(revision);
        match &mut self.0[index]["events"] {
            Value::Array(events) => Events(events),
            other => panic!("{other}"),
        }
    }

    /// The first watch never shows a revision.
    pub fn drop_events(&mut self, revision: i64) {
        let index = self.response(revision);
        self.0.remove(index);
    }

    /// The first watch shows a revision only after a later one.
    pub fn show_after(&mut self, late: i64, other: i64) {
        let (late, other) = (self.response(late), self.response(other));
        self.0[late]["at"] = json!(self.0[other]["at"].as_i64().unwrap() + 1);
    }

    /// The first watch shows a revision in two responses.
    pub fn split(&mut self, revision: i64, in_pieces: bool) {
        let last = self.events(revision).0.pop().unwrap();
        let index = self.response(revision);
        let at_ms = self.0[index]["at"].as_i64().unwrap() / MS + 1;
        self.0[index]["fragment"] = json!(in_pieces);
        self.insert_events_to(1, at_ms, vec![last]);
    }

    /// The watches must have come so far at the end.
    pub fn end_at(&mut self, revision: i64) {
        for line in self.0.iter_mut().filter(|line| line["type"] == "drain") {
            line["revision"] = json!(revision);
        }
    }
}
