//! EtcdBackups: looked at when they or their Jobs change, and often while a Job runs.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::Action;
use kube::runtime::controller::Config;
use kube::runtime::events::EventType;
use kube::runtime::predicates;
use kube::runtime::reflector;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use super::Context;
use super::Failed;
use super::WORKERS;
use super::failed;
use super::now;
use super::scoped;
use crate::backup;
use crate::backup::Step;
use crate::crd::EtcdBackup;
use crate::names;

type Guarded = DeserializeGuard<EtcdBackup>;

pub async fn control(client: &Client, namespace: Option<&str>, context: Arc<Context>) {
    let (reader, writer) = reflector::store();
    context.metrics.observed.watch_backups(reader.clone());
    let changes = watcher(scoped::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(WORKERS))
        .watches(scoped::<Job>(client, namespace), watcher::Config::default().labels(names::BACKUP), |job| {
            let reference = ObjectRef::<Guarded>::new(job.labels().get(names::BACKUP)?);
            Some(reference.within(&job.namespace()?))
        })
        .run(reconcile, failed, context)
        .for_each(|_| async {})
        .await;
}

async fn reconcile(seen: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let Some(backup) = now(&context, &seen).await? else { return Ok(Action::await_change()) };
    let uid = backup.uid().unwrap_or_default();
    match backup::pass(&context.client, &backup, &context.defaults).await {
        Ok(passed) => {
            context.ended_well(&uid);
            tell(&context, &backup, &passed.step).await;
            Ok(passed.again.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            tracing::warn!(namespace = ?backup.namespace(), backup = backup.name_any(), %error, "a pass came to no end");
            Ok(Action::requeue(context.back_off(&uid)))
        }
    }
}

async fn tell(context: &Context, backup: &EtcdBackup, step: &Step) {
    let (type_, reason, note) = match step {
        Step::Taken(manifest) => {
            (EventType::Normal, "Taken", format!("revision {} of {}", manifest.revision, manifest.member))
        }
        Step::Verified => (EventType::Normal, "Verified", "it was restored, and is the same".to_owned()),
        Step::Unverified(why) => (EventType::Warning, "NotVerified", why.clone()),
        Step::Fail { reason, message } => {
            let namespace = backup.namespace().unwrap_or_default();
            context.metrics.backup_failed(&namespace, &backup.spec.cluster_ref.name, reason);
            (EventType::Warning, *reason, message.clone())
        }
        _ => return,
    };
    context.tell(backup, type_, reason, note).await;
}
