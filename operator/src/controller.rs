//! What is looked at when: on any change of it, and from time to time. One object is one worker at a time; different ones go on beside each
//! other.

mod backups;
mod clusters;
mod restores;
mod schedules;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::future::select_all;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::Event;
use kube::runtime::events::EventType;
use kube::runtime::events::Recorder;
use kube::runtime::events::Reporter;

use crate::arguments::Options;
use crate::cluster;
use crate::cluster::validate::Defaults;
use crate::crd::EtcdCluster;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::names;
use crate::serve;

/// Passes over different objects of a kind at a time.
const WORKERS: u16 = 16;
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

struct Context {
    client: Client,
    defaults: Defaults,
    metrics: Metrics,
    recorder: Recorder,
    /// Failures in a row, by the uid of what was looked at.
    failures: parking_lot::Mutex<HashMap<String, u32>>,
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
    let first = scoped::<DeserializeGuard<EtcdCluster>>(client, options.namespaces.first().map(String::as_str));
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
    let running = scopes.into_iter().flat_map(|scope| -> [BoxFuture<'_, ()>; 4] {
        [
            clusters::control(client, scope, Arc::clone(&context)).boxed(),
            backups::control(client, scope, Arc::clone(&context)).boxed(),
            schedules::control(client, scope, Arc::clone(&context)).boxed(),
            restores::control(client, scope, Arc::clone(&context)).boxed(),
        ]
    });
    select_all(running).await;
    anyhow::bail!("a watch has ended")
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The object as it is now, if there is one: a watch may be behind what this operator itself has written.
async fn now<K>(context: &Context, seen: &DeserializeGuard<K>) -> Result<Option<K>, Failed>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match &seen.0 {
        Ok(seen) => {
            let api = Api::<K>::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
            api.get_opt(&seen.name_any()).await.map_err(|error| Failed(error.to_string()))
        }
        Err(invalid) => {
            // The others go on; this one is looked at again when somebody changes it.
            tracing::warn!(kind = %K::kind(&()), name = ?invalid.metadata.name, error = invalid.error, "it cannot be read");
            Ok(None)
        }
    }
}

fn failed<K>(_: Arc<K>, error: &Failed, _: Arc<Context>) -> Action {
    tracing::warn!(%error, "an object cannot be read from the API server");
    Action::requeue(BACKOFF_MIN)
}

// === impl Context ===

impl Context {
    /// A pass over the object of this uid came to its end.
    fn ended_well(&self, uid: &str) {
        self.failures.lock().remove(uid);
    }

    /// How long to wait after a pass that did not.
    fn back_off(&self, uid: &str) -> Duration {
        let mut all = self.failures.lock();
        let failures = all.entry(uid.to_owned()).or_insert(0);
        *failures = failures.saturating_add(1);
        BACKOFF_MIN.saturating_mul(1 << (*failures).min(6).saturating_sub(1)).min(BACKOFF_MAX)
    }

    /// Tells people of something that they care about.
    async fn tell<K>(&self, about: &K, type_: EventType, reason: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        tracing::info!(namespace = ?about.namespace(), name = about.name_any(), reason, note);
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &about.object_ref(&())).await {
            tracing::debug!(%error, "an Event was not written");
        }
    }
}
