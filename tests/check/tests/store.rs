//! A store that is simulated in one thread, with clients whose requests overlap: what it does is linearizable by construction.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

const MS: i64 = 1_000_000;
const CLIENTS: usize = 6;
const KEYS: u64 = 5;

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

struct Store {
    random: Random,
    revision: i64,
    keys: BTreeMap<String, Value>,
    /// Events of the revision that is being written.
    events: Vec<Value>,
    lines: Vec<(i64, Value)>,
    values: u64,
    leases: Vec<(u64, i64)>,
    watched_at: i64,
}

/// A request on its way: sent, executed, answered.
#[derive(Clone, Copy)]
struct Turn {
    call: i64,
    at: i64,
    returned: i64,
}

/// About `count` requests.
pub fn generate(seed: u64, count: usize) -> Vec<Value> {
    let mut store = Store {
        random: Random(seed),
        revision: 1,
        keys: BTreeMap::new(),
        events: Vec::new(),
        lines: Vec::new(),
        values: 0,
        leases: Vec::new(),
        watched_at: 0,
    };
    store.begin();
    let mut turns: Vec<Turn> = (0..CLIENTS).map(|_| store.turn(1)).collect();
    for _ in 0..count {
        let client = (0..CLIENTS).min_by_key(|client| turns[*client].at).unwrap();
        let turn = turns[client];
        store.expire(turn.at);
        let returned = store.request(client, turn);
        turns[client] = store.turn(returned);
    }
    store.end(turns.iter().map(|turn| turn.returned).max().unwrap())
}

impl Store {
    fn begin(&mut self) {
        let endpoints = ["http://m0", "http://m1"];
        self.line(-3, json!({"type": "start", "endpoints": endpoints, "prefix": "k"}));
        let header = json!({"revision": 1, "member": 1});
        self.line(-2, json!({"type": "base", "header": header, "response": {"range": {"count": 0}}}));
        for (watch, open) in [
            (1, json!({"key": "k", "end": "l", "start": 2, "prev_kv": true})),
            (2, json!({"key": "k1", "end": "k3", "start": 2})),
            (3, json!({"key": "k", "end": "l", "start": 2, "no_put": true, "prev_kv": true})),
        ] {
            self.line(-1, json!({"type": "open", "watch": watch, "endpoint": 0, "open": open}));
        }
    }

    fn end(mut self, at: i64) -> Vec<Value> {
        let end = self.watched_at.max(at) + MS;
        for watch in 1..=3 {
            self.line(end, json!({"type": "drain", "watch": watch, "at": end, "revision": self.revision}));
        }
        self.line(end + 1, json!({"type": "done", "at": end + 1}));
        self.lines.sort_by_key(|(at, _)| *at);
        self.lines.into_iter().map(|(_, line)| line).collect()
    }

    fn line(&mut self, at: i64, line: Value) {
        self.lines.push((at, line));
    }

    fn turn(&mut self, after: i64) -> Turn {
        let call = after + MS * (1 + self.random.below(20) as i64);
        let at = call + 1 + MS * self.random.below(30) as i64;
        Turn { call, at, returned: at + 1 + MS * self.random.below(30) as i64 }
    }

    fn key(&mut self) -> String {
        format!("k{}", self.random.below(KEYS))
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("v{}", self.values)
    }

    /// Executes one request and records it; returns when its client goes on.
    fn request(&mut self, client: usize, turn: Turn) -> i64 {
        let request = self.choose();
        let unknown = self.random.below(15) == 0;
        let lost = unknown && self.random.below(2) == 0;
        let mut line =
            json!({"type": "op", "client": client, "endpoint": client % 2, "call": turn.call, "request": request});
        let response = if lost { Value::Null } else { self.execute(&request, turn) };
        let mut returned = turn.returned;
        if unknown {
            returned += 1000 * MS;
            line["error"] = json!({"code": "Unavailable", "text": "closed", "definite": false});
        } else {
            line["header"] = json!({"revision": self.revision, "member": client % 2, "cluster": 1});
            line["response"] = response;
        }
        line["return"] = json!(returned);
        self.line(returned, line);
        returned
    }

    fn choose(&mut self) -> Value {
        let (key, value) = (self.key(), self.value());
        match self.random.below(10) {
            0..3 => {
                let lease = match self.leases.last() {
                    Some((lease, _)) if self.random.below(3) == 0 => *lease,
                    _ => 0,
                };
                json!({"put": {"key": key, "value": value, "lease": lease, "prev_kv": self.random.below(2) == 0}})
            }
            3..5 => json!({"range": {"key": "k", "end": "l"}}),
            5 => json!({"range": {"key": key}}),
            6 => json!({"delete": {"key": key, "prev_kv": true}}),
            7 => json!({"grant": {"lease": 1000 + self.values, "ttl": 1}}),
            _ => {
                let number = self.keys.get(&key).map_or(0, |kv| kv["version"].as_i64().unwrap());
                let other = format!("k{}", (key[1..].parse::<u64>().unwrap() + 1) % KEYS);
                json!({"txn": {
                    "compares": [{"key": key, "target": "version", "result": "=", "number": number - self.random.below(2) as i64}],
                    "then": [{"put": {"key": key, "value": value}}, {"delete": {"key": other}}],
                    "else": [{"range": {"key": key}}, {"put": {"key": other, "value": format!("{value}e")}}]}})
            }
        }
    }

