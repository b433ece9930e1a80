//! Real time: whoever is asked after something was known must know it too.

use std::collections::BTreeMap;

use crate::history::History;
use crate::history::Operation;
use crate::history::Outcome;
use crate::observations::Observations;
use crate::report::Kind;
use crate::report::Report;

/// Within this time a client notices that its member was killed; a member that came back may be behind what it had answered before.
const NOTICED_NS: i64 = 6_000_000_000;

pub fn judge(history: &History, observations: &Observations, report: &mut Report) {
    let mut clusters: BTreeMap<u64, u32> = BTreeMap::new();
    for operation in &history.operations {
        let Outcome::Done { header, .. } = &operation.outcome else { continue };
        clusters.entry(header.cluster).or_insert(operation.line);
        if operation.request.is_kv() && !operation.request.is_serializable() {
            see_what_was_known(operation, header.revision, observations, report);
        }
    }
    if clusters.len() > 1 {
        let lines: Vec<u32> = clusters.values().copied().collect();
        report.violate(Kind::TwoClusters, &lines, format!("answers of {} clusters", clusters.len()));
    }
    members_go_forward(history, report);
}

fn see_what_was_known(operation: &Operation, revision: i64, observations: &Observations, report: &mut Report) {
    let Some(known) = observations.before(operation.call) else { return };
    let lines = [operation.line, known.line];
    if operation.has_written() && revision <= known.revision {
        report.violate(
            Kind::Stale,
            &lines,
            format!(
                "a write is acknowledged at revision {revision}, but {} was known before it was sent",
                known.revision
            ),
        );
    } else if revision < known.revision {
        report.violate(
            Kind::Stale,
            &lines,
            format!(
                "a linearizable answer of revision {revision}, but {} was known before the request",
                known.revision
            ),
        );
    }
}

/// A member's answers never go back while it runs. A restart may set it back, and breaks every connection.
fn members_go_forward(history: &History, report: &mut Report) {
    let mut breaks: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| operation.header().is_none()) {
        breaks.entry(operation.endpoint).or_default().push(operation.returned);
    }
    for watch in history.watches.iter().filter(|watch| watch.ended_by_error) {
        breaks.entry(watch.endpoint).or_default().extend(watch.ended.map(|(at, _)| at));
    }
    breaks.values_mut().for_each(|times| times.sort_unstable());

    let answers = history.operations.iter().filter(|operation| operation.endpoint >= 0 && operation.request.is_kv());
    let mut by_member: BTreeMap<(i32, u64), Vec<(&Operation, i64)>> = BTreeMap::new();
    for operation in answers {
        if let Some(header) = operation.header() {
            by_member.entry((operation.endpoint, header.member)).or_default().push((operation, header.revision));
        }
    }
    for ((endpoint, _), mut answers) in by_member {
        answers.sort_by_key(|(operation, _)| operation.call);
        let mut by_return = answers.clone();
        by_return.sort_by_key(|(operation, _)| operation.returned);
        let mut returned = by_return.into_iter().peekable();
        let mut highest: Option<(&Operation, i64)> = None;
        for (operation, revision) in answers {
            while let Some(earlier) = returned.next_if(|(earlier, _)| earlier.returned < operation.call) {
                if highest.is_none_or(|highest| highest.1 < earlier.1) {
                    highest = Some(earlier);
                }
            }
            let Some((earlier, seen)) = highest.filter(|(_, seen)| *seen > revision) else { continue };
            if broken_between(breaks.get(&endpoint), earlier.call, operation.returned) {
                // From here on the member is another one.
                highest = None;
                continue;
            }
            report.violate(
                Kind::WentBack,
                &[operation.line, earlier.line],
                format!("{} answers with revision {revision} after {seen}", report.endpoint(endpoint)),
            );
        }
    }
}

fn broken_between(breaks: Option<&Vec<i64>>, begin: i64, end: i64) -> bool {
    let Some(breaks) = breaks else { return false };
    let first = breaks.partition_point(|at| *at < begin);
    breaks.get(first).is_some_and(|at| *at <= end.saturating_add(NOTICED_NS))
}
