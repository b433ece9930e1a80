//! CAs that change under members that go on, below a writer whose every connection is new, and a watcher whose stream is old: the operator's
//! is rotated, somebody else's Secret takes its place, and the operator's comes back. Then all of them expire while no operator runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::packages;
use serde_json::json;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::certificates::kept;
use super::certificates::part;
use super::certificates::same_pods;
use super::certificates::served;
use super::certificates::told;
use super::certificates::under_writes;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use super::store::Store;
use super::traffic::Traffic;
use crate::certs::Authority;
use crate::certs::Identity;
use crate::process::Process;
use crate::process::run;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

/// The Secret of a client, those of the CAs, and the one that somebody else has made.
const CLIENT: &str = "store-kube-apiserver";
const AUTHORITIES: [&str; 2] = ["store-client-ca", "store-peer-ca"];
const OWN: &str = "own";
/// One after the other, of the operator's CAs.
const ROTATIONS: u32 = 1;
const ROTATIONS_FULL: u32 = 5;
/// Two times for clients, three for kubelets.
const ROTATION_LIMIT: Duration = Duration::from_secs(420);
/// A CA of three minutes, and another one that may follow it.
const EXPIRY_LIMIT: Duration = Duration::from_secs(600);
/// For clients: kubelets here look each 10 s to 15 s.
pub const GRACE: &str = r#"{"spec":{"tls":{"client":{"rotationGrace":"25s"}}}}"#;
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
    let traffic = Traffic::start(&cluster, lab.seed)?;
    let exec = ["exec", "client", "--", "/etcdctl", "watch", "written"];
    let mut watch = Process::spawn(cluster.command("kubectl", &exec), &lab.path("watch.out"))?;
    // It is there when it sees a write.
    until("event of a watch", LIMIT, || {
        store.etcdctl_ok(&["put", "written", "before"])?;
        Ok(watch.output().contains("before").then_some(()))
    })?;

    rotated(lab, &store, &mut steps)?;
    to_own(lab, &store, &mut steps)?;
    and_back(lab, &store, &mut steps)?;
    same_pods(&store, &uids)?;
    store.etcdctl_ok(&["put", "written", "after all of them"])?;
    watch.wait_output("event on a stream from before", LIMIT, |text| text.contains("after all of them"))?;
    steps.held("the Pods are those from before, and the watch has gone on");

    expired(&store, &mut steps)?;
    same_pods(&store, &uids)?;
    store.check()?;
    steps.held("all goes on, with the Pods from before");
    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// The operator's CAs, one after the other.
fn rotated(lab: &Lab, store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let first = identity(lab, store, "first")?;
    let takers = takers(lab, store, &first)?;
    ensure!(takers == 3, "{takers} of 3 members take a client with the certificate that it has");
    for n in 1..=if lab.full { ROTATIONS_FULL } else { ROTATIONS } {
        let ((), writes) = under_writes(store, || rotate(store, &n.to_string()))?;
        all_shown(store)?;
        steps.held(&format!("rotation {n}: both CAs are others; none of {writes} writes failed"));
    }
    is_refused(lab, store, &first, "rotated")?;
    steps.held("a client with a certificate of the first CA is refused");
    Ok(())
}

/// Asks for other CAs, and waits until all is done.
pub fn rotate(store: &Store<'_>, demand: &str) -> anyhow::Result<()> {
    // The API server may be away.
    let before = until("two CAs", LIMIT, || Ok(authorities(store).ok().filter(|all| all.len() == 2)))?;
    let annotation = format!("garboard.dev/rotate-ca={demand}");
    store.insist(&["annotate", "etcdcluster", store.name, "--overwrite", &annotation])?;
    changed(store, "operatorCA", &before)
}

/// Waits until both planes have certificates of this source, of other CAs than before, and trust no other.
pub fn changed(store: &Store<'_>, source: &str, before: &BTreeMap<String, Told>) -> anyhow::Result<()> {
    until(&format!("end of the change to {source}"), ROTATION_LIMIT, || {
        let Ok(now) = authorities(store) else { return Ok(None) };
        let done = |(plane, now): (&String, &Told)| {
            now.source == source && now.phase == "Stable" && before.get(plane).is_none_or(|before| before != now)
        };
        Ok((now.len() == 2 && now.iter().all(done)).then_some(()))
    })
    .with_context(|| told(store))
}

/// Members show what is in their Secrets, to clients and to their peers.
pub fn all_shown(store: &Store<'_>) -> anyhow::Result<()> {
    let (kept, served) = (kept(store)?, served(store)?);
    ensure!(kept.len() == 6 && kept == served, "in the Secrets: {kept:?}, shown: {served:?}; {}", told(store));
    Ok(())
}

/// What is said of an authority.
#[derive(PartialEq)]
pub struct Told {
    source: String,
    phase: String,
    /// Of the operator's own; empty of others.
    sha256: String,
}

/// By plane.
pub fn authorities(store: &Store<'_>) -> anyhow::Result<BTreeMap<String, Told>> {
    let path = r#"{range .status.authorities[*]}{.plane} {.source} {.phase} {.sha256}{"\n"}{end}"#;
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let plane = words.next()?;
        Some((plane, Told { source: words.next()?, phase: words.next()?, sha256: words.next().unwrap_or_default() }))
    };
    let text = store.get(path)?;
    text.lines().map(|text| line(text).with_context(|| text.to_owned())).collect()
}

