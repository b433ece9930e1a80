//! What the history says about each revision, before anything is replayed: who was told that it wrote, what was seen, what was read.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::history::Event;
use crate::history::History;
use crate::history::KeyValue;
use crate::history::Outcome;
use crate::history::Request;
use crate::history::Text;
use crate::history::WatchOpen;
use crate::observations::Observations;
use crate::report::Kind;
use crate::report::Report;

/// Indices are into `History::operations`.
#[derive(Debug, Default)]
pub struct Slot {
    /// Acknowledged with this revision.
    pub writer: Option<usize>,
    /// Of unknown outcome, and written here: its value was seen.
    pub claimed: Option<usize>,
    /// Seen here by somebody first, with the line.
    pub puts: BTreeMap<Text, (KeyValue, u32)>,
    /// The same, but only while nobody was told that it wrote.
    pub deletes: BTreeMap<Text, u32>,
    /// Answered from the state of this revision, without a write.
    pub readers: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct Evidence {
    pub slots: BTreeMap<i64, Slot>,
    /// Of unknown outcome, could have written, and nobody has seen a value of theirs.
    pub unseen: Vec<usize>,
    /// Revisions that watches over all keys have passed, from and to: those for puts, and those for deletes.
    passed: [Spans; 2],
    /// Acknowledged revocations of leases by revision, with their lines: from then on the lease has no keys.
    pub revocations: BTreeMap<i64, Vec<(i64, u32)>>,
}

/// Sorted, and apart from each other.
type Spans = Vec<(i64, i64)>;

/// Which request writes a value: each is written by one.
type Owners<'h> = HashMap<&'h str, usize>;

// === impl Evidence ===

impl Evidence {
    pub fn gather(history: &History, observations: &Observations, report: &mut Report) -> Self {
        let mut evidence = Self {
            passed: [passed(history, |open| !open.no_put), passed(history, |open| !open.no_delete)],
            revocations: revocations(history),
            ..Self::default()
        };
        let owners = owners(history, report);
        evidence.take_answers(history, report);
        let mut claims = Claims { history, owners, revisions: HashMap::new() };
        for (line, kv) in sightings(history) {
            evidence.see(&mut claims, line, kv, observations, report);
        }
        for (line, event) in events(history) {
            if event.delete && event.kv.modified > history.base_revision {
                let slot = evidence.slots.entry(event.kv.modified).or_default();
                if slot.writer.is_none() {
                    slot.deletes.entry(event.kv.key.clone()).or_insert(line);
                }
            }
        }
        evidence.unseen = (0..history.operations.len())
            .filter(|index| {
                let operation = &history.operations[*index];
                operation.is_unknown() && operation.request.may_write() && !claims.revisions.contains_key(index)
            })
            .collect();
        report.figure("of unknown outcome and seen", claims.revisions.len().to_string());
        evidence
    }

    fn take_answers(&mut self, history: &History, report: &mut Report) {
        for (index, operation) in history.operations.iter().enumerate() {
            let Outcome::Done { header, .. } = &operation.outcome else { continue };
            if !operation.request.is_kv() {
                continue;
            }
            if !operation.has_written() {
                let revision = match &operation.request {
                    Request::Range(range) if range.revision > 0 => range.revision,
                    _ => header.revision,
                };
                self.slots.entry(revision).or_default().readers.push(index);
                continue;
            }
            let slot = self.slots.entry(header.revision).or_default();
            match slot.writer {
                None => slot.writer = Some(index),
                Some(first) => {
                    let text = format!("two writes are acknowledged at revision {}", header.revision);
                    report.violate(Kind::RevisionReused, &[history.operations[first].line, operation.line], text);
                }
            }
        }
    }

    /// Takes in that somebody saw `kv`.
    fn see(
        &mut self,
        claims: &mut Claims<'_>,
        line: u32,
        kv: &KeyValue,
        observations: &Observations,
        report: &mut Report,
    ) {
        let revision = kv.modified;
        // Keys without values, as keys-only reads show them, say nothing of who wrote them.
        if revision <= claims.history.base_revision || kv.value.is_empty() {
            return;
        }
        let slot = self.slots.entry(revision).or_default();
        let known = slot.puts.get(&kv.key).is_some_and(|(known, _)| known == kv);
        if !known {
            slot.puts.entry(kv.key.clone()).or_insert_with(|| (kv.clone(), line));
        }
        if known || slot.writer.is_some() {
            return;
        }
        match claims.claim(line, kv, report) {
            Some(owner) if slot.claimed.is_none_or(|claimed| claimed == owner) => {
                slot.claimed = Some(owner);
                let operation = &claims.history.operations[owner];
                if let Some(seen) = observations.first_of(revision).filter(|seen| seen.at < operation.call) {
                    let text = format!("revision {revision} was seen before what was written at it was asked for");
                    report.violate(Kind::Unexplained, &[operation.line, seen.line], text);
                }
            }
            Some(owner) => {
                let first = slot.claimed.unwrap_or(owner);
                let lines = [claims.history.operations[first].line, claims.history.operations[owner].line, line];
                report.violate(
                    Kind::RevisionReused,
                    &lines,
                    format!("two requests have written at revision {revision}"),
                );
            }
            None => {}
        }
    }

