//! The chart: what it renders is valid, asks for no more than the operator uses, and can be installed, tested, upgraded and taken away while
//! clusters run.

mod calls;
mod rendered;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::lab_nodes::Steps;
use super::lab_nodes::bring_up;
use crate::scenario::Lab;
use crate::scenarios::operator::LIMIT;
use crate::scenarios::operator::SHORTEST as EXAMPLE;
use crate::scenarios::operator::archives;
use crate::scenarios::operator::define_monitors;
use crate::wait::until;
use rendered::CHART;
use rendered::HOME;
use rendered::RELEASE;
use rendered::Rendered;
use rendered::SETS;

const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// Requests that the API server has refused, by what was asked for.
type Denied = BTreeMap<String, u64>;

struct Chart<'a> {
    cluster: &'a Kubernetes,
    steps: Steps,
}

pub fn lab_chart(lab: &Lab) -> anyhow::Result<u32> {
    let programs = lab.kubernetes.clone().context("--kubernetes names no folder")?;
    let images = lab.images.clone().context("--images names no folder")?;
    let mut steps = Steps::begin();
    let helm = programs.join("helm");
    let mut all = Vec::new();
    for set in SETS {
        all.push((set.name, rendered::check(&helm, set).with_context(|| format!("with {}", set.name))?));
        steps.held(&format!("rendered with {}: least rights, restricted Pods, selectors that select", set.name));
    }
    rendered::refusals(&helm)?;
    steps.held("values that there are not, or that make no sense, are refused");

    let cluster = bring_up(lab, 1, Families::Ipv4, &mut steps)?;
    let mut chart = Chart { cluster: &cluster, steps };
    chart.prepare(&images)?;
    chart.valid(&all)?;
    chart.install()?;
    chart.upgrade(&all)?;
    chart.narrow()?;
    chart.protect()?;
    chart.uninstall()?;
    let held = chart.steps.count();
    cluster.down()?;
    Ok(held + 1)
}

// === impl Chart ===

