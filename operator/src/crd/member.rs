//! EtcdMember: one member, kept by the operator alone.
//!
//! It owns nothing: a Pod belongs to the cluster, a volume to nobody, so that a deleted EtcdMember costs no data. It is made again from
//! the volume and the store's own list.

// Columns are attributes that share names: clippy takes them for one another.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use super::rules;

#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "garboard.dev",
    version = "v1alpha1",
    kind = "EtcdMember",
    namespaced,
    shortname = "em",
    category = "garboard",
    doc = "One member of an EtcdCluster. Kept by the operator: do not edit.",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "ID", type_ = "string", json_path = ".spec.memberID"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMemberSpec {
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self == oldSelf", "a member stays in its cluster")])))]
    pub cluster_name: String,
    /// In hex; set once the store knows the member.
    #[serde(rename = "memberID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[("self == oldSelf", "a member keeps its id")])))]
    pub member_id: Option<String>,
}