    fn execute(&mut self, request: &Value, turn: Turn) -> Value {
        let response = self.run(request, turn.at);
        self.commit(turn.at);
        response
    }

    fn run(&mut self, request: &Value, at: i64) -> Value {
        let (kind, body) = request.as_object().unwrap().iter().next().unwrap();
        let key = body["key"].as_str().unwrap_or_default();
        match kind.as_str() {
            "put" => {
                let prev = self.put(key, body);
                if body["prev_kv"] == true { json!({"put": {"prev_kv": prev}}) } else { json!({"put": {}}) }
            }
            "delete" => {
                let prev = self.delete(key);
                let prevs: Vec<&Value> = prev.iter().filter(|_| body["prev_kv"] == true).collect();
                json!({"delete": {"deleted": u8::from(prev.is_some()), "prev_kvs": prevs}})
            }
            "range" => {
                let whole = body.get("end").is_some();
                let kvs: Vec<&Value> = self.keys.iter().filter(|(k, _)| whole || *k == key).map(|(_, kv)| kv).collect();
                json!({"range": {"kvs": kvs, "count": kvs.len()}})
            }
            "grant" => {
                self.leases.push((body["lease"].as_u64().unwrap(), at + 1500 * MS));
                json!({"ttl": 1})
            }
            _ => {
                let compare = &body["compares"][0];
                let version =
                    self.keys.get(compare["key"].as_str().unwrap()).map_or(0, |kv| kv["version"].as_i64().unwrap());
                let succeeded = version == compare["number"].as_i64().unwrap();
                let branch = body[if succeeded { "then" } else { "else" }].as_array().unwrap();
                let responses: Vec<Value> = branch.iter().map(|op| self.run(op, at)).collect();
                json!({"txn": {"succeeded": succeeded, "responses": responses}})
            }
        }
    }

    fn put(&mut self, key: &str, body: &Value) -> Value {
        let revision = self.revision + 1;
        let prev = self.keys.get(key).cloned().unwrap_or_default();
        let create = prev["create"].as_i64().unwrap_or(revision);
        let version = prev["version"].as_i64().unwrap_or(0) + 1;
        let lease = body["lease"].as_i64().unwrap_or(0);
        let kv = json!({"key": key, "value": body["value"], "create": create, "mod": revision, "version": version, "lease": lease});
        self.keys.insert(key.to_owned(), kv.clone());
        self.events.push(json!({"kv": kv, "prev_kv": prev}));
        prev
    }

    fn delete(&mut self, key: &str) -> Option<Value> {
        let prev = self.keys.remove(key)?;
        let kv = json!({"key": key, "value": "", "create": 0, "mod": self.revision + 1, "version": 0});
        self.events.push(json!({"delete": true, "kv": kv, "prev_kv": prev}));
        Some(prev)
    }

    /// Gives what was written a revision, and tells the watches.
    fn commit(&mut self, at: i64) {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return;
        }
        self.revision += 1;
        self.watched_at = self.watched_at.max(at) + 1 + MS * self.random.below(3) as i64;
        self.tell(1, events.clone());
        let near = |event: &&Value| ["k1", "k2"].contains(&event["kv"]["key"].as_str().unwrap());
        let mut some: Vec<Value> = events.iter().filter(near).cloned().collect();
        some.iter_mut().for_each(|event| event["prev_kv"] = Value::Null);
        self.tell(2, some);
        self.tell(3, events.into_iter().filter(|event| event["delete"] == true).collect());
        if self.revision % 20 == 0 {
            for watch in 1..=3 {
                let header = json!({"revision": self.revision, "member": 0});
                self.line(
                    self.watched_at,
                    json!({"type": "watch", "watch": watch, "at": self.watched_at, "header": header}),
                );
            }
        }
    }

    fn tell(&mut self, watch: u64, events: Vec<Value>) {
        if !events.is_empty() {
            let header = json!({"revision": self.revision, "member": 0});
            let line =
                json!({"type": "watch", "watch": watch, "at": self.watched_at, "header": header, "events": events});
            self.line(self.watched_at, line);
        }
    }

    /// Leases whose time is over take their keys with them.
    fn expire(&mut self, now: i64) {
        while let Some(index) = self.leases.iter().position(|(_, end)| *end < now) {
            let (lease, end) = self.leases.remove(index);
            let keys: Vec<String> =
                self.keys.iter().filter(|(_, kv)| kv["lease"] == lease).map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.delete(&key);
            }
            self.commit(end);
        }
    }
}
