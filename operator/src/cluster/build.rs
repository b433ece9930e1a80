//! The objects that a cluster is made of. They follow from the valid spec alone.

pub mod authority;
pub mod certificate;
pub mod foreign;
pub mod monitor;
pub mod restore;
pub mod secret;

mod pod;
mod policy;
mod program;
mod service;
mod volume;

pub use pod::CONTAINER;
pub use pod::container_security;
pub use pod::mount;
pub use pod::peer_url;
pub use pod::pod;
pub use pod::pod_security;
pub use pod::pull_policy;
pub use pod::pull_secrets;
pub use pod::spec_hash;
pub use policy::network_policy;
pub use program::program;
pub use secret::backup_secret;
pub use secret::credentials;
pub use service::client_service;
pub use service::disruption_budget;
pub use service::peer_service;
pub use volume::volume;
pub use volume::volume_owners;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;

use super::validate::Valid;
use crate::crd::EtcdMember;
use crate::crd::EtcdMemberSpec;

/// Of all Pods of the cluster.
fn selector(valid: &Valid) -> LabelSelector {
    LabelSelector { match_labels: Some(valid.names.selector()), ..LabelSelector::default() }
}

fn metadata(valid: &Valid, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.names.namespace.clone()),
        labels: Some(valid.names.labels()),
        owner_references: Some(vec![valid.names.owner()]),
        ..ObjectMeta::default()
    }
}

pub fn member(valid: &Valid, name: &str, id: Option<u64>) -> EtcdMember {
    let spec = EtcdMemberSpec { cluster_name: valid.names.cluster.clone(), member_id: id.map(|id| format!("{id:x}")) };
    let mut member = EtcdMember::new(name, spec);
    member.metadata = metadata(valid, name.to_owned());
    member
}
