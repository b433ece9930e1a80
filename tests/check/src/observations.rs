//! What was known when: each answer and each watch response proves that its revision existed when it arrived.

use crate::history::History;
use crate::history::Outcome;
use crate::history::WatchResponse;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub at: i64,
    pub revision: i64,
    pub line: u32,
}

/// A staircase in which time and revision rise together.
#[derive(Debug)]
pub struct Observations(Vec<Observation>);

// === impl Observations ===

impl Observations {
    pub fn of(history: &History) -> Self {
        let mut all: Vec<Observation> = Vec::new();
        for operation in &history.operations {
            if let Outcome::Done { header, .. } = &operation.outcome {
                all.push(Observation { at: operation.returned, revision: header.revision, line: operation.line });
            }
        }
        for response in history.watches.iter().flat_map(|watch| &watch.responses) {
            let revision = revision_of(response);
            all.push(Observation { at: response.at, revision, line: response.line });
        }
        all.push(Observation { at: i64::MIN, revision: history.base_revision, line: 2 });
        all.sort_by_key(|observation| (observation.at, -observation.revision));
        let mut steps: Vec<Observation> = Vec::new();
        for observation in all {
            if steps.last().is_none_or(|last| last.revision < observation.revision) {
                steps.push(observation);
            }
        }
        Self(steps)
    }

    /// The highest revision seen before `time`.
    pub fn before(&self, time: i64) -> Option<Observation> {
        let count = self.0.partition_point(|observation| observation.at < time);
        count.checked_sub(1).map(|last| self.0[last])
    }

    /// The first sight of `revision` or of a later one.
    pub fn first_of(&self, revision: i64) -> Option<Observation> {
        let count = self.0.partition_point(|observation| observation.revision < revision);
        self.0.get(count).copied()
    }
}

/// The revision that a response of a watch proves.
fn revision_of(response: &WatchResponse) -> i64 {
    let last = response.events.last().map_or(0, |event| event.kv.modified);
    last.max(response.header_revision)
}
