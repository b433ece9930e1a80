//! How an answer differs from the model's.

use crate::history::KeyValue;
use crate::history::RangeResponse;
use crate::history::Response;
use crate::report::Kind;

pub struct Difference {
    pub kind: Kind,
    pub text: String,
    /// Of the write that the answer lacks, else 0.
    pub revision: i64,
}

/// The first difference, or None.
pub fn difference(expected: &Response, actual: &Response) -> Option<Difference> {
    if expected == actual {
        return None;
    }
    match (expected, actual) {
        (Response::Range(expected), Response::Range(actual)) => Some(of_ranges(expected, actual)),
        (Response::Put(expected), Response::Put(actual)) => {
            Some(of_keys(expected.prev_kv.as_slice(), actual.prev_kv.as_slice(), "previous key"))
        }
        (Response::Delete(expected), Response::Delete(actual)) if expected.deleted == actual.deleted => {
            Some(of_keys(&expected.prev_kvs, &actual.prev_kvs, "previous key"))
        }
        (Response::Txn(expected), Response::Txn(actual)) if expected.succeeded == actual.succeeded => {
            let inner = expected.responses.iter().zip(&actual.responses);
            let inner = inner.enumerate().find_map(|(index, (expected, actual))| {
                let mut inner = difference(expected, actual)?;
                inner.text = format!("operation {} of the transaction: {}", index + 1, inner.text);
                Some(inner)
            });
            let counts = || {
                let text = format!("{} operations answered, not {}", actual.responses.len(), expected.responses.len());
                Difference { kind: Kind::WrongAnswer, text, revision: 0 }
            };
            Some(inner.unwrap_or_else(counts))
        }
        _ => Some(Difference { kind: Kind::WrongAnswer, text: format!("{actual:?}, not {expected:?}"), revision: 0 }),
    }
}

fn of_ranges(expected: &RangeResponse, actual: &RangeResponse) -> Difference {
    let mut found = of_keys(&expected.kvs, &actual.kvs, "key");
    if expected.kvs == actual.kvs {
        found.text =
            format!("count {} and more {}, not {} and {}", actual.count, actual.more, expected.count, expected.more);
    }
    found
}

fn of_keys(expected: &[KeyValue], actual: &[KeyValue], what: &str) -> Difference {
    for kv in expected {
        let shown = actual.iter().find(|shown| shown.key == kv.key);
        if shown == Some(kv) {
            continue;
        }
        // An older version, or none at all: the write is not there.
        let lost = shown.is_none_or(|shown| shown.modified < kv.modified);
        let text = match shown {
            Some(shown) => format!("{what} {}, not {}", show(shown), show(kv)),
            None => format!("no {what} {}", show(kv)),
        };
        let kind = if lost { Kind::LostWrite } else { Kind::WrongAnswer };
        return Difference { kind, text, revision: if lost { kv.modified } else { 0 } };
    }
    let extra = actual.iter().find(|shown| expected.iter().all(|kv| kv.key != shown.key));
    let text = match extra {
        Some(extra) => format!("{what} {} is not there", show(extra)),
        None => "the same keys in another order".to_owned(),
    };
    Difference { kind: Kind::WrongAnswer, text, revision: 0 }
}

pub fn show(kv: &KeyValue) -> String {
    format!(
        "{}={:?} (create {}, mod {}, version {}, lease {})",
        kv.key, kv.value, kv.create, kv.modified, kv.version, kv.lease
    )
}
