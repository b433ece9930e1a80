//! Jobs that look at what members have left on their volumes, and take a backup of it. Nothing on a volume is changed but for that backup.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use k8s_openapi::api::core::v1::HTTPGetAction;
use k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource as _;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use crate::backup;
use crate::cluster::build::mount;
use crate::cluster::build::pod_security;
use crate::cluster::build::program;
use crate::cluster::build::pull_policy;
use crate::cluster::build::pull_secrets;
use crate::cluster::validate::Valid;
use crate::crd::EtcdRestore;
use crate::names;

/// Where the volume is, and the data directory in it.
const SURVIVOR: &str = "/survivor";
const DATA: &str = "/survivor/data";
/// Where a server is started on a copy.
const SCRATCH: &str = "/work";
/// A volume that cannot be mounted within so long is none.
const INSPECT_S: i64 = 300;
const SALVAGE_S: i64 = 3600;
/// A server may take so long to replay its log.
const START_S: i32 = 1800;

pub fn inspect_name(restore: &EtcdRestore, member: &str) -> String {
    // What a member's name has behind that of the cluster.
    format!("{}-inspect-{}", restore.name_any(), member.rsplit('-').next().unwrap_or(member))
}

pub fn salvage_name(restore: &EtcdRestore) -> String {
    format!("{}-salvage", restore.name_any())
}

/// In the volume.
pub fn salvage_folder(restore: &EtcdRestore) -> String {
    format!("salvage/{}", restore.spec.cluster_ref.name)
}

/// `garboard inspect`: what it prints is in the log of its Pod.
pub fn inspect(restore: &EtcdRestore, valid: &Valid, member: &str) -> Job {
    let arguments = vec!["inspect".to_owned(), DATA.to_owned()];
    let spec = PodSpec {
        containers: vec![container(valid, "inspect", valid.image(), arguments, &[(SURVIVOR, true)])],
        volumes: Some(vec![survivor(member, true)]),
        ..pod(valid)
    };
    job(restore, inspect_name(restore, member), INSPECT_S, spec)
}

/// A server runs on a copy of the data as a cluster of its own, and a backup of it is put beside the data.
pub fn salvage(restore: &EtcdRestore, valid: &Valid, member: &str) -> Job {
    let copy = vec!["backup".to_owned(), "copy".to_owned(), format!("--folder={DATA}"), format!("--to={SCRATCH}/data")];
    let take = vec![
        "backup".to_owned(),
        "take".to_owned(),
        format!("--member={member}=127.0.0.1"),
        format!("--folder={SURVIVOR}/{}", salvage_folder(restore)),
        format!("--namespace={}", restore.namespace().unwrap_or_default()),
        format!("--cluster={}", restore.spec.cluster_ref.name),
        format!("--backup={}", restore.name_any()),
        format!("--uid={}", restore.uid().unwrap_or_default()),
        "--compression=zstd".to_owned(),
    ];
    let operator = || valid.operator_image.clone();
    let scratch = EmptyDirVolumeSource::default();
    let spec = PodSpec {
        init_containers: Some(vec![
            container(valid, "copy", operator(), copy, &[(SURVIVOR, true), (SCRATCH, false)]),
            server(valid, member),
        ]),
        containers: vec![container(valid, "take", operator(), take, &[(SURVIVOR, false)])],
        volumes: Some(vec![
            survivor(member, false),
            Volume { name: volume_name(SCRATCH).to_owned(), empty_dir: Some(scratch), ..Volume::default() },
        ]),
        ..pod(valid)
    };
    job(restore, salvage_name(restore), SALVAGE_S, spec)
}

/// It runs beside the one who takes the backup, and ends with that.
fn server(valid: &Valid, member: &str) -> Container {
    let url = |port: i32| format!("http://127.0.0.1:{port}");
    let arguments = vec![
        format!("--name={member}"),
        format!("--data-dir={SCRATCH}/data"),
        "--force-new-cluster".to_owned(),
        format!("--listen-client-urls={}", url(names::CLIENT_PORT)),
        format!("--advertise-client-urls={}", url(names::CLIENT_PORT)),
        format!("--listen-peer-urls={}", url(names::PEER_PORT)),
        format!("--listen-metrics-urls=http://[::]:{}", names::METRICS_PORT),
        format!("--quota-backend-bytes={}", valid.quota_bytes),
    ];
    let serves = Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/readyz".to_owned()),
            port: IntOrString::Int(names::METRICS_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(1),
        timeout_seconds: Some(5),
        failure_threshold: Some(START_S),
        ..Probe::default()
    };
    Container {
        restart_policy: Some("Always".to_owned()),
        startup_probe: Some(serves),
        ..container(valid, "server", valid.image(), arguments, &[(SCRATCH, false)])
    }
}

