//! What documents say of scenarios: docs/compatibility.md names for each row what shows it.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The rows of the tables that have the column `shown by`, as their cells. What is in comments is left out.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut is_shown = false;
    let mut rows = Vec::new();
    for line in text.lines() {
        let line = line.split("<!--").next().unwrap_or_default();
        let Some(line) = line.strip_prefix('|') else {
            is_shown = false;
            continue;
        };
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if cells.get(2) == Some(&"shown by") {
            is_shown = true;
        } else if is_shown && !line.starts_with(" ---") {
            rows.push(cells);
        }
    }
    rows
}

/// What is wrong with the rows: what is neither a scenario nor a file, and what we say to have and name nothing for.
fn faults(text: &str) -> Vec<String> {
    let scenarios: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
    let is_there = |name: &str| match name.contains('/') {
        true => Path::new(ROOT).join(name).is_file(),
        false => scenarios.contains(name),
    };
    let mut faults = Vec::new();
    for row in rows(text) {
        let (what, ours, shown) = (row[0], row[1], row[2]);
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        let is_ours = !["no", "not yet"].contains(&ours.split([':', ';']).next().unwrap_or_default());
        if is_ours && names.is_empty() {
            faults.push(format!("{what}: nothing shows it"));
        }
        faults.extend(names.iter().filter(|name| !is_there(name)).map(|name| format!("{what}: there is no {name}")));
    }
    faults
}

#[test]
fn what_shows_a_row_is_there() {
    let text = std::fs::read_to_string(format!("{ROOT}/docs/compatibility.md")).unwrap();
    assert!(!rows(&text).is_empty());
    assert_eq!(faults(&text), Vec::<String>::new());
}

#[test]
fn a_row_that_nothing_shows_is_found() {
    let text = "| what | Garboard | shown by | other |\n| --- | --- | --- | --- |\n\
        | a | yes | `operator-smoke`, `tests/e2e/Cargo.toml` | no |\n\
        | b | yes | `operator-nothing` | no |\n\
        | c | yes | `tests/e2e/nothing.rs` | no |\n\
        | d | nothing is done |  | yes |\n\
        | e | not yet; by hand |  | yes | <!-- | yes | `operator-nothing` -->\n\
        | f | no: there are none |  | yes |\n\n\
        | where | etcd | Garboard |\n| --- | --- | --- |\n| g | yes | `nothing` |\n";
    assert_eq!(
        faults(text),
        ["b: there is no operator-nothing", "c: there is no tests/e2e/nothing.rs", "d: nothing shows it"]
    );
}
