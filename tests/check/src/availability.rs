//! How long the cluster did not serve: the longest time without a write that succeeds, and the time to the first one after a heal.

use crate::Options;
use crate::faults::Window;
use crate::history::History;
use crate::history::Operation;
use crate::report::Kind;
use crate::report::Report;

/// Of many faults, those with the longest gaps are reported.
const WINDOWS_SHOWN: usize = 5;

pub fn judge(history: &History, options: &Options, report: &mut Report) {
    let mut writes: Vec<&Operation> = history.operations.iter().filter(|operation| operation.has_written()).collect();
    writes.sort_by_key(|operation| operation.returned);
    longest_gaps(&gaps(history, &writes), &options.faults, report);
    let left: Vec<i32> = match &history.ending {
        Some(ending) => ending.left.clone(),
        None => (0..history.start.endpoints.len() as i32).collect(),
    };
    for heal in &options.heals {
        let any = first_after(&writes, *heal, |_| true);
        report.figure("serving after a heal", seconds_after(*heal, any));
        must_serve(*heal, any, options.serving_within_s, "the cluster", report);
        for endpoint in &left {
            let first = first_after(&writes, *heal, |operation| operation.endpoint == *endpoint);
            let name = report.endpoint(*endpoint).to_owned();
            report.figure("serving after a heal, by member", format!("{name} {}", seconds_after(*heal, first)));
            must_serve(*heal, first, options.members_serving_within_s, &name, report);
        }
    }
}

/// The first write to succeed that was asked for after `time`.
fn first_after<'a>(writes: &[&'a Operation], time: i64, wanted: impl Fn(&Operation) -> bool) -> Option<&'a Operation> {
    writes.iter().find(|operation| operation.call >= time && wanted(operation)).copied()
}

fn seconds_after(heal: i64, first: Option<&Operation>) -> String {
    first.map_or("never".to_owned(), |first| format!("{:.3} s", (first.returned - heal) as f64 / 1e9))
}

fn must_serve(heal: i64, first: Option<&Operation>, within_s: Option<f64>, who: &str, report: &mut Report) {
    let Some(within_s) = within_s else { return };
    let took_s = first.map(|first| (first.returned - heal) as f64 / 1e9);
    if took_s.is_none_or(|took_s| took_s > within_s) {
        let took = took_s.map_or("never".to_owned(), |took_s| format!("after {took_s:.3} s"));
        let text =
            format!("{who} serves a write {took}, not within {within_s} s of the heal at {:.3} s", heal as f64 / 1e9);
        let lines: Vec<u32> = first.map(|first| first.line).into_iter().collect();
        report.violate(Kind::NotServing, &lines, text);
    }
}

/// Times between writes that succeed, from the first request to the end.
fn gaps(history: &History, writes: &[&Operation]) -> Vec<Window> {
    let end = history.operations.iter().map(|operation| operation.returned).max().unwrap_or_default();
    let end = history.ending.as_ref().map_or(end, |ending| ending.at);
    let mut last = history.operations.iter().map(|operation| operation.call).min().unwrap_or_default();
    let mut gaps = Vec::new();
    for time in writes.iter().map(|operation| operation.returned).filter(|time| *time <= end).chain([end]) {
        gaps.push(Window { begin: last, end: time });
        last = time;
    }
    gaps
}

fn longest_gaps(gaps: &[Window], faults: &[Window], report: &mut Report) {
    let longest = |touched: &dyn Fn(&Window) -> bool| {
        let gap = gaps.iter().filter(|gap| touched(gap)).max_by_key(|gap| gap.end - gap.begin)?;
        Some((gap.end - gap.begin, gap.begin))
    };
    let show = |gap: Option<(i64, i64)>| {
        gap.map_or("none".to_owned(), |(gap, from)| {
            format!("{:.3} s from {:.3} s on", gap as f64 / 1e9, from as f64 / 1e9)
        })
    };
    report.figure("longest time without a successful write", show(longest(&|_| true)));
    if faults.is_empty() {
        return;
    }
    let meet = |gap: &Window, fault: &Window| gap.begin <= fault.end && fault.begin <= gap.end;
    let outside = longest(&|gap| !faults.iter().any(|fault| meet(gap, fault)));
    report.figure("the same, outside of faults", show(outside));
    let mut during: Vec<(Option<(i64, i64)>, &Window)> =
        faults.iter().map(|fault| (longest(&|gap| meet(gap, fault)), fault)).collect();
    during.sort_by_key(|(gap, _)| std::cmp::Reverse(gap.map(|(gap, _)| gap)));
    for (gap, fault) in during.into_iter().take(WINDOWS_SHOWN) {
        let when = format!("{:.3} to {:.3} s", fault.begin as f64 / 1e9, fault.end as f64 / 1e9);
        report.figure("the same, in a fault", format!("{} (fault from {when})", show(gap)));
    }
}
