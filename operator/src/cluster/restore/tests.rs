use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use serde_json::json;

use super::super::validate;
use super::super::world::Leaving;
use super::super::world::Recorded;
use super::super::world::Store;
use super::*;

/// A founder's Pod with these containers that come first.
fn founder(first: &Value) -> Pod {
    serde_json::from_value(json!({"status": {"phase": "Pending", "initContainerStatuses": first}})).unwrap()
}

fn container(name: &str, state: &Value, last: &Value) -> Value {
    json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last})
}

fn ended(code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "message": message}})
}

fn refused(reason: &'static str, message: &str) -> Option<Trouble> {
    Some(Trouble::Refused(Obstacle { reason, message: message.to_owned() }))
}

#[test]
fn why_a_founder_cannot_restore_is_known_while_it_tries_again_and_no_longer() {
    let damaged = ended(64, r#"{"reason":"Damaged","message":"first.db.zst: archive sha256: 00"}"#);
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    for (state, last) in [(&damaged, &json!({})), (&waiting, &damaged), (&json!({"running": {}}), &damaged)] {
        let pod = founder(&json!([container("unpack", state, last)]));
        assert_eq!(trouble(&pod), refused("Damaged", "first.db.zst: archive sha256: 00"), "{state} {last}");
    }
    let whole = container("unpack", &ended(0, ""), &damaged);
    assert_eq!(trouble(&founder(&json!([whole]))), None);

    let old = ended(128, "Error: snapshot restore: unknown flag: --resume\nUsage:\n\n  garboard [flags]\n");
    let pod = founder(&json!([whole, container("restore", &old, &json!({}))]));
    assert_eq!(trouble(&pod), refused("NotRestored", "Error: snapshot restore: unknown flag: --resume"));
    let silent = founder(&json!([whole, container("restore", &ended(137, ""), &json!({}))]));
    assert_eq!(trouble(&silent), refused("NotRestored", "restore has ended with exit code 137"));
    let others = founder(&json!([whole, container("of-a-template", &ended(1, "no"), &json!({}))]));
    assert_eq!(trouble(&others), None);
}

#[test]
fn a_pod_that_has_no_place_is_told_of() {
    let mut pod = founder(&json!([]));
    let unscheduled = json!([{"type": "PodScheduled", "status": "False", "message": "no node has it"}]);
    pod.status.as_mut().unwrap().conditions = serde_json::from_value(unscheduled).unwrap();
    assert_eq!(trouble(&pod), Some(Trouble::HeldUp("no node has it".to_owned())));
}

/// What stands in the condition after a step: its status, reason and message.
fn told(restore: Restore, seed: Option<&str>, pod: Option<Pod>, step: &Step) -> (Option<bool>, &'static str, String) {
    let spec = json!({"bootstrap": {"restore": {"source": {"backupRef": {"name": "first"}}}}});
    let valid = validate::validate(&validate::tests::cluster(spec), &validate::tests::defaults()).unwrap();
    let objects = Objects {
        members: BTreeMap::new(),
        pods: pod.map(|pod| ("a-1".to_owned(), pod)).into_iter().collect(),
        volumes: BTreeMap::new(),
        detached: Vec::new(),
        aside: Vec::new(),
        secrets: BTreeMap::new(),
        nodes: BTreeMap::new(),
        expandable: BTreeMap::new(),
    };
    let world = World {
        wanted: valid.wanted.clone(),
        recorded: Recorded { bootstrap: seed.map(str::to_owned), ..Recorded::default() },
        members: BTreeMap::new(),
        uncertified: None,
        restore: Some(restore),
        leaving: Leaving::default(),
        asked: None,
        aside: Vec::new(),
        store: Store::Unknown,
        now: Timestamp::UNIX_EPOCH,
        fresh_name: String::new(),
    };
    let status = EtcdClusterStatus { revision: Some(1007), ..EtcdClusterStatus::default() };
    let verdict = verdict(&valid, &objects, &world, step, &status).unwrap();
    (verdict.holds, verdict.reason, verdict.message)
}

/// As the program tells it.
const MANIFEST: &str = r#"{"manifest":{"format":1,"namespace":"n","cluster":"a","clusterID":"a","backup":"first","uid":"u",
    "member":"a-9","takenAt":"2026-03-01T02:00:00Z","revision":7,"compactRevision":-1,"hashKV":1,"keys":1,
    "raw":{"bytes":1,"sha256":"aa"},"archive":{"file":"first.db.zst","bytes":1,"sha256":"bb","compression":"zstd"},
    "serverVersion":"3.6.5","operatorVersion":"0.1.0"}}"#;

#[test]
fn the_condition_says_what_was_restored_or_why_not_yet() {
    let file = File::Archive { folder: "a".to_owned(), name: "first".to_owned() };
    let there = Restore { backup: Ok(Backup { claim: "c".to_owned(), file, revision_bump: 1000 }), trouble: None };
    let (wait, latch) = (Step::Wait(String::new()), Step::Latch { cluster_id: 10 });
    let missing = Obstacle { reason: "BackupMissing", message: "there is no EtcdBackup first".to_owned() };
    let absent = Restore { backup: Err(missing.clone()), ..there.clone() };
    let bad = Restore { trouble: refused("Damaged", "another sha256"), ..there.clone() };
    let word = |told: (Option<bool>, &'static str, String)| (told.0, told.1);

    assert_eq!(told(absent, None, None, &wait), (Some(false), "BackupMissing", missing.message));
    assert_eq!(word(told(there.clone(), None, None, &wait)), (Some(false), "Pending"));
    assert_eq!(word(told(there.clone(), Some("a-1"), None, &wait)), (Some(false), "Restoring"));
    assert_eq!(told(bad, Some("a-1"), None, &wait), (Some(false), "Damaged", "another sha256".to_owned()));
    assert_eq!(word(told(there.clone(), None, None, &latch)), (Some(false), "Adopted"));

    let pod = founder(&json!([container("unpack", &ended(0, MANIFEST), &json!({}))]));
    let restored = "revision 7 of EtcdBackup first; the cluster has gone on at revision 1007".to_owned();
    assert_eq!(told(there.clone(), Some("a-1"), Some(pod), &latch), (Some(true), "Restored", restored));
    let unknown = "EtcdBackup first; the cluster has gone on at revision 1007".to_owned();
    assert_eq!(told(there, Some("a-1"), None, &latch), (Some(true), "Restored", unknown));
}
