//! What may have happened at a revision that nobody was told of.

use std::collections::BTreeMap;

use super::Cause;
use super::Choice;
use super::Explanation;
use super::Player;
use crate::history::Request;
use crate::history::Text;
use crate::history::in_range;
use crate::model::Change;
use crate::report::Kind;
use crate::report::Report;

impl Player<'_> {
    /// Only deletions were seen: all keys of a lease, or what a request of unknown outcome deletes.
    pub(super) fn explain_deletes(&mut self, revision: i64, deletes: &BTreeMap<Text, u32>) {
        let whole = self.evidence.is_passed(revision);
        // What no watch over all keys has passed may have had effects that nobody saw.
        let fits = |changes: &[Change]| {
            let is_deleted = |key: &Text| changes.iter().any(|change| change.key == *key && change.now.is_none());
            deletes.keys().all(is_deleted)
                && (!whole || changes.len() == deletes.len() && changes.iter().all(|change| change.now.is_none()))
        };
        let leases = self.leases().into_iter().map(|(lease, keys)| (lease, self.without(&keys)));
        let leases: Vec<(i64, Vec<Change>)> = leases.filter(|(_, changes)| fits(changes)).collect();
        let first_key = deletes.keys().next().cloned().unwrap_or_default();
        let mut requests = self.requests(revision, |request| deletes_key(request, &first_key));
        requests.retain(|request| fits(&request.changes));
        let operations: Vec<usize> = requests.iter().filter_map(|request| request.cause.operation()).collect();
        let by_lease = |(lease, changes)| Explanation { changes, cause: Cause::Lease(lease, operations.clone()) };
        let leases: Vec<Explanation> = leases.into_iter().map(by_lease).collect();
        let explained = !leases.is_empty() || !requests.is_empty();
        if explained && !whole {
            requests.extend(leases);
            return self.choose(revision, requests);
        }
        let one_of = |request: Explanation| Explanation { cause: Cause::OneOf(operations.clone()), ..request };
        // All of them have the same effect.
        let Some(found) = leases.into_iter().chain(requests.into_iter().map(one_of)).next() else {
            return self.nobody_deleted(revision, deletes);
        };
        self.make(&found.changes);
        self.push(revision, found.changes, found.cause, true);
    }

    fn nobody_deleted(&mut self, revision: i64, deletes: &BTreeMap<Text, u32>) {
        let keys: Vec<Text> = deletes.keys().cloned().collect();
        let lines: Vec<u32> = deletes.values().take(1).copied().collect();
        let text = format!("{} went at revision {revision}, by no request and no lease", keys.join(", "));
        self.violate(Kind::Unexplained, &lines, text);
        let changes = self.without(&keys);
        self.make(&changes);
        self.push(revision, changes, Cause::Nothing, true);
    }

    /// Nothing was seen: a guess, which later answers may contradict.
    pub(super) fn explain_nothing(&mut self, revision: i64, report: &mut Report) {
        let passed = self.evidence.is_passed(revision);
        let mut options = Vec::new();
        if !passed {
            self.holes += 1;
            let leases = self.leases().into_iter();
            options.extend(leases.map(|(lease, keys)| Explanation {
                changes: self.without(&keys),
                cause: Cause::Lease(lease, Vec::new()),
            }));
            options.extend(self.requests(revision, |_| true));
        }
        if self.options.foreign_writes {
            options.push(Explanation { changes: Vec::new(), cause: Cause::Foreign });
        }
        if options.is_empty() {
            let seen = self.observations.first_of(revision).map(|seen| seen.line);
            let what =
                if passed { "a watch over all keys has passed it without an event" } else { "no request explains it" };
            let text = format!("revision {revision} is in use, but nobody has written it: {what}");
            // No other choice of what happened before would change that, if a watch has passed it.
            if passed {
                report.violate(Kind::Unexplained, seen.as_slice(), text);
            } else {
                self.violate(Kind::Unexplained, seen.as_slice(), text);
            }
            return self.push(revision, Vec::new(), Cause::Nothing, false);
        }
        self.choose(revision, options);
    }

    /// Takes the last option, and keeps the others for when something contradicts it.
    fn choose(&mut self, revision: i64, mut options: Vec<Explanation>) {
        let Some(last) = options.pop() else { return };
        if !options.is_empty() {
            let (state, taken) = (self.state.clone(), self.taken.clone());
            self.choices.push(Choice { revision, state, steps: self.steps.len(), taken, options });
        }
        self.take(revision, last);
    }

    /// Goes on as if this were what happened.
    pub(super) fn take(&mut self, revision: i64, explanation: Explanation) {
        self.make(&explanation.changes);
        self.taken.extend(explanation.cause.operation());
        self.push(revision, explanation.changes, explanation.cause, false);
    }

    fn make(&mut self, changes: &[Change]) {
        for change in changes {
            match &change.now {
                Some(kv) => self.state.set(kv, &mut Vec::new()),
                None => drop(self.state.remove(&change.key, &mut Vec::new())),
            }
        }
    }

    /// The deletions of these keys.
    fn without(&self, keys: &[Text]) -> Vec<Change> {
        let change = |key: &Text| Change { key: key.clone(), now: None, prev: self.state.get(key).cloned() };
        keys.iter().map(change).collect()
    }

    /// Requests of unknown outcome that would write something at `revision`.
    fn requests(&self, revision: i64, wanted: impl Fn(&Request) -> bool) -> Vec<Explanation> {
        let seen_at = self.observations.first_of(revision).map_or(i64::MAX, |seen| seen.at);
        let mut found = Vec::new();
        for index in &self.evidence.unseen {
            let operation = &self.history.operations[*index];
            if operation.call > seen_at || self.taken.contains(index) || !wanted(&operation.request) {
                continue;
            }
            let mut changes = Vec::new();
            self.state.clone().apply(&operation.request, revision, &mut changes);
            if !changes.is_empty() {
                found.push(Explanation { changes, cause: Cause::Operation(*index) });
            }
        }
        found
    }
}

impl Cause {
    fn operation(&self) -> Option<usize> {
        match self {
            Self::Operation(index) => Some(*index),
            Self::Lease(..) | Self::OneOf(_) | Self::Foreign | Self::Nothing => None,
        }
    }
}

/// It may delete `key`, in some branch.
fn deletes_key(request: &Request, key: &str) -> bool {
    match request {
        Request::Delete(delete) => in_range(key, &delete.key, &delete.end),
        Request::Txn(txn) => txn.then.iter().chain(&txn.otherwise).any(|op| deletes_key(op, key)),
        _ => false,
    }
}
