//! The spec as the rest of a pass uses it: what is absent is filled in, what is written as text is read.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::jiff::SignedDuration;

use super::version;
use super::world::Wanted;
use crate::crd::EtcdCluster;
use crate::crd::EtcdClusterSpec;
use crate::crd::cluster;
use crate::crd::cluster::IssuerRef;
use crate::crd::cluster::NoSpace;
use crate::crd::cluster::StorageType;
use crate::crd::cluster::TlsMode;
pub use crate::crd::status::Plane;
use crate::names;
use crate::names::Names;

/// Share of the volume that a quota may be: a defragmentation writes a second file beside the first.
const QUOTA_PERCENT_MAX: u64 = 40;
/// Of a member without a volume.
const QUOTA_WITHOUT_VOLUME: u64 = 2 << 30;

/// What the operator itself was started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    pub repository: String,
    pub version: String,
    pub domain: String,
    /// Where the operator itself runs.
    pub namespace: String,
    /// Of the operator itself: what Pods of backups run.
    pub operator_image: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Valid {
    pub names: Names,
    pub spec: EtcdClusterSpec,
    /// That members are to run.
    pub version: String,
    recorded_version: Option<String>,
    /// Why they are not to run another one, which was asked for.
    pub refused_version: Option<String>,
    repository: String,
    pub operator_namespace: String,
    pub operator_image: String,
    pub quota_bytes: u64,
    pub max_request_bytes: u64,
    pub cert_validity: SignedDuration,
    pub renew_before: SignedDuration,
    pub ca_validity: SignedDuration,
    pub rotation_grace: SignedDuration,
    /// What the annotation says by which another CA is asked for.
    pub rotate_ca: Option<String>,
    /// `None`: in the clear.
    client_tls: Option<Source>,
    peer_tls: Option<Source>,
    pub wanted: Wanted,
}

/// Where a plane's certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    OperatorCa,
    CertManager(IssuerRef),
    /// The one that all members use.
    Secret(String),
}

/// A field that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {why}")]
pub struct Invalid {
    pub field: &'static str,
    pub why: String,
}

// === impl Valid ===

impl Valid {
    /// `None`: the plane is in the clear.
    pub fn source(&self, plane: Plane) -> Option<&Source> {
        match plane {
            Plane::Client => self.client_tls.as_ref(),
            Plane::Peer => self.peer_tls.as_ref(),
        }
    }

    /// Of the server.
    pub fn image(&self) -> String {
        let Self { repository, version, .. } = self;
        match self.spec.image.digest.as_str() {
            "" => format!("{repository}:{version}"),
            digest => format!("{repository}@{digest}"),
        }
    }

    /// Stays with the version that was recorded, if there are members that cannot be led from theirs to the one that is asked for.
    pub fn keep_in_step(&mut self, running: &BTreeSet<String>) {
        let Some(recorded) = &self.recorded_version else { return };
        let mut from = running.iter().chain([recorded]);
        self.refused_version = from.find_map(|from| version::refusal(from, &self.version));
        if self.refused_version.is_some() {
            self.version.clone_from(recorded);
        }
    }

    /// The quota that fits into the smallest of the volumes, however much more they are to have: all members have the same one.
    pub fn fit_quota(&mut self, smallest: u64) {
        self.quota_bytes = match quota(&self.spec, smallest.min(self.wanted.volume_size)) {
            Ok(bytes) => bytes,
            Err(_) => smallest / 100 * QUOTA_PERCENT_MAX,
        };
    }

    pub fn uses_cert_manager(&self) -> bool {
        Plane::ALL.into_iter().any(|plane| matches!(self.source(plane), Some(Source::CertManager(_))))
    }
}

fn source(field: &'static str, mode: TlsMode, source: &cluster::Source) -> Result<Option<Source>, Invalid> {
    let source = match (&source.operator_ca, &source.cert_manager, &source.secret_name) {
        (Some(_), None, None) => Source::OperatorCa,
        (None, Some(manager), None) => Source::CertManager(manager.issuer_ref.clone()),
        (None, None, Some(name)) => Source::Secret(name.clone()),
        _ => return Err(Invalid { field, why: "must name exactly one source".to_owned() }),
    };
    Ok((mode == TlsMode::Mutual).then_some(source))
}

