//! What comes before the server in the Pod of a founder that restores: the raw snapshot out of the backup, a data directory of it, and no
//! snapshot any more.
//!
//! Each of them may be cut short and run again, also behind a restore that was finished (docs/operations/restore.md).

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;
use k8s_openapi::api::core::v1::Volume;

use super::pod::DATA;
use super::pod::flags;
use super::pod::mount;
use super::pod::pull_policy;
use super::pod::resources;
use super::program::program;
use crate::cluster::plan::Start;
use crate::cluster::validate::Valid;
use crate::cluster::world::Backup;
use crate::cluster::world::File;

/// The containers, by which what they said is found.
pub const PROGRAMS: [&str; 3] = [UNPACK, RESTORE, DISCARD];
pub const UNPACK: &str = "unpack";
const RESTORE: &str = "restore";
const DISCARD: &str = "discard";

const VOLUME: &str = "backup";
const BACKUP: &str = "/backup";
/// Flags of the member that a restore takes.
const MEMBER_FLAGS: [&str; 5] =
    ["name", "data-dir", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"];

/// The volume that the backup is on.
pub fn volume(backup: &Backup) -> Volume {
    let claim = PersistentVolumeClaimVolumeSource { claim_name: backup.claim.clone(), read_only: Some(true) };
    Volume { name: VOLUME.to_owned(), persistent_volume_claim: Some(claim), ..Volume::default() }
}

pub fn containers(valid: &Valid, member: &str, backup: &Backup) -> Vec<Container> {
    // Beside the data directory: the volume has room for both.
    let snapshot = format!("{DATA}/restore.db");
    let mut unpack = vec!["backup".to_owned(), "unpack".to_owned()];
    match &backup.file {
        File::Archive { folder, name } => {
            unpack.extend([format!("--folder={BACKUP}/{folder}"), format!("--backup={name}")]);
        }
        File::Path(path) => unpack.push(format!("--file={BACKUP}/{path}")),
    }
    unpack.push(format!("--to={snapshot}"));
    let mut restore = vec!["snapshot".to_owned(), "restore".to_owned(), snapshot.clone(), "--resume".to_owned()];
    restore.extend(member_flags(valid, member));
    if backup.revision_bump > 0 {
        restore.extend([format!("--bump-revision={}", backup.revision_bump), "--mark-compacted".to_owned()]);
    }
    let discard = vec!["backup".to_owned(), "discard".to_owned(), format!("--file={snapshot}")];
    let mut unpacks = ours(valid, UNPACK, unpack);
    unpacks.volume_mounts.get_or_insert_default().push(mount(VOLUME, BACKUP, true));
    let restores =
        Container { image: Some(valid.image()), resources: Some(resources(valid)), ..ours(valid, RESTORE, restore) };
    vec![unpacks, restores, ours(valid, DISCARD, discard)]
}

/// Those that make the ids: the very ones that the server gets.
fn member_flags(valid: &Valid, member: &str) -> impl Iterator<Item = String> {
    let taken = |flag: &String| {
        let name = flag.strip_prefix("--").and_then(|flag| flag.split_once('=')).map(|(name, _)| name);
        name.is_some_and(|name| MEMBER_FLAGS.contains(&name))
    };
    flags(valid, member, &Start::Found(None)).into_iter().filter(taken)
}

/// Of the operator.
fn ours(valid: &Valid, name: &str, arguments: Vec<String>) -> Container {
    let mounts = vec![mount("data", DATA, false)];
    program(name, valid.operator_image.clone(), Some(pull_policy(valid)), arguments, mounts)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::cluster::build::container_security;
    use crate::cluster::build::pod;
    use crate::cluster::build::spec_hash;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;
    use crate::cluster::validate::validate;

    fn valid() -> Valid {
        validate(&cluster(json!({"config": {"extraArgs": ["--max-txn-ops=512"]}})), &defaults()).unwrap()
    }

    fn backup(file: File, revision_bump: i64) -> Backup {
        Backup { claim: "backups".into(), file, revision_bump }
    }

    fn founder(backup: Backup) -> Value {
        serde_json::to_value(pod(&valid(), "a-1", &Start::Found(Some(backup))).unwrap()).unwrap()
    }

    fn arguments(container: &Value) -> Vec<&str> {
        container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    #[test]
    fn a_founder_restores_before_it_serves_and_as_the_member_that_it_is() {
        let file = File::Archive { folder: "nightly/b".into(), name: "first".into() };
        let pod = founder(backup(file, 1000));
        let first = pod["spec"]["initContainers"].as_array().unwrap();
        let names: Vec<_> = first.iter().map(|container| container["name"].as_str().unwrap()).collect();
        assert_eq!(names, PROGRAMS);
        let unpack =
            ["backup", "unpack", "--folder=/backup/nightly/b", "--backup=first", "--to=/var/lib/garboard/restore.db"];
        assert_eq!(arguments(&first[0]), unpack);
        let restore = arguments(&first[1]);
        assert_eq!(restore[..4], ["snapshot", "restore", "/var/lib/garboard/restore.db", "--resume"]);
        assert_eq!(restore[restore.len() - 2..], ["--bump-revision=1000", "--mark-compacted"]);
        let server = arguments(&pod["spec"]["containers"][0]);
        let taken = &restore[4..restore.len() - 2];
        assert_eq!(taken.len(), MEMBER_FLAGS.len(), "{taken:?}");
        assert!(taken.iter().all(|flag| server.contains(flag)), "{taken:?} of {server:?}");
        assert_eq!(arguments(&first[2]), ["backup", "discard", "--file=/var/lib/garboard/restore.db"]);
        for container in first {
            let ours = container["name"] != RESTORE;
            assert_eq!(container["image"], if ours { "r/garboard-operator:1.2.3" } else { "r/garboard:1.2.3" });
            assert_eq!(container["securityContext"], json!(container_security()));
        }
    }

    #[test]
    fn the_backup_is_read_only_and_seen_by_who_unpacks_it_alone() {
        let pod = founder(backup(File::Path("old/snapshot.db".into()), 0));
        let claim = json!({"name": "backup", "persistentVolumeClaim": {"claimName": "backups", "readOnly": true}});
        assert!(pod["spec"]["volumes"].as_array().unwrap().contains(&claim), "{pod}");
        let first = pod["spec"]["initContainers"].as_array().unwrap();
        let mount = json!({"name": "backup", "mountPath": "/backup", "readOnly": true});
        assert!(first[0]["volumeMounts"].as_array().unwrap().contains(&mount), "{first:?}");
        let others = [&first[1], &first[2], &pod["spec"]["containers"][0]];
        assert!(!others.iter().any(|container| container["volumeMounts"].to_string().contains("backup")), "{others:?}");
        assert!(arguments(&first[0]).contains(&"--file=/backup/old/snapshot.db"));
        assert!(!arguments(&first[1]).iter().any(|flag| flag.contains("bump") || flag.contains("compacted")));
    }

    /// Or the founder's Pod would be made again for it, and all others with them.
    #[test]
    fn a_member_that_joins_knows_nothing_of_the_restore() {
        let plain = validate(&cluster(json!({})), &defaults()).unwrap();
        let source = json!({"source": {"backupRef": {"name": "first"}}});
        let restored = validate(&cluster(json!({"bootstrap": {"restore": source}})), &defaults()).unwrap();
        assert_eq!(restored.spec.bootstrap.restore.as_ref().unwrap().revision_bump, 1_000_000_000);
        assert_eq!(spec_hash(&restored, "a-1").unwrap(), spec_hash(&plain, "a-1").unwrap());
        let joins = pod(&restored, "a-1", &Start::Join(Vec::new())).unwrap();
        assert!(joins.spec.is_some_and(|spec| spec.init_containers.is_none()));
    }
}
