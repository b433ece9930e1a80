//! A whole Kubernetes on the store: what users see of Pods, Services and volumes, through faults of the store, the API server and nodes.

use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use garboard_lab::Node;
use garboard_lab::Options;
use garboard_lab::Store;
use serde_json::Value;
use serde_json::json;

use crate::output;
use crate::scenario::Lab;
use crate::wait::until;

const NODES: usize = 3;
const MANIFEST: &str = include_str!("lab_nodes.yaml");
/// What the claim `grows` asks for at first, and then.
const SMALL_MIB: u64 = 300;
const LARGE_MIB: u64 = 600;
/// For what has to be pulled up, scheduled and probed on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);

/// Prints what held and when, and counts.
pub struct Steps {
    begin: Instant,
    held: u32,
}

// === impl Steps ===

impl Steps {
    pub fn begin() -> Self {
        Self { begin: Instant::now(), held: 0 }
    }

    pub fn count(&self) -> u32 {
        self.held
    }

    pub fn held(&mut self, what: &str) {
        self.held += 1;
        output::line(format_args!("    {:5.1} s  {what}", self.begin.elapsed().as_secs_f64()));
    }
}

pub fn lab_nodes(lab: &Lab) -> anyhow::Result<u32> {
    let links = links()?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, NODES, Families::Ipv4, &mut steps)?;
    workloads(&cluster, &mut steps)?;
    expansion(&cluster, &mut steps)?;
    control_plane(&cluster, &mut steps)?;
    nodes(&cluster, &mut steps)?;
    removal(&cluster, &mut steps)?;
    cluster.down()?;
    ensure!(links == self::links()?, "links of the machine: {links:?} before, {:?} after", self::links()?);
    steps.held("down, and nothing is left");
    Ok(steps.held)
}

/// A Kubernetes whose API server stores in the server under test.
pub fn bring_up(lab: &Lab, nodes: usize, families: Families, steps: &mut Steps) -> anyhow::Result<Kubernetes> {
    let scenario = lab.dir.file_name().context("the scenario has no folder")?.display();
    let options = Options {
        name: format!("e2e-{}-{scenario}", std::process::id()),
        nodes,
        families,
        store: if lab.control { Store::Etcd } else { Store::Garboard },
        home: lab.path("lab"),
        server: lab.server.clone(),
        programs: lab.kubernetes.clone().context("--kubernetes names no folder")?,
    };
    Kubernetes::up(&options, |step| steps.held(step))
}

