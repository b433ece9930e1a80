//! Reads of the past: refused when compacted and only then, and never of the future.

use crate::history::History;
use crate::history::Outcome;
use crate::history::Request;
use crate::report::Kind;
use crate::report::Report;

struct Compaction {
    revision: i64,
    call: i64,
    /// When it was acknowledged.
    done: Option<i64>,
    line: u32,
}

pub fn judge(history: &History, report: &mut Report) {
    let compactions = compactions(history);
    report.figure("compactions", compactions.iter().filter(|compaction| compaction.done.is_some()).count().to_string());
    for operation in &history.operations {
        let Request::Range(range) = &operation.request else { continue };
        if range.revision <= 0 {
            continue;
        }
        match &operation.outcome {
            Outcome::Done { header, .. } => {
                let gone = compactions.iter().find(|compaction| {
                    compaction.revision > range.revision && compaction.done.is_some_and(|done| done < operation.call)
                });
                if let Some(compaction) = gone.filter(|_| !range.serializable) {
                    let text = format!(
                        "revision {} is read after the compaction up to {} was acknowledged",
                        range.revision, compaction.revision
                    );
                    report.violate(Kind::Compaction, &[operation.line, compaction.line], text);
                }
                if header.revision < range.revision {
                    let text =
                        format!("revision {} is read from a store of revision {}", range.revision, header.revision);
                    report.violate(Kind::WrongAnswer, &[operation.line], text);
                }
            }
            Outcome::Refused(failure) if failure.text.contains("has been compacted") => {
                let asked = |compaction: &&Compaction| {
                    compaction.revision > range.revision && compaction.call < operation.returned
                };
                // What was compacted before the history began is not in it.
                if range.revision > history.base_revision && !compactions.iter().any(|compaction| asked(&compaction)) {
                    let text = format!("revision {} is refused as compacted, which nobody asked for", range.revision);
                    report.violate(Kind::Compaction, &[operation.line], text);
                }
            }
            Outcome::Refused(_) | Outcome::Unknown(_) => {}
        }
    }
}

fn compactions(history: &History) -> Vec<Compaction> {
    let asked = history.operations.iter().filter_map(|operation| match &operation.request {
        Request::Compact(compact) => Some((operation, compact.revision)),
        _ => None,
    });
    asked
        .filter(|(operation, _)| !matches!(operation.outcome, Outcome::Refused(_)))
        .map(|(operation, revision)| Compaction {
            revision,
            call: operation.call,
            done: operation.header().map(|_| operation.returned),
            line: operation.line,
        })
        .collect()
}
