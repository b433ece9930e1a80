//! From the release before to this one: first the operator, of which no member is to notice anything, then the members, forth and back, under
//! clients that are judged.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::matrix::meanwhile;
use super::store;
use super::store::CHART;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::Store;
use super::traffic::Traffic;
use crate::scenario::Lab;
use crate::wait::until;

const MEMBERS: usize = 3;
/// Between two looks at the Pods: a member that restarts is away for seconds.
const LOOK: Duration = Duration::from_millis(500);

pub fn operator_upgrade(lab: &Lab) -> anyhow::Result<u32> {
    let previous = lab.previous.as_deref().context("--previous names no folder")?;
    let before = std::fs::read_to_string(previous.join("version")).context("of the release before")?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, MEMBERS, Families::Ipv4, &mut steps)?;
    store::load_images(lab, &cluster)?;
    let mut store = found(&cluster, previous, &before)?;
    let traffic = Traffic::start(&cluster, lab.seed)?;
    steps.held(&format!("operator and members of {before}, and clients"));

    upgrade_operator(&cluster, &mut store)?;
    steps.held("helm upgrade: the Pods of members are the same, and none has begun anew");
    for version in [env!("CARGO_PKG_VERSION"), before.as_str()] {
        let restarts = roll(&cluster, &mut store, version)?;
        steps.held(&format!("members of {version}, never more than one away, the leader last: {restarts}"));
    }
    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held + 1)
}

/// An EtcdCluster of the release before, kept by the operator of that release, which its own chart has installed.
fn found<'a>(cluster: &'a Kubernetes, previous: &Path, version: &str) -> anyhow::Result<Store<'a>> {
    for archive in store::archives(&previous.join("images"))? {
        cluster.load_image(&archive)?;
    }
    let chart = previous.join("source/charts/garboard-operator").display().to_string();
    store::helm(cluster, "install", &chart, &[&format!("--set=image.tag={version}")])?;
    cluster.apply(&EXAMPLE.replace("size: 3", &format!("size: 3\n  version: {version}")))?;
    let mut store = Store::new(cluster, "store");
    store.wait(MEMBERS)?;
    runs(&store, version)?;
    store.start_client()?;
    store.check()?;
    Ok(store)
}

