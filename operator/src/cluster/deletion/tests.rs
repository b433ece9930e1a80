use serde_json::Value;
use serde_json::json;

use super::super::validate;
use super::*;

fn cluster(verify: &str) -> EtcdCluster {
    let destination = json!({"volume": {"claimName": "backups"}});
    validate::tests::cluster(json!({"deletion": {"finalBackup": {"destination": destination, "verify": verify}}}))
}

fn wanted(verify: &str) -> FinalBackup {
    cluster(verify).spec.deletion.final_backup.unwrap()
}

fn valid() -> Valid {
    validate::validate(&cluster("Checksum"), &validate::tests::defaults()).unwrap()
}

fn of_status(status: Value) -> EtcdBackup {
    let mut made = backup(&valid(), &wanted("Checksum"), "a-final-xxxxx");
    made.status = Some(serde_json::from_value(status).unwrap());
    made
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "because",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

#[test]
fn the_backup_stays_when_the_cluster_has_gone() {
    let made = backup(&valid(), &wanted("Restore"), "a-final-xxxxx");
    assert_eq!(made.spec.template.deletion_policy, crate::crd::backup::DeletionPolicy::Retain);
    assert_eq!((made.owner_references().len(), made.spec.cluster_ref.name.as_str()), (0, "a"));
    assert_eq!(made.labels().get(names::FINAL_OF).map(String::as_str), Some("u"));
    // What the API server gives back is still what was asked for.
    let back: EtcdBackup = serde_json::from_value(serde_json::to_value(&made).unwrap()).unwrap();
    assert_eq!(back.spec.template, wanted("Restore").template());
}

#[test]
fn a_backup_counts_when_it_is_as_good_as_was_asked_for() {
    let (complete, verified) = (condition("Complete", "True", "Taken"), condition("Verified", "True", "Same"));
    let unknown = condition("Verified", "Unknown", "NotRestored");
    let ended = |conditions: &[&Value]| {
        of_status(json!({"phase": "Succeeded", "completedAt": "1970-01-01T00:00:07Z", "conditions": conditions}))
    };
    assert_eq!(seen(&ended(&[&complete]), &wanted("Checksum")), Seen::Taken);
    assert_eq!(seen(&ended(&[&complete, &verified]), &wanted("Restore")), Seen::Taken);
    let at = Timestamp::from_second(7).unwrap();
    let failed = Seen::Failed { why: "NotRestored: because".to_owned(), at };
    assert_eq!(seen(&ended(&[&complete, &unknown]), &wanted("Restore")), failed);
}

#[test]
fn what_a_backup_waits_for_and_why_it_has_failed_is_told() {
    let missing = condition("Complete", "False", "VolumeMissing");
    let waits = of_status(json!({"phase": "Pending", "conditions": [missing]}));
    assert_eq!(seen(&waits, &wanted("Checksum")), Seen::Pending("VolumeMissing: because".to_owned()));
    let full = condition("Complete", "False", "NoSpace");
    let failed = of_status(json!({"phase": "Failed", "completedAt": "1970-01-01T00:00:00Z", "conditions": [full]}));
    let why = "NoSpace: because".to_owned();
    assert_eq!(seen(&failed, &wanted("Checksum")), Seen::Failed { why, at: Timestamp::UNIX_EPOCH });
    assert!(matches!(seen(&of_status(json!({})), &wanted("Checksum")), Seen::Pending(_)));
}

#[test]
fn volumes_belong_to_a_cluster_that_is_to_leave_a_backup_only_when_it_goes() {
    let retention = json!({"retention": {"whenClusterDeleted": "Delete"}});
    for (deletion, owned) in [(json!({}), true), (json!(cluster("Checksum").spec.deletion), false)] {
        let cluster = validate::tests::cluster(json!({"storage": retention, "deletion": deletion}));
        let valid = validate::validate(&cluster, &validate::tests::defaults()).unwrap();
        assert_eq!(super::super::build::volume_owners(&valid).is_some(), owned);
    }
}
