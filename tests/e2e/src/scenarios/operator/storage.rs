//! What an EtcdCluster keeps its data on: volumes that grow, volumes that do not, and none; and what becomes of it when it is full.

use anyhow::ensure;
use garboard_lab::Families;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::space;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::Store;
use super::traffic::Traffic;
use crate::scenario::Lab;
use crate::wait::until;

/// What the Pod that may found a cluster has.
const FOUNDS: &str = "garboard.dev/founds";

pub fn operator_storage(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    let mut store = Store::new(&cluster, "store");
    without_volumes(&mut store, &mut steps)?;
    grow(&mut store, lab.seed, &mut steps)?;
    space::reclaim(&mut store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// Whoever loses its Pod loses its data: nobody is restarted who cannot be spared.
fn without_volumes(store: &mut Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    let light = EXAMPLE.replace("size: 3", "size: 1").replace("storage:\n", "storage:\n    type: EmptyDir\n");
    store.apply(&light)?;
    store.wait(1)?;
    store.start_client()?;
    store.check()?;
    let pods = store.uids("pods")?;
    steps.held("one member without a volume");

    store.patch(r#"{"spec":{"config":{"snapshotCount":20000}}}"#)?;
    until("word on why it is not restarted", LIMIT, || {
        let why = store.get(r#"{.status.conditions[?(@.type=="Progressing")].message}"#)?;
        Ok(why.contains("its data goes with its Pod").then_some(()))
    })?;
    ensure!(store.uids("pods")? == pods, "the only member was restarted without a volume");
    store.check()?;
    steps.held("a setting changed: the only member keeps its Pod, and its data");

    store.scale(3)?;
    store.wait(3)?;
    store.check()?;
    let left = store.list("pods")?;
    ensure!(left.iter().all(|pod| pod["metadata"]["annotations"][FOUNDS].is_null()), "a Pod may still found a cluster");
    ensure!(!store.uids("pods")?.iter().any(|uid| pods.contains(uid)), "the first member was not replaced");
    steps.held("three members: now the first one is replaced, and with it the permission to found");

    let pod = store.first("pods")?;
    store.insist(&["delete", "pod", &pod])?;
    store.wait_gone("etcdmembers", &pod)?;
    store.wait(3)?;
    store.check()?;
    ensure!(store.list("persistentvolumeclaims")?.is_empty(), "there are volumes");
    store.agree()?;
    steps.held("a Pod lost, and its data with it: its member is replaced");
    store.delete()?;
    Ok(())
}

fn grow(store: &mut Store<'_>, seed: u64, steps: &mut Steps) -> anyhow::Result<()> {
    let wide = EXAMPLE.replace("size: 1Gi", "size: 1Gi\n    storageClassName: expandable");
    store.apply(&wide)?;
    *store = Store::new(store.cluster, store.name);
    store.wait(3)?;
    store.start_client()?;
    let traffic = Traffic::start(store.cluster, seed)?;
    store.check()?;
    let (volumes, pods) = (store.uids("persistentvolumeclaims")?, store.uids("pods")?);
    steps.held("three members on volumes that may grow, and clients");

    store.patch(r#"{"spec":{"storage":{"size":"2Gi"}}}"#)?;
    until("larger volumes", LIMIT, || {
        let claims = store.list("persistentvolumeclaims")?;
        let large = |claim: &serde_json::Value| claim["status"]["capacity"]["storage"] == "2Gi";
        Ok(claims.iter().all(large).then_some(()))
    })?;
    store.wait(3)?;
    store.check()?;
    ensure!(store.condition("VolumesSized")? == "True", "VolumesSized is not True");
    ensure!(store.uids("persistentvolumeclaims")? == volumes, "volumes were replaced, not expanded");
    ensure!(!store.uids("pods")?.iter().any(|uid| pods.contains(uid)), "a member has the quota of before");
    steps.held("the volumes grow, and the quota with them");
    traffic.judged(store, steps)?;

    let smaller = store.cluster.kubectl(&[
        "patch",
        "etcdcluster",
        store.name,
        "--type=merge",
        r#"--patch={"spec":{"storage":{"size":"1Gi"}}}"#,
    ])?;
    ensure!(smaller.stderr.contains("cannot shrink"), "a volume that shrinks: {}", smaller.stderr);
    steps.held("a smaller volume is refused");
    store.delete()?;
    // What is retained would be adopted by the next one of this name.
    store.delete_all("persistentvolumeclaims")?;
    store.wait_none("persistentvolumeclaims")?;

    store.apply(&EXAMPLE.replace("size: 3", "size: 1"))?;
    store.wait(1)?;
    store.patch(r#"{"spec":{"storage":{"size":"2Gi"}}}"#)?;
    until("word that the class does not let volumes grow", LIMIT, || {
        let reason = store.get(r#"{.status.conditions[?(@.type=="VolumesSized")].reason}"#)?;
        Ok((reason == "ClassForbids").then_some(()))
    })?;
    ensure!(store.condition("Available")? == "True", "not Available because a volume cannot grow");
    steps.held("a class whose volumes do not grow: it says so, and serves");
    Ok(())
}
