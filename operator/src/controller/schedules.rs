//! EtcdBackupSchedules: looked at when they or their backups change, and when it is time.

use std::sync::Arc;

use futures_util::StreamExt as _;
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
use crate::cluster::act::ActError;
use crate::crd::EtcdBackup;
use crate::crd::EtcdBackupSchedule;
use crate::in_place;
use crate::names;
use crate::schedule;
use crate::schedule::plan::Step;

type Guarded = DeserializeGuard<EtcdBackupSchedule>;

pub async fn control(client: &Client, namespace: Option<&str>, context: Arc<Context>) {
    let (reader, writer) = reflector::store();
    context.metrics.observed.watch_schedules(reader.clone());
    let changes = watcher(scoped::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    let backups = scoped::<DeserializeGuard<EtcdBackup>>(client, namespace);
    Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(WORKERS))
        .watches(backups, watcher::Config::default().labels(names::SCHEDULE), |backup| {
            let reference = ObjectRef::<Guarded>::new(backup.labels().get(names::SCHEDULE)?);
            Some(reference.within(&backup.namespace()?))
        })
        .run(reconcile, failed, context)
        .for_each(|_| async {})
        .await;
}

async fn reconcile(seen: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let Some(schedule) = now(&context, &seen).await? else { return Ok(Action::await_change()) };
    let uid = schedule.uid().unwrap_or_default();
    match pass(&context.client, &schedule).await {
        Ok(passed) => {
            context.ended_well(&uid);
            tell(&context, &schedule, &passed.step).await;
            Ok(Action::requeue(passed.again))
        }
        Err(error) => {
            tracing::warn!(namespace = ?schedule.namespace(), schedule = schedule.name_any(), %error, "a pass came to no end");
            Ok(Action::requeue(context.back_off(&uid)))
        }
    }
}

async fn pass(client: &Client, schedule: &EtcdBackupSchedule) -> Result<schedule::Passed, ActError> {
    let in_use = in_place::backups_in_use(client, &schedule.namespace().unwrap_or_default()).await?;
    schedule::pass(client, schedule, &in_use).await
}

async fn tell(context: &Context, schedule: &EtcdBackupSchedule, step: &Step) {
    let (type_, reason) = match step {
        Step::Wait(_) => return,
        Step::Refuse(_) => (EventType::Warning, "InvalidSpec"),
        Step::Skip { .. } => (EventType::Warning, "Skipped"),
        Step::Replace(_) => (EventType::Normal, "Replaced"),
        Step::Create { .. } => (EventType::Normal, "Created"),
        Step::Delete(_) => (EventType::Normal, "Deleted"),
    };
    context.tell(schedule, type_, reason, step.to_string()).await;
}
