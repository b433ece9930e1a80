//! What was found: violations with the lines that prove them, and figures of the run.

use std::fmt;

use crate::history::History;

/// Of one kind so many are kept; the rest is counted.
const KEPT_MAX: usize = 10;

/// What a promise that was broken is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A linearizable read or write that does not see what was known before it was sent.
    Stale,
    /// An acknowledged write that a later answer lacks.
    LostWrite,
    /// A write with effects at two revisions, or one that was refused and has an effect.
    AppliedTwice,
    /// Two writes with one revision.
    RevisionReused,
    /// A revision that nobody's request explains.
    Unexplained,
    /// A transaction of which only a part, or the wrong branch, shows.
    HalfApplied,
    /// An answer that differs from the model in any other way.
    WrongAnswer,
    /// A member whose revision went back while it ran.
    WentBack,
    /// Answers of two clusters.
    TwoClusters,
    Compaction,
    WatchDropped,
    WatchDoubled,
    WatchReordered,
    /// A revision in two responses.
    WatchSplit,
    WatchFalseProgress,
    WatchWrongEvent,
    WatchWrongPrev,
    WatchWrongCancel,
    /// A watch that has not come to the end of the history.
    WatchBehind,
    LeaseEarly,
    LeaseLate,
    /// Keys of a lease whose revocation was acknowledged.
    LeaseRevoked,
    HashesDiffer,
    MembersDiffer,
    NoAnswer,
    NotServing,
    /// The history itself breaks its own rules: values written by two requests.
    Malformed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
    /// Lines of the history that prove it.
    pub lines: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// Violations beyond those kept.
    pub more: usize,
    /// Why a part could not be judged.
    pub undecided: Vec<String>,
    /// Figures worth reading, in order.
    pub figures: Vec<(&'static str, String)>,
    endpoints: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
    Undecided,
}

// === impl Kind ===

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::LostWrite => "lost-write",
            Self::AppliedTwice => "applied-twice",
            Self::RevisionReused => "revision-reused",
            Self::Unexplained => "unexplained",
            Self::HalfApplied => "half-applied",
            Self::WrongAnswer => "wrong-answer",
            Self::WentBack => "went-back",
            Self::TwoClusters => "two-clusters",
            Self::Compaction => "compaction",
            Self::WatchDropped => "watch-dropped",
            Self::WatchDoubled => "watch-doubled",
            Self::WatchReordered => "watch-reordered",
            Self::WatchSplit => "watch-split",
            Self::WatchFalseProgress => "watch-false-progress",
            Self::WatchWrongEvent => "watch-wrong-event",
            Self::WatchWrongPrev => "watch-wrong-prev",
            Self::WatchWrongCancel => "watch-wrong-cancel",
            Self::WatchBehind => "watch-behind",
            Self::LeaseEarly => "lease-early",
            Self::LeaseLate => "lease-late",
            Self::LeaseRevoked => "lease-revoked",
            Self::HashesDiffer => "hashes-differ",
            Self::MembersDiffer => "members-differ",
            Self::NoAnswer => "no-answer",
            Self::NotServing => "not-serving",
            Self::Malformed => "malformed",
        }
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(history: &History) -> Self {
        let mut report = Self { endpoints: history.start.endpoints.clone(), ..Self::default() };
        let unknown = history.operations.iter().filter(|operation| operation.is_unknown()).count();
        let events: usize =
            history.watches.iter().flat_map(|watch| &watch.responses).map(|response| response.events.len()).sum();
        report.figure("operations", format!("{} ({unknown} of unknown outcome)", history.operations.len()));
        report.figure("watches", format!("{} with {events} events", history.watches.len()));
        if history.cut_off {
            report.figure("end", "the recorder was killed: its last seconds are left out".to_owned());
        }
        report
    }

    pub(crate) fn violate(&mut self, kind: Kind, lines: &[u32], text: String) {
        if self.violations.iter().filter(|violation| violation.kind == kind).count() < KEPT_MAX {
            self.violations.push(Violation { kind, text, lines: lines.to_vec() });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn figure(&mut self, name: &'static str, value: String) {
        self.figures.push((name, value));
    }

    pub(crate) fn endpoint(&self, index: i32) -> &str {
        usize::try_from(index).ok().and_then(|index| self.endpoints.get(index)).map_or("any endpoint", String::as_str)
    }

    pub fn verdict(&self) -> Verdict {
        match (self.violations.is_empty(), self.undecided.is_empty()) {
            (false, _) => Verdict::Wrong,
            (true, false) => Verdict::Undecided,
            (true, true) => Verdict::Right,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is wrong first: a log that is cut short still has it.
        for violation in &self.violations {
            let lines: Vec<String> = violation.lines.iter().map(u32::to_string).collect();
            writeln!(f, "VIOLATION {}: {} [lines {}]", violation.kind.name(), violation.text, lines.join(", "))?;
        }
        if self.more > 0 {
            writeln!(f, "  and {} violations more of these kinds", self.more)?;
        }
        for why in &self.undecided {
            writeln!(f, "UNDECIDED {why}")?;
        }
        for (name, value) in &self.figures {
            writeln!(f, "  {name}: {value}")?;
        }
        Ok(())
    }
}