impl Chart<'_> {
    fn prepare(&mut self, images: &Path) -> anyhow::Result<()> {
        for archive in archives(images)? {
            self.cluster.load_image(&archive)?;
        }
        let image = |tag: &str| format!("localhost/garboard-operator:{tag}");
        let (own, next) = (image(env!("CARGO_PKG_VERSION")), image("next"));
        self.cluster.node(1)?.tag_image(&own, &next)?;
        define_monitors(self.cluster)?;
        for namespace in [HOME, "one", "two"] {
            self.cluster.kubectl_ok(&["create", "namespace", namespace])?;
        }
        for namespace in [HOME, "default"] {
            self.cluster.kubectl_ok(&["label", "namespace", namespace, RESTRICTED])?;
        }
        Ok(())
    }

    /// What is rendered, read by the API server itself: by every schema, with no unknown field.
    fn valid(&mut self, all: &[(&str, Rendered)]) -> anyhow::Result<()> {
        // A Pod is taken only when its account is there, and a dry run makes none.
        let account = ["serviceaccount", "garboard-operator-test", &format!("--namespace={HOME}")];
        self.cluster.kubectl_ok(&[&["create"], &account[..]].concat())?;
        for (name, rendered) in all {
            let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
            let output = crate::process::run_with_input(&mut self.cluster.command("kubectl", &args), &rendered.text)?
                .success(&format!("with {name}: kubectl apply --dry-run=server"))?;
            ensure!(!output.stderr.contains("Warning"), "with {name}: {}", output.stderr);
        }
        self.cluster.kubectl_ok(&[&["delete"], &account[..]].concat())?;
        self.steps.held("the API server takes all of it, strictly");
        Ok(())
    }

    fn helm(&self, args: &[&str]) -> anyhow::Result<()> {
        let home = format!("--namespace={HOME}");
        crate::process::run(self.cluster.command("helm", args).args([home.as_str(), "--timeout=240s"]))?
            .success(&format!("helm {}", args.join(" ")))?;
        Ok(())
    }

    /// Upgrades to what is given over the defaults, and waits until no Pod of before is left.
    fn set(&self, values: &[&str]) -> anyhow::Result<()> {
        let images = "--set=image.repository=localhost/garboard-operator,server.repository=localhost/garboard";
        let before = self.operators()?;
        let command = if before.is_empty() { "install" } else { "upgrade" };
        self.helm(&[&[command, RELEASE, CHART, "--wait", images, "--set=image.pullPolicy=Never"], values].concat())?;
        until("end of the operators of before", LIMIT, || {
            let now = self.operators()?;
            Ok((now.len() == 2 && !now.iter().any(|uid| before.contains(uid))).then_some(()))
        })
    }

    fn operators(&self) -> anyhow::Result<Vec<String>> {
        self.uids(&[&format!("--namespace={HOME}"), &rendered::operators()])
    }

    fn members(&self) -> anyhow::Result<Vec<String>> {
        self.uids(&["--selector=garboard.dev/cluster=store"])
    }

    /// Of Pods, with how often their containers have begun anew.
    fn uids(&self, which: &[&str]) -> anyhow::Result<Vec<String>> {
        let list = self.cluster.kubectl_ok(&[&["get", "pods", "--output=json"], which].concat())?;
        let list: Value = serde_json::from_str(&list)?;
        let items = list["items"].as_array().context("no items")?;
        let uid = |pod: &Value| {
            let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
            format!("{} {}", pod["metadata"]["uid"], restarts.unwrap_or_default())
        };
        Ok(items.iter().map(uid).collect())
    }

    fn wait(&self, size: usize) -> anyhow::Result<()> {
        let path = r#"{.status.observedGeneration} {.metadata.generation} {.status.ready} {.status.memberCount} {.status.conditions[?(@.type=="Ready")].status}"#;
        until(&format!("cluster of {size} that is Ready"), LIMIT, || {
            let text =
                self.cluster.kubectl_ok(&["get", "etcdcluster", "store", &format!("--output=jsonpath={path}")])?;
            let seen =
                text.split_once(' ').is_some_and(|(seen, rest)| rest == format!("{seen} {size}/{size} {size} True"));
            Ok(seen.then_some(()))
        })
        .with_context(|| self.cluster.kubectl_ok(&["describe", "etcdcluster", "store"]).unwrap_or_default())
    }

    fn scale(&self, size: usize) -> anyhow::Result<()> {
        self.cluster.kubectl_ok(&["scale", "etcdcluster", "store", &format!("--replicas={size}")])?;
        self.wait(size)
    }

    /// Counted by the API server: what is refused is seen whether or not anybody logs it.
    fn denied(&self) -> anyhow::Result<Denied> {
        let metrics = self.cluster.kubectl_ok(&["get", "--raw=/metrics"])?;
        let mut denied = Denied::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let (labels, count) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let of = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0)
            };
            let label = |name: &str| of(&format!(",{name}")).unwrap_or_default();
            let (verb, group, resource) = (label("verb"), label("group"), label("resource"));
            // Kubelets are refused the Secrets of Pods that the API server does not know to be theirs yet.
            let others = resource == "secrets" && ["GET", "LIST", "WATCH"].contains(&verb);
            if of("{code") == Some("403") && calls::asks_for(group, resource) && !others {
                let what = format!("{verb} {group}/{resource}/{}", label("subresource"));
                *denied.entry(what).or_default() += count.parse::<f64>()? as u64;
            }
        }
        Ok(denied)
    }

    /// Nothing has been refused since `before`, and nobody says so.
    fn allowed(&self, before: &Denied) -> anyhow::Result<()> {
        let now = self.denied()?;
        ensure!(now == *before, "refused by the API server: {before:?}, then {now:?}");
        let home = format!("--namespace={HOME}");
        let log = self.cluster.kubectl_ok(&["logs", &home, &rendered::operators(), "--tail=-1", "--prefix"])?;
        ensure!(log.contains("this operator works"), "no operator works: {log}");
        let refused: Vec<_> = log.lines().filter(|line| line.contains("forbidden")).collect();
        ensure!(refused.is_empty(), "{refused:#?}");
        Ok(())
    }

    fn install(&mut self) -> anyhow::Result<()> {
        let before = self.denied()?;
        self.set(&[])?;
        self.steps.held("helm install, in a namespace that takes restricted Pods alone");
        ensure!(EXAMPLE.lines().count() == 5, "the shortest example has {} lines", EXAMPLE.lines().count());
        self.cluster.apply(EXAMPLE)?;
        self.wait(3)?;
        self.scale(1)?;
        self.scale(3)?;
        self.steps.held("an EtcdCluster of five lines is founded, shrunk and grown");
        self.helm(&["test", RELEASE])?;
        let left = self.cluster.kubectl_ok(&["get", "etcdclusters", "--all-namespaces", "--output=name"])?;
        ensure!(left.lines().count() == 1, "left of helm test: {left}");
        self.steps.held("helm test");
        self.allowed(&before)?;
        self.steps.held("nothing of it was forbidden");
        Ok(())
    }

    /// Other operators, with all that is optional: the members do not notice.
    fn upgrade(&mut self, all: &[(&str, Rendered)]) -> anyhow::Result<()> {
        let members = self.members()?;
        self.set(&[
            "--set=image.tag=next,deletionProtection.enabled=true,networkPolicy.enabled=true,podMonitor.enabled=true",
            "--set=serviceMonitor.enabled=true,resources.limits.memory=200Mi",
            "--set=monitoring.rules.enabled=true,monitoring.dashboard.enabled=true",
        ])?;
        self.touched(3)?;
        let now = self.members()?;
        ensure!(now == members && now.len() == 3, "{members:?}, then {now:?}");
        self.steps.held("helm upgrade to another image and other values: the Pods of members are the same");
        let (_, policy) = all.iter().find(|(name, _)| *name == "networkPolicy").context("no such set")?;
        let selected = self.uids(&[&format!("--selector={}", policy.members()?)])?;
        ensure!(selected == now, "the NetworkPolicy lets the operator reach {selected:?}, and members are {now:?}");
        self.steps.held("the NetworkPolicy selects the members");
        Ok(())
    }

    /// Waits until an operator has looked at a change that changes nothing of the Pods.
    fn touched(&self, size: usize) -> anyhow::Result<()> {
        let path = "--output=jsonpath={.metadata.generation}";
        let generation: u64 = self.cluster.kubectl_ok(&["get", "etcdcluster", "store", path])?.parse()?;
        let patch = format!(r#"{{"spec":{{"healing":{{"nodeLostFor":"{}s"}}}}}}"#, 300 + generation);
        self.cluster.kubectl_ok(&["patch", "etcdcluster", "store", "--type=merge", "--patch", &patch])?;
        self.wait(size)
    }

    /// One namespace alone, with rights in that one alone.
    fn narrow(&mut self) -> anyhow::Result<()> {
        self.set(&["--set=watchNamespaces={default},deletionProtection.enabled=true"])?;
        let role = self.cluster.kubectl(&["get", "clusterrole", RELEASE])?;
        ensure!(role.stderr.contains("NotFound"), "the ClusterRole is still there: {}{}", role.stdout, role.stderr);
        let before = self.denied()?;
        self.cluster.apply(&EXAMPLE.replace("name: store", "name: store\n  namespace: one"))?;
        self.scale(1)?;
        self.scale(3)?;
        self.helm(&["test", RELEASE])?;
        let status = ["get", "etcdcluster", "store", "--namespace=one", "--output=jsonpath={.status}"];
        let status = self.cluster.kubectl_ok(&status)?;
        ensure!(status.is_empty(), "a cluster of another namespace has a status: {status}");
        self.allowed(&before)?;
        self.steps.held("watchNamespaces: shrunk, grown and tested with Roles alone; other namespaces are left alone");
        Ok(())
    }

    fn protect(&mut self) -> anyhow::Result<()> {
        let annotate =
            |value: &str| self.cluster.kubectl_ok(&["annotate", "etcdcluster", "store", "--overwrite", value]);
        annotate("garboard.dev/deletion-protection=true")?;
        let delete = ["delete", "etcdcluster", "store", "--wait=false"];
        let refused = self.cluster.kubectl(&delete)?;
        ensure!(!refused.status.success() && refused.stderr.contains("is protected"), "{}", refused.stderr);
        let one = ["--namespace=one", "--overwrite", "garboard.dev/deletion-protection=true"];
        self.cluster.kubectl_ok(&[&["annotate", "etcdcluster", "store"], &one[..]].concat())?;
        self.cluster.kubectl_ok(&["delete", "namespace", "one", "--timeout=120s"])?;
        self.steps.held("a protected EtcdCluster cannot be deleted, but goes with its namespace");
        annotate("garboard.dev/deletion-protection=false")?;
        Ok(())
    }

    fn uninstall(&mut self) -> anyhow::Result<()> {
        let members = self.members()?;
        self.helm(&["uninstall", RELEASE, "--wait"])?;
        until("end of the operators", LIMIT, || Ok(self.operators()?.is_empty().then_some(())))?;
        let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
        let left = self.cluster.kubectl_ok(&["get", kinds, "--output=name"])?;
        ensure!(!left.contains("garboard"), "left: {left}");
        let now = self.members()?;
        ensure!(now == members && now.len() == 3, "{members:?}, then {now:?}");
        self.steps.held("helm uninstall: clusters stay, and nothing of the chart but the CRDs");
        self.set(&[])?;
        self.touched(3)?;
        ensure!(self.members()? == members, "{members:?}, then {:?}", self.members()?);
        self.steps.held("installed again: it goes on with the clusters that are there");
        Ok(())
    }
}
