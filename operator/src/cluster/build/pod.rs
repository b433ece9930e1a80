//! A member's Pod: one container, the server, with etcd's flags.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::Affinity;
use k8s_openapi::api::core::v1::Capabilities;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::ContainerPort;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use k8s_openapi::api::core::v1::HTTPGetAction;
use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::core::v1::PodAffinityTerm;
use k8s_openapi::api::core::v1::PodAntiAffinity;
use k8s_openapi::api::core::v1::PodSecurityContext;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::core::v1::SeccompProfile;
use k8s_openapi::api::core::v1::SecretVolumeSource;
use k8s_openapi::api::core::v1::SecurityContext;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::api::core::v1::WeightedPodAffinityTerm;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use super::restore;
use super::secret::member_secret;
use super::selector;
use crate::cluster::plan::Start;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Valid;
use crate::cluster::world::Backup;
use crate::crd::cluster::CompactionMode;
use crate::crd::cluster::LogLevel;
use crate::crd::cluster::PullPolicy;
use crate::crd::cluster::Spread;
use crate::crd::cluster::StorageType;
use crate::names;

pub const CONTAINER: &str = "garboard";
const USER: i64 = 65532;
pub(super) const DATA: &str = "/var/lib/garboard";
const TLS: &str = "/etc/garboard/tls";
/// A hand-over, and the end of what clients have asked for.
const GRACE_S: i64 = 30;
/// How long a member may take to begin: a big log is replayed, or a snapshot fetched.
const START_S: i32 = 3600;

/// The Pod of `member`.
///
/// # Errors
/// `podTemplate.spec` is no PodSpec.
pub fn pod(valid: &Valid, member: &str, start: &Start) -> Result<Pod, serde_json::Error> {
    let mut pod = render(valid, member, start)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(names::SPEC_HASH.to_owned(), spec_hash(valid, member)?);
    let labels = pod.metadata.labels.get_or_insert_default();
    let founds = matches!(start, Start::Found(_));
    if founds {
        annotations.insert(names::FOUNDS.to_owned(), "true".to_owned());
    }
    // Who founds on a volume is replaced before anybody is served; without one it stays.
    if !founds || valid.spec.storage.kind == StorageType::EmptyDir {
        labels.insert(names::SERVES.to_owned(), "true".to_owned());
    }
    Ok(pod)
}

/// What the Pod of `member` is made from. How it begins is not a part of it: the same Pod is not made again because others came or went.
///
/// # Errors
/// `podTemplate.spec` is no PodSpec.
pub fn spec_hash(valid: &Valid, member: &str) -> Result<String, serde_json::Error> {
    let intent = render(valid, member, &Start::Join(Vec::new()))?;
    Ok(crate::cluster::hash(&serde_json::to_vec(&intent)?))
}

fn render(valid: &Valid, member: &str, start: &Start) -> Result<Pod, serde_json::Error> {
    let mut metadata = metadata(valid, member.to_owned());
    metadata.labels = Some(valid.names.member_labels(member));
    let mut pod = Pod { metadata, spec: Some(spec(valid, member, start)), status: None };
    if let Some(template) = &valid.spec.pod_template {
        let mut labels = template.labels.clone();
        labels.extend(pod.metadata.labels.take().unwrap_or_default());
        pod.metadata.labels = Some(labels);
        pod.metadata.annotations = Some(template.annotations.clone());
        if let Some(laid_over) = &template.spec {
            let mut value = laid_over.clone();
            // PodSpec cannot be read without containers, and a template need not have any.
            if let Some(object) = value.as_object_mut() {
                object.entry("containers").or_insert_with(|| serde_json::json!([]));
            }
            let laid_over: PodSpec = serde_json::from_value(value)?;
            pod.spec.merge_from(Some(laid_over));
        }
    }
    pod.metadata.annotations.get_or_insert_default().insert(names::VERSION.to_owned(), valid.version.clone());
    Ok(pod)
}

fn spec(valid: &Valid, member: &str, start: &Start) -> PodSpec {
    PodSpec {
        hostname: Some(member.to_owned()),
        subdomain: Some(valid.names.peer_service()),
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(GRACE_S),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: pull_secrets(valid),
        security_context: Some(pod_security()),
        affinity: affinity(valid),
        topology_spread_constraints: zones(valid),
        init_containers: backup(start).map(|backup| restore::containers(valid, member, backup)),
        containers: vec![container(valid, member, start)],
        volumes: Some(volumes(valid, member, start)),
        ..PodSpec::default()
    }
}

/// What is to be restored before the server begins.
fn backup(start: &Start) -> Option<&Backup> {
    match start {
        Start::Found(backup) => backup.as_ref(),
        Start::Join(_) => None,
    }
}

/// As the restricted Pod security standard has it.
pub fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// As the restricted Pod security standard has it, and with nothing to write to but volumes.
pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

pub fn pull_secrets(valid: &Valid) -> Option<Vec<LocalObjectReference>> {
    let secrets = valid.spec.image.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    Some(secrets.collect::<Vec<_>>()).filter(|secrets| !secrets.is_empty())
}

pub fn pull_policy(valid: &Valid) -> String {
    match valid.spec.image.pull_policy {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    }
    .to_owned()
}

fn container(valid: &Valid, member: &str, start: &Start) -> Container {
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut mounts = vec![mount("data", DATA, false)];
    for plane in Plane::ALL.into_iter().filter(|plane| valid.source(*plane).is_some()) {
        mounts.push(mount(&format!("{plane}-tls"), &format!("{TLS}/{plane}"), true));
    }
    let probe = |path: &str, period_s, failures| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_s),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(valid.image()),
        image_pull_policy: Some(pull_policy(valid)),
        args: Some(flags(valid, member, start)),
        ports: Some(vec![
            port("client", names::CLIENT_PORT),
            port("peer", names::PEER_PORT),
            port("metrics", names::METRICS_PORT),
        ]),
        volume_mounts: Some(mounts),
        startup_probe: Some(probe("/livez", 1, START_S)),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        resources: Some(resources(valid)),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Of the server.
