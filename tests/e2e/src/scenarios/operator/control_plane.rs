//! A Kubernetes whose store is the EtcdCluster: kube-apiserver and kube-controller-manager in a Pod, with the certificate that the operator made.

use std::cell::Cell;

use anyhow::Context as _;
use garboard_lab::Lab as Kubernetes;

use super::store::LIMIT;
use super::store::image;
use crate::certs::signing_key;
use crate::process::Output;
use crate::process::run_with_input;
use crate::scenario::Lab;
use crate::wait::until;

const MANIFEST: &str = include_str!("control_plane.yaml");
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];
const TOKEN: &str = "plane";
const DEPLOYMENT: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
    "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "registry.invalid/web"}]}}}}"#;

pub struct ControlPlane<'a> {
    cluster: &'a Kubernetes,
    replicas: Cell<u32>,
}

// === impl ControlPlane ===

impl<'a> ControlPlane<'a> {
    pub fn start(lab: &Lab, cluster: &'a Kubernetes) -> anyhow::Result<Self> {
        let programs = lab.kubernetes.as_deref().context("--kubernetes names no folder")?;
        let files: Vec<_> = PROGRAMS.map(|name| (name, programs.join(name))).into();
        cluster.load_image(&image(lab, "hyperkube", &files)?)?;
        let key = signing_key(&lab.dir, "service-account")?;
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "plane", "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "admin"}}],
            "current-context": "plane",
        });
        cluster.kubectl_ok(&[
            "create",
            "secret",
            "generic",
            "plane",
            &format!("--from-file=service-account.crt={}", key.cert.display()),
            &format!("--from-file=service-account.key={}", key.key.display()),
            &format!("--from-literal=tokens={TOKEN},admin,1,\"system:masters\""),
            &format!("--from-literal=kubeconfig={kubeconfig}"),
        ])?;
        cluster.apply(&MANIFEST.replace("NODE", &cluster.node(1)?.name()))?;
        let plane = Self { cluster, replicas: Cell::new(1) };
        let ready = ["wait", "--for=condition=Ready", "pod/plane", "--timeout=240s"];
        cluster.kubectl(&ready)?.success("wait").with_context(|| plane.log())?;
        plane.create(DEPLOYMENT)?;
        plane.reconciles()?;
        Ok(plane)
    }

    fn create(&self, manifest: &str) -> anyhow::Result<()> {
        let create = self.command(&["--stdin"], &["create", "--filename=-"]);
        let mut create = self.cluster.command("kubectl", &create.iter().map(String::as_str).collect::<Vec<_>>());
        run_with_input(&mut create, manifest)?.success("create a Deployment")?;
        Ok(())
    }

    fn log(&self) -> String {
        let tail = ["logs", "plane", "--all-containers", "--prefix", "--tail=20"];
        self.cluster.kubectl(&tail).map(|output| output.stdout).unwrap_or_default()
    }

    fn command(&self, flags: &[&str], args: &[&str]) -> Vec<String> {
        let exec = ["exec", "plane", "--container=apiserver"];
        let inner = ["--", "/kubectl", "--kubeconfig=/plane/kubeconfig", "--cache-dir=/tmp/kubectl"];
        [&exec, flags, &inner, args].concat().into_iter().map(str::to_owned).collect()
    }

    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let args = self.command(&[], args);
        self.cluster.kubectl(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn ok(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.kubectl(args)?.success(&format!("kubectl {} in it", args.join(" ")))?.stdout)
    }

    /// Another Deployment, which its controller has never seen.
    pub fn deploys(&self, name: &str) -> anyhow::Result<()> {
        self.create(&DEPLOYMENT.replace("\"web\"", &format!("{name:?}")))?;
        until(&format!("Pod of the Deployment {name}"), LIMIT, || {
            let output = self.kubectl(&["get", "deployment", name, "--output=jsonpath={.status.replicas}"])?;
            Ok((output.stdout == "1").then_some(()))
        })
        .with_context(|| self.log())
    }

    /// A Deployment is scaled, and its controller makes or deletes the Pods.
    pub fn reconciles(&self) -> anyhow::Result<()> {
        let replicas = self.replicas.get() % 5 + 1;
        self.replicas.set(replicas);
        let scale = format!("--replicas={replicas}");
        let mut said = String::new();
        until("Deployment that is scaled", LIMIT, || {
            let output = self.kubectl(&["scale", "deployment", "web", &scale])?;
            said = output.stderr;
            Ok(output.status.success().then_some(()))
        })
        .with_context(|| format!("{said}\n{}", self.log()))?;
        let path = "--output=jsonpath={.metadata.generation} {.status.observedGeneration} {.status.replicas}";
        until(&format!("{replicas} Pods of a Deployment"), LIMIT, || {
            let output = self.kubectl(&["get", "deployment", "web", path])?;
            let fields: Vec<_> = output.stdout.split(' ').collect();
            Ok(matches!(fields[..], [wanted, seen, n] if wanted == seen && n == replicas.to_string()).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// It has not been restarted: an API server that loses its store for long ends itself.
    pub fn end(self) -> anyhow::Result<()> {
        self.cluster.kubectl_ok(&["delete", "pod", "plane"])?;
        Ok(())
    }
}
