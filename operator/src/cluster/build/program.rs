//! Containers of programs that come to an end.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::container_security;

/// `pull_policy`: `None` is the kubelet's own.
pub fn program(
    name: &str,
    image: String,
    pull_policy: Option<String>,
    arguments: Vec<String>,
    mounts: Vec<VolumeMount>,
) -> Container {
    let requests = [("cpu", "50m"), ("memory", "64Mi")];
    Container {
        name: name.to_owned(),
        image: Some(image),
        image_pull_policy: pull_policy,
        args: Some(arguments),
        volume_mounts: Some(mounts),
        security_context: Some(container_security()),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from(
                requests.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))),
            )),
            ..ResourceRequirements::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
