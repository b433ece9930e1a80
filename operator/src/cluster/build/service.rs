//! How members and clients find the members, and how many of them may be drained at once.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use super::selector;
use crate::cluster::validate::Valid;
use crate::cluster::world::quorum;
use crate::crd::cluster::ServiceType;
use crate::names;

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// A name for each member, from its first moment on: it has to be found before it can be ready.
pub fn peer_service(valid: &Valid) -> Service {
    Service {
        metadata: metadata(valid, valid.names.peer_service()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(valid.names.selector()),
            ports: Some(vec![
                port("client", names::CLIENT_PORT),
                port("peer", names::PEER_PORT),
                port("metrics", names::METRICS_PORT),
            ]),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// For clients: voters that are ready. A learner is not, and a Pod that may still found a cluster does not serve.
pub fn client_service(valid: &Valid) -> Service {
    let wanted = &valid.spec.services.client;
    let mut metadata = metadata(valid, valid.names.client_service());
    let mut labels = wanted.labels.clone();
    labels.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(labels);
    metadata.annotations = Some(wanted.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let mut selector = valid.names.selector();
    selector.insert(names::SERVES.to_owned(), "true".to_owned());
    let families = wanted.ip_families.iter().map(|family| format!("{family:?}")).collect();
    let kind = match wanted.kind {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(selector),
            ports: Some(vec![port("client", names::CLIENT_PORT)]),
            ip_family_policy: Some(format!("{:?}", wanted.ip_family_policy)),
            ip_families: Some(families).filter(|families: &Vec<_>| !families.is_empty()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A quorum of what is or is to be stays, whatever is drained: a number, since a share would follow the number of Pods down. `None` for a
/// single member, which could never be drained otherwise.
pub fn disruption_budget(valid: &Valid, voters: usize) -> Option<PodDisruptionBudget> {
    let members = voters.max(valid.wanted.size);
    if members < 2 {
        return None;
    }
    Some(PodDisruptionBudget {
        metadata: metadata(valid, valid.names.cluster.clone()),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(i32::try_from(quorum(members)).unwrap_or(i32::MAX))),
            selector: Some(selector(valid)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
