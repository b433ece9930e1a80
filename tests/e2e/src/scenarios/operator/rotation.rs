//! CAs that are rotated under members that go on: below a writer whose every connection is new, and a watcher whose stream is old. Then all
//! certificates expire while no operator runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::packages;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::certificates::kept;
use super::certificates::part;
use super::certificates::same_pods;
use super::certificates::served;
use super::certificates::under_writes;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use super::store::Store;
use super::traffic::Traffic;
use crate::process::Process;
use crate::process::run;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

/// The Secret of a client, and those of the CAs.
const CLIENT: &str = "store-kube-apiserver";
const AUTHORITIES: [&str; 2] = ["store-client-ca", "store-peer-ca"];
/// Two times for clients, three for kubelets.
const ROTATION_LIMIT: Duration = Duration::from_secs(420);
/// A CA of six minutes, and another one that may follow it.
const EXPIRY_LIMIT: Duration = Duration::from_secs(900);
/// For clients: kubelets here look each 10 s.
pub const GRACE: &str = r#"{"spec":{"tls":{"client":{"rotationGrace":"30s"}}}}"#;
const SHORT: &str = r#"{"spec":{"tls":{"certValidity":"2m","renewBefore":"1m","caValidity":"6m"}}}"#;
const LONG: &str = r#"{"spec":{"tls":{"certValidity":"2160h","renewBefore":"720h","caValidity":"43800h"}}}"#;

pub fn operator_rotation(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("openssl", "openssl")?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(EXAMPLE)?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    store.patch(GRACE)?;
    store.start_client()?;
    store.check()?;
    let uids = store.uids("pods")?;
    let first = Identity::keep(lab, &store, "first")?;
    ensure!(first.is_served(lab, &store)?, "a client is not served with the certificate that it has");
    let traffic = Traffic::start(&cluster, lab.seed)?;
    let exec = ["exec", "client", "--", "/etcdctl", "watch", "written"];
    let mut watch = Process::spawn(cluster.command("kubectl", &exec), &lab.path("watch.out"))?;
    // It is there when it sees a write.
    until("event of a watch", LIMIT, || {
        store.etcdctl_ok(&["put", "written", "before"])?;
        Ok(watch.output().contains("before").then_some(()))
    })?;

    for n in 1..=3 {
        let ((), writes) = under_writes(&store, || rotate(&store, &n.to_string()))?;
        ensure!(kept(&store)? == served(&store)?, "members show others than those in their Secrets");
        steps.held(&format!("rotation {n}: both CAs are others; none of {writes} writes failed"));
    }
    same_pods(&store, &uids)?;
    store.etcdctl_ok(&["put", "written", "after all of them"])?;
    watch.wait_output("event on a stream from before", LIMIT, |text| text.contains("after all of them"))?;
    steps.held("the Pods are those from before, and the watch has gone on");
    ensure!(Identity::keep(lab, &store, "last")?.is_served(lab, &store)?, "a client with a new certificate is refused");
    ensure!(!first.is_served(lab, &store)?, "a client with a certificate of the first CA is served");
    steps.held("a client with a certificate of the first CA is refused");

    expired(&store, &mut steps)?;
    same_pods(&store, &uids)?;
    store.check()?;
    steps.held("all goes on, with the Pods from before");
    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// Asks for other CAs, and waits until all is done.
pub fn rotate(store: &Store<'_>, demand: &str) -> anyhow::Result<()> {
    // The API server may be away.
    let before = until("two CAs", LIMIT, || Ok(authorities(store).ok().filter(|all| all.len() == 2)))?;
    let annotation = format!("garboard.dev/rotate-ca={demand}");
    store.insist(&["annotate", "etcdcluster", store.name, "--overwrite", &annotation])?;
    until("rotation of both CAs", ROTATION_LIMIT, || {
        let Ok(now) = authorities(store) else { return Ok(None) };
        let done = |(plane, (phase, sha256)): (&String, &(String, String))| {
            phase == "Stable" && before.get(plane).is_none_or(|(_, before)| before != sha256)
        };
        Ok((now.len() == 2 && now.iter().all(done)).then_some(()))
    })
    .with_context(|| told(store))
}

/// Phase and fingerprint, by plane.
fn authorities(store: &Store<'_>) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let path = r#"{range .status.authorities[*]}{.plane} {.phase} {.sha256}{"\n"}{end}"#;
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some((words.next()?, (words.next()?, words.next()?)))
    };
    let text = store.get(path)?;
    text.lines().map(|text| line(text).with_context(|| text.to_owned())).collect()
}

