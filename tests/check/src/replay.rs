//! The history in the order of its revisions, on the model.
//!
//! At most revisions the evidence says who wrote. Where only deletions were seen, a lease or a delete of unknown outcome explains
//! them. Where nothing was seen, each explanation is tried, and taken back when a later answer contradicts it: within a bound.
//! Invariant: `steps` rises by revision, and holds what happened at each revision below `end`.

mod answer;
mod explain;
mod matching;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

pub(crate) use answer::show;

use crate::Options;
use crate::evidence::Evidence;
use crate::evidence::Slot;
use crate::history::History;
use crate::history::KeyValue;
use crate::history::Request;
use crate::history::Response;
use crate::history::Text;
use crate::model::Change;
use crate::model::State;
use crate::observations::Observations;
use crate::report::Kind;
use crate::report::Report;
use crate::report::Violation;

/// So many revisions are played anew by the search before it gives up.
const REPLAYED_MAX: usize = 3_000_000;
/// After so many violations in a row the model has nothing to do with the store any more.
const VIOLATIONS_MAX: usize = 200;

/// What happened at one revision.
#[derive(Debug, Clone)]
pub struct Step {
    pub revision: i64,
    pub changes: Vec<Change>,
    pub cause: Cause,
    /// False where it is a guess that nothing contradicts.
    pub certain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Index into `History::operations`.
    Operation(usize),
    /// The keys of this lease went, and deletes of unknown outcome that would also explain it.
    Lease(i64, Vec<usize>),
    /// Deletions that only one of these requests explains.
    OneOf(Vec<usize>),
    /// Somebody else's write.
    Foreign,
    /// Nobody's.
    Nothing,
}

/// The store's whole life, as far as it could be replayed.
#[derive(Debug)]
pub struct Replay {
    pub steps: Vec<Step>,
    /// The first revision of which nothing can be said any more.
    pub end: i64,
}

/// A revision at which the search has other explanations left.
struct Choice {
    revision: i64,
    state: State,
    steps: usize,
    taken: BTreeSet<usize>,
    options: Vec<Explanation>,
}

/// One way in which a revision of which nothing was seen may have come about.
#[derive(Debug, Clone)]
struct Explanation {
    changes: Vec<Change>,
    cause: Cause,
}

struct Player<'a> {
    history: &'a History,
    evidence: &'a Evidence,
    observations: &'a Observations,
    options: &'a Options,
    state: State,
    steps: Vec<Step>,
    /// Requests of unknown outcome that the search has placed.
    taken: BTreeSet<usize>,
    choices: Vec<Choice>,
    /// Leases that were revoked, with the revision and the line that said so.
    revoked: BTreeMap<i64, (i64, u32)>,
    /// Where the history contradicts the model; while there are choices, a reason to take one back.
    found: Vec<Violation>,
    /// The contradiction furthest on, for when no choice is right.
    furthest: (i64, Vec<Violation>),
    holes: usize,
    tries: usize,
    replayed: usize,
}

// === impl Replay ===

impl Replay {
    pub fn run(
        history: &History,
        evidence: &Evidence,
        observations: &Observations,
        options: &Options,
        report: &mut Report,
    ) -> Self {
        let mut player = Player {
            history,
            evidence,
            observations,
            options,
            state: State::new(&history.base),
            steps: Vec::new(),
            taken: BTreeSet::new(),
            choices: Vec::new(),
            revoked: BTreeMap::new(),
            found: Vec::new(),
            furthest: (0, Vec::new()),
            holes: 0,
            tries: 0,
            replayed: 0,
        };
        let end = player.play(report);
        report.figure("revisions", format!("{} from {}", player.steps.len(), history.base_revision));
        report
            .figure("search", format!("{} revisions of which nothing was seen, {} tries", player.holes, player.tries));
        for violation in player.found {
            report.violate(violation.kind, &violation.lines, violation.text);
        }
        matching::judge(history, &player.steps, report);
        Self { steps: player.steps, end }
    }

    /// Steps from `revision` on.
    pub fn from(&self, revision: i64) -> &[Step] {
        &self.steps[self.steps.partition_point(|step| step.revision < revision)..]
    }
}

// === impl Player ===

