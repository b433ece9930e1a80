//! Doing one step. Each is safe to be done twice: names follow from the record, deletions name the object that was seen.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::api::Preconditions;
use kube::core::NamespaceResourceScope;
use serde_json::Value;
use serde_json::json;

use super::build;
use super::fetch::Answers;
use super::plan::Step;
use super::validate::Valid;
use super::world::Store;
use super::world::World;
use crate::crd::EtcdMember;
use crate::crd::cluster::WhenRemoved;
use crate::names;
use crate::store;
use crate::store::StoreError;

/// Why a step was not done; it is planned again.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("{what}: {error}")]
    Store { what: String, error: StoreError },
    #[error("spec.podTemplate.spec: {0}")]
    Template(#[from] serde_json::Error),
    #[error("{0} is there already, and is being deleted or another's")]
    Taken(String),
    #[error("nobody can be asked")]
    Nobody,
}

// === impl ActError ===

impl ActError {
    /// For metrics and conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kube(_) => "ApiServer",
            Self::Store { .. } => "MemberRefused",
            Self::Template(_) => "InvalidPodTemplate",
            Self::Taken(_) => "NameTaken",
            Self::Nobody => "NoMember",
        }
    }
}

/// Does what changes something besides the status.
pub async fn act(
    client: &Client,
    valid: &Valid,
    world: &World,
    answers: &Answers,
    step: &Step,
) -> Result<(), ActError> {
    let namespace = valid.names.namespace.as_str();
    let members = Api::<EtcdMember>::namespaced(client.clone(), namespace);
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let volumes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let founded = world.recorded.cluster_id.is_some();
    match step {
        Step::CreateMember { name, id } => create(&members, &build::member(valid, name, *id), valid).await,
        Step::Identify { name, id, cluster_id } => {
            let id = format!("{id:x}");
            if world.members.get(name).is_some_and(|member| member.volume.is_some()) {
                let ids =
                    BTreeMap::from([(names::CLUSTER_ID, format!("{cluster_id:x}")), (names::MEMBER_ID, id.clone())]);
                let mut metadata = json!({"annotations": ids});
                if !founded {
                    metadata["ownerReferences"] = json!(build::volume_owners(valid));
                }
                let patch = Patch::Merge(json!({"metadata": metadata}));
                volumes.patch(name, &PatchParams::default(), &patch).await?;
            }
            let patch = Patch::Merge(json!({"spec": {"memberID": id}}));
            members.patch(name, &PatchParams::default(), &patch).await?;
            Ok(())
        }
        Step::CreateVolume { name } => create(&volumes, &build::volume(valid, name, founded), valid).await,
        Step::ExpandVolume { name, uid } => {
            let requests = json!({"storage": valid.spec.storage.size});
            let patch = json!({"metadata": {"uid": uid}, "spec": {"resources": {"requests": requests}}});
            volumes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            Ok(())
        }
        Step::CreatePod { name, start } => create(&pods, &build::pod(valid, name, start)?, valid).await,
        Step::DeletePod { name, uid, why } => {
            tracing::info!(cluster = valid.names.cluster, pod = name, why, "deleting a Pod");
            let lost =
                world.members.get(name).and_then(|m| m.pod.as_ref()).is_some_and(|pod| pod.node_lost_since.is_some());
            // Nobody answers for a Pod on a lost node: its member has left the cluster, and cannot come back.
            let grace = lost.then_some(0);
            delete(&pods, name, uid, grace).await
        }
        Step::RetireVolume { name, uid } => match valid.spec.storage.retention.when_member_removed {
            WhenRemoved::Delete => delete(&volumes, name, uid, None).await,
            WhenRemoved::Retain => {
                let marks = json!({names::DETACHED: Timestamp::now().to_string()});
                mark(&volumes, name, uid, &marks).await
            }
        },
        Step::PutAside { name, uid } => {
            let restore = world.recorded.restore.as_ref().map(|restore| restore.name.as_str());
            let marks = json!({names::DETACHED: Timestamp::now().to_string(), names::RESTORE: restore});
            mark(&volumes, name, uid, &marks).await
        }
        Step::TakeBack { name, uid } => {
            mark(&volumes, name, uid, &json!({names::DETACHED: null, names::RESTORE: null})).await
        }
        Step::DeleteMember { name } => match members.delete(name, &DeleteParams::default()).await {
            Err(error) if !is(&error, 404) => Err(error.into()),
            _ => Ok(()),
        },
        Step::AddLearner { peer_url, .. } => {
            let asked = any(answers)?.add_learner(peer_url).await;
            match asked {
                Err(error) if error.says("etcdserver: Peer URLs already exists") => Ok(()),
                asked => said(asked.map(drop), "member add"),
            }
        }
        Step::Promote { id, .. } => match any(answers)?.promote(*id).await {
            Err(error) if error.says("can only promote a learner member") => Ok(()),
            asked => said(asked, "member promote"),
        },
        Step::Remove { id, .. } => match any(answers)?.remove(*id).await {
            Err(error) if error.says("member not found") => Ok(()),
            asked => said(asked, "member remove"),
        },
        Step::MoveLeader { to } => {
            let Store::Known(known) = &world.store else { return Err(ActError::Nobody) };
            let leader = answers.of(known.leader);
            let client = leader.and_then(|(name, _)| answers.clients.get(name)).ok_or(ActError::Nobody)?;
            said(client.move_leader(*to).await, "move leader")
        }
        Step::Compact { revision } => match any(answers)?.compact(*revision).await {
            Err(error) if error.says("required revision has been compacted") => Ok(()),
            asked => said(asked, "compact"),
        },
        Step::Defragment { name } => {
            let client = answers.clients.get(name).ok_or(ActError::Nobody)?;
            said(client.defragment().await, "defragment")
        }
        Step::Disarm { id } => said(any(answers)?.disarm_no_space(*id).await, "alarm disarm"),
        Step::Steady
        | Step::Wait(_)
        | Step::Refuse(_)
        | Step::FallShort(_)
        | Step::Hold
        | Step::LetGo(_)
        | Step::BackUp { .. }
        | Step::GrantBootstrap { .. }
        | Step::Latch { .. }
        | Step::Begin(_)
        | Step::End
        | Step::BeginRestore(_)
        | Step::Forget => Ok(()),
    }
}