fn upgrade_operator(cluster: &Kubernetes, store: &mut Store<'_>) -> anyhow::Result<()> {
    let operators = || -> anyhow::Result<BTreeSet<String>> {
        let get = ["get", "pods", &format!("--namespace={NAMESPACE}"), "--output=name"];
        Ok(cluster.kubectl_ok(&get)?.lines().map(str::to_owned).collect())
    };
    let (before, members) = (operators()?, begun(store)?);
    store::helm(cluster, "upgrade", CHART, &[])?;
    until("end of the operators of before", LIMIT, || Ok(operators()?.is_disjoint(&before).then_some(())))?;
    // A change of nothing that members are made of: the new operator has looked when it is observed.
    store.patch(r#"{"spec":{"healing":{"nodeLostFor":"301s"}}}"#)?;
    store.wait(MEMBERS)?;
    let now = begun(store)?;
    ensure!(now == members && now.len() == MEMBERS, "{members:?}, then {now:?}");
    store.check()
}

/// The Pods of members, with how often each has begun anew.
fn begun(store: &Store<'_>) -> anyhow::Result<BTreeSet<String>> {
    let of = |pod: &Value| {
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
        format!("{} {} {restarts:?}", pod["metadata"]["name"], pod["metadata"]["uid"])
    };
    Ok(store.list("pods")?.iter().map(of).collect())
}

/// Makes all members ones of another version; in which order they were restarted.
fn roll(cluster: &Kubernetes, store: &mut Store<'_>, version: &str) -> anyhow::Result<String> {
    let last = deeds(cluster)?.pop().unwrap_or_default();
    let ready = Mutex::new(BTreeSet::new());
    let of_cluster = &*store;
    meanwhile(
        LOOK,
        || one_away(of_cluster, &ready),
        || {
            of_cluster.patch(&format!(r#"{{"spec":{{"version":"{version}"}}}}"#))?;
            of_cluster.wait(MEMBERS)
        },
    )?;
    runs(store, version)?;
    store.check()?;
    let deeds: Vec<String> = deeds(cluster)?.into_iter().filter(|deed| *deed > last).collect();
    leader_last(&deeds).with_context(|| deeds.join("\n"))?;
    Ok(deeds
        .iter()
        .filter_map(|deed| deed.split("deleting the Pod of ").nth(1)?.split(':').next())
        .collect::<Vec<_>>()
        .join(", "))
}

fn runs(store: &Store<'_>, version: &str) -> anyhow::Result<()> {
    let image = |pod: &Value| pod.pointer("/spec/containers/0/image").and_then(Value::as_str).map(str::to_owned);
    let images: Vec<_> = store.list("pods")?.iter().filter_map(image).collect();
    let expected = format!("localhost/garboard:{version}");
    ensure!(images.len() == MEMBERS && images.iter().all(|image| *image == expected), "{images:?}, not {expected}");
    ensure!(store.get("{.status.version}")? == version, "the status says another version than {version}");
    Ok(())
}

/// A member is away from the deletion of its Pod on, until the next one has been ready once.
fn one_away(store: &Store<'_>, ready: &Mutex<BTreeSet<String>>) -> anyhow::Result<()> {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    let pods = store.list("pods")?;
    let here = pods.iter().filter(|pod| {
        let uid = pod["metadata"]["uid"].to_string();
        let mut conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        if conditions.any(|of| of["type"] == "Ready" && of["status"] == "True") {
            ready.insert(uid.clone());
        }
        pod["metadata"]["deletionTimestamp"].is_null() && ready.contains(&uid)
    });
    let here = here.count();
    ensure!(here + 1 >= MEMBERS, "of {MEMBERS} members {here} are there");
    Ok(())
}

/// What the operator says that it has done to Pods and to the leadership, in the order of the times at which its lines begin.
fn deeds(cluster: &Kubernetes) -> anyhow::Result<Vec<String>> {
    let of_operators = format!("--selector=app.kubernetes.io/name={}", store::OPERATOR);
    let log = cluster.kubectl_ok(&["logs", &format!("--namespace={NAMESPACE}"), &of_operators, "--tail=-1"])?;
    let told = log.lines().filter(|line| [r#""DeletePod""#, r#""MoveLeader""#].iter().any(|deed| line.contains(deed)));
    let mut told: Vec<String> = told.map(str::to_owned).collect();
    told.sort();
    Ok(told)
}

/// Each member was restarted once, and the leader gave its place away only when no other was left.
fn leader_last(deeds: &[String]) -> anyhow::Result<()> {
    let mut restarted = 0;
    for deed in deeds {
        if deed.contains("DeletePod") {
            restarted += 1;
        } else {
            ensure!(restarted == MEMBERS - 1, "the leader gave its place away after {restarted} restarts");
        }
    }
    ensure!(restarted == MEMBERS, "{restarted} restarts of {MEMBERS} members");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_restarted_before_others_is_found() {
        let judge = |deeds: &[&str]| leader_last(&deeds.iter().map(|deed| (*deed).to_owned()).collect::<Vec<_>>());
        let (pod, leader) = (r#"reason="DeletePod""#, r#"reason="MoveLeader""#);
        judge(&[pod, pod, leader, pod]).unwrap();
        judge(&[pod, pod, leader, leader, pod]).unwrap();
        for wrong in [&[leader, pod, pod, pod][..], &[pod, leader, pod, pod], &[pod, pod, pod, pod], &[pod, pod]] {
            judge(wrong).unwrap_err();
        }
    }
}
