//! Which crate may use which: `garboard -> api -> node -> {mvcc, storage, tls} -> {bolt, proto}`, and `runtime` for all of them.

use std::path::Path;

use anyhow::Context as _;

use super::Source;
use super::metadata;

/// The crates of the server from the top to the bottom. Each may use those further down, never one beside it.
const LAYERS: &[&[&str]] = &[
    &["garboard-fuzz"],
    &["garboard"],
    &["garboard-api"],
    &["garboard-node"],
    &["garboard-mvcc", "garboard-storage", "garboard-tls"],
    &["garboard-bolt", "garboard-proto"],
    &["garboard-runtime"],
];

/// The operator speaks to members as any client does: of the server it knows etcd's messages alone.
const OPERATOR: &[&[&str]] = &[&["garboard-operator"], &["garboard-proto"]];

/// Crates that stand apart, in layers of their own: they use no crate of the server, and none of it uses them.
const APART: &[&[&str]] =
    &[&["garboard-chaos"], &["garboard-e2e", "xtask"], &["garboard-check", "garboard-lab"], &["garboard-oci"]];

pub(super) fn check(root: &Path, _: &[Source]) -> anyhow::Result<Vec<String>> {
    let metadata = metadata(root)?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        // A test may reach further than the code that it tests.
        let used =
            dependencies.iter().filter(|dependency| dependency["kind"] != "dev" && !dependency["path"].is_null());
        findings.extend(judge(name, used.filter_map(|dependency| dependency["name"].as_str())));
    }
    Ok(findings)
}

fn judge<'a>(name: &str, used: impl Iterator<Item = &'a str>) -> Vec<String> {
    let plans = [LAYERS, OPERATOR, APART];
    let layer = |plan: &[&[&str]], name: &str| plan.iter().position(|layer| layer.contains(&name));
    if plans.iter().all(|plan| layer(plan, name).is_none()) {
        return vec![format!("{name} has no place in the plan: give it one in xtask/src/tidy/edges.rs")];
    }
    let allowed = |used| {
        plans
            .iter()
            .any(|plan| matches!((layer(plan, name), layer(plan, used)), (Some(upper), Some(lower)) if upper < lower))
    };
    let forbidden = used.filter(|used| !allowed(used));
    forbidden.map(|used| format!("{name} must not use {used}")).collect()
}

/// Names the packages of a workspace, for tests of the plan itself.
#[cfg(test)]
fn names(metadata: &serde_json::Value) -> Vec<&str> {
    metadata["packages"].as_array().into_iter().flatten().filter_map(|package| package["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_go_down_only() {
        assert!(judge("garboard-api", ["garboard-node", "garboard-mvcc", "garboard-runtime"].into_iter()).is_empty());
        assert_eq!(
            judge("garboard-mvcc", ["garboard-storage"].into_iter()),
            ["garboard-mvcc must not use garboard-storage"]
        );
        assert_eq!(judge("garboard-node", ["garboard-api"].into_iter()), ["garboard-node must not use garboard-api"]);
        assert_eq!(
            judge("garboard-runtime", ["garboard-proto"].into_iter()),
            ["garboard-runtime must not use garboard-proto"]
        );
        assert_eq!(judge("xtask", ["garboard-proto"].into_iter()), ["xtask must not use garboard-proto"]);
        assert!(judge("garboard-chaos", ["garboard-e2e"].into_iter()).is_empty());
        assert_eq!(judge("garboard-e2e", ["garboard-chaos"].into_iter()).len(), 1);
        assert_eq!(judge("garboard-common", [].into_iter()).len(), 1);
    }

    #[test]
    fn the_plan_names_every_package() {
        let metadata = metadata(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
        for name in names(&metadata) {
            assert!(APART.iter().chain(LAYERS).chain(OPERATOR).any(|layer| layer.contains(&name)), "{name}");
        }
    }
}
