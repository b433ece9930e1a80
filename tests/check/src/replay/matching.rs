//! Each request writes once: deletions that only requests of unknown outcome explain need as many of them as there are revisions.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Cause;
use super::Step;
use crate::history::History;
use crate::report::Kind;
use crate::report::Report;

pub fn judge(history: &History, steps: &[Step], report: &mut Report) {
    let mut owners: BTreeMap<usize, usize> = BTreeMap::new();
    let candidates: Vec<(&Step, &Vec<usize>)> = steps
        .iter()
        .filter_map(|step| match &step.cause {
            Cause::OneOf(operations) => Some((step, operations)),
            _ => None,
        })
        .collect();
    for index in 0..candidates.len() {
        if !place(index, &candidates, &mut owners, &mut BTreeSet::new()) {
            let (step, operations) = candidates[index];
            let lines: Vec<u32> = operations.iter().take(5).map(|index| history.operations[*index].line).collect();
            let text = format!("the deletions at revision {} need a request that is needed elsewhere", step.revision);
            report.violate(Kind::AppliedTwice, &lines, text);
        }
    }
}

/// Finds a request for a revision, moving others if need be.
fn place(
    index: usize,
    candidates: &[(&Step, &Vec<usize>)],
    owners: &mut BTreeMap<usize, usize>,
    tried: &mut BTreeSet<usize>,
) -> bool {
    for operation in candidates[index].1 {
        if !tried.insert(*operation) {
            continue;
        }
        let free = match owners.get(operation) {
            None => true,
            Some(other) => place(*other, candidates, owners, tried),
        };
        if free {
            owners.insert(*operation, index);
            return true;
        }
    }
    false
}
