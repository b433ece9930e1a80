//! Which clusters are looked at when: on any change of theirs, and from time to time. One cluster is one worker at a time; different ones go
//! on beside each other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::future::select_all;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::Client;
use kube::Resource as _;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::Event;
use kube::runtime::events::EventType;
use kube::runtime::events::Recorder;
use kube::runtime::events::Reporter;
use kube::runtime::predicates;
use kube::runtime::reflector;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::time::Instant;

use crate::arguments::Options;
use crate::cluster;
use crate::cluster::plan::Step;
use crate::cluster::validate::Defaults;
use crate::crd::EtcdCluster;
use crate::crd::EtcdMember;
use crate::crd::status::OperationType;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::names;
use crate::serve;

/// Passes over different clusters at a time.
const WORKERS: u16 = 16;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

type Guarded = DeserializeGuard<EtcdCluster>;

struct Context {
    client: Client,
    defaults: Defaults,
    metrics: Metrics,
    recorder: Recorder,
    /// Failures in a row, by cluster.
    failures: parking_lot::Mutex<std::collections::HashMap<ObjectRef<EtcdCluster>, u32>>,
}

/// A pass that is to be made again after a while.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

/// Runs until it is told to end, or has lost the Lease.
pub fn run(options: Options) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async move {
        let client = Client::try_default().await.context("the API server")?;
        let metrics = Metrics::new()?;
        let ready = Arc::new(AtomicBool::new(false));
        let served = tokio::spawn(serve::serve(options.listen, metrics.clone(), Arc::clone(&ready)));
        ready.store(true, Ordering::Relaxed);
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| format!("pid-{}", std::process::id()));
        let identity = format!("{host}-{}", cluster::random_suffix());
        let leadership = Leadership::new(client.clone(), &options.namespace, identity.clone());
        let work = async {
            if options.leader_elect {
                leadership.acquire().await;
                tracing::info!(identity, "this operator works");
            }
            let lost = async {
                if options.leader_elect {
                    leadership.hold().await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                result = watch(&client, &options, &metrics) => result,
                () = lost => Err(anyhow::anyhow!("the lease is lost: another operator works")),
            }
        };
        tokio::select! {
            result = work => result,
            served = served => served.context("the server of metrics")?,
            () = ended() => {
                if options.leader_elect && let Err(error) = leadership.release().await {
                    tracing::warn!(%error, "the lease is not given back");
                }
                Ok(())
            }
        }
    })
}

async fn ended() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn watch(client: &Client, options: &Options, metrics: &Metrics) -> anyhow::Result<()> {
    // A clear word when the CRD is not there, or may not be read.
    let all = Api::<Guarded>::all(client.clone());
    let first = match options.namespaces.first() {
        Some(namespace) => Api::<Guarded>::namespaced(client.clone(), namespace),
        None => all,
    };
    first.list(&ListParams::default().limit(1)).await.context("EtcdClusters cannot be listed")?;
    let reporter = Reporter { controller: names::MANAGER.to_owned(), instance: std::env::var("HOSTNAME").ok() };
    let context = Arc::new(Context {
        client: client.clone(),
        defaults: options.defaults.clone(),
        metrics: metrics.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        failures: parking_lot::Mutex::default(),
    });
    let scopes = if options.namespaces.is_empty() {
        vec![None]
    } else {
        options.namespaces.iter().map(|name| Some(name.as_str())).collect()
    };
    let running = scopes.into_iter().map(|scope| Box::pin(control(client, scope, Arc::clone(&context))));
    select_all(running).await;
    anyhow::bail!("a watch has ended")
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn control(client: &Client, namespace: Option<&str>, context: Arc<Context>) {
    let (reader, writer) = reflector::store();
    let labelled = || watcher::Config::default().labels(names::CLUSTER);
    // The operator's own writes of the status are no reason to look again.
    let changes = watcher(scoped::<Guarded>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    let of_cluster = |labels: &std::collections::BTreeMap<String, String>, namespace: Option<String>| {
        let reference = ObjectRef::<Guarded>::new(labels.get(names::CLUSTER)?);
        Some(reference.within(&namespace?))
    };
    Controller::for_stream(changes, reader)
        .with_config(kube::runtime::controller::Config::default().concurrency(WORKERS))
        .watches(scoped::<Pod>(client, namespace), labelled(), move |pod| of_cluster(pod.labels(), pod.namespace()))
        .watches(scoped::<PersistentVolumeClaim>(client, namespace), labelled(), move |volume| {
            of_cluster(volume.labels(), volume.namespace())
        })
        .watches(scoped::<EtcdMember>(client, namespace), labelled(), move |member| {
            of_cluster(member.labels(), member.namespace())
        })
        .run(reconcile, failed, context)
        .for_each(|_| async {})
        .await;
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Failed> {
    let cluster = match &guarded.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            // The others go on; this one is looked at again when somebody changes it.
            tracing::warn!(cluster = ?invalid.metadata.name, error = invalid.error, "an EtcdCluster cannot be read");
            return Ok(Action::await_change());
        }
    };
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let key = ObjectRef::from_obj(cluster);
    // As it is now: the watch may be behind what this operator itself has written.
    let api = Api::<EtcdCluster>::namespaced(context.client.clone(), &namespace);
    let cluster = match api.get_opt(&name).await {
        Ok(Some(cluster)) => cluster,
        Ok(None) => return Ok(Action::await_change()),
        Err(error) => return Err(Failed(error.to_string())),
    };
    let start = Instant::now();
    let passed = cluster::pass(&context.client, &cluster, &context.defaults).await;
    let reason = passed.as_ref().err().map(cluster::PassError::reason);
    context.metrics.passed(&namespace, &name, start.elapsed().as_secs_f64(), reason);
    context.metrics.observed(&cluster);
    match passed {
        Ok(passed) => {
            context.failures.lock().remove(&key);
            tell(&context, &cluster, &passed.step).await;
            Ok(Action::requeue(passed.again))
        }
        Err(error) => {
            tracing::warn!(namespace, cluster = name, reason, %error, "a pass came to no end");
            let failures = {
                let mut failures = context.failures.lock();
                let failures = failures.entry(key).or_insert(0);
                *failures = failures.saturating_add(1);
                *failures
            };
            let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(6).saturating_sub(1)).min(BACKOFF_MAX);
            Ok(Action::requeue(pause))
        }
    }
}

fn failed(_: Arc<Guarded>, error: &Failed, _: Arc<Context>) -> Action {
    tracing::warn!(%error, "an EtcdCluster cannot be read from the API server");
    Action::requeue(BACKOFF_MIN)
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
        Step::Compact { .. } => (EventType::Normal, "Compact"),
        Step::Disarm { .. } => (EventType::Normal, "Disarm"),
        Step::FallShort(_) => (EventType::Warning, "ReclaimNotEnough"),
        Step::Refuse(_) => (EventType::Warning, "Refused"),
        _ => return,
    };
    let note = cluster::status::describe(step);
    tracing::info!(namespace = ?cluster.namespace(), cluster = cluster.name_any(), reason, note);
    let event =
        Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
    if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::debug!(%error, "an Event was not written");
    }
}
