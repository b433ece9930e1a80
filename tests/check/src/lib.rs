//! Judges what clients of a cluster asked and were told, and nothing else: it knows no server.
//!
//! The store's revision puts all successful writes in one order. The history is replayed in that order on a model, each answer and
//! each event of a watch is compared with the model at its revision, and revisions are held against real time. Only where no
//! answer and no event says what happened at a revision does the replay search.
//!
//! Invariant: a right history is never called wrong, whatever faults there were; where that leaves a doubt, the doubt is the server's.
#![forbid(unsafe_code)]

mod availability;
mod compaction;
mod ending;
mod evidence;
pub mod faults;
pub mod history;
mod lease;
mod model;
mod observations;
mod order;
mod replay;
pub mod report;
mod watch;

use crate::evidence::Evidence;
use crate::faults::Window;
use crate::history::History;
use crate::observations::Observations;
use crate::replay::Replay;
use crate::report::Report;

/// What a history is held against, besides itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Others write to the store too, to keys with another prefix: revisions of which nobody saw an event are theirs.
    pub foreign_writes: bool,
    /// How long after its TTL a lease's keys may still be there, outside of `faults`. Without it, late expiry is not judged.
    pub lease_slack_s: Option<u64>,
    /// When something was wrong with the cluster, in time of the history.
    pub faults: Vec<Window>,
    /// Moments from which on nothing was wrong, in time of the history.
    pub heals: Vec<i64>,
    /// How long after each of `heals` a write may take to succeed.
    pub serving_within_s: Option<f64>,
    /// The same for a write through each endpoint that the history expects to answer at the end.
    pub members_serving_within_s: Option<f64>,
}

/// Judges one history. Takes time and memory in proportion to it, but for the search, which has a bound.
pub fn judge(history: &History, options: &Options) -> Report {
    let mut report = Report::new(history);
    let observations = Observations::of(history);
    order::judge(history, &observations, &mut report);
    compaction::judge(history, &mut report);
    let evidence = Evidence::gather(history, &observations, &mut report);
    let replay = Replay::run(history, &evidence, &observations, options, &mut report);
    watch::judge(history, &replay, &mut report);
    lease::judge(history, &replay, &observations, options, &mut report);
    ending::judge(history, &mut report);
    availability::judge(history, options, &mut report);
    report
}
