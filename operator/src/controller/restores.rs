//! EtcdRestores: looked at when somebody changes them, and often while they are at work.

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
use kube::runtime::watcher;

use super::Context;
use super::Failed;
use super::WORKERS;
use super::failed;
use super::now;
use super::scoped;
use crate::crd::EtcdRestore;
use crate::in_place;
use crate::in_place::Step;

type Guarded = DeserializeGuard<EtcdRestore>;

pub async fn control(client: &Client, namespace: Option<&str>, context: Arc<Context>) {
    let (reader, writer) = reflector::store();
    context.metrics.observed.watch_restores(reader.clone());
    let changes = watcher(scoped::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    Controller::for_stream(changes, reader)
        .with_config(Config::default().concurrency(WORKERS))
        .run(reconcile, failed, context)
        .for_each(|_| async {})
        .await;
}

async fn reconcile(seen: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let Some(restore) = now(&context, &seen).await? else { return Ok(Action::await_change()) };
    let uid = restore.uid().unwrap_or_default();
    match in_place::pass(&context.client, &restore, &context.defaults).await {
        Ok(passed) => {
            context.ended_well(&uid);
            tell(&context, &restore, &passed.step).await;
            Ok(passed.again.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            tracing::warn!(namespace = ?restore.namespace(), restore = restore.name_any(), %error, "a pass came to no end");
            Ok(Action::requeue(context.back_off(&uid)))
        }
    }
}

async fn tell(context: &Context, restore: &EtcdRestore, step: &Step) {
    let shown = restore.status.as_ref().and_then(|status| status.plan.as_ref());
    let (type_, reason, note) = match step {
        Step::Propose(plan) if shown.is_none_or(|shown| shown.token != plan.token) => {
            (EventType::Normal, "AwaitingConfirmation", format!("{}: {}", plan.token, plan.expected_loss))
        }
        Step::Choose(plan) if shown.is_none_or(|shown| shown.token != plan.token) => {
            (EventType::Normal, "AwaitingConfirmation", format!("{}: {}", plan.token, plan.chosen))
        }
        Step::Withdraw(why) => (EventType::Warning, why.reason, why.message.clone()),
        Step::Confirm(plan) => (EventType::Normal, "Confirmed", plan.chosen.clone()),
        Step::Founded(id) => (EventType::Normal, "Founded", format!("the cluster is {id} now")),
        Step::Advance(phase) => (EventType::Normal, "Phase", format!("{phase:?}")),
        Step::Fail { reason, message } => (EventType::Warning, *reason, message.clone()),
        _ => return,
    };
    context.tell(restore, type_, reason, note).await;
}
