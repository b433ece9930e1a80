//! The life of one EtcdCluster under clients that never stop: it is founded, grows and shrinks, loses what can be lost, and is changed.

use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::control_plane::ControlPlane;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::SHORTEST;
use super::store::Store;
use super::traffic::Traffic;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

/// How long a spec is changed every second.
const CHURN: Duration = Duration::from_secs(30);
/// The same where everything is taken.
const CHURN_FULL: Duration = Duration::from_secs(180);

struct Life<'a> {
    store: Store<'a>,
    plane: Option<ControlPlane<'a>>,
    steps: Steps,
}

/// The product in a few minutes: installed, a cluster that serves, a Kubernetes on it, and a Pod that is lost.
pub fn operator_smoke(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    let (mut life, traffic) = Life::begin(lab, &cluster, steps)?;
    life.found_plane(lab, &cluster)?;
    let pod = life.store.first("pods")?;
    life.lose_pod(&pod)?;
    life.check("a Pod deleted")?;
    life.end_plane()?;
    traffic.judged(&life.store, &mut life.steps)?;
    let held = life.steps.count();
    cluster.down()?;
    Ok(held + 1)
}

pub fn operator_life(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    let (mut life, traffic) = Life::begin(lab, &cluster, steps)?;
    life.refusals(&cluster)?;
    life.found_plane(lab, &cluster)?;
    life.isolate()?;
    life.resize()?;
    life.lose_pods()?;
    life.lose_data()?;
    life.lose_records()?;
    life.roll(&cluster)?;
    life.lose_operator()?;
    life.churn(if lab.full { CHURN_FULL } else { CHURN })?;
    life.neighbour(&cluster)?;
    life.end_plane()?;
    traffic.judged(&life.store, &mut life.steps)?;
    life.apply_again()?;
    let held = life.steps.count();
    cluster.down()?;
    Ok(held + 1)
}

// === impl Life ===

impl<'a> Life<'a> {
    /// The operator is installed, and there is a cluster with clients.
    fn begin(lab: &Lab, cluster: &'a Kubernetes, mut steps: Steps) -> anyhow::Result<(Self, Traffic<'a>)> {
        store::install(lab, cluster)?;
        steps.held("helm install");
        let mut life = Self { store: Store::new(cluster, "store"), plane: None, steps };
        life.found(cluster)?;
        let traffic = Traffic::start(cluster, lab.seed)?;
        Ok((life, traffic))
    }

    fn found_plane(&mut self, lab: &'a Lab, cluster: &'a Kubernetes) -> anyhow::Result<()> {
        self.plane = Some(ControlPlane::start(lab, cluster)?);
        self.steps.held("a kube-apiserver and its controllers run on it");
        Ok(())
    }

    fn end_plane(&mut self) -> anyhow::Result<()> {
        self.plane.take().map_or(Ok(()), ControlPlane::end)
    }

    fn check(&mut self, what: &str) -> anyhow::Result<()> {
        self.store.check()?;
        if let Some(plane) = &self.plane {
            plane.reconciles()?;
        }
        self.steps.held(what);
        Ok(())
    }

    /// What the API server refuses, in words that say what to do.
    fn refusals(&mut self, cluster: &Kubernetes) -> anyhow::Result<()> {
        let long = SHORTEST.replace("store", &"a".repeat(41));
        let wrong = [
            (SHORTEST.replace("size: 3", "size: 0"), "greater than or equal to 1"),
            (SHORTEST.replace("size: 3", "config: {extraArgs: [--name=x]}"), "the operator's own"),
            (SHORTEST.replace("size: 3", "config: {quotaBackend: 90%}"), "a share of 1% to 40%"),
            (SHORTEST.replace("size: 3", "version: latest"), "a version like 1.2.3"),
            (long, "40 characters at most"),
        ];
        for (manifest, expected) in wrong {
            let Err(error) = cluster.apply(&manifest) else { anyhow::bail!("an impossible spec is taken: {manifest}") };
            ensure!(format!("{error:#}").contains(expected), "{expected:?} is not said: {error:#}");
        }
        self.steps.held("impossible specs are refused");
        Ok(())
    }

    fn found(&mut self, cluster: &Kubernetes) -> anyhow::Result<()> {
        cluster.apply(EXAMPLE)?;
        let begin = Instant::now();
        self.store.wait(3)?;
        let time = begin.elapsed().as_secs_f64();
        self.steps.held(&format!("kubectl apply: three members, Ready after {time:.1} s"));
        self.store.start_client()?;
        self.check("etcdctl writes over TLS, from a Pod, by the Service's name")?;
        let health = self.store.etcdctl_ok(&["endpoint", "health", "--cluster"])?;
        ensure!(health.matches("is healthy").count() == 3, "{health}");
        let bare = self.store.etcdctl(&["--cert=", "--key=", "--command-timeout=3s", "get", "key"])?;
        ensure!(!bare.status.success(), "a client without a certificate is served");
        self.steps.held("each member has its name; nobody is served without a certificate");
        Ok(())
    }