impl Player<'_> {
    /// Returns the first revision that was not played.
    fn play(&mut self, report: &mut Report) -> i64 {
        let base = self.history.base_revision;
        self.read_at(base);
        let last = self.evidence.slots.last_key_value().map_or(base, |(revision, _)| *revision);
        if last - base > 2 * self.history.operations.len() as i64 + 1000 && !self.options.foreign_writes {
            let text = format!("{} revisions are more than the requests can have made", last - base);
            report.violate(Kind::Unexplained, &[], text);
            return base + 1;
        }
        let mut revision = base + 1;
        while revision <= last {
            let before = self.found.len();
            self.step(revision, report);
            self.replayed += usize::from(self.tries > 0);
            if self.found.len() > before && !self.choices.is_empty() {
                let contradiction = self.found.split_off(before);
                if self.furthest.0 < revision {
                    self.furthest = (revision, contradiction);
                }
                match self.take_back() {
                    Some(other) => revision = other,
                    None => return self.give_up(report),
                }
            }
            if self.found.len() > VIOLATIONS_MAX {
                return revision;
            }
            revision += 1;
        }
        revision
    }

    /// Returns to the last choice that has another option and takes that one. None: there is no other, or no time.
    fn take_back(&mut self) -> Option<i64> {
        let found = self.found.len();
        while let Some(mut choice) = self.choices.pop() {
            while let Some(option) = choice.options.pop() {
                self.tries += 1;
                if self.replayed > REPLAYED_MAX {
                    return None;
                }
                self.state = choice.state.clone();
                self.taken = choice.taken.clone();
                self.steps.truncate(choice.steps);
                self.take(choice.revision, option);
                self.revoked_leases_have_no_keys(choice.revision);
                self.read_at(choice.revision);
                if self.found.len() == found {
                    let revision = choice.revision;
                    self.choices.push(choice);
                    return Some(revision);
                }
                self.found.truncate(found);
            }
        }
        None
    }

    fn give_up(&mut self, report: &mut Report) -> i64 {
        let (revision, contradiction) = std::mem::take(&mut self.furthest);
        if self.replayed > REPLAYED_MAX {
            let first = contradiction.first().map_or("", |violation| &violation.text);
            report.undecided.push(format!(
                "the search for what happened at {} unseen revisions was stopped; the contradiction furthest on, at {revision}: {first}",
                self.holes
            ));
        } else {
            self.found.extend(contradiction);
        }
        self.steps.last().map_or(revision, |step| step.revision + 1)
    }

    /// One revision: what was written, and what was read.
    fn step(&mut self, revision: i64, report: &mut Report) {
        let evidence = self.evidence;
        let empty = Slot::default();
        let slot = evidence.slots.get(&revision).unwrap_or(&empty);
        if let Some(writer) = slot.writer {
            self.write(revision, writer);
        } else if let Some(claimed) = slot.claimed {
            self.write_claimed(revision, claimed, slot);
        } else if !slot.puts.is_empty() {
            self.write_nobodys(revision, slot);
        } else if !slot.deletes.is_empty() {
            self.explain_deletes(revision, &slot.deletes);
        } else {
            self.explain_nothing(revision, report);
        }
        // What is seen of a write that is known to be one is a watch's own matter, unless it may show that a choice was wrong.
        if !self.choices.is_empty() && (slot.writer.is_some() || slot.claimed.is_some()) {
            self.shown_as_written(revision, slot);
        }
        self.revoked_leases_have_no_keys(revision);
        self.read_at(revision);
    }

    fn shown_as_written(&mut self, revision: i64, slot: &Slot) {
        let written = self.steps.last().map(|step| &step.changes);
        let is_written = |kv: &KeyValue| written.is_some_and(|all| all.iter().any(|c| c.now.as_ref() == Some(kv)));
        if let Some((kv, line)) = slot.puts.values().find(|(kv, _)| !is_written(kv)) {
            let text = format!("revision {revision} shows {}, which was not written there", show(kv));
            self.violate(Kind::WrongAnswer, &[*line], text);
        }
    }

    fn write(&mut self, revision: i64, writer: usize) {
        let operation = &self.history.operations[writer];
        let mut changes = Vec::new();
        let expected = self.state.apply(&operation.request, revision, &mut changes);
        if let (Some(expected), Some(actual)) = (expected, operation.response())
            && let Some(difference) = answer::difference(&expected, actual)
        {
            let text = format!("the answer of the write at revision {revision}: {}", difference.text);
            self.violate(difference.kind, &[operation.line], text);
        }
        self.push(revision, changes, Cause::Operation(writer), true);
    }

    /// A request of unknown outcome, one of whose values was seen at this revision: it has all of its effects or none.
    fn write_claimed(&mut self, revision: i64, writer: usize, slot: &Slot) {
        let operation = &self.history.operations[writer];
        let mut changes = Vec::new();
        self.state.apply(&operation.request, revision, &mut changes);
        let is_change = |kv: &KeyValue| changes.iter().any(|change| change.now.as_ref() == Some(kv));
        let missing = slot.puts.values().find(|(kv, _)| !is_change(kv)).cloned();
        let kept = slot.deletes.iter().find(|(key, _)| !changes.iter().any(|c| c.key == **key && c.now.is_none()));
        if let Some((kv, line)) = missing {
            let text =
                format!("revision {revision} shows {kv:?}, which the request cannot have written as a whole there");
            self.violate(Kind::HalfApplied, &[operation.line, line], text);
        }
        if let Some((key, line)) = kept {
            let text = format!("revision {revision} deletes {key}, which the request does not do there");
            self.violate(Kind::HalfApplied, &[operation.line, *line], text);
        }
        self.push(revision, changes, Cause::Operation(writer), true);
    }

    /// What no request can have written is a violation already; the model takes it as it was seen.
    fn write_nobodys(&mut self, revision: i64, slot: &Slot) {
        let mut changes = Vec::new();
        for (kv, _) in slot.puts.values() {
            self.state.set(kv, &mut changes);
        }
        for key in slot.deletes.keys() {
            self.state.remove(key, &mut changes);
        }
        self.push(revision, changes, Cause::Nothing, true);
    }

    fn push(&mut self, revision: i64, changes: Vec<Change>, cause: Cause, certain: bool) {
        debug_assert!(self.steps.last().is_none_or(|last| last.revision < revision));
        self.steps.push(Step { revision, changes, cause, certain });
    }

    fn violate(&mut self, kind: Kind, lines: &[u32], text: String) {
        self.found.push(Violation { kind, text, lines: lines.to_vec() });
    }

    /// A revocation was acknowledged with some revision: nothing is attached to the lease then, and nothing will be.
    fn revoked_leases_have_no_keys(&mut self, revision: i64) {
        let evidence = self.evidence;
        for (lease, line) in evidence.revocations.get(&revision).into_iter().flatten() {
            self.revoked.entry(*lease).or_insert((revision, *line));
            if let Some(key) = self.state.leases().get(lease).and_then(|keys| keys.first()) {
                let text =
                    format!("{key} is still attached to lease {lease} at revision {revision}, after its revocation");
                self.violate(Kind::LeaseRevoked, &[*line], text);
            }
        }
        let changes = self.steps.last().map_or(&[][..], |step| &step.changes);
        let attached = changes.iter().find_map(|change| {
            let lease = change.now.as_ref()?.lease;
            let (since, line) = *self.revoked.get(&lease)?;
            (since < revision).then(|| (change.key.clone(), lease, line))
        });
        if let Some((key, lease, line)) = attached {
            let text = format!("{key} is attached to lease {lease} at revision {revision}, after its revocation");
            self.violate(Kind::LeaseRevoked, &[line], text);
        }
    }

    /// Holds every answer that shows this revision against the model.
    fn read_at(&mut self, revision: i64) {
        let Some(slot) = self.evidence.slots.get(&revision) else { return };
        for reader in &slot.readers {
            let operation = &self.history.operations[*reader];
            let Some(actual) = operation.response() else { continue };
            let mut changes = Vec::new();
            let expected = match &operation.request {
                Request::Range(range) => Some(Response::Range(self.state.range(range))),
                // Wrote nothing, but may have had to: asked of a copy.
                request => self.state.clone().apply(request, revision, &mut changes),
            };
            if let Some(difference) = expected.as_ref().and_then(|expected| answer::difference(expected, actual)) {
                let mut lines = vec![operation.line];
                lines.extend(self.line_of(difference.revision));
                let text = format!("the answer at revision {revision}: {}", difference.text);
                self.violate(difference.kind, &lines, text);
            }
        }
    }

    /// The line of the request that has written at a revision.
    fn line_of(&self, revision: i64) -> Option<u32> {
        let slot = self.evidence.slots.get(&revision)?;
        slot.writer.or(slot.claimed).map(|index| self.history.operations[index].line)
    }

    /// The keys of each lease, as far as they may go at `revision`.
    fn leases(&self) -> Vec<(i64, Vec<Text>)> {
        self.state.leases().into_iter().collect()
    }
}
