//! EtcdClusters: looked at when they, their Pods, volumes or EtcdMembers change.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::Predicate as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::Action;
use kube::runtime::controller::Config;
use kube::runtime::controller::Error;
use kube::runtime::events::EventType;
use kube::runtime::predicates;
use kube::runtime::reflector;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::time::Instant;

use super::Context;
use super::Failed;
use super::WORKERS;
use super::failed;
use super::now;
use super::scoped;
use crate::cluster;
use crate::cluster::plan::Step;
use crate::cluster::rotate::Turn;
use crate::cluster::status::describe_turn;
use crate::cluster::validate::Plane;
use crate::crd::EtcdCluster;
use crate::crd::EtcdMember;
use crate::crd::EtcdRestore;
use crate::crd::status::OperationType;
use crate::names;

type Guarded = DeserializeGuard<EtcdCluster>;

pub async fn control(client: &Client, namespace: Option<&str>, context: Arc<Context>) {
    let (reader, writer) = reflector::store();
    context.metrics.observed.watch_clusters(reader.clone());
    let labelled = || watcher::Config::default().labels(names::CLUSTER);
    // The operator's own writes of the status are no reason to look again.
    let changes = watcher(scoped::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation.combine(predicates::annotations), Default::default());
    let of_cluster = |labels: &BTreeMap<String, String>, namespace: Option<String>| {
        let reference = ObjectRef::<Guarded>::new(labels.get(names::CLUSTER)?);
        Some(reference.within(&namespace?))
    };
    Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(WORKERS))
        .watches(scoped::<Pod>(client, namespace), labelled(), move |pod| of_cluster(pod.labels(), pod.namespace()))
        .watches(scoped::<PersistentVolumeClaim>(client, namespace), labelled(), move |volume| {
            of_cluster(volume.labels(), volume.namespace())
        })
        .watches(scoped::<EtcdMember>(client, namespace), labelled(), move |member| {
            of_cluster(member.labels(), member.namespace())
        })
        .watches(scoped::<DeserializeGuard<EtcdRestore>>(client, namespace), watcher::Config::default(), |restore| {
            let reference = ObjectRef::<Guarded>::new(&restore.0.as_ref().ok()?.spec.cluster_ref.name);
            Some(reference.within(&restore.namespace()?))
        })
        .run(reconcile, failed, Arc::clone(&context))
        .for_each(|result| {
            // The pass that was still to come finds nothing to look at.
            if let Err(Error::ObjectNotFound(gone)) = result {
                context.metrics.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(seen: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let Some(cluster) = now(&context, &seen).await? else {
        if let Ok(gone) = &seen.0 {
            context.metrics.forget(&gone.namespace().unwrap_or_default(), &gone.name_any());
        }
        return Ok(Action::await_change());
    };
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let uid = cluster.uid().unwrap_or_default();
    let start = Instant::now();
    let passed = cluster::pass(&context.client, &cluster, &context.defaults).await;
    let reason = passed.as_ref().err().map(cluster::PassError::reason);
    context.metrics.passed(&namespace, &name, start.elapsed().as_secs_f64(), reason);
    match passed {
        Ok(passed) => {
            context.ended_well(&uid);
            tell(&context, &cluster, &passed.step).await;
            for (plane, turn) in &passed.turns {
                tell_turn(&context, &cluster, *plane, turn).await;
            }
            Ok(Action::requeue(passed.again))
        }
        Err(error) => {
            tracing::warn!(namespace, cluster = name, reason, %error, "a pass came to no end");
            Ok(Action::requeue(context.back_off(&uid)))
        }
    }
}

/// An Event for each step that changes something that people care about.
async fn tell(context: &Context, cluster: &EtcdCluster, step: &Step) {
    let (type_, reason) = match step {
        Step::Latch { .. } => (EventType::Normal, "Founded"),
        Step::Begin(operation) => match operation.kind {
            OperationType::AddMember => (EventType::Normal, "AddMember"),
            OperationType::RemoveMember => (EventType::Normal, "RemoveMember"),
            OperationType::RestartMember => (EventType::Normal, "RestartMember"),
            OperationType::ReclaimSpace => (EventType::Normal, "ReclaimSpace"),
        },
        Step::Promote { .. } => (EventType::Normal, "Promote"),
        Step::Remove { .. } => (EventType::Normal, "Removed"),
        Step::MoveLeader { .. } => (EventType::Normal, "MoveLeader"),
        Step::ExpandVolume { .. } => (EventType::Normal, "ExpandVolume"),
        Step::DeletePod { .. } => (EventType::Normal, "DeletePod"),
        Step::RetireVolume { .. } => (EventType::Normal, "VolumeReleased"),
        Step::BeginRestore(_) => (EventType::Normal, "Restore"),
        Step::PutAside { .. } => (EventType::Normal, "VolumePutAside"),
        Step::TakeBack { .. } => (EventType::Normal, "VolumeTakenBack"),
        Step::Compact { .. } => (EventType::Normal, "Compact"),
        Step::Disarm { .. } => (EventType::Normal, "Disarm"),
        Step::FallShort(_) => (EventType::Warning, "ReclaimNotEnough"),
        Step::BackUp { next, .. } if next.tries > 1 => (EventType::Warning, "FinalBackupFailed"),
        Step::BackUp { .. } => (EventType::Normal, "FinalBackup"),
        Step::LetGo(_) => (EventType::Normal, "LetGo"),
        Step::Refuse(_) => (EventType::Warning, "Refused"),
        _ => return,
    };
    context.tell(cluster, type_, reason, cluster::status::describe(step)).await;
}

async fn tell_turn(context: &Context, cluster: &EtcdCluster, plane: Plane, turn: &Turn) {
    let reason = match turn {
        Turn::TrustBoth => "NextCA",
        Turn::Withdraw => "NextCAWithdrawn",
        Turn::Reissue => "Reissue",
        Turn::Retire => "RetireCA",
        Turn::Conclude => "CARotated",
        Turn::Renew => "CAExpired",
        Turn::Rest | Turn::Wait(_) | Turn::Grace(_) | Turn::Settle => return,
    };
    let type_ = if *turn == Turn::Renew { EventType::Warning } else { EventType::Normal };
    context.tell(cluster, type_, reason, format!("{plane} CA: {}", describe_turn(turn))).await;
}