/// # Errors
/// What the rules of the CRD let through and cannot be obeyed.
pub fn validate(cluster: &EtcdCluster, defaults: &Defaults) -> Result<Valid, Invalid> {
    let spec = cluster.spec.clone();
    let invalid = |field, why: &str| Invalid { field, why: why.to_owned() };
    let metadata = &cluster.metadata;
    let domain = if spec.network.cluster_domain.is_empty() { &defaults.domain } else { &spec.network.cluster_domain };
    let names = Names {
        namespace: metadata.namespace.clone().ok_or_else(|| invalid("metadata.namespace", "is absent"))?,
        cluster: metadata.name.clone().ok_or_else(|| invalid("metadata.name", "is absent"))?,
        uid: metadata.uid.clone().ok_or_else(|| invalid("metadata.uid", "is absent"))?,
        domain: domain.trim_matches('.').to_owned(),
    };
    let recorded = cluster.status.as_ref().and_then(|status| status.version.clone());
    let version = if spec.version.is_empty() {
        version::unnamed(spec.update_policy, recorded.as_deref(), &defaults.version)
    } else {
        spec.version.trim_start_matches('v').to_owned()
    };
    let repository = if spec.image.repository.is_empty() { &defaults.repository } else { &spec.image.repository };
    let size = usize::try_from(spec.size).map_err(|_| invalid("size", "is negative"))?;
    if size == 0 {
        return Err(invalid("size", "must be 1 at least"));
    }
    let volume_size = bytes(&spec.storage.size).ok_or_else(|| invalid("storage.size", "is not a quantity"))?;
    let quota_bytes = quota(&spec, volume_size)?;
    let max_request_bytes =
        bytes(&spec.config.max_request_bytes).ok_or_else(|| invalid("config.maxRequestBytes", "is not a quantity"))?;
    let time = |field, text: &str| duration(text).ok_or_else(|| invalid(field, "is not a duration such as 1h30m"));
    time("config.heartbeatInterval", &spec.config.heartbeat_interval)?;
    time("config.electionTimeout", &spec.config.election_timeout)?;
    let wanted = Wanted {
        size,
        paused: spec.paused,
        volumes: spec.storage.kind == StorageType::PersistentVolume,
        volume_size,
        healing: spec.healing.enabled,
        node_lost_for: time("healing.nodeLostFor", &spec.healing.node_lost_for)?,
        stabilization: time("update.stabilization", &spec.update.stabilization)?,
        reclaim: spec.maintenance.nospace == NoSpace::Reclaim,
        final_backup: spec.deletion.final_backup.is_some(),
    };
    Ok(Valid {
        version,
        recorded_version: recorded,
        refused_version: None,
        repository: repository.clone(),
        operator_namespace: defaults.namespace.clone(),
        operator_image: defaults.operator_image.clone(),
        quota_bytes,
        max_request_bytes,
        cert_validity: time("tls.certValidity", &spec.tls.cert_validity)?,
        renew_before: time("tls.renewBefore", &spec.tls.renew_before)?,
        ca_validity: time("tls.caValidity", &spec.tls.ca_validity)?,
        rotation_grace: time("tls.client.rotationGrace", &spec.tls.client.rotation_grace)?,
        rotate_ca: metadata.annotations.as_ref().and_then(|noted| noted.get(names::ROTATE_CA)).cloned(),
        client_tls: source("tls.client.source", spec.tls.client.mode, &spec.tls.client.source)?,
        peer_tls: source("tls.peer.source", spec.tls.peer.mode, &spec.tls.peer.source)?,
        wanted,
        names,
        spec,
    })
}

fn quota(spec: &EtcdClusterSpec, size: u64) -> Result<u64, Invalid> {
    let invalid = |why: &str| Invalid { field: "config.quotaBackend", why: why.to_owned() };
    let text = spec.config.quota_backend.as_str();
    let has_volume = spec.storage.kind == StorageType::PersistentVolume;
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().map_err(|_| invalid("is not a share such as 40%"))?;
        return Ok(if has_volume { size / 100 * percent.min(QUOTA_PERCENT_MAX) } else { QUOTA_WITHOUT_VOLUME });
    }
    let quota = bytes(&Quantity(text.to_owned())).ok_or_else(|| invalid("is not a quantity"))?;
    if has_volume && quota > size / 100 * QUOTA_PERCENT_MAX {
        return Err(invalid("is more than 40% of storage.size: a defragmentation needs room for a second file"));
    }
    Ok(quota)
}

/// A Kubernetes quantity in whole bytes, rounded up.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "Pi" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = (number.parse::<f64>().ok()? * factor).ceil();
    // Exact up to 9 PB.
    (bytes.is_finite() && bytes < 9e15).then_some(bytes as u64)
}

