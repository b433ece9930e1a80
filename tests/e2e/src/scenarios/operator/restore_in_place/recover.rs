//! A cluster that a live Kubernetes stores in loses two of its three volumes, and goes on with what is on the third.

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;

use super::super::super::kubernetes::Steps;
use super::super::super::kubernetes::bring_up;
use super::super::archive::condition;
use super::super::control_plane::ControlPlane;
use super::super::outside::Dies;
use super::super::outside::Outside;
use super::super::store;
use super::super::store::EXAMPLE;
use super::super::store::LIMIT;
use super::super::store::Store;
use super::BUMP;
use super::KEPT;
use super::confirm;
use super::died_at;
use super::kept;
use super::manifest;
use super::noticed;
use super::reach;
use super::status;
use super::version_of;
use crate::scenario::Lab;
use crate::wait::until;

const NAME: &str = "recover";

pub fn operator_recover(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(EXAMPLE)?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    store.start_client()?;
    let plane = ControlPlane::start(lab, &cluster)?;
    let all: Vec<String> = (0..KEPT).map(kept).collect();
    for name in &all {
        plane.ok(&["create", "configmap", name])?;
    }
    let newest = version_of(&plane, "configmaps")?;
    steps.held("a Kubernetes whose store is an EtcdCluster");

    let mut restore = manifest(NAME, serde_json::json!({"survivingMember": "Auto"}))?;
    restore["spec"].as_object_mut().context("no spec")?.remove("safetyBackup");
    cluster.apply(&restore.to_string())?;
    until("word that there is a quorum", LIMIT, || {
        let complete = condition(&status(&cluster, NAME)?, "Complete");
        Ok((complete["reason"] == "QuorumNotLost").then_some(()))
    })?;
    steps.held("while there is a quorum nothing is to be recovered");

    // Without operators, which would replace the first one at once; and all have all that was acknowledged.
    let outside = Outside::instead(lab, &cluster)?;
    store.agree()?;
    let mut members = store.names("etcdmembers")?;
    let survivor = members.pop().context("no member")?;
    let lost: Vec<&str> = members.iter().map(String::as_str).collect();
    cluster.kubectl_ok(&[&["delete", "pvc", "--wait=false"], &lost[..]].concat())?;
    cluster.kubectl_ok(&[&["delete", "pod", "--force", "--grace-period=0"], &lost[..]].concat())?;
    members.iter().try_for_each(|member| store.wait_gone("persistentvolumeclaims", member))?;
    steps.held("two of three members and their volumes are gone");

    let ((), died) = outside.during(1, Some(Dies::Recorded), || recovered(&store, &survivor, newest))?;
    died_at(&died, &["Inspect", "Salvage", "PutAside"])?;
    steps.held("the volume that is left was looked at, confirmed and gone on with, while operators died between record and deed");
    outside.during(1, None, || {
        noticed(&plane, &mut steps, &all, &[], newest)?;
        store.check()?;
        store.agree()
    })?;
    steps.held("it is written to, and all members have one hash");
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

fn recovered(store: &Store<'_>, survivor: &str, newest: i64) -> anyhow::Result<()> {
    until("word that the quorum is lost", LIMIT, || Ok((store.condition("QuorumLost")? != "False").then_some(())))?;
    reach(store.cluster, NAME, "AwaitingConfirmation")?;
    let first = token(store)?;
    let pod = store.uid("pods", survivor)?;
    confirm(store, NAME, "nonsense")?;
    until("word that the token is wrong", LIMIT, || {
        Ok((condition(&status(store.cluster, NAME)?, "Confirmed")["reason"] == "WrongToken").then_some(()))
    })?;
    ensure!(store.uid("pods", survivor)? == pod, "the member that is left was touched without a confirmation");
    confirm(store, NAME, &first)?;

    let plan = until("a volume that is chosen", LIMIT, || {
        let plan = status(store.cluster, NAME)?["plan"].clone();
        Ok(plan["survivor"].is_string().then_some(plan))
    })
    .with_context(|| store.cluster.kubectl_ok(&["describe", "etcdrestore,etcdcluster,jobs"]).unwrap_or_default())?;
    ensure!(plan["survivor"] == survivor && plan["token"] != first.as_str(), "{plan:#}");
    let candidates = plan["candidates"].as_array().context("no candidates")?;
    ensure!(candidates.len() == 1 && candidates[0]["member"] == survivor, "{plan:#}");
    for number in ["term", "index", "revision"] {
        ensure!(candidates[0][number].as_i64().is_some_and(|number| number > 0), "{number}: {plan:#}");
    }
    ensure!(store.get("{.status.clusterID}")?.is_empty(), "something is founded before it is confirmed");

    confirm(store, NAME, &token(store)?)?;
    reach(store.cluster, NAME, "Succeeded")?;
    store.wait(3)?;
    let status = status(store.cluster, NAME)?;
    ensure!(status["revision"].as_i64().is_some_and(|revision| revision > newest + BUMP / 2), "{status:#}");
    ensure!(status["oldVolumes"].as_array().is_some_and(|old| old.len() == 1), "{status:#}");
    Ok(())
}

fn token(store: &Store<'_>) -> anyhow::Result<String> {
    let status = status(store.cluster, NAME)?;
    Ok(status["plan"]["token"].as_str().with_context(|| format!("no token: {status:#}"))?.to_owned())
}
