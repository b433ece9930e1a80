//! Certificates that a real cert-manager makes and renews, under members that go on and clients that never stop.

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Extra;
use garboard_lab::Families;
use garboard_lab::packages;
use serde_json::Value;
use serde_json::json;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::certificates::part;
use super::certificates::renewed;
use super::certificates::same_pods;
use super::certificates::under_writes;
use super::rotation::GRACE;
use super::rotation::all_shown;
use super::rotation::authorities;
use super::rotation::changed;
use super::store;
use super::store::LIMIT;
use super::store::Store;
use super::traffic::Traffic;
use crate::scenario::Lab;
use crate::wait::until;

const MANIFEST: &str = include_str!("cert_manager.yaml");
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

    let traffic = Traffic::start(&cluster, lab.seed)?;
    renewed(&mut store, &mut steps, "-issued", |store| {
        let names = store.names("certificates")?;
        ensure!(names.len() == 9, "Certificates of three members, the operator, its backups and a client: {names:?}");
        names.iter().try_for_each(|name| renew(store, name))
    })?;

    changed_source(&store, &mut steps)?;
    late(&Store::new(&cluster, "late"), &mut steps)?;

    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// The operator signs in the issuer's place, and the issuer again in its.
fn changed_source(store: &Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let uids = store.uids("pods")?;
    store.patch(GRACE)?;
    for (name, source) in [
        ("operatorCA", json!({"operatorCA": {}, "certManager": null})),
        ("certManager", json!({"operatorCA": null, "certManager": {"issuerRef": {"name": "authority"}}})),
    ] {
        let before = authorities(store)?;
        let ((), writes) = under_writes(store, || {
            let planes = json!({"client": {"source": source}, "peer": {"source": source}});
            store.patch(&json!({"spec": {"tls": planes}}).to_string())?;
            changed(store, name, &before)
        })?;
        all_shown(store)?;
        steps.held(&format!("the source is {name} now: shown by all members; none of {writes} writes failed"));
    }
    same_pods(store, &uids)
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
