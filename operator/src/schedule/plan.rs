//! What to do next about one schedule: from what was seen, exactly one step. Pure.
//!
//! Invariants, held by the tests on schedules that live through anything:
//! - no two backups are made for one time, however often the operator dies;
//! - nothing is made or deleted while the schedule is suspended;
//! - no backup is made for a time before the schedule was made; nor for one before it was changed, unless a run was waiting then; nor later
//!   than its starting deadline;
//! - repeated steps come to an end.

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use sha2::Digest as _;
use sha2::Sha256;

use super::retention;
use super::seen::Seen;
use crate::crd::schedule::ConcurrencyPolicy;

/// Backups that may be under way at a time, with `concurrencyPolicy: Allow`.
const ACTIVE_MAX: usize = 10;
/// Deletions of one step.
const DELETIONS_MAX: usize = 50;
/// Times that are let go in one step.
const SKIPPED_MAX: usize = 1000;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is to be done before then.
    Wait(Timestamp),
    /// Nothing will be done until somebody has decided.
    Refuse(String),
    /// Times are let go: they are told and not looked at again.
    Skip {
        from: Timestamp,
        times: usize,
        why: Why,
    },
    /// Deletes backups that have not ended, for the next one.
    Replace(Vec<String>),
    Create {
        name: String,
        at: Timestamp,
    },
    /// Deletes what need not be kept.
    Delete(Vec<String>),
}

/// Why times are let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A later one has come, too.
    Superseded,
    /// The one before had not ended by the starting deadline.
    Busy,
    /// Nobody was there by the starting deadline.
    Late,
}

/// A step, and the first time that is not done with after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub step: Step,
    pub next: Option<Timestamp>,
}

// === impl Step ===

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wait(until) => write!(f, "nothing is to be done before {until}"),
            Self::Refuse(why) => f.write_str(why),
            Self::Skip { from, times: 1, why } => write!(f, "no backup for {from}: {why}"),
            Self::Skip { from, times, why } => write!(f, "no backup for {times} times from {from} on: {why}"),
            Self::Replace(names) => write!(f, "deleting {}, which the next backup replaces", names.join(", ")),
            Self::Create { name, at } => write!(f, "making {name}, for {at}"),
            Self::Delete(names) => write!(f, "deleting {}, which need not be kept", names.join(", ")),
        }
    }
}

// === impl Why ===

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Superseded => "a later time has come, too",
            Self::Busy => "the backup before had not ended by the starting deadline",
            Self::Late => "the starting deadline has gone by",
        })
    }
}

/// The next step.
pub fn plan(seen: &Seen<'_>) -> Planned {
    let Some(next) = first_open(seen) else {
        return Planned { step: Step::Refuse("spec.schedule: no such time within five years".to_owned()), next: None };
    };
    let wanted = seen.wanted;
    if wanted.suspend {
        return Planned { step: Step::Wait(next), next: Some(next) };
    }
    let late = seen.now.duration_since(next) - wanted.offset;
    if late < SignedDuration::ZERO {
        return rest(seen, next, next);
    }
    let later = std::iter::successors(wanted.next(next), |at| wanted.next(*at));
    let later = later.take_while(|at| *at <= seen.now - wanted.offset).take(SKIPPED_MAX);
    if let Some((times, latest)) = (1..).zip(later).last() {
        return Planned { step: Step::Skip { from: next, times, why: Why::Superseded }, next: Some(latest) };
    }
    begin(seen, next, late)
}

/// A run whose time has come.
fn begin(seen: &Seen<'_>, at: Timestamp, late: SignedDuration) -> Planned {
    let wanted = seen.wanted;
    let active = || seen.backups.iter().filter(|backup| backup.is_active());
    let full = match wanted.concurrency {
        ConcurrencyPolicy::Forbid => active().count() > 0,
        ConcurrencyPolicy::Allow => active().count() >= ACTIVE_MAX,
        ConcurrencyPolicy::Replace => false,
    };
    if late > wanted.starting_deadline {
        let why = if full { Why::Busy } else { Why::Late };
        return Planned { step: Step::Skip { from: at, times: 1, why }, next: wanted.next(at) };
    }
    if full {
        return rest(seen, at, at + wanted.starting_deadline);
    }
    let replaced: Vec<String> = match wanted.concurrency {
        ConcurrencyPolicy::Replace => {
            active().filter(|backup| !backup.deleting).map(|backup| backup.name.clone()).collect()
        }
        ConcurrencyPolicy::Forbid | ConcurrencyPolicy::Allow => Vec::new(),
    };
    let name = backup_name(seen.name, at);
    let step = if replaced.is_empty() { Step::Create { name, at } } else { Step::Replace(replaced) };
    Planned { step, next: Some(at) }
}

/// What is to be done while no run can begin before `until` and the offset.
fn rest(seen: &Seen<'_>, next: Timestamp, until: Timestamp) -> Planned {
    let mut names = retention::given_up(seen.backups, &seen.wanted.limits, seen.now);
    names.truncate(DELETIONS_MAX);
    let step = if names.is_empty() { Step::Wait(until + seen.wanted.offset) } else { Step::Delete(names) };
    Planned { step, next: Some(next) }
}

/// The first time that is not done with. One that is recorded counts only if the schedule still has it: what was asked for later is not
/// done for times before. Its backup may have been made since.
fn first_open(seen: &Seen<'_>) -> Option<Timestamp> {
    let wanted = seen.wanted;
    let recorded = seen.recorded.or_else(|| wanted.next(seen.fresh_since?));
    let recorded = recorded.filter(|at| *at <= seen.now && !wanted.suspend && wanted.has(*at));
    let open = recorded.or_else(|| wanted.next(seen.now))?;
    let name = backup_name(seen.name, open);
    if seen.backups.iter().any(|backup| backup.name == name) { wanted.next(open) } else { Some(open) }
}

/// The same for each time, so that there is one backup for it whoever makes it.
pub fn backup_name(schedule: &str, at: Timestamp) -> String {
    format!("{schedule}-{}", at.as_second().div_euclid(60))
}

/// How much later than its time a run of this schedule begins: the same at each time, on each operator.
pub fn offset(namespace: &str, name: &str, jitter_s: u64) -> SignedDuration {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    let number = digest.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let seconds = number.checked_rem(jitter_s).unwrap_or(0);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;