/// As Go writes durations: `1h30m`, `100ms`.
pub fn duration(text: &str) -> Option<SignedDuration> {
    if text == "0" {
        return Some(SignedDuration::ZERO);
    }
    text.parse().ok().filter(|duration: &SignedDuration| !duration.is_negative())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn cluster(spec: serde_json::Value) -> EtcdCluster {
        let mut cluster = EtcdCluster::new("a", serde_json::from_value(spec).unwrap());
        cluster.metadata.namespace = Some("n".to_owned());
        cluster.metadata.uid = Some("u".to_owned());
        cluster
    }

    pub fn defaults() -> Defaults {
        Defaults {
            repository: "r/garboard".into(),
            version: "1.2.3".into(),
            domain: "cluster.local".into(),
            namespace: "o".into(),
            operator_image: "r/garboard-operator:1.2.3".into(),
        }
    }

    #[test]
    fn an_empty_spec_is_three_members_of_the_operators_version() {
        let valid = validate(&cluster(serde_json::json!({})), &defaults()).unwrap();
        assert_eq!((valid.wanted.size, valid.image()), (3, "r/garboard:1.2.3".to_owned()));
        assert_eq!(valid.quota_bytes, (8 << 30) / 100 * 40);
        assert_eq!(valid.max_request_bytes, 1536 * 1024);
    }

    #[test]
    fn the_version_of_the_status_outlives_the_operators() {
        let mut cluster = cluster(serde_json::json!({}));
        cluster.status = Some(crate::crd::EtcdClusterStatus { version: Some("1.0.0".into()), ..Default::default() });
        assert_eq!(validate(&cluster, &defaults()).unwrap().version, "1.0.0");
        cluster.spec.version = "v2.0.0".into();
        assert_eq!(validate(&cluster, &defaults()).unwrap().image(), "r/garboard:2.0.0");
    }

    #[test]
    fn the_next_version_waits_for_members_of_the_one_before() {
        let mut cluster = cluster(serde_json::json!({"version": "1.2.0"}));
        cluster.status = Some(crate::crd::EtcdClusterStatus { version: Some("1.1.0".into()), ..Default::default() });
        let decided = |running: &[&str]| {
            let mut valid = validate(&cluster, &defaults()).unwrap();
            valid.keep_in_step(&running.iter().map(|version| (*version).to_owned()).collect());
            (valid.image(), valid.refused_version.is_some())
        };
        assert_eq!(decided(&["1.1.0"]), ("r/garboard:1.2.0".to_owned(), false));
        assert_eq!(decided(&["1.0.5", "1.1.0"]), ("r/garboard:1.1.0".to_owned(), true));
        cluster.spec.version = "1.4.0".into();
        let mut valid = validate(&cluster, &defaults()).unwrap();
        valid.keep_in_step(&BTreeSet::new());
        assert_eq!(valid.image(), "r/garboard:1.1.0");
    }

    #[test]
    fn quantities_and_durations_are_read_as_kubernetes_and_go_write_them() {
        let read = |text: &str| bytes(&Quantity(text.to_owned()));
        for (text, expected) in [("1", 1), ("1.5Ki", 1536), ("2G", 2_000_000_000), ("1e3", 1000), ("1500m", 2)] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for wrong in ["", "x", "1X", "1.2.3", "-1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(duration("1h30m"), Some(SignedDuration::from_mins(90)));
        assert_eq!(duration("100ms"), Some(SignedDuration::from_millis(100)));
        assert_eq!(duration("0"), Some(SignedDuration::ZERO));
        assert_eq!(duration("-1s"), None);
    }

    #[test]
    fn the_quota_follows_the_volumes_that_there_are() {
        let spec = serde_json::json!({"storage": {"size": "2Gi"}, "config": {"quotaBackend": "20%"}});
        let mut valid = validate(&cluster(spec), &defaults()).unwrap();
        for (smallest, expected) in [(1 << 30, (1 << 30) / 100 * 20), (3 << 30, (2 << 30) / 100 * 20)] {
            valid.fit_quota(smallest);
            assert_eq!(valid.quota_bytes, expected);
        }
        let spec = serde_json::json!({"storage": {"size": "2Gi"}, "config": {"quotaBackend": "500Mi"}});
        let mut valid = validate(&cluster(spec), &defaults()).unwrap();
        for (smallest, expected) in [(1 << 30, (1 << 30) / 100 * 40), (2 << 30, 500 << 20)] {
            valid.fit_quota(smallest);
            assert_eq!(valid.quota_bytes, expected);
        }
    }

    #[test]
    fn a_quota_that_leaves_no_room_is_refused() {
        let spec = serde_json::json!({"storage": {"size": "1Gi"}, "config": {"quotaBackend": "500Mi"}});
        assert_eq!(validate(&cluster(spec), &defaults()).unwrap_err().field, "config.quotaBackend");
    }
}
