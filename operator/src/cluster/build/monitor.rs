//! The members' metrics, for the Prometheus operator.

use kube::api::ApiResource;
use kube::api::DynamicObject;
use kube::api::GroupVersionKind;
use serde_json::json;

use super::metadata;
use super::selector;
use crate::cluster::validate::Valid;

pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "PodMonitor"))
}

pub fn pod_monitor(valid: &Valid) -> DynamicObject {
    let wanted = &valid.spec.monitoring.pod_monitor;
    let mut object = DynamicObject::new(&valid.names.cluster, &resource());
    object.metadata = metadata(valid, valid.names.cluster.clone());
    let mut labels = wanted.labels.clone();
    labels.extend(valid.names.labels());
    object.metadata.labels = Some(labels);
    let endpoint = json!({"port": "metrics", "path": "/metrics", "interval": wanted.interval});
    object.data = json!({"spec": {
        "selector": selector(valid),
        "podMetricsEndpoints": [endpoint],
        "podTargetLabels": [crate::names::CLUSTER, crate::names::MEMBER],
    }});
    object
}
