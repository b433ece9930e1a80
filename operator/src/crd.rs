//! The API: group `garboard.dev`, version `v1alpha1`. `crds/` is generated from these types (`cargo xtask crds`).
//!
//! Invariant: no field is here that does nothing.

pub mod backup;
pub mod cluster;
pub mod deletion;
pub mod in_place;
pub mod member;
pub mod restore;
pub mod schedule;
pub mod status;

use kube::CustomResourceExt as _;

pub use backup::EtcdBackup;
pub use backup::EtcdBackupSpec;
pub use backup::EtcdBackupStatus;
pub use cluster::EtcdCluster;
pub use cluster::EtcdClusterSpec;
pub use in_place::EtcdRestore;
pub use in_place::EtcdRestoreStatus;
pub use member::EtcdMember;
pub use member::EtcdMemberSpec;
pub use schedule::EtcdBackupSchedule;
pub use schedule::EtcdBackupScheduleSpec;
pub use schedule::EtcdBackupScheduleStatus;
pub use status::EtcdClusterStatus;

pub const GROUP: &str = "garboard.dev";

/// Rules in CEL that the API server checks, each with what it says to who breaks it.
pub(crate) fn rules(rules: &[(&str, &str)]) -> serde_json::Value {
    rules.iter().map(|(rule, message)| serde_json::json!({"rule": rule, "message": message})).collect()
}

/// All definitions as YAML, each with the name of its file.
///
/// # Errors
/// A definition cannot be written as YAML.
pub fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    let crds = [
        (EtcdCluster::crd(), cluster::ROOT_RULES),
        (EtcdMember::crd(), &[]),
        (EtcdBackup::crd(), backup::ROOT_RULES),
        (EtcdBackupSchedule::crd(), schedule::ROOT_RULES),
        (EtcdRestore::crd(), in_place::ROOT_RULES),
    ];
    crds.into_iter()
        .map(|(crd, root)| {
            let name = crd.metadata.name.clone().unwrap_or_default();
            let mut crd = serde_json::to_value(&crd)?;
            if !root.is_empty() {
                crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = rules(root);
            }
            Ok((format!("{name}.yaml"), serde_yaml_ng::to_string(&crd)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_crds_are_in_step() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for dir in ["crds", "charts/garboard-operator/files/crds"] {
            for (name, text) in definitions().unwrap() {
                let file = std::fs::read_to_string(root.join(dir).join(&name)).unwrap_or_default();
                assert!(file == text, "{dir}/{name} is not what the types say: run `cargo xtask crds`");
            }
        }
    }

    /// The API server estimates what a rule may cost from the bounds of what it looks at.
    #[test]
    fn every_list_and_map_that_a_rule_looks_at_is_bounded() {
        let bounded = |schema: &serde_json::Value| match schema["type"].as_str() {
            Some("array") => schema["maxItems"].is_number(),
            Some("string") => schema["maxLength"].is_number() || schema["enum"].is_array(),
            Some("object") if schema["additionalProperties"].is_object() => schema["maxProperties"].is_number(),
            _ => true,
        };
        let mut looked_at = 0;
        let mut left: Vec<_> = [EtcdCluster::crd(), EtcdBackup::crd(), EtcdBackupSchedule::crd(), EtcdRestore::crd()]
            .map(|crd| serde_json::to_value(crd).unwrap())
            .into();
        while let Some(value) = left.pop() {
            if value["x-kubernetes-validations"].is_array() && value["type"].is_string() {
                assert!(bounded(&value), "{value:#}");
                looked_at += 1;
            }
            match value {
                serde_json::Value::Object(fields) => left.extend(fields.into_iter().map(|(_, field)| field)),
                serde_json::Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
        assert!(looked_at > 15, "{looked_at}");
    }
}
