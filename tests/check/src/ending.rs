//! The end: every member answers, and all of them hold the same.

use crate::history::Ending;
use crate::history::History;
use crate::report::Kind;
use crate::report::Report;

pub fn judge(history: &History, report: &mut Report) {
    let Some(ending) = &history.ending else { return };
    for (endpoint, line, failure) in &ending.failures {
        let text = format!("{} does not answer at the end: {}", report.endpoint(*endpoint), failure.text);
        report.violate(Kind::NoAnswer, &[*line], text);
    }
    for endpoint in &ending.left {
        let told = ending.hashes.iter().any(|(other, ..)| other == endpoint)
            && ending.members.iter().any(|(other, ..)| other == endpoint)
            && ending.statuses.iter().any(|(other, ..)| other == endpoint);
        if !told && !ending.failures.iter().any(|(other, ..)| other == endpoint) && !history.cut_off {
            let text = format!("{} has not told everything at the end", report.endpoint(*endpoint));
            report.violate(Kind::NoAnswer, &[ending.line], text);
        }
    }
    same_hashes(ending, report);
    same_members(ending, report);
}

fn same_hashes(ending: &Ending, report: &mut Report) {
    let Some((first, first_line, expected)) = ending.hashes.first() else { return };
    for (endpoint, line, hash) in &ending.hashes[1..] {
        if hash != expected {
            let text = format!(
                "{} holds {hash:?}, {} holds {expected:?}",
                report.endpoint(*endpoint),
                report.endpoint(*first)
            );
            report.violate(Kind::HashesDiffer, &[*first_line, *line], text);
        }
    }
    let members = ending.hashes.len();
    report.figure(
        "hash at the end",
        format!("{:08x} at revision {} on {members} members", expected.hash, expected.revision),
    );
}

fn same_members(ending: &Ending, report: &mut Report) {
    if let Some((first, first_line, expected)) = ending.members.first() {
        for (endpoint, line, members) in &ending.members[1..] {
            if members != expected {
                let text = format!(
                    "{} lists {members:?}, {} lists {expected:?}",
                    report.endpoint(*endpoint),
                    report.endpoint(*first)
                );
                report.violate(Kind::MembersDiffer, &[*first_line, *line], text);
            }
        }
        for (endpoint, line, member, _) in &ending.statuses {
            if !expected.iter().any(|listed| listed.id == *member) {
                let text = format!("{} is member {member:x}, which nobody lists", report.endpoint(*endpoint));
                report.violate(Kind::MembersDiffer, &[*first_line, *line], text);
            }
        }
    }
    for (endpoint, line, _, status) in &ending.statuses {
        if status.leader == 0 {
            let text = format!("{} knows no leader at the end", report.endpoint(*endpoint));
            report.violate(Kind::NoAnswer, &[*line], text);
        }
    }
}
