//! What happens to an EtcdCluster when its nodes are cordoned, drained, cut off, and lost for good.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use garboard_lab::Node;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use super::store::Store;
use super::traffic::Traffic;
use crate::scenario::Lab;
use crate::wait::until;

/// Until Kubernetes takes a node for lost, and the operator after it.
const LOST_LIMIT: Duration = Duration::from_secs(300);
const NODES: usize = 4;
/// After which the operator takes a node that is not Ready for lost.
const NODE_LOST_FOR: Duration = Duration::from_secs(5);

pub fn operator_nodes(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, NODES, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    let mut store = Store::new(&cluster, "store");
    let lost = NODE_LOST_FOR.as_secs();
    let quick = format!("healing:\n    nodeLostFor: {lost}s\n  placement:\n    antiAffinity: Required\n  size: 3");
    cluster.apply(&EXAMPLE.replace("size: 3", &quick))?;
    store.wait(3)?;
    store.start_client()?;
    let traffic = Traffic::start(&cluster, lab.seed)?;
    steps.held("three members on four nodes, and clients");

    leave_cordoned(&store)?;
    store.wait(3)?;
    store.check()?;
    steps.held("the leader's node cordoned: another one leads, and no member was restarted");

    // Node 1 has the clients.
    for node in cluster.nodes() {
        node.drain(Some("client")).with_context(|| node.name())?;
        node.uncordon()?;
        store.wait(3)?;
        store.check()?;
        steps.held(&format!("{} drained: a quorum stayed", node.name()));
    }

    let node = spare(&store)?.into_iter().next().context("no node with a member can be spared")?;
    node.cut()?;
    cluster.wait_node(&node.name(), "Unknown")?;
    store.check()?;
    ensure!(store.condition("Available")? == "True", "not Available with two of three");
    node.heal()?;
    cluster.wait_node(&node.name(), "True")?;
    store.wait(3)?;
    store.check()?;
    steps.held("a node cut off and healed");

    // A majority is away: nobody may say that it is well, and nothing may be removed.
    let members = store.names("etcdmembers")?;
    let away: Vec<Node<'_>> = spare(&store)?.into_iter().take(2).collect();
    ensure!(away.len() == 2, "{} nodes with members besides the first", away.len());
    // Whoever is to tell of it must not be cut off with them.
    move_operators(&cluster, &away)?;
    for node in &away {
        node.cut()?;
    }
    until("word that it is not available", LIMIT, || Ok((store.condition("Available")? != "True").then_some(())))?;
    let put = store.etcdctl(&["--command-timeout=3s", "put", "other", "value"])?;
    ensure!(!put.status.success(), "a write without a quorum is acknowledged");
    steps.held("two of three cut off: it says that it is not Available");
    for node in &away {
        cluster.wait_node(&node.name(), "Unknown")?;
    }
    // Longer than a single node may be away.
    let begin = Instant::now();
    while begin.elapsed() < 2 * NODE_LOST_FOR {
        let kept = store.names("etcdmembers")?;
        ensure!(members == kept, "members without a quorum were changed: {members:?}, then {kept:?}");
    }
    steps.held("and nobody is removed");
    for node in &away {
        node.heal()?;
    }
    for node in &away {
        cluster.wait_node(&node.name(), "True")?;
    }
    store.wait(3)?;
    store.check()?;
    steps.held("healed: Ready again");

    let node = spare(&store)?.into_iter().next().context("no node with a member can be spared")?;
    let lost = on_node(&store, &node.name())?;
    node.stop()?;
    until(&format!("end of {lost} on a node that is lost"), LOST_LIMIT, || {
        Ok((!store.names("etcdmembers")?.contains(&lost)).then_some(()))
    })?;
    store.wait(3)?;
    store.check()?;
    steps.held("a node lost for good: its member is replaced elsewhere");

    traffic.judged(&store, &mut steps)?;
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// Whoever leads does so no longer once its node is cordoned; it goes on to run there.
fn leave_cordoned(store: &Store<'_>) -> anyhow::Result<()> {
    let leader = store.get("{.status.leader}")?;
    let pods = store.list("pods")?;
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == leader.as_str()).context("the leader has no Pod")?;
    let nodes = store.cluster.nodes();
    let node = nodes.iter().find(|node| pod["spec"]["nodeName"] == node.name()).context("the leader has no node")?;
    let uids = store.uids("pods")?;
    node.cordon()?;
    until("another leader, by the operator", LIMIT, || {
        let now = store.get("{.status.leader}")?;
        let moved =
            store.cluster.kubectl_ok(&["get", "events", "--field-selector=reason=MoveLeader", "--output=name"])?;
        Ok((!now.is_empty() && now != leader && !moved.is_empty()).then_some(()))
    })?;
    node.uncordon()?;
    ensure!(store.uids("pods")? == uids, "Pods are others than before");
    let restarts = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    let before: Vec<_> = pods.iter().map(restarts).collect();
    let after: Vec<_> = store.list("pods")?.iter().map(restarts).collect();
    ensure!(before == after, "a member was restarted: {before:?}, then {after:?}");
    Ok(())
}

/// Has no operator run on `nodes`.
fn move_operators(cluster: &Kubernetes, nodes: &[Node<'_>]) -> anyhow::Result<()> {
    nodes.iter().try_for_each(Node::cordon)?;
    let home = format!("--namespace={NAMESPACE}");
    cluster.kubectl_ok(&[&home, "delete", "pods", "--all"])?;
    cluster.kubectl_ok(&[&home, "rollout", "status", &format!("deployment/{OPERATOR}"), "--timeout=120s"])?;
    nodes.iter().try_for_each(Node::uncordon)
}

/// The nodes that members run on, but for the first.
fn spare<'a>(store: &Store<'a>) -> anyhow::Result<Vec<Node<'a>>> {
    let pods = store.list("pods")?;
    let names: Vec<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    let others = store.cluster.nodes().into_iter().skip(1);
    Ok(others.filter(|node| names.contains(&node.name().as_str())).collect())
}

/// The member on a node.
fn on_node(store: &Store<'_>, node: &str) -> anyhow::Result<String> {
    let pods = store.list("pods")?;
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == node).context("no member there")?;
    Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}
