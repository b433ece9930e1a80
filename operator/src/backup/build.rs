//! The objects that a backup is made with: Jobs whose Pods have no access to the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::batch::v1::PodFailurePolicy;
use k8s_openapi::api::batch::v1::PodFailurePolicyOnExitCodesRequirement;
use k8s_openapi::api::batch::v1::PodFailurePolicyOnPodConditionsPattern;
use k8s_openapi::api::batch::v1::PodFailurePolicyRule;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::api::core::v1::SecretVolumeSource;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::api::core::v1::VolumeResourceRequirements;
use kube::Resource as _;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::plan::Task;
use crate::archive;
use crate::cluster::build::mount;
use crate::cluster::build::pod_security;
use crate::cluster::build::program;
use crate::cluster::build::pull_policy;
use crate::cluster::build::pull_secrets;
use crate::cluster::validate::Valid;
use crate::crd::EtcdBackup;
use crate::crd::backup::Compression;
use crate::names;

/// Of Pods that take, verify and delete.
pub const SERVICE_ACCOUNT: &str = "garboard-backup";

const BACKUP: &str = "/backup";
const TLS: &str = "/etc/garboard/tls";
/// Where a snapshot is restored to be verified.
const SCRATCH: &str = "/work";

/// What a Job is made from.
pub struct Plan<'a> {
    pub backup: &'a EtcdBackup,
    /// `None` for a Job that removes files: the cluster may have gone.
    pub cluster: Option<&'a Valid>,
    /// Of the operator.
    pub image: &'a str,
    /// Names and hosts of the members that can be asked, in the order in which they are to be.
    pub members: Vec<(String, String)>,
    /// The Secret with what a client shows to members.
    pub client_secret: Option<String>,
    /// Seconds that are left to it.
    pub deadline_s: i64,
}

// === impl Plan ===

impl Plan<'_> {
    pub fn job(&self, task: Task) -> Job {
        let name = job_name(&self.backup.name_any(), task);
        let labels = labels(self.backup);
        let read_only = task == Task::Verify;
        let spec = PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some(SERVICE_ACCOUNT.to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: self.cluster.and_then(pull_secrets),
            security_context: Some(pod_security()),
            tolerations: self.cluster.and_then(tolerations),
            init_containers: (task == Task::Verify).then(|| self.restorers()).flatten(),
            containers: vec![match task {
                Task::Take => self.take(),
                Task::Verify => self.program("compare", self.compare_arguments(), &[(BACKUP, true)]),
                Task::Delete => self.program("delete", self.delete_arguments(), &[(BACKUP, false)]),
            }],
            volumes: Some(self.volumes(task, read_only)),
            ..PodSpec::default()
        };
        Job {
            metadata: metadata(self.backup, name),
            spec: Some(JobSpec {
                backoff_limit: Some(self.backup.spec.template.backoff_limit),
                active_deadline_seconds: Some(self.deadline_s),
                pod_failure_policy: Some(failure_policy()),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                    spec: Some(spec),
                },
                ..JobSpec::default()
            }),
            status: None,
        }
    }

    fn folder(&self) -> String {
        format!("{BACKUP}/{}", self.backup.folder())
    }

    fn archive_arguments(&self, command: &str) -> Vec<String> {
        let backup = format!("--backup={}", self.backup.name_any());
        vec!["backup".to_owned(), command.to_owned(), format!("--folder={}", self.folder()), backup]
    }

    fn uid(&self) -> String {
        format!("--uid={}", self.backup.uid().unwrap_or_default())
    }

    /// Files of this name may be those of another EtcdBackup, which they were refused for.
    fn delete_arguments(&self) -> Vec<String> {
        let mut arguments = self.archive_arguments("delete");
        arguments.push(self.uid());
        arguments
    }

    fn take(&self) -> Container {
        let spec = &self.backup.spec;
        let compression = match spec.template.compression {
            Compression::Zstd => "zstd",
            Compression::None => "none",
        };
        let mut arguments = self.archive_arguments("take");
        arguments.extend([
            format!("--namespace={}", self.backup.namespace().unwrap_or_default()),
            format!("--cluster={}", spec.cluster_ref.name),
            self.uid(),
            format!("--compression={compression}"),
        ]);
        arguments.extend(self.members.iter().map(|(name, host)| format!("--member={name}={host}")));
        let mut mounts = vec![(BACKUP, false)];
        if self.client_secret.is_some() {
            arguments.push(format!("--tls={TLS}"));
            mounts.push((TLS, true));
        }
        self.program("take", arguments, &mounts)
    }

    fn compare_arguments(&self) -> Vec<String> {
        let mut arguments = self.archive_arguments("compare");
        arguments.push("--host=127.0.0.1".to_owned());
        arguments
    }

    /// The archive becomes a data directory, and a server of it runs beside the one who compares.
    fn restorers(&self) -> Option<Vec<Container>> {
        let mut unpack = self.archive_arguments("unpack");
        unpack.push(format!("--to={SCRATCH}/snapshot.db"));
        let server = |name: &str, arguments: Vec<String>| {
            let image = self.cluster.map(Valid::image).unwrap_or_default();
            self.container(name, image, arguments, &[(SCRATCH, false)])
        };
        let url = |port: i32| format!("http://127.0.0.1:{port}");
        let data = format!("--data-dir={SCRATCH}/data");
        let restore = ["snapshot".to_owned(), "restore".to_owned(), format!("{SCRATCH}/snapshot.db"), data.clone()];
        let serve = vec![
            data,
            format!("--listen-client-urls={}", url(names::CLIENT_PORT)),
            format!("--advertise-client-urls={}", url(names::CLIENT_PORT)),
            format!("--listen-peer-urls={}", url(names::PEER_PORT)),
            format!("--quota-backend-bytes={}", self.cluster?.quota_bytes),
        ];
        // It runs beside the main container, and ends with it.
        let mut serving = server("server", serve);
        serving.restart_policy = Some("Always".to_owned());
        Some(vec![
            self.program("unpack", unpack, &[(BACKUP, true), (SCRATCH, false)]),
            server("restore", restore.into()),
            serving,
        ])
    }

    fn program(&self, name: &str, arguments: Vec<String>, mounts: &[(&str, bool)]) -> Container {
        self.container(name, self.image.to_owned(), arguments, mounts)
    }

    fn container(&self, name: &str, image: String, arguments: Vec<String>, mounts: &[(&str, bool)]) -> Container {
        let mounts = mounts.iter().map(|(path, read_only)| mount(volume_name(path), path, *read_only));
        program(name, image, self.cluster.map(pull_policy), arguments, mounts.collect())
    }

    fn volumes(&self, task: Task, read_only: bool) -> Vec<Volume> {
        let claim =
            PersistentVolumeClaimVolumeSource { claim_name: self.backup.claim(), read_only: read_only.then_some(true) };
        let named = |path: &str| Volume { name: volume_name(path).to_owned(), ..Volume::default() };
        let mut volumes = vec![Volume { persistent_volume_claim: Some(claim), ..named(BACKUP) }];
        if task == Task::Verify {
            volumes.push(Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..named(SCRATCH) });
        }
        if let (Task::Take, Some(secret)) = (task, &self.client_secret) {
            // The group of the Pod reads it: nobody else does.
            let secret = SecretVolumeSource {
                secret_name: Some(secret.clone()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            };
            volumes.push(Volume { secret: Some(secret), ..named(TLS) });
        }
        volumes
    }
}

