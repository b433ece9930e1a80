//! Right histories, of a small simulated store with requests that overlap and answers that are lost, and one that was recorded from three
//! members of etcd 3.6 that were killed meanwhile: all of them are right, and with any one field changed they are not.

mod store;

use garboard_check::Options;
use garboard_check::history::History;
use garboard_check::judge;
use garboard_check::report::Report;
use garboard_check::report::Verdict;
use serde_json::Value;
use serde_json::json;

use crate::store::Random;
use crate::store::generate;

fn judged(lines: &[String]) -> Report {
    judge(&History::read(lines.concat().as_bytes()).unwrap(), &Options::default())
}

fn text(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn right_histories_are_right() {
    for seed in 1..=40 {
        let report = judged(&text(&generate(seed, 200)));
        assert_eq!(report.verdict(), Verdict::Right, "seed {seed}:\n{report}");
    }
}

#[test]
fn without_watches_too() {
    for seed in 1..=20 {
        let mut lines = generate(seed, 150);
        lines.retain(|line| !["open", "watch", "drain"].contains(&line["type"].as_str().unwrap()));
        let report = judged(&text(&lines));
        assert_ne!(report.verdict(), Verdict::Wrong, "seed {seed}:\n{report}");
    }
}

#[test]
fn a_long_history_takes_seconds() {
    let report = judged(&text(&generate(7, 10_000)));
    assert_eq!(report.verdict(), Verdict::Right, "{report}");
}

/// Ways into every number and text of answers and events.
fn places(line: &Value, at: &str, found: &mut Vec<String>) {
    match line {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found))
        }
        Value::Number(_) | Value::String(_) => found.push(at.to_owned()),
        _ => {}
    }
}

fn is_judged(line: &Value, place: &str) -> bool {
    match line["type"].as_str() {
        // How long a lease was given, and which member answered, is taken as it is.
        Some("op") => place.starts_with("/response/") && !place.ends_with("/ttl"),
        Some("watch") => place.starts_with("/events/"),
        _ => false,
    }
}

#[test]
fn the_recorded_history_is_right() {
    let report = judged(&text(&recorded()));
    assert_eq!(report.verdict(), Verdict::Right, "{report}");
}

#[test]
fn no_field_can_be_changed_unnoticed() {
    assert!(change_fields(&generate(3, 150), 1) > 200);
}

#[test]
fn no_field_of_the_recorded_history_either() {
    assert!(change_fields(&recorded(), 8) > 40);
}

fn recorded() -> Vec<Value> {
    let text = include_str!("recorded/etcd-3.6-killed.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Changes one field of each `every`th line that has one, and returns how many were.
fn change_fields(right: &[Value], every: usize) -> usize {
    let mut lines = text(right);
    let mut random = Random(99);
    let mut changed = 0;
    for (number, line) in right.iter().enumerate().step_by(every) {
        let mut all = Vec::new();
        places(line, "", &mut all);
        all.retain(|place| is_judged(line, place));
        if all.is_empty() {
            continue;
        }
        let place = &all[random.below(all.len() as u64) as usize];
        let mut wrong = line.clone();
        let value = wrong.pointer_mut(place).unwrap();
        *value = match &*value {
            Value::Number(number) => json!(number.as_i64().unwrap() + 1),
            other => json!(format!("{}?", other.as_str().unwrap())),
        };
        let old = std::mem::replace(&mut lines[number], format!("{wrong}\n"));
        assert_eq!(judged(&lines).verdict(), Verdict::Wrong, "{place} of line {}: {wrong}", number + 1);
        lines[number] = old;
        changed += 1;
    }
    changed
}

#[test]
fn no_event_can_be_left_out_unnoticed() {
    let right = generate(4, 150);
    let mut lines = text(&right);
    let responses: Vec<usize> = (0..right.len()).filter(|n| !right[*n]["events"].is_null()).collect();
    for number in responses {
        let old = std::mem::take(&mut lines[number]);
        assert_eq!(judged(&lines).verdict(), Verdict::Wrong, "line {}", number + 1);
        lines[number] = old;
    }
}
