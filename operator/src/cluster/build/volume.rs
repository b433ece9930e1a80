//! The claim of a member's volume. It belongs to no member and no Pod: only `storage.retention` decides when it goes. Until a cluster is
//! founded there is nothing on it that anybody has written, and it goes with the EtcdCluster: nobody would know what is on it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::api::core::v1::VolumeResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use crate::cluster::validate::Valid;
use crate::crd::cluster::AccessMode;
use crate::crd::cluster::WhenDeleted;

/// Whom the volumes of a founded cluster go with.
pub fn volume_owners(valid: &Valid) -> Option<Vec<OwnerReference>> {
    match valid.spec.storage.retention.when_cluster_deleted {
        // They are its own only when it goes.
        WhenDeleted::Delete if valid.wanted.final_backup => None,
        WhenDeleted::Delete => Some(vec![valid.names.owner()]),
        WhenDeleted::Retain => None,
    }
}

pub fn volume(valid: &Valid, member: &str, founded: bool) -> PersistentVolumeClaim {
    let storage = &valid.spec.storage;
    let mode = match storage.access_mode {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
    };
    let owners = if founded { volume_owners(valid) } else { Some(vec![valid.names.owner()]) };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(member.to_owned()),
            namespace: Some(valid.names.namespace.clone()),
            labels: Some(valid.names.member_labels(member)),
            owner_references: owners,
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), storage.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
