//! Certificates that a real cert-manager makes and renews, under members that go on and clients that never stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Extra;
use garboard_lab::Families;
use garboard_lab::packages;
use serde_json::Value;
use serde_json::json;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::store;
use super::store::LIMIT;
use super::store::Store;
use super::traffic::Traffic;
use crate::process::run;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

const MANIFEST: &str = include_str!("cert_manager.yaml");
/// What a member shows, by the last part of its Secret's name, and where.
const PLANES: [(&str, u16); 2] = [("client", 2379), ("peer", 2380)];
const CLIENT: &str = "store-kube-apiserver";
/// A cluster whose issuer is nobody, until
const LATE: &str = r"
apiVersion: garboard.dev/v1alpha1
kind: EtcdCluster
metadata: {name: late}
spec:
  size: 1
  tls:
    client: {source: {certManager: {issuerRef: {name: not-yet-there}}}}
    peer: {source: {certManager: {issuerRef: {name: not-yet-there}}}}
";
/// it is somebody.
const LATE_ISSUER: &str = r"
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: not-yet-there}
spec: {ca: {secretName: root}}
";

/// Serial numbers, by the Secret.
type Serials = BTreeMap<String, String>;

pub fn operator_cert_manager(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("openssl", "openssl")?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    cluster.install(Extra::CertManager)?;
    steps.held("cert-manager, by its own chart");
    store::install(lab, &cluster)?;
    cluster.apply(MANIFEST)?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    ensure!(store.condition("CertificatesValid")? == "True", "not all certificates are valid");
    steps.held("three members with certificates of cert-manager, Ready");

    store.start_client()?;
    store.check()?;
    let health = store.etcdctl_ok(&["endpoint", "health", "--cluster"])?;
    ensure!(health.matches("is healthy").count() == 3, "{health}");
    let bare = store.etcdctl(&["--cert=", "--key=", "--command-timeout=3s", "get", "key"])?;
    ensure!(!bare.status.success(), "a client without a certificate is served");
    let (root, authority) = (part(&store, "root", "tls.crt")?, part(&store, CLIENT, "ca.crt")?);
    ensure!(root == authority, "{CLIENT} tells another authority than the issuer's");
    steps.held("etcdctl is served over TLS, with a certificate of the issuer's and with none not");

    let (uids, first) = (store.uids("pods")?, served(&store)?);
    ensure!(first.len() == 6, "certificates of three members: {first:?}");
    ensure!(first == kept(&store)?, "shown: {first:?}, in the Secrets: {:?}", kept(&store)?);
    steps.held("each member shows what is in its Secrets, to clients and to its peers");

    let traffic = Traffic::start(&cluster, lab.seed)?;
    let (second, writes) = under_writes(&store, || {
        let names = store.names("certificates")?;
        ensure!(names.len() == 8, "Certificates of three members, the operator and a client: {names:?}");
        names.iter().try_for_each(|name| renew(&store, name))?;
        shown_anew(&store, &first, &first.keys().cloned().collect::<Vec<_>>())
    })?;
    steps.held(&format!("all are renewed and shown without a restart; none of {writes} writes failed"));

    let lost = first.keys().next().context("no Secret")?.clone();
    let (third, writes) = under_writes(&store, || {
        cluster.kubectl_ok(&["delete", "secret", &lost])?;
        shown_anew(&store, &second, std::slice::from_ref(&lost))
    })?;
    ensure!(
        second.iter().all(|(name, serial)| *name == lost || third[name] == *serial),
        "others than {lost} are new: {second:?}, then {third:?}"
    );
    steps.held(&format!("{lost} is deleted, made again and shown; none of {writes} writes failed"));

    store.wait(3)?;
    ensure!(store.condition("CertificatesValid")? == "True", "not all certificates are valid");
    same_pods(&store, &uids)?;
    store.start_client()?;
    store.check()?;
    steps.held("the Pods are those from before, and take a client with its new certificate");

    late(&Store::new(&cluster, "late"), &mut steps)?;

    let judged = traffic.finish()?;
    steps.held(&format!("no client was lied to: {judged}"));
    store.agree()?;
    let held = steps.count();
    cluster.down()?;
    Ok(held + 1)
}

/// An issuer that is not there is named; all goes on when it is.
fn late(late: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    late.apply(LATE)?;
    let path = r#"{.status.conditions[?(@.type=="CertificatesValid")].message}"#;
    until("word on the issuer that is not there", LIMIT, || {
        Ok((late.condition("CertificatesValid")? == "False" && late.get(path)?.contains("Issuer not-yet-there"))
            .then_some(()))
    })
    .with_context(|| late.get("{.status}").unwrap_or_default())?;
    ensure!(late.uids("pods")?.is_empty(), "a member without certificates has a Pod");
    steps.held("an issuer that is not there: the condition names it");
    late.apply(LATE_ISSUER)?;
    late.wait(1)?;
    ensure!(late.condition("CertificatesValid")? == "True", "not all certificates are valid");
    steps.held("it appears: Ready");
    late.delete()
}

