use serde_json::json;

use super::*;
use crate::crd::EtcdClusterStatus;

fn restore(spec: &serde_json::Value, status: &serde_json::Value) -> EtcdRestore {
    let mut whole = json!({"clusterRef": {"name": "a"}, "source": {"backupRef": {"name": "first"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut restore = EtcdRestore::new("back", serde_json::from_value(whole).unwrap());
    restore.metadata.uid = Some("u".to_owned());
    restore.status = serde_json::from_value(status.clone()).unwrap();
    restore
}

#[test]
fn the_token_is_that_of_cluster_and_source_alone() {
    let backup = |sha256: &str| {
        serde_json::from_value(json!({"phase": "Succeeded", "revision": 7, "sha256": sha256, "clusterID": "c1"}))
            .unwrap()
    };
    let made = |id: &str, revision, sha256: &str, status: &serde_json::Value| {
        let cluster = EtcdClusterStatus { revision, ..EtcdClusterStatus::default() };
        fetch::make(&restore(&json!({}), status), id.to_owned(), &cluster, Some(&backup(sha256)))
    };
    let first = made("c1", Some(9), "aa", &json!({}));
    assert_eq!((first.token.len(), first.revision, first.newest_revision), (8, Some(7), Some(9)));
    assert_eq!(made("c1", Some(12), "aa", &json!({})).token, first.token);
    for other in [made("c2", Some(9), "aa", &json!({})), made("c1", Some(9), "bb", &json!({}))] {
        assert_ne!(other.token, first.token);
    }
    assert!(first.expected_loss.contains("after revision 7, at 9 now"), "{}", first.expected_loss);
    assert!(first.expected_loss.contains("No safety backup"), "{}", first.expected_loss);
    let of_another = made("c2", Some(9), "aa", &json!({})).expected_loss;
    assert!(of_another.contains("the backup is of the cluster c1"), "{of_another}");

    let shown = json!({"phase": "AwaitingConfirmation", "plan": first});
    assert_eq!(made("c1", None, "aa", &shown).newest_revision, Some(9), "what was seen is forgotten");
    assert_eq!(made("c2", None, "aa", &shown).newest_revision, None, "what was seen of another cluster");
}

#[test]
fn a_restore_goes_on_behind_all_that_was_seen() {
    let plan =
        json!({"token": "t", "chosen": "c", "clusterID": "c1", "revision": 7, "newestRevision": 9, "expectedLoss": ""});
    let wanted = |phase: &str, seen| {
        wants(&restore(&json!({"revisionBump": 1_000_000}), &json!({"phase": phase, "plan": plan})), seen)
    };
    for phase in ["Planning", "AwaitingConfirmation", "SafetyBackup", "Reforming", "Succeeded", "Failed", "RolledBack"]
    {
        assert_eq!(wanted(phase, Some(20)), None, "{phase}");
    }
    let bump = |restore: RestoreInPlace| restore.from.unwrap().revision_bump;
    assert_eq!(bump(wanted("Stopping", Some(20)).unwrap()), 1_000_013);
    assert_eq!(bump(wanted("Restoring", None).unwrap()), 1_000_002);
    assert_eq!(bump(wanted("Stopping", Some(3)).unwrap()), 1_000_002);
    assert!(wanted("RollingBack", Some(20)).is_some_and(|wanted| wanted.rollback && wanted.from.is_none()));
}

#[test]
fn what_is_left_of_a_member_is_gone_on_with_once_it_is_a_backup() {
    let plan = json!({"token": "t", "chosen": "c", "clusterID": "c1", "revision": 7, "newestRevision": 9, "expectedLoss": "", "survivor": "a-1"});
    let spec = json!({"source": {"survivingMember": "Auto"}});
    let wanted = |phase: &str| wants(&restore(&spec, &json!({"phase": phase, "plan": plan})), None).unwrap();
    for phase in ["Stopping", "Inspecting", "Salvaging"] {
        let wanted = wanted(phase);
        assert!(wanted.from.is_none() && !wanted.rollback, "{phase}: {wanted:?}");
    }
    let from = wanted("Restoring").from.unwrap();
    assert_eq!(
        (from.revision_bump, from.source.to_string().as_str()),
        (1_000_000_002, "salvage/a/back.db.zst of the claim a-1")
    );
}

#[test]
fn a_cluster_needs_its_backup_until_it_is_founded() {
    let source = json!({"source": {"backupRef": {"name": "first"}}});
    let spec = json!({"bootstrap": {"restore": source}});
    let needs = |status: serde_json::Value| {
        let mut cluster = crate::cluster::validate::tests::cluster(spec.clone());
        cluster.status = serde_json::from_value(status).unwrap();
        Some(to_be_founded_from(&cluster)?.backup_ref?.name)
    };
    assert_eq!(needs(json!(null)), Some("first".to_owned()));
    assert_eq!(needs(json!({"clusterID": "c1"})), None);
    let record = |stage: &str| {
        let from = json!({"source": {"backupRef": {"name": "later"}}, "revisionBump": 1});
        json!({"clusterID": "c1", "restore": {"name": "back", "uid": "u", "stage": stage, "clusterID": "c1", "from": from}})
    };
    assert_eq!(needs(record("Stopping")), Some("later".to_owned()));
    assert_eq!(needs(record("Done")), None);
}