/// A Deployment behind a Service, a volume, and a Pod that uses both.
fn workloads(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    cluster.apply(MANIFEST)?;
    cluster.kubectl_ok(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/box", "pod/grows", "--timeout=120s"])?;
    steps.held("Deployment and Pods with volumes run");

    let address = cluster.kubectl_ok(&["get", "service", "web", "--output=jsonpath={.spec.clusterIP}"])?;
    let found = in_box(cluster, &["toolbox", "lookup", "web.default.svc.cluster.local"])?;
    ensure!(found.trim() == address, "web is {address}, and DNS says {found:?}");
    steps.held("a Service is found by its name");

    let mut missing: Vec<String> = names(&pods(cluster, "app=web")?);
    ensure!(missing.len() == NODES, "{missing:?}");
    until("answer of each Pod of the Service", LIMIT, || {
        let answer = in_box(cluster, &["toolbox", "get", "http://web"])?;
        missing.retain(|name| *name != answer.trim());
        Ok(missing.is_empty().then_some(()))
    })?;
    steps.held("the Service leads to each of its Pods, on every node");

    let log = cluster.kubectl_ok(&["logs", "box"])?;
    ensure!(log == "written\n", "kubectl logs box: {log:?}");
    cluster.kubectl_ok(&["delete", "pod", "box", "--wait"])?;
    cluster.apply(MANIFEST)?;
    cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/box", "--timeout=120s"])?;
    let log = cluster.kubectl_ok(&["logs", "box"])?;
    ensure!(log == "found\n", "the second box says {log:?}");
    steps.held("a volume has what the Pod before wrote");
    Ok(())
}

/// The volume of a Pod grows under it.
fn expansion(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    let (before, small) = (identities(cluster, "app=grows")?, size(cluster)?);
    ensure!((SMALL_MIB / 2..=SMALL_MIB).contains(&small), "{SMALL_MIB} MiB are claimed, the Pod sees {small} MiB");
    let patch = json!({"spec": {"resources": {"requests": {"storage": format!("{LARGE_MIB}Mi")}}}});
    cluster.kubectl_ok(&["patch", "pvc", "grows", "--patch", &patch.to_string()])?;
    until("claim that has grown", LIMIT, || {
        let capacity = cluster.kubectl_ok(&["get", "pvc", "grows", "--output=jsonpath={.status.capacity.storage}"])?;
        Ok((capacity == format!("{LARGE_MIB}Mi")).then_some(()))
    })
    .with_context(|| cluster.kubectl_ok(&["describe", "pvc", "grows"]).unwrap_or_default())?;
    let large = size(cluster)?;
    // What the file system has for itself grows less than it does.
    let grown = (LARGE_MIB - SMALL_MIB) * 9 / 10;
    ensure!(large >= small + grown, "the Pod sees {small} MiB before and {large} MiB after it grew to {LARGE_MIB} MiB");
    let after = identities(cluster, "app=grows")?;
    ensure!(before == after, "the Pod before its volume grew: {before:?}, after: {after:?}");
    steps.held("a volume grows while a Pod uses it");
    Ok(())
}

/// What the Pod `grows` sees of its volume, in MiB.
fn size(cluster: &Kubernetes) -> anyhow::Result<u64> {
    let table = cluster.kubectl_ok(&["exec", "grows", "--", "df", "-P", "-m", "/data"])?;
    let size = table.lines().nth(1).and_then(|line| line.split_whitespace().nth(1));
    size.with_context(|| format!("df: {table:?}"))?.parse().with_context(|| format!("df: {table:?}"))
}

/// A claim that is deleted leaves nothing on its node.
fn removal(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    let volume = cluster.kubectl_ok(&["get", "pvc", "grows", "--output=jsonpath={.spec.volumeName}"])?;
    let files = || -> anyhow::Result<usize> {
        let mut count = 0;
        for node in cluster.nodes() {
            count += std::fs::read_dir(node.expandable_volumes())?.count();
        }
        Ok(count)
    };
    ensure!(files()? == 1, "{} files of volumes, and one volume", files()?);
    cluster.kubectl_ok(&["delete", "pod/grows", "pvc/grows", "--wait"])?;
    cluster.kubectl_ok(&["wait", "--for=delete", &format!("persistentvolume/{volume}"), "--timeout=120s"])?;
    ensure!(files()? == 0, "{volume} is gone, its file is not");
    steps.held("a volume goes with its claim");
    Ok(())
}

/// The store and its API server are killed; the Pods do not notice.
fn control_plane(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    let before = identities(cluster, "app")?;
    for service in ["kube-apiserver", "store"] {
        let name = format!("before-{service}");
        cluster.kubectl_ok(&["create", "configmap", &name])?;
        let control = cluster.control();
        let starts = control.starts(service)?;
        control.kill_service(service)?;
        until("next start of a killed service", LIMIT, || Ok((control.starts(service)? > starts).then_some(())))?;
        cluster.wait_api()?;
        until("write after a kill", LIMIT, || {
            let after = format!("after-{service}");
            Ok(cluster.kubectl(&["create", "configmap", &after])?.status.success().then_some(()))
        })?;
        cluster.kubectl_ok(&["get", "configmap", &name])?;
        steps.held(&format!("{service} killed, and back"));
    }
    let after = identities(cluster, "app")?;
    ensure!(before == after, "Pods before the kills: {before:?}, after: {after:?}");
    steps.held("the Pods ran on");
    Ok(())
}

/// A node is cut off, drained, loses its power.
fn nodes(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    let at = |name: &str| -> anyhow::Result<Node<'_>> {
        cluster.nodes().into_iter().find(|node| node.name() == name).context("no such node")
    };
    let box_at = cluster.kubectl_ok(&["get", "pod", "box", "--output=jsonpath={.spec.nodeName}"])?;
    let elsewhere = cluster.nodes().into_iter().find(|node| node.name() != box_at).context("no other node")?;

    let name = elsewhere.name();
    elsewhere.cut()?;
    cluster.wait_node(&name, "Unknown")?;
    steps.held("a node that is cut off is not Ready");
    elsewhere.heal()?;
    cluster.wait_node(&name, "True")?;
    steps.held("healed, it is");

    elsewhere.drain(None)?;
    let left: Vec<Value> =
        pods(cluster, "app=web")?.into_iter().filter(|pod| pod["spec"]["nodeName"] == name.as_str()).collect();
    ensure!(left.is_empty(), "Pods on {name} after its drain: {:?}", names(&left));
    elsewhere.uncordon()?;
    steps.held("a drained node has no Pods");

    let node = at(&box_at)?;
    let before = identities(cluster, "app=box")?;
    node.stop()?;
    cluster.wait_node(&box_at, "Unknown")?;
    steps.held("a node without power is not Ready");
    node.start()?;
    cluster.wait_node(&box_at, "True")?;
    until("another container of the box", LIMIT, || {
        let output = cluster.kubectl(&["exec", "box", "--", "toolbox", "get", "http://web"])?;
        Ok((output.status.success() && identities(cluster, "app=box")? != before).then_some(()))
    })?;
    let log = cluster.kubectl_ok(&["logs", "box"])?;
    ensure!(log == "found\n", "the box says {log:?} after its node was started");
    cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/grows", "--timeout=120s"])?;
    let size = until("another container with the volume that has grown", LIMIT, || Ok(size(cluster).ok()))?;
    ensure!(size > SMALL_MIB, "{size} MiB after the node was started");
    let file = cluster.kubectl_ok(&["exec", "grows", "--", "cat", "/data/here"])?;
    ensure!(file == "here\n", "the volume that has grown has {file:?}");
    steps.held("with power again it is, and its Pod has its volume and the network");
    Ok(())
}

fn in_box(cluster: &Kubernetes, command: &[&str]) -> anyhow::Result<String> {
    cluster.kubectl_ok(&[&["exec", "box", "--"], command].concat())
}

fn pods(cluster: &Kubernetes, selector: &str) -> anyhow::Result<Vec<Value>> {
    let text = cluster.kubectl_ok(&["get", "pods", "--output=json", &format!("--selector={selector}")])?;
    let list: Value = serde_json::from_str(&text).context("list of Pods")?;
    list["items"].as_array().cloned().context("no items")
}

fn names(pods: &[Value]) -> Vec<String> {
    pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// What changes when a Pod is another one or its container has been started again.
fn identities(cluster: &Kubernetes, selector: &str) -> anyhow::Result<Vec<String>> {
    let pods = pods(cluster, selector)?;
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].to_string();
    Ok(pods.iter().map(|pod| format!("{} {}", pod["metadata"]["uid"], container(pod))).collect())
}

fn links() -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir("/sys/class/net")?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
