//! Certificates that are renewed under members that go on and clients that never stop: what a test sees of them, and the operator's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::packages;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::Store;
use super::traffic::Traffic;
use crate::process::run;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

/// What a member shows, by the last part of its Secret's name, and where.
const PLANES: [(&str, u16); 2] = [("client", 2379), ("peer", 2380)];

/// Serial numbers, by the Secret.
type Serials = BTreeMap<String, String>;

pub fn operator_certificates(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("openssl", "openssl")?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(EXAMPLE)?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    store.start_client()?;
    store.check()?;
    let traffic = Traffic::start(&cluster, lab.seed)?;
    // All that were signed for less than this are due.
    let validity = r#"{"spec":{"tls":{"certValidity":"8760h","renewBefore":"4380h"}}}"#;
    renewed(&mut store, &mut steps, "", |store| store.patch(validity))?;
    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// The certificates of three members: all renewed, then one lost with the Secret that it comes from, whose name ends in `source`; under writes and
/// without a restart.
pub fn renewed(
    store: &mut Store<'_>,
    steps: &mut Steps,
    source: &str,
    renew: impl FnOnce(&Store<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (uids, first) = (store.uids("pods")?, served(store)?);
    ensure!(first.len() == 6, "certificates of three members: {first:?}");
    ensure!(first == kept(store)?, "shown: {first:?}, in the Secrets: {:?}", kept(store)?);
    steps.held("each member shows what is in its Secrets, to clients and to its peers");

    let (second, writes) = under_writes(store, || {
        renew(store)?;
        shown_anew(store, &first, &first.keys().cloned().collect::<Vec<_>>())
    })?;
    steps.held(&format!("all are renewed and shown without a restart; none of {writes} writes failed"));

    let lost = first.keys().next().context("no Secret")?.clone();
    let (third, writes) = under_writes(store, || {
        store.cluster.kubectl_ok(&["delete", "secret", &format!("{lost}{source}")])?;
        shown_anew(store, &second, std::slice::from_ref(&lost))
    })?;
    ensure!(
        second.iter().all(|(name, serial)| *name == lost || third[name] == *serial),
        "others than {lost} are new: {second:?}, then {third:?}"
    );
    steps.held(&format!("{lost}{source} is deleted, made again and shown; none of {writes} writes failed"));

    store.wait(3)?;
    ensure!(store.condition("CertificatesValid")? == "True", "not all certificates are valid");
    same_pods(store, &uids)?;
    store.start_client()?;
    store.check()?;
    steps.held("the Pods are those from before, and take a client with its new certificate");
    Ok(())
}

/// Does `work` while a client writes, each time on a connection of its own; the count of the writes, none of which may fail.
pub fn under_writes<T>(store: &Store<'_>, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, u32)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut count: u32 = 0;
            while !over.load(Ordering::Relaxed) {
                count += 1;
                let written = store.etcdctl_ok(&["put", "written", &count.to_string()]);
                written.with_context(|| format!("write {count}, when {}", told(store)))?;
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

/// What the status says of certificates.
pub fn told(store: &Store<'_>) -> String {
    let conditions = ["AuthoritiesRotated", "CertificatesValid"];
    let paths = conditions.map(|kind| format!(r#"{{.status.conditions[?(@.type=="{kind}")]}}"#)).concat();
    let told = store.get(&format!("{{.status.authorities}}{paths}"));
    told.unwrap_or_else(|error| format!("the API server says nothing: {error:#}"))
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
pub fn kept(store: &Store<'_>) -> anyhow::Result<Serials> {
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
pub fn served(store: &Store<'_>) -> anyhow::Result<Serials> {
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
pub fn part(store: &Store<'_>, secret: &str, file: &str) -> anyhow::Result<String> {
    let template = format!(r#"--output=go-template={{{{index .data "{file}" | base64decode}}}}"#);
    store.cluster.kubectl_ok(&["get", "secret", secret, &template])
}

/// The Pods are those of `uids`, and nothing in them was started again.
pub fn same_pods(store: &Store<'_>, uids: &[String]) -> anyhow::Result<()> {
    let now = store.uids("pods")?;
    ensure!(now == uids, "Pods: {uids:?}, then {now:?}");
    for pod in store.list("pods")? {
        let containers = pod["status"]["containerStatuses"].as_array().context("no containers")?;
        let calm = !containers.is_empty() && containers.iter().all(|container| container["restartCount"] == 0);
        ensure!(calm, "a member was started again: {}", pod["status"]["containerStatuses"]);
    }
    Ok(())
}