pub(super) fn resources(valid: &Valid) -> ResourceRequirements {
    valid.spec.resources.clone().unwrap_or_else(default_resources)
}

fn default_resources() -> ResourceRequirements {
    let requests = [("cpu", "100m"), ("memory", "256Mi")];
    ResourceRequirements {
        requests: Some(requests.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()),
        ..ResourceRequirements::default()
    }
}

/// etcd's flags.
pub(super) fn flags(valid: &Valid, member: &str, start: &Start) -> Vec<String> {
    let (spec, names) = (&valid.spec, &valid.names);
    let config = &spec.config;
    let (client, peer) = (scheme(valid, Plane::Client), scheme(valid, Plane::Peer));
    let host = names.host(member);
    let mut flags = vec![
        format!("--name={member}"),
        format!("--data-dir={DATA}/data"),
        format!("--listen-client-urls={client}://[::]:{}", names::CLIENT_PORT),
        format!("--advertise-client-urls={client}://{host}:{}", names::CLIENT_PORT),
        format!("--listen-peer-urls={peer}://[::]:{}", names::PEER_PORT),
        format!("--initial-advertise-peer-urls={}", peer_url(valid, member)),
        format!("--listen-metrics-urls=http://[::]:{}", names::METRICS_PORT),
        format!("--quota-backend-bytes={}", valid.quota_bytes),
        format!("--max-request-bytes={}", valid.max_request_bytes),
        format!("--snapshot-count={}", config.snapshot_count),
    ];
    let millis = |text: &str| crate::cluster::validate::duration(text).map_or(0, |duration| duration.as_millis());
    flags.push(format!("--heartbeat-interval={}", millis(&config.heartbeat_interval)));
    flags.push(format!("--election-timeout={}", millis(&config.election_timeout)));
    if config.auto_compaction.retention != "0" {
        let mode = match config.auto_compaction.mode {
            CompactionMode::Periodic => "periodic",
            CompactionMode::Revision => "revision",
        };
        flags.push(format!("--auto-compaction-mode={mode}"));
        flags.push(format!("--auto-compaction-retention={}", config.auto_compaction.retention));
    }
    let level = match config.log_level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    flags.push(format!("--log-level={level}"));
    for (plane, flag) in [(Plane::Client, ""), (Plane::Peer, "peer-")] {
        if valid.source(plane).is_some() {
            flags.extend([
                format!("--{flag}cert-file={TLS}/{plane}/tls.crt"),
                format!("--{flag}key-file={TLS}/{plane}/tls.key"),
                format!("--{flag}trusted-ca-file={TLS}/{plane}/ca.crt"),
                format!("--{flag}client-cert-auth=true"),
            ]);
        }
    }
    match start {
        Start::Join(peers) if !peers.is_empty() => flags.push(format!("--join={}", peers.join(","))),
        start => {
            flags.push(format!("--initial-cluster={member}={}", peer_url(valid, member)));
            flags.push(format!("--initial-cluster-token={}", names.uid));
            let state = if matches!(start, Start::Found(_)) { "new" } else { "existing" };
            flags.push(format!("--initial-cluster-state={state}"));
        }
    }
    flags.extend(config.extra_args.iter().cloned());
    flags
}

fn scheme(valid: &Valid, plane: Plane) -> &'static str {
    if valid.source(plane).is_some() { "https" } else { "http" }
}

pub fn peer_url(valid: &Valid, member: &str) -> String {
    format!("{}://{}:{}", scheme(valid, Plane::Peer), valid.names.host(member), names::PEER_PORT)
}

fn volumes(valid: &Valid, member: &str, start: &Start) -> Vec<Volume> {
    let mut data = Volume { name: "data".to_owned(), ..Volume::default() };
    match valid.spec.storage.kind {
        StorageType::PersistentVolume => {
            data.persistent_volume_claim =
                Some(PersistentVolumeClaimVolumeSource { claim_name: member.to_owned(), read_only: None });
        }
        StorageType::EmptyDir => {
            data.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: Some(valid.spec.storage.size.clone()),
                ..EmptyDirVolumeSource::default()
            });
        }
    }
    let mut volumes = vec![data];
    for plane in Plane::ALL {
        if let Some(name) = member_secret(valid, plane, member) {
            let secret = SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() };
            volumes.push(Volume { name: format!("{plane}-tls"), secret: Some(secret), ..Volume::default() });
        }
    }
    volumes.extend(backup(start).map(restore::volume));
    volumes
}

fn affinity(valid: &Valid) -> Option<Affinity> {
    let placement = &valid.spec.placement;
    let term = PodAffinityTerm {
        label_selector: Some(selector(valid)),
        topology_key: placement.topology_key.clone(),
        ..PodAffinityTerm::default()
    };
    let anti = match placement.anti_affinity {
        Spread::Disabled => return None,
        Spread::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
        Spread::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() })
}

fn zones(valid: &Valid) -> Option<Vec<TopologySpreadConstraint>> {
    let when = match valid.spec.placement.zone_spread {
        Spread::Disabled => return None,
        Spread::Required => "DoNotSchedule",
        Spread::Preferred => "ScheduleAnyway",
    };
    Some(vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: when.to_owned(),
        label_selector: Some(selector(valid)),
        ..TopologySpreadConstraint::default()
    }])
}