    /// Watches over all keys have passed `revision`, and would have shown any event.
    pub fn is_passed(&self, revision: i64) -> bool {
        self.passed.iter().all(|spans| {
            let count = spans.partition_point(|(from, _)| *from <= revision);
            count.checked_sub(1).is_some_and(|last| spans[last].1 >= revision)
        })
    }
}

/// At which revision each request of unknown outcome has written.
struct Claims<'h> {
    history: &'h History,
    owners: Owners<'h>,
    revisions: HashMap<usize, i64>,
}

impl Claims<'_> {
    /// The request of unknown outcome that has written `kv`; None, and a violation, if there is none that may have.
    fn claim(&mut self, line: u32, kv: &KeyValue, report: &mut Report) -> Option<usize> {
        let Some(owner) = self.owners.get(&*kv.value).copied() else {
            let text = format!("nobody has ever asked to write the value {:?} of {}", kv.value, kv.key);
            report.violate(Kind::Unexplained, &[line], text);
            return None;
        };
        let operation = &self.history.operations[owner];
        let elsewhere = match &operation.outcome {
            Outcome::Done { header, .. } => format!("is acknowledged at {}", header.revision),
            Outcome::Refused(failure) => format!("was refused with {:?}", failure.text),
            Outcome::Unknown(_) => match self.revisions.insert(owner, kv.modified) {
                Some(other) if other != kv.modified => format!("is also at {other}"),
                _ => return Some(owner),
            },
        };
        let text = format!("{} of {} shows at revision {} and {elsewhere}", kv.value, kv.key, kv.modified);
        report.violate(Kind::AppliedTwice, &[operation.line, line], text);
        None
    }
}

fn revocations(history: &History) -> BTreeMap<i64, Vec<(i64, u32)>> {
    let mut revocations: BTreeMap<i64, Vec<(i64, u32)>> = BTreeMap::new();
    for operation in &history.operations {
        if let (Request::Revoke(request), Some(header)) = (&operation.request, operation.header()) {
            revocations.entry(header.revision).or_default().push((request.lease, operation.line));
        }
    }
    revocations
}

fn owners<'h>(history: &'h History, report: &mut Report) -> Owners<'h> {
    let mut owners = Owners::new();
    for (index, operation) in history.operations.iter().enumerate() {
        operation.request.puts(&mut |put| {
            if let Some(first) = owners.insert(&put.value, index) {
                let text = format!("the value {:?} is written twice, which makes the history useless", put.value);
                report.violate(Kind::Malformed, &[history.operations[first].line, operation.line], text);
            }
        });
    }
    owners
}

/// Every key with its value that an answer or an event shows.
fn sightings(history: &History) -> Vec<(u32, &KeyValue)> {
    let mut all = Vec::new();
    for operation in &history.operations {
        if let Some(response) = operation.response() {
            response.key_values(&mut |kv| all.push((operation.line, kv)));
        }
    }
    for (line, event) in events(history) {
        all.extend((!event.delete).then_some((line, &event.kv)));
        all.extend(event.prev_kv.iter().map(|kv| (line, kv)));
    }
    all
}

fn events(history: &History) -> impl Iterator<Item = (u32, &Event)> {
    history
        .watches
        .iter()
        .flat_map(|watch| &watch.responses)
        .flat_map(|response| response.events.iter().map(|event| (response.line, event)))
}

/// Unions of the revisions that watches over all keys have been through.
fn passed(history: &History, wanted: impl Fn(&WatchOpen) -> bool) -> Spans {
    let prefix = &history.start.prefix;
    let whole = history.watches.iter().filter(|watch| {
        let open = &watch.open;
        *open.key <= **prefix && wanted(open) && reaches_beyond(&open.end, prefix)
    });
    let mut spans: Vec<(i64, i64)> = whole
        .filter_map(|watch| {
            let last = watch.responses.iter().filter(|response| !response.canceled && !response.fragment);
            let to = last
                .map(|response| match response.events.last() {
                    Some(event) => event.kv.modified,
                    None if response.created => 0,
                    None => response.header_revision,
                })
                .max()?;
            let from =
                if watch.open.start > 0 { watch.open.start } else { watch.responses.first()?.header_revision + 1 };
            (from <= to).then_some((from, to))
        })
        .collect();
    spans.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 + 1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// The end of a range takes in every key that begins with `prefix`.
fn reaches_beyond(end: &str, prefix: &str) -> bool {
    end == "\0" || (!end.is_empty() && end > prefix && !end.starts_with(prefix))
}