/// A Secret of somebody else's takes the place of the operator's CAs. Its maker cares for the client, too.
fn to_own(lab: &Lab, store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let own = Authority::new(&lab.dir, "own-ca")?;
    let names = ["*.store-peer.default.svc.cluster.local", "store-client.default.svc", "localhost"];
    let members = own.issue_for(&lab.dir, "own-members", names.map(str::to_owned).to_vec())?;
    let client = own.issue_for(&lab.dir, "own-client", Vec::new())?;
    let file = |name: &str, path: &Path| format!("--from-file={name}={}", path.display());
    let files = [file("tls.crt", &members.cert), file("tls.key", &members.key), file("ca.crt", &own.cert)];
    store.cluster.kubectl_ok(&["create", "secret", "generic", OWN, &files[0], &files[1], &files[2]])?;
    let last = identity(lab, store, "last")?;
    let both = part(store, CLIENT, "ca.crt")? + &std::fs::read_to_string(&own.cert)?;
    let before = authorities(store)?;
    let ((), writes) = under_writes(store, || {
        let source = json!({"operatorCA": null, "secretName": OWN});
        let tls = json!({"client": {"source": source}, "peer": {"source": source}, "clientCertificates": null});
        store.patch(&json!({"spec": {"tls": tls}}).to_string())?;
        put(store, json!({"ca.crt": both}))?;
        until("certificates of the other CA", ROTATION_LIMIT, || {
            let now = authorities(store)?.remove("client").context("no authority towards clients")?;
            Ok((now.source == "secretName").then_some(()))
        })
        .with_context(|| told(store))?;
        let text = |path: &Path| std::fs::read_to_string(path);
        put(store, json!({"tls.crt": text(&client.cert)?, "tls.key": text(&client.key)?}))?;
        changed(store, "secretName", &before)
    })?;
    all_shown(store)?;
    steps.held(&format!("certificates of somebody else's Secret; none of {writes} writes failed"));
    is_refused(lab, store, &last, "own")?;
    steps.held("a client with a certificate of the operator's CA is refused");
    Ok(())
}

/// Writes files of the client's Secret.
fn put(store: &Store<'_>, files: serde_json::Value) -> anyhow::Result<()> {
    let patch = json!({"stringData": files}).to_string();
    store.insist(&["patch", "secret", CLIENT, "--type=merge", "--patch", &patch])
}

/// The operator signs again, the client's certificate too; with CAs that end soon.
fn and_back(lab: &Lab, store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let last = identity(lab, store, "own-last")?;
    let before = authorities(store)?;
    let source = json!({"operatorCA": {}, "secretName": null});
    let tls = json!({
        "client": {"source": source},
        "peer": {"source": source},
        "clientCertificates": [{"name": "kube-apiserver", "secretName": CLIENT}],
        "certValidity": "150s",
        "renewBefore": "60s",
        "caValidity": "3m",
    });
    let ((), writes) = under_writes(store, || {
        store.patch(&json!({"spec": {"tls": tls}}).to_string())?;
        changed(store, "operatorCA", &before)
    })?;
    steps.held(&format!("certificates of the operator's CAs again; none of {writes} writes failed"));
    is_refused(lab, store, &last, "back")?;
    steps.held("a client with a certificate of somebody else's CA is refused");
    Ok(())
}

/// The operator is away until every certificate and every CA has expired.
fn expired(store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    scale_operator(store, 0)?;
    store.patch(LONG)?;
    let leaves: Vec<String> = kept(store)?.into_keys().collect();
    until("end of all certificates and CAs", EXPIRY_LIMIT, || {
        let mut ends = AUTHORITIES.iter().copied().chain(leaves.iter().map(String::as_str));
        let is_over = ends.try_fold(true, |over, name| {
            // There is no next one unless a rotation was under way.
            let next = part(store, name, "next.crt").unwrap_or_default();
            anyhow::Ok(over && is_over(&part(store, name, "tls.crt")?)? && is_over(&next)?)
        })?;
        Ok(is_over.then_some(()))
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
    all_shown(store)?;
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

/// What the client's Secret holds now.
fn identity(lab: &Lab, store: &Store<'_>, name: &str) -> anyhow::Result<Identity> {
    let identity = Identity { cert: lab.path(&format!("{name}.crt")), key: lab.path(&format!("{name}.key")) };
    std::fs::write(&identity.cert, part(store, CLIENT, "tls.crt")?)?;
    std::fs::write(&identity.key, part(store, CLIENT, "tls.key")?)?;
    Ok(identity)
}

/// The members that take it, of three. Whom the client trusts is no part of the question.
fn takers(lab: &Lab, store: &Store<'_>, identity: &Identity) -> anyhow::Result<usize> {
    let mut takers = 0;
    for pod in store.list("pods")? {
        let address = pod["status"]["podIP"].as_str().context("a Pod without an address")?;
        let endpoint = format!("--endpoints=https://{address}:2379");
        let (cert, key) = (format!("--cert={}", identity.cert.display()), format!("--key={}", identity.key.display()));
        let flags = [&endpoint, &cert, &key, "--insecure-skip-tls-verify", "--command-timeout=5s"];
        let node = store.cluster.node(1)?;
        let etcdctl: &Path = &lab.tool("etcdctl");
        let asked = run(&mut node.beside(etcdctl, &[&flags[..], &["get", "written"]].concat())?)?;
        takers += usize::from(asked.status.success());
    }
    Ok(takers)
}

/// That no member takes it any more, nor lost its own.
fn is_refused(lab: &Lab, store: &Store<'_>, before: &Identity, name: &str) -> anyhow::Result<()> {
    let now = takers(lab, store, &identity(lab, store, name)?)?;
    ensure!(now == 3, "{now} of 3 members take a client with its new certificate");
    let still = takers(lab, store, before)?;
    ensure!(still == 0, "{still} of 3 members take a client with a certificate of the CA before: {}", told(store));
    Ok(())
}