/// Writes annotations of the volume that was seen; those that are null are taken off it.
async fn mark(volumes: &Api<PersistentVolumeClaim>, name: &str, uid: &str, marks: &Value) -> Result<(), ActError> {
    let patch = Patch::Merge(json!({"metadata": {"uid": uid, "annotations": marks}}));
    volumes.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

fn said(result: Result<(), StoreError>, what: &str) -> Result<(), ActError> {
    result.map_err(|error| ActError::Store { what: what.to_owned(), error })
}

/// A member that has a quorum behind it.
fn any(answers: &Answers) -> Result<&store::Client, ActError> {
    let (name, _) = answers.list.as_ref().ok_or(ActError::Nobody)?;
    answers.clients.get(name).ok_or(ActError::Nobody)
}

pub fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Nothing can be made in a namespace that ends.
pub fn namespace_ends(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("is being terminated"))
}

/// A 409 that means that there is one of this name.
pub fn is_already_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// Creates; what is there already must be the cluster's own and must stay.
pub async fn create<K>(api: &Api<K>, object: &K, valid: &Valid) -> Result<(), ActError>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let params = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Ok(_) => Ok(()),
        Err(error) if is(&error, 409) => {
            let name = object.meta().name.clone().unwrap_or_default();
            if is_ours(api, &name, valid).await? { Ok(()) } else { Err(ActError::Taken(name)) }
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether an object is the cluster's, and stays.
pub async fn is_ours<K>(api: &Api<K>, name: &str, valid: &Valid) -> kube::Result<bool>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let there = api.get_metadata_opt(name).await?;
    Ok(there.is_some_and(|there| {
        let cluster = there.metadata.labels.as_ref().and_then(|labels| labels.get(names::CLUSTER));
        there.metadata.deletion_timestamp.is_none() && cluster == Some(&valid.names.cluster)
    }))
}

/// Deletes the object that was seen; another one of its name stays.
pub async fn delete<K>(api: &Api<K>, name: &str, uid: &str, grace_s: Option<u32>) -> Result<(), ActError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = DeleteParams {
        grace_period_seconds: grace_s,
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        // It is gone, or another one: seen next time.
        Err(error) if is(&error, 404) || is(&error, 409) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// Puts a finalizer on the very object that was seen, or takes it off.
pub async fn finalizer<K>(client: &Client, object: &K, finalizer: &str, hold: bool) -> Result<(), ActError>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let others = object.finalizers().iter().filter(|other| *other != finalizer).cloned();
    let wanted: Vec<String> = others.chain(hold.then(|| finalizer.to_owned())).collect();
    // The status has been written since it was seen: whose it is, is what counts.
    let patch = json!({"metadata": {"uid": object.uid(), "finalizers": wanted}});
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is(&error, 404) => Err(error.into()),
        _ => Ok(()),
    }
}