    /// A NetworkPolicy comes and goes. The lab's network does not enforce it.
    fn isolate(&mut self) -> anyhow::Result<()> {
        let pods = self.store.uids("pods")?;
        self.store
            .patch(r#"{"spec":{"network":{"networkPolicy":{"enabled":true,"clientPeers":[{"podSelector":{}}]}}}}"#)?;
        until("NetworkPolicy", LIMIT, || Ok((self.store.condition("Isolated")? == "True").then_some(())))?;
        ensure!(self.store.names("networkpolicies")? == ["store"], "{:?}", self.store.names("networkpolicies"));
        self.store.patch(r#"{"spec":{"network":{"networkPolicy":{"enabled":false,"clientPeers":[]}}}}"#)?;
        until("end of the NetworkPolicy", LIMIT, || Ok((self.store.condition("Isolated")? == "False").then_some(())))?;
        ensure!(self.store.names("networkpolicies")?.is_empty(), "{:?}", self.store.names("networkpolicies"));
        ensure!(self.store.uids("pods")? == pods, "Pods are others than before");
        self.check("a NetworkPolicy made and withdrawn")
    }

    fn resize(&mut self) -> anyhow::Result<()> {
        for size in [5, 1, 3] {
            let replicas = format!("--replicas={size}");
            self.store.insist(&["scale", "etcdcluster", "store", &replicas])?;
            self.store.wait(size)?;
            let claims = self.store.list("persistentvolumeclaims")?.len();
            ensure!(claims == size, "{claims} volumes of {size} members");
            self.check(&format!("{size} members"))?;
        }
        Ok(())
    }

    fn lose_pod(&mut self, pod: &str) -> anyhow::Result<()> {
        let before = self.store.uid("pods", pod)?;
        self.store.insist(&["delete", "pod", pod])?;
        until("Pod made again", LIMIT, || {
            Ok(self.store.uid("pods", pod).is_ok_and(|uid| uid != before).then_some(()))
        })?;
        self.store.wait(3)
    }

    fn lose_pods(&mut self) -> anyhow::Result<()> {
        for pod in self.store.names("pods")? {
            self.lose_pod(&pod)?;
        }
        self.check("each Pod deleted, one by one")?;
        let before = self.store.uids("pods")?;
        self.store.delete_all("pods")?;
        self.store.wait_others("pods", &before, 3)?;
        self.store.wait(3)?;
        self.check("all Pods deleted")
    }

    fn lose_data(&mut self) -> anyhow::Result<()> {
        let before = self.store.uids("persistentvolumeclaims")?;
        let claim = self.store.first("persistentvolumeclaims")?;
        self.store.insist(&["delete", "pvc", &claim, "--wait=false"])?;
        self.store.wait_gone("persistentvolumeclaims", &claim)?;
        self.store.wait(3)?;
        let after = self.store.uids("persistentvolumeclaims")?;
        ensure!(after.iter().filter(|uid| before.contains(uid)).count() == 2, "{before:?}, then {after:?}");
        self.check("a volume deleted: its member is replaced")?;

        let member = self.store.first("pods")?;
        self.store.wipe(&member)?;
        self.store.insist(&["delete", "pod", &member])?;
        self.store.wait_gone("etcdmembers", &member)?;
        self.store.wait(3)?;
        self.check("a disk wiped: its member is replaced")?;

        let member = self.store.first("pods")?;
        self.store.damage(&member)?;
        // As a crash would: it does not get to writing down that nothing of the log is needed.
        self.store.insist(&["delete", "pod", &member, "--grace-period=0", "--force"])?;
        self.store.wait_gone("etcdmembers", &member)?;
        self.store.wait(3)?;
        self.check("a log damaged: its member is replaced")
    }

    /// The operator's own notes are lost: nothing is founded anew.
    fn lose_records(&mut self) -> anyhow::Result<()> {
        let id = self.store.get("{.status.clusterID}")?;
        let (pods, members) = (self.store.uids("pods")?, self.store.uids("etcdmembers")?);
        self.store.delete_all("etcdmembers")?;
        self.store.wait_others("etcdmembers", &members, 3)?;
        self.store.wait(3)?;
        ensure!(self.store.uids("pods")? == pods, "Pods are others than before");
        self.check("all EtcdMembers deleted: made again, and no Pod restarted")?;

        self.store.wipe_status()?;
        until("cluster's id", LIMIT, || Ok((self.store.get("{.status.clusterID}")? == id).then_some(())))?;
        self.store.wait(3)?;
        ensure!(self.store.uids("pods")? == pods, "Pods are others than before");
        self.check("the status wiped: the same cluster")
    }

    fn apply_again(&mut self) -> anyhow::Result<()> {
        let id = self.store.get("{.status.clusterID}")?;
        self.store.delete()?;
        self.store.apply(EXAMPLE)?;
        self.store.wait(3)?;
        ensure!(self.store.get("{.status.clusterID}")? == id, "another cluster than {id}");
        // Its certificates are new ones.
        self.store.start_client()?;
        self.check("deleted and applied again: the same cluster, from its volumes")
    }

    fn roll(&mut self, cluster: &Kubernetes) -> anyhow::Result<()> {
        let pods = self.store.uids("pods")?;
        self.store.patch(r#"{"spec":{"config":{"snapshotCount":20000}}}"#)?;
        self.store.wait(3)?;
        let after = self.store.uids("pods")?;
        ensure!(!after.iter().any(|uid| pods.contains(uid)), "{pods:?}, then {after:?}");
        self.check("a setting changed: every member restarted, one by one")?;

        let (old, new) = (env!("CARGO_PKG_VERSION"), format!("{}-again", env!("CARGO_PKG_VERSION")));
        for node in cluster.nodes() {
            node.tag_image(&format!("localhost/garboard:{old}"), &format!("localhost/garboard:{new}"))?;
        }
        self.store.patch(&format!(r#"{{"spec":{{"version":"{new}"}}}}"#))?;
        self.store.wait(3)?;
        ensure!(self.store.get("{.status.version}")? == new, "the status says another version than {new}");
        self.check("another version: every member restarted")
    }

    fn lose_operator(&mut self) -> anyhow::Result<()> {
        let pods = self.store.uids("pods")?;
        let namespace = format!("--namespace={NAMESPACE}");
        self.store.scale(5)?;
        self.store.insist(&[&namespace, "delete", "pods", "--all", "--grace-period=0", "--force"])?;
        self.store.wait(5)?;
        let after = self.store.uids("pods")?;
        ensure!(pods.iter().all(|uid| after.contains(uid)), "{pods:?}, then {after:?}");
        self.check("all operators killed while the cluster grows: it grows, and no other Pod restarts")?;
        self.store.scale(3)?;
        self.store.wait(3)
    }

    /// The spec is another one every second; what was asked for last is what comes.
    fn churn(&mut self, time: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut round = 0;
        while begin.elapsed() < time {
            round += 1;
            let size = if round % 10 < 5 { 3 } else { 5 };
            let count = 20000 + round % 3;
            self.store.patch(&format!(r#"{{"spec":{{"size":{size},"config":{{"snapshotCount":{count}}}}}}}"#))?;
            std::thread::sleep(Duration::from_secs(1));
        }
        self.store.patch(r#"{"spec":{"size":3,"config":{"snapshotCount":10000}}}"#)?;
        self.store.wait(3)?;
        self.check(&format!("the spec changed {round} times, every second: the last one is obeyed"))
    }

    /// An EtcdCluster that cannot be read beside one that can.
    fn neighbour(&mut self, cluster: &Kubernetes) -> anyhow::Result<()> {
        // As an older or a newer release's CRD might have it.
        let schema = r#"{"spec":{"versions":[{"name":"v1alpha1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}"#;
        let name = "etcdclusters.garboard.dev";
        let before = cluster.kubectl_ok(&["get", "crd", name, "--output=json"])?;
        cluster.kubectl_ok(&["patch", "crd", name, "--type=merge", "--patch", schema])?;
        let odd = SHORTEST.replace("store", "odd").replace("size: 3", "size: [three]");
        until("object that nobody can read", LIMIT, || Ok(cluster.apply(&odd).is_ok().then_some(())))?;
        self.store.patch(r#"{"spec":{"config":{"snapshotCount":15000}}}"#)?;
        self.store.wait(3)?;
        cluster.kubectl_ok(&["delete", "etcdcluster", "odd"])?;
        let mut crd: serde_json::Value = serde_json::from_str(&before)?;
        crd["metadata"] = serde_json::json!({"name": name});
        let spec = serde_json::json!({"spec": crd["spec"]}).to_string();
        let mut restore =
            cluster.command("kubectl", &["patch", "crd", name, "--type=merge", "--patch-file=/dev/stdin"]);
        run_with_input(&mut restore, &spec)?.success("the CRD as it was")?;
        self.check("beside a cluster that cannot be read, the others go on")
    }
}