fn volume_name(path: &str) -> &'static str {
    match path {
        BACKUP => "backup",
        TLS => "tls",
        _ => "work",
    }
}

/// Those of the members.
pub fn tolerations(valid: &Valid) -> Option<Vec<k8s_openapi::api::core::v1::Toleration>> {
    let spec = valid.spec.pod_template.as_ref()?.spec.as_ref()?;
    serde_json::from_value(spec.get("tolerations")?.clone()).ok()
}

/// A Pod that says that trying again is of no use is the last one; one that had to make way is not counted.
pub fn failure_policy() -> PodFailurePolicy {
    let useless = PodFailurePolicyOnExitCodesRequirement {
        container_name: None,
        operator: "In".to_owned(),
        values: vec![i32::from(archive::EXIT_USELESS)],
    };
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(useless),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![disrupted]),
            },
        ],
    }
}

pub fn job_name(backup: &str, task: Task) -> String {
    let task = match task {
        Task::Take => "take",
        Task::Verify => "verify",
        Task::Delete => "delete",
    };
    format!("{backup}-{task}")
}

/// Not those of a cluster: by them its members are found.
fn labels(backup: &EtcdBackup) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "garboard-backup".to_owned()),
        ("app.kubernetes.io/managed-by", names::MANAGER.to_owned()),
        (names::BACKUP, backup.name_any()),
        (names::BACKUP_OF, backup.spec.cluster_ref.name.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn metadata(backup: &EtcdBackup, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: backup.namespace(),
        labels: Some(labels(backup)),
        owner_references: Some(backup.controller_owner_ref(&()).into_iter().collect()),
        ..ObjectMeta::default()
    }
}

/// The backup's own volume. It belongs to nobody: only `deletionPolicy` decides when it goes.
pub fn claim(backup: &EtcdBackup) -> Option<PersistentVolumeClaim> {
    let template = backup.spec.template.destination.volume_template.as_ref()?;
    let mut metadata = metadata(backup, backup.claim());
    metadata.owner_references = None;
    Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: template.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), template.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

/// Without any rights.
pub fn service_account(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(SERVICE_ACCOUNT.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), names::MANAGER.to_owned())])),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

#[cfg(test)]
mod tests;
