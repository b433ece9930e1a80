use serde_json::Value;
use serde_json::json;

use super::*;
use crate::cluster::build::container_security;
use crate::cluster::validate::tests::cluster;
use crate::cluster::validate::tests::defaults;
use crate::cluster::validate::validate;

fn backup(destination: Value) -> EtcdBackup {
    let spec = json!({"clusterRef": {"name": "a"}, "destination": destination});
    let mut backup = EtcdBackup::new("b", serde_json::from_value(spec).unwrap());
    backup.metadata.namespace = Some("n".to_owned());
    backup.metadata.uid = Some("u".to_owned());
    backup
}

/// What the Job of a task is made of.
fn job(backup: &EtcdBackup, spec: Value, task: Task) -> Value {
    let valid = validate(&cluster(spec), &defaults()).unwrap();
    let plan = Plan {
        backup,
        client_secret: crate::cluster::build::backup_secret(&valid),
        // The cluster may be gone when files are removed.
        cluster: (task != Task::Delete).then_some(&valid),
        image: "operator:1",
        members: vec![("a-1".to_owned(), valid.names.host("a-1"))],
        deadline_s: 60,
    };
    serde_json::to_value(plan.job(task)).unwrap()
}

fn on_volume() -> EtcdBackup {
    backup(json!({"volume": {"claimName": "c", "path": "nightly"}}))
}

fn arguments(container: &Value) -> Vec<&str> {
    container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn no_pod_of_a_backup_is_taken_for_a_member_or_may_ask_the_api_server() {
    for task in [Task::Take, Task::Verify, Task::Delete] {
        let job = job(&on_volume(), json!({}), task);
        let pod = &job["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["garboard.dev/backup-of"], "a");
        assert!(pod["metadata"]["labels"]["garboard.dev/cluster"].is_null(), "{pod}");
        let spec = &pod["spec"];
        assert_eq!((&spec["automountServiceAccountToken"], &spec["restartPolicy"]), (&json!(false), &json!("Never")));
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        let first = spec["initContainers"].as_array().into_iter().flatten();
        for container in first.chain(spec["containers"].as_array().unwrap()) {
            assert_eq!(container["securityContext"], json!(container_security()), "{container}");
        }
    }
}

#[test]
fn taking_shows_a_certificate_and_asks_members_in_order() {
    let take = job(&on_volume(), json!({}), Task::Take);
    let container = &take["spec"]["template"]["spec"]["containers"][0];
    let given = arguments(container);
    assert_eq!(given[..4], ["backup", "take", "--folder=/backup/nightly/a", "--backup=b"]);
    assert!(given.contains(&"--member=a-1=a-1.a-peer.n.svc.cluster.local"), "{given:?}");
    assert!(given.contains(&"--tls=/etc/garboard/tls"), "{given:?}");
    let plain = job(&on_volume(), json!({"tls": {"client": {"mode": "Disabled"}}}), Task::Take);
    assert!(!plain.to_string().contains("--tls="), "{plain}");
}

#[test]
fn verifying_reads_the_volume_and_serves_what_was_restored_beside_who_compares() {
    let verify = job(&on_volume(), json!({}), Task::Verify);
    let spec = &verify["spec"]["template"]["spec"];
    let first = spec["initContainers"].as_array().unwrap();
    let names: Vec<_> = first.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["unpack", "restore", "server"]);
    assert_eq!(first[2]["restartPolicy"], "Always");
    assert_eq!((&first[0]["image"], &first[1]["image"]), (&json!("operator:1"), &json!("r/garboard:1.2.3")));
    assert_eq!(spec["volumes"][0]["persistentVolumeClaim"], json!({"claimName": "c", "readOnly": true}));
    assert!(!verify.to_string().contains("backup-client"), "a server that is restored needs no certificate: {verify}");
}

#[test]
fn files_are_removed_without_the_cluster_and_only_those_of_this_very_object() {
    let delete = job(&on_volume(), json!({}), Task::Delete);
    let given = &delete["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(arguments(given), ["backup", "delete", "--folder=/backup/nightly/a", "--backup=b", "--uid=u"]);
}

#[test]
fn a_volume_of_its_own_has_its_name_and_belongs_to_nobody() {
    let own = backup(json!({"volumeTemplate": {"size": "1Gi", "storageClassName": "slow"}}));
    let claim = serde_json::to_value(claim(&own).unwrap()).unwrap();
    assert_eq!((&claim["metadata"]["name"], &claim["spec"]["storageClassName"]), (&json!("b"), &json!("slow")));
    assert!(claim["metadata"]["ownerReferences"].is_null(), "{claim}");
    assert!(super::claim(&on_volume()).is_none());
}