fn pod(valid: &Valid) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(backup::SERVICE_ACCOUNT.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: pull_secrets(valid),
        security_context: Some(pod_security()),
        tolerations: backup::tolerations(valid),
        ..PodSpec::default()
    }
}

fn volume_name(path: &str) -> &'static str {
    if path == SURVIVOR { "survivor" } else { "work" }
}

/// Its claim has the member's name.
fn survivor(member: &str, read_only: bool) -> Volume {
    let claim =
        PersistentVolumeClaimVolumeSource { claim_name: member.to_owned(), read_only: read_only.then_some(true) };
    Volume { name: volume_name(SURVIVOR).to_owned(), persistent_volume_claim: Some(claim), ..Volume::default() }
}

fn container(valid: &Valid, name: &str, image: String, arguments: Vec<String>, mounts: &[(&str, bool)]) -> Container {
    let mounts = mounts.iter().map(|(path, read_only)| mount(volume_name(path), path, *read_only));
    program(name, image, Some(pull_policy(valid)), arguments, mounts.collect())
}

fn job(restore: &EtcdRestore, name: String, deadline_s: i64, spec: PodSpec) -> Job {
    let labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "garboard-restore".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned()),
    ]);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: restore.namespace(),
            labels: Some(labels.clone()),
            owner_references: Some(restore.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(2),
            active_deadline_seconds: Some(deadline_s),
            pod_failure_policy: Some(backup::failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(spec),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::cluster::build::container_security;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;
    use crate::cluster::validate::validate;

    fn made(build: fn(&EtcdRestore, &Valid, &str) -> Job) -> Value {
        let valid = validate(&cluster(json!({})), &defaults()).unwrap();
        let spec = json!({"clusterRef": {"name": "a"}, "source": {"survivingMember": "Auto"}});
        let mut restore = EtcdRestore::new("back", serde_json::from_value(spec).unwrap());
        (restore.metadata.namespace, restore.metadata.uid) = (Some("n".to_owned()), Some("u".to_owned()));
        serde_json::to_value(build(&restore, &valid, "a-1")).unwrap()
    }

    #[test]
    fn a_volume_is_looked_at_read_only() {
        let job = made(inspect);
        let spec = &job["spec"]["template"]["spec"];
        let claim = json!({"name": "survivor", "persistentVolumeClaim": {"claimName": "a-1", "readOnly": true}});
        assert_eq!(spec["volumes"], json!([claim]));
        assert_eq!(spec["containers"][0]["args"], json!(["inspect", "/survivor/data"]));
        assert_eq!(spec["containers"][0]["image"], "r/garboard:1.2.3");
        assert_eq!(
            (&job["metadata"]["name"], &job["metadata"]["ownerReferences"][0]["uid"]),
            (&json!("back-inspect-1"), &json!("u"))
        );
    }

    #[test]
    fn the_server_that_is_forced_has_a_copy_alone() {
        let job = made(salvage);
        let spec = &job["spec"]["template"]["spec"];
        let (copy, server, take) = (&spec["initContainers"][0], &spec["initContainers"][1], &spec["containers"][0]);
        let mounts = |container: &Value| {
            let all = container["volumeMounts"].as_array().unwrap().iter();
            all.map(|mount| (mount["name"].clone(), mount["readOnly"] == true)).collect::<Vec<_>>()
        };
        assert_eq!(mounts(copy), [(json!("survivor"), true), (json!("work"), false)]);
        assert_eq!(mounts(server), [(json!("work"), false)]);
        assert_eq!(mounts(take), [(json!("survivor"), false)]);
        let arguments = server["args"].as_array().unwrap();
        assert!(
            arguments.contains(&json!("--force-new-cluster")) && arguments.contains(&json!("--data-dir=/work/data"))
        );
        assert_eq!(copy["args"], json!(["backup", "copy", "--folder=/survivor/data", "--to=/work/data"]));
        assert!(take["args"].as_array().unwrap().contains(&json!("--folder=/survivor/salvage/a")));
        for container in [copy, server, take] {
            assert_eq!(container["securityContext"], json!(container_security()));
        }
    }
}
