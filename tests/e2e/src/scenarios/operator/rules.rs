//! The chart's alerts and its dashboard, as files: what they are, and what promtool says of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;
use serde_json::json;

use super::store::CHART;
use crate::process::run;
use crate::scenario::Lab;

/// What promtool plays on the alerts, by how far apart its samples are.
const PLAYED: [&str; 2] = ["minutes.yaml", "days.yaml"];
const PLAYED_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scenarios/operator/rules");
/// Of the names in an expression, those of metrics begin like this.
const METRICS: [&str; 4] = ["etcd_", "garboard_operator_", "grpc_server_", "process_"];

fn read(name: &str) -> anyhow::Result<String> {
    let path = Path::new(CHART).join("files").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All alerts, as Prometheus reads them.
pub fn alerts() -> anyhow::Result<Vec<Value>> {
    named(&serde_yaml_ng::from_str(&read("rules.yaml")?)?, "alert")
}

/// The alerts of what has groups of them. Files name them in the field `alert`, Prometheus' answers in `name`.
pub fn named(rules: &Value, field: &str) -> anyhow::Result<Vec<Value>> {
    let groups = rules["groups"].as_array().context("no groups")?;
    let all: Vec<Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect();
    ensure!(all.iter().all(|rule| rule[field].is_string()), "a rule that is no alert: {all:?}");
    Ok(all)
}

pub fn dashboard() -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&read("dashboard.json")?)?)
}

/// What the panels of the dashboard ask for.
fn panels() -> anyhow::Result<Vec<String>> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    Ok(targets.filter_map(|target| target["expr"].as_str()).map(str::to_owned).collect())
}

/// The metrics that alerts and panels ask for.
pub fn metrics() -> anyhow::Result<BTreeSet<String>> {
    let alerts = alerts()?;
    let mut expressions = panels()?;
    expressions.extend(alerts.iter().filter_map(|alert| alert["expr"].as_str()).map(str::to_owned));
    let mut found = BTreeSet::new();
    for expression in &expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        found.extend(words.filter(|word| METRICS.iter().any(|start| word.starts_with(start))).map(str::to_owned));
    }
    Ok(found)
}

/// promtool reads all expressions, and each alert fires when it should.
pub fn check(lab: &Lab) -> anyhow::Result<()> {
    let promtool = lab.kubernetes("promtool")?;
    let file = Path::new(CHART).join("files/rules.yaml");
    run(Command::new(&promtool).args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(&file))?
        .success("promtool check rules")?;
    let recorded: Vec<_> = panels()?
        .iter()
        .enumerate()
        .map(|(n, expression)| json!({"record": format!("panel:{n}"), "expr": expression}))
        .collect();
    ensure!(!recorded.is_empty(), "the dashboard asks for nothing");
    let panels = lab.path("panels.yaml");
    std::fs::write(&panels, json!({"groups": [{"name": "dashboard", "rules": recorded}]}).to_string())?;
    run(Command::new(&promtool).args(["check", "rules"]).arg(&panels))?
        .success("the dashboard: promtool check rules")?;
    let played = PLAYED.map(|name| Path::new(PLAYED_FOLDER).join(name));
    run(Command::new(&promtool).args(["test", "rules"]).args(played))?.success("promtool test rules")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNBOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations/runbooks");

    fn of<'a>(value: &'a Value, path: &str) -> &'a str {
        value.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    fn names() -> BTreeSet<String> {
        alerts().unwrap().iter().map(|alert| of(alert, "/alert").to_owned()).collect()
    }

    #[test]
    fn each_alert_says_what_it_is_and_how_bad() {
        let mut kinds = BTreeSet::new();
        for alert in alerts().unwrap() {
            let (name, severity) = (of(&alert, "/alert"), of(&alert, "/labels/severity"));
            assert!(["warning", "critical"].contains(&severity), "{name}: {severity:?}");
            for text in ["summary", "description"] {
                assert!(!of(&alert, &format!("/annotations/{text}")).is_empty(), "{name} has no {text}");
            }
            assert!(kinds.insert((name.to_owned(), severity.to_owned())), "{name} {severity} twice");
        }
        // etcd's 15, and ours.
        assert_eq!(kinds.iter().filter(|(name, _)| name.starts_with("etcd")).count(), 15);
        assert_eq!(kinds.iter().filter(|(name, _)| name.starts_with("Garboard")).count(), kinds.len() - 15);
    }

    #[test]
    fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
        let mut pages = BTreeSet::new();
        for file in std::fs::read_dir(RUNBOOKS).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            pages.insert(name.strip_suffix(".md").unwrap().to_owned());
        }
        assert!(pages.remove("README"));
        assert_eq!(pages, names());
        let index = std::fs::read_to_string(format!("{RUNBOOKS}/README.md")).unwrap();
        for name in pages {
            assert!(index.contains(&format!("[{name}]({name}.md)")), "{name} is not in the index");
            let page = std::fs::read_to_string(format!("{RUNBOOKS}/{name}.md")).unwrap();
            assert_eq!(page.lines().next(), Some(format!("# {name}").as_str()));
        }
    }

    #[test]
    fn each_alert_is_played_as_firing_and_as_silent() {
        let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for name in PLAYED {
            let text = std::fs::read_to_string(format!("{PLAYED_FOLDER}/{name}")).unwrap();
            let file: Value = serde_yaml_ng::from_str(&text).unwrap();
            for test in file["tests"].as_array().unwrap() {
                for asked in test["alert_rule_test"].as_array().unwrap() {
                    let name = of(asked, "/alertname").to_owned();
                    let expected = asked["exp_alerts"].as_array().cloned().unwrap_or_default();
                    if expected.is_empty() {
                        silent.insert(name.clone());
                    }
                    fires.extend(
                        expected.iter().map(|alert| (name.clone(), of(alert, "/exp_labels/severity").to_owned())),
                    );
                }
            }
        }
        assert_eq!(silent, names());
        let kinds = alerts().unwrap();
        let kinds =
            kinds.iter().map(|alert| (of(alert, "/alert").to_owned(), of(alert, "/labels/severity").to_owned()));
        assert_eq!(fires, kinds.collect());
    }

    #[test]
    fn metrics_are_told_from_labels_and_functions() {
        let found = metrics().unwrap();
        assert!(found.contains("grpc_server_handling_seconds_bucket"), "{found:?}");
        assert!(found.contains("etcd_debugging_mvcc_watcher_total"), "{found:?}");
        assert!(!found.contains("grpc_method") && !found.contains("garboard_dev_cluster"), "{found:?}");
    }
}