/// Does `work` while a client writes, each time on a connection of its own; the count of the writes, none of which may fail.
fn under_writes<T>(store: &Store<'_>, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u32)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count: u32 = 0;
            while !over.load(Ordering::Relaxed) {
                count += 1;
                store.etcdctl_ok(&["put", "written", &count.to_string()])?;
            }
            anyhow::Ok(count)
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let count = writer.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        ensure!(count > 0, "nothing was written meanwhile");
        Ok((done?, count))
    })
}

/// Asks for another certificate in place of one that is well, as `cmctl renew` does.
fn renew(store: &Store<'_>, name: &str) -> anyhow::Result<()> {
    until(&format!("renewal of {name} that is taken"), LIMIT, || {
        let text = store.cluster.kubectl_ok(&["get", "certificate", name, "--output=json"])?;
        let certificate: Value = serde_json::from_str(&text)?;
        let there = certificate["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut conditions: Vec<Value> = there.into_iter().filter(|condition| condition["type"] != "Issuing").collect();
        conditions.push(json!({
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "renewed by a test",
            "observedGeneration": certificate["metadata"]["generation"],
        }));
        // With the version that was read: what cert-manager has written since must not be lost.
        let version = &certificate["metadata"]["resourceVersion"];
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
        let patch = ["--subresource=status", "--type=merge", "--patch", &patch.to_string()];
        let output = store.cluster.kubectl(&[&["patch", "certificate", name], &patch[..]].concat())?;
        ensure!(output.status.success() || output.stderr.contains("Conflict"), "{}", output.stderr);
        Ok(output.status.success().then_some(()))
    })
}

/// Waits until `names` hold others than in `before`, and all that is in Secrets is shown; the serials.
fn shown_anew(store: &Store<'_>, before: &Serials, names: &[String]) -> anyhow::Result<Serials> {
    let mut seen = (Serials::new(), Serials::new());
    until("new certificates that are shown", LIMIT, || {
        seen = (kept(store)?, served(store)?);
        let (kept, served) = &seen;
        let renewed = names.iter().all(|name| kept.get(name).is_some_and(|serial| before.get(name) != Some(serial)));
        Ok((renewed && kept.len() == before.len() && kept == served).then(|| served.clone()))
    })
    .with_context(|| format!("before: {before:?}, in the Secrets: {:?}, shown: {:?}", seen.0, seen.1))
}

/// What is in the members' Secrets.
fn kept(store: &Store<'_>) -> anyhow::Result<Serials> {
    let mut serials = Serials::new();
    for member in store.names("etcdmembers")? {
        for (plane, _) in PLANES {
            let name = format!("{member}-{plane}-tls");
            // It may have been deleted.
            let Ok(certificate) = part(store, &name, "tls.crt") else { continue };
            serials.extend(serial(&certificate)?.map(|serial| (name, serial)));
        }
    }
    Ok(serials)
}

/// What members show whoever connects, by the Secret that it should be from.
fn served(store: &Store<'_>) -> anyhow::Result<Serials> {
    let mut serials = Serials::new();
    for pod in store.list("pods")? {
        let member = pod["metadata"]["name"].as_str().context("a Pod without a name")?;
        let address = pod["status"]["podIP"].as_str().context("a Pod without an address")?;
        for (plane, port) in PLANES {
            let to = format!("{address}:{port}");
            let node = store.cluster.node(1)?;
            // It fails, for want of a certificate of its own, and has seen the other's by then.
            let output = run(&mut node.beside(Path::new("openssl"), &["s_client", "-connect", &to])?)?;
            let shown = serial(&output.stdout)?.with_context(|| format!("{member} shows none: {}", output.stderr))?;
            serials.insert(format!("{member}-{plane}-tls"), shown);
        }
    }
    Ok(serials)
}

/// Of the first certificate in a text.
fn serial(text: &str) -> anyhow::Result<Option<String>> {
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(None);
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-serial"]);
    Ok(Some(run_with_input(&mut openssl, text)?.success("openssl x509")?.stdout.trim().to_owned()))
}

/// A file of a Secret.
fn part(store: &Store<'_>, secret: &str, file: &str) -> anyhow::Result<String> {
    let template = format!(r#"--output=go-template={{{{index .data "{file}" | base64decode}}}}"#);
    store.cluster.kubectl_ok(&["get", "secret", secret, &template])
}

/// The Pods are those of `uids`, and nothing in them was started again.
fn same_pods(store: &Store<'_>, uids: &[String]) -> anyhow::Result<()> {
    let now = store.uids("pods")?;
    ensure!(now == uids, "Pods: {uids:?}, then {now:?}");
    for pod in store.list("pods")? {
        let containers = pod["status"]["containerStatuses"].as_array().context("no containers")?;
        let calm = !containers.is_empty() && containers.iter().all(|container| container["restartCount"] == 0);
        ensure!(calm, "a member was started again: {}", pod["status"]["containerStatuses"]);
    }
    Ok(())
}
