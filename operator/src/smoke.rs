//! What `helm test` runs: a user's first minute. A cluster of one member is asked for, written to, read from and deleted.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::api::PostParams;
use kube::api::PropagationPolicy;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::cluster::build::credentials;
use crate::crd;
use crate::crd::EtcdCluster;
use crate::names::Names;
use crate::store;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Of an answer to a request for health.
const ANSWER_MAX: u64 = 64 * 1024;
const KEY: &str = "garboard.dev/smoke";

pub struct Options {
    /// `HOST:PORT` of the operator's health.
    pub operator: String,
    pub namespace: String,
    /// The name of the cluster that is made. One of this name that is left of an earlier try is deleted.
    pub cluster: String,
    /// For all of it.
    pub timeout: Duration,
}

/// Returns when all of it has held.
///
/// # Errors
/// What has not, or was still not so when the time was over. The cluster is left as it is then.
pub fn run(options: &Options) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(try_all(options))
}

async fn try_all(options: &Options) -> anyhow::Result<()> {
    let end = Instant::now() + options.timeout;
    let client = Client::try_default().await.context("the API server")?;
    until(end, "the CRDs", || served(&client)).await?;
    println!("ok: the API server knows the CRDs");
    until(end, &format!("the operator at {}", options.operator), || healthy(&options.operator)).await?;
    println!("ok: the operator is well");

    let clusters = Api::<EtcdCluster>::namespaced(client.clone(), &options.namespace);
    until(end, "the cluster of an earlier try", || gone(&clusters, &options.cluster)).await?;
    clusters.create(&PostParams::default(), &smallest(&options.cluster)?).await.context("create an EtcdCluster")?;
    until(end, "an EtcdCluster that is Ready", || ready(&clusters, &options.cluster)).await?;
    println!("ok: EtcdCluster {} in {} is Ready", options.cluster, options.namespace);

    let store = until(end, "the store", || connect(&client, options)).await?;
    let value = crate::cluster::random_suffix();
    until(end, "a write", || async { Ok(store.put(KEY, &value).await?) }).await?;
    let read = until(end, "a read", || async { Ok(store.get(KEY).await?) }).await?;
    ensure!(read.as_deref() == Some(value.as_bytes()), "{value} was written, and {read:?} read");
    println!("ok: a key was written and read");

    until(end, "the end of the EtcdCluster", || gone(&clusters, &options.cluster)).await?;
    println!("ok: it was deleted, and what it was made of");
    Ok(())
}

/// Tries until it succeeds; the last failure is told when the time is over.
async fn until<T, F: Future<Output = anyhow::Result<T>>>(
    end: Instant,
    what: &str,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut last = None;
    let succeeded = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout_at(end, succeeded).await {
        Ok(value) => Ok(value),
        Err(_) => {
            Err(last.unwrap_or_else(|| anyhow::anyhow!("no answer"))).with_context(|| format!("not in time: {what}"))
        }
    }
}

async fn served(client: &Client) -> anyhow::Result<()> {
    let version = format!("{}/v1alpha1", crd::GROUP);
    let known = client.list_api_group_resources(&version).await?;
    for wanted in ["etcdclusters", "etcdmembers"] {
        ensure!(known.resources.iter().any(|resource| resource.name == wanted), "no {wanted} in {version}");
    }
    Ok(())
}

async fn healthy(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.starts_with("HTTP/1.1 200 "), "/readyz: {}", answer.lines().next().unwrap_or("no answer"));
    Ok(())
}

/// On a volume of the default class, which goes with it.
fn smallest(name: &str) -> serde_json::Result<EtcdCluster> {
    serde_json::from_value(json!({
        "apiVersion": format!("{}/v1alpha1", crd::GROUP),
        "kind": "EtcdCluster",
        "metadata": {"name": name},
        "spec": {"size": 1, "storage": {"size": "512Mi", "retention": {"whenClusterDeleted": "Delete"}}},
    }))
}

async fn ready(clusters: &Api<EtcdCluster>, name: &str) -> anyhow::Result<()> {
    let cluster = clusters.get(name).await?;
    let status = cluster.status.context("it has no status: the operator has not looked at it")?;
    ensure!(status.observed_generation == cluster.metadata.generation, "the operator has not looked at it");
    let not =
        status.conditions.iter().find(|c| ["Available", "Ready"].contains(&c.type_.as_str()) && c.status != "True");
    match not {
        Some(condition) => anyhow::bail!("{} is {}: {}", condition.type_, condition.status, condition.message),
        None if status.ready_members == 1 => Ok(()),
        None => anyhow::bail!("{} members are ready", status.ready_members),
    }
}

/// By the Service that clients use, as the operator's own client.
async fn connect(client: &Client, options: &Options) -> anyhow::Result<store::Client> {
    let names = Names {
        namespace: options.namespace.clone(),
        cluster: options.cluster.clone(),
        uid: String::new(),
        domain: String::new(),
    };
    let secrets = Api::<Secret>::namespaced(client.clone(), &options.namespace);
    let secret = secrets.get(&names.operator_client()).await?;
    let credentials = credentials(&secret).map_err(|why| anyhow::anyhow!("Secret {}: {why}", secret.name_any()))?;
    let host = format!("{}.{}.svc", names.client_service(), names.namespace);
    Ok(store::Client::new(&host, &host, Some(&credentials))?)
}

async fn gone(clusters: &Api<EtcdCluster>, name: &str) -> anyhow::Result<()> {
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    match clusters.delete(name, &params).await {
        Err(error) if crate::cluster::act::is(&error, 404) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => anyhow::bail!("{name} is still there"),
    }
}