fn told(store: &Store<'_>) -> String {
    store.get(r#"{.status.conditions[?(@.type=="AuthoritiesRotated")]}"#).unwrap_or_default()
}

/// The operator is away until every certificate and every CA has expired.
fn expired(store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    store.patch(SHORT)?;
    rotate(store, "short")?;
    scale_operator(store, 0)?;
    store.patch(LONG)?;
    until("end of all CAs", EXPIRY_LIMIT, || {
        for authority in AUTHORITIES {
            // There is no next one unless a rotation was under way.
            let next = part(store, authority, "next.crt").unwrap_or_default();
            if !is_over(&part(store, authority, "tls.crt")?)? || !is_over(&next)? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let refused = store.etcdctl(&["--command-timeout=3s", "put", "written", "too late"])?;
    ensure!(!refused.status.success(), "a write over certificates that have expired: {refused:?}");
    steps.held("no operator until all certificates and CAs have expired: clients are refused");

    scale_operator(store, 1)?;
    until("write after the operator is back", LIMIT, || {
        let output = store.etcdctl(&["--command-timeout=3s", "put", "written", "again"])?;
        Ok(output.status.success().then_some(()))
    })
    .with_context(|| told(store))?;
    until("end of the rotation", ROTATION_LIMIT, || {
        Ok((store.condition("AuthoritiesRotated")? == "True").then_some(()))
    })
    .with_context(|| told(store))?;
    store.wait(3)?;
    ensure!(kept(store)? == served(store)?, "members show others than those in their Secrets");
    steps.held("the operator is back: others are made at once, and members take them");
    Ok(())
}

fn scale_operator(store: &Store<'_>, count: u32) -> anyhow::Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    store.insist(&[&namespace, "scale", "deployment", OPERATOR, &format!("--replicas={count}")])?;
    match count {
        0 => store.insist(&[&namespace, "wait", "--for=delete", "pods", "--all", "--timeout=120s"]),
        _ => Ok(()),
    }
}

/// Whether a certificate has expired, or there is none.
fn is_over(certificate: &str) -> anyhow::Result<bool> {
    if !certificate.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(true);
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-checkend", "0"]);
    Ok(!run_with_input(&mut openssl, certificate)?.status.success())
}

/// What a client has shown at one time.
struct Identity {
    cert: PathBuf,
    key: PathBuf,
}

// === impl Identity ===

impl Identity {
    /// What the client's Secret holds now.
    fn keep(lab: &Lab, store: &Store<'_>, name: &str) -> anyhow::Result<Self> {
        let identity = Self { cert: lab.path(&format!("{name}.crt")), key: lab.path(&format!("{name}.key")) };
        std::fs::write(&identity.cert, part(store, CLIENT, "tls.crt")?)?;
        std::fs::write(&identity.key, part(store, CLIENT, "tls.key")?)?;
        Ok(identity)
    }

    /// Whether a member takes it. Whom the client trusts is no part of the question.
    fn is_served(&self, lab: &Lab, store: &Store<'_>) -> anyhow::Result<bool> {
        let pods = store.list("pods")?;
        let address =
            pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("a Pod without an address")?;
        let endpoint = format!("--endpoints=https://{address}:2379");
        let (cert, key) = (format!("--cert={}", self.cert.display()), format!("--key={}", self.key.display()));
        let flags = [&endpoint, &cert, &key, "--insecure-skip-tls-verify", "--command-timeout=5s"];
        let node = store.cluster.node(1)?;
        let etcdctl: &Path = &lab.tool("etcdctl");
        Ok(run(&mut node.beside(etcdctl, &[&flags[..], &["get", "written"]].concat())?)?.status.success())
    }
}
