//! The Go programs and suites of the scenarios, and the programs of the lab: pinned by `tests/e2e/tools/go.mod` and the modules below it, built
//! once, kept in the cache.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use serde_json::Value;

use crate::cache;
use crate::cache::Fingerprint;
use crate::step::must;

const KUBERNETES: &str = "v1.36.3";

/// What is built: its file, its module, its package; suites are compiled tests.
#[derive(Clone, Copy)]
struct Target {
    file: &'static str,
    module: Module,
    package: &'static str,
    suite: bool,
    /// Build tags, separated by commas.
    tags: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Module {
    Etcd36,
    Etcd37,
    /// Apart from the others: its programs are asked for more rarely, and its pins change for reasons of their own.
    Lab,
    /// Apart from the lab's: it is what only those labs have that are asked for it.
    CertManager,
    /// For one scenario.
    Prometheus,
}

const fn program(file: &'static str, module: Module, package: &'static str) -> Target {
    Target { file, module, package, suite: false, tags: "" }
}

const fn suite(file: &'static str, module: Module, package: &'static str) -> Target {
    Target { file, module, package, suite: true, tags: "" }
}

const TARGETS: &[Target] = &[
    program("etcd", Module::Etcd36, "go.etcd.io/etcd/server/v3"),
    program("etcdctl", Module::Etcd36, "go.etcd.io/etcd/etcdctl/v3"),
    program("etcdutl", Module::Etcd36, "go.etcd.io/etcd/etcdutl/v3"),
    program("etcd37", Module::Etcd37, "go.etcd.io/etcd/server/v3"),
    program("bolt", Module::Etcd36, "./cmd/bolt"),
    program("traffic", Module::Etcd36, "./cmd/traffic"),
    program("porcupine", Module::Etcd36, "./cmd/porcupine"),
    program("dns", Module::Etcd36, "./cmd/dns"),
    program("asleep", Module::Etcd36, "./cmd/asleep"),
    suite("clientv3.test", Module::Etcd36, "./clientv3"),
    suite("wire.test", Module::Etcd36, "./wire"),
    suite("quota.test", Module::Etcd36, "./quota"),
    suite("limits.test", Module::Etcd36, "./limits"),
    suite("large.test", Module::Etcd36, "./large"),
    suite("differential.test", Module::Etcd36, "./differential"),
    suite("crash.test", Module::Etcd36, "./crash"),
    suite("rangestream.test", Module::Etcd37, "./rangestream"),
    suite("differential37.test", Module::Etcd37, "./differential"),
];

/// What a lab consists of besides the store.
const LAB: &[Target] = &[
    program("pause", Module::Lab, "./cmd/pause"),
    program("toolbox", Module::Lab, "./cmd/toolbox"),
    program(HYPERKUBE, Module::Lab, "./cmd/hyperkube"),
    // Without file systems that need C libraries or that no node of a lab has.
    Target {
        tags: "no_btrfs,no_zfs,no_devmapper",
        ..program("containerd", Module::Lab, "github.com/containerd/containerd/v2/cmd/containerd")
    },
    Target {
        tags: "no_btrfs,no_zfs,no_devmapper",
        ..program("ctr", Module::Lab, "github.com/containerd/containerd/v2/cmd/ctr")
    },
    Target {
        tags: "no_grpc",
        ..program(
            "containerd-shim-runc-v2",
            Module::Lab,
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        )
    },
    program("coredns", Module::Lab, "./cmd/coredns"),
    program("csi-driver", Module::Lab, "./cmd/csi-driver"),
    program("csi-provisioner", Module::Lab, "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"),
    program("csi-resizer", Module::Lab, "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"),
    program("local-path-provisioner", Module::Lab, "github.com/rancher/local-path-provisioner"),
    program("helm", Module::Lab, "helm.sh/helm/v3/cmd/helm"),
];

/// What a lab can have besides.
const CERT_MANAGER: Target = program("cert-manager", Module::CertManager, "./cmd/cert-manager");
const CERT_MANAGER_MODULE: &str = "github.com/cert-manager/cert-manager";

/// What evaluates the alerts of the chart: without a user interface, and with no discovery but that of Kubernetes.
const PROMETHEUS: [Target; 2] = [
    Target {
        tags: PROMETHEUS_TAGS,
        ..program("prometheus", Module::Prometheus, "github.com/prometheus/prometheus/cmd/prometheus")
    },
    Target {
        tags: PROMETHEUS_TAGS,
        ..program("promtool", Module::Prometheus, "github.com/prometheus/prometheus/cmd/promtool")
    },
];
const PROMETHEUS_TAGS: &str = "remove_all_sd,enable_kubernetes_sd";

/// It imports a package by a path that others write in another case: go takes only one of them in a call.
const ALONE: &str = "local-path-provisioner";

/// Programs of our own.
const OWN: [&str; 5] = ["bolt", "traffic", "porcupine", "dns", "asleep"];

/// Those of the lab that take little to build.
const OWN_OF_LAB: [&str; 3] = ["./cmd/pause", "./cmd/toolbox", "./cmd/csi-driver"];

/// Kubernetes, in one file,
const HYPERKUBE: &str = "hyperkube";
/// and the programs that it is, by the name it is called by.
const HYPERKUBE_NAMES: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// Definitions of what Prometheus' operator reads: a module, and its hash as go.sum would have it. Not among the pins of the lab, since no program is
/// made of it.
const PROMETHEUS_OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const PROMETHEUS_OPERATOR_HASH: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";
const MONITOR_CRDS: [&str; 3] = ["podmonitors", "prometheusrules", "servicemonitors"];

/// The load generator of the bench, which needs no more than the servers beside it.
const LOAD: Target = program("load", Module::Etcd36, "./cmd/load");
const BENCHED: [&str; 2] = ["etcd", "etcd37"];

// === impl Target ===

impl Target {
    /// Whether one call of `go` can build both.
    fn goes_with(&self, other: &Self) -> bool {
        ![self.file, other.file].contains(&ALONE)
            && (self.module, self.suite, self.tags) == (other.module, other.suite, other.tags)
    }

    /// The name that `go` gives it: the last part of the package's path, or the one before a major version.
    fn built_as(&self) -> String {
        let versioned = |part: &str| part.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
        let name = self.package.rsplit('/').find(|part| !versioned(part)).unwrap_or(self.package);
        if self.suite { format!("{name}.test") } else { name.to_owned() }
    }
}

// === impl Module ===

impl Module {
    fn dir(self, root: &Path) -> PathBuf {
        match self {
            Self::Etcd36 => root.join("tests/e2e/tools"),
            Self::Etcd37 => root.join("tests/e2e/tools/etcd37"),
            Self::Lab => root.join("tests/e2e/tools/lab"),
            Self::CertManager => root.join("tests/e2e/tools/cert-manager"),
            Self::Prometheus => root.join("tests/e2e/tools/prometheus"),
        }
    }

    /// Everything that decides which programs come out: the pins and our own mains.
    fn pins(self, root: &Path) -> anyhow::Result<Fingerprint> {
        let dir = self.dir(root);
        let mut fingerprint = Fingerprint::new();
        for name in ["go.mod", "go.sum"] {
            fingerprint.add_path(&dir.join(name))?;
        }
        if self != Self::CertManager {
            fingerprint.add_path(&dir.join("tools.go"))?;
        }
        if self == Self::Lab {
            fingerprint.add_path(&dir.join("cmd/hyperkube"))?;
            fingerprint.add(KUBERNETES.as_bytes());
        }
        Ok(fingerprint)
    }

    /// Without debug information; the programs of Kubernetes are told their version, or they call themselves v0.0.0.
    fn linker_flags(self) -> String {
        let mut flags = String::from("-s -w");
        if self != Self::Lab {
            return flags;
        }
        let mut parts = KUBERNETES.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            for (name, value) in
                [("gitVersion", KUBERNETES), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
            {
                flags.push_str(&format!(" -X {package}.{name}={value}"));
            }
        }
        flags
    }
}

/// Builds what is not there yet and returns the folder with all of it.
pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = folder(root)?;
    build_all(root, &bin, TARGETS)?;
    Ok(bin)
}

/// Builds the programs of a lab, and no others, into a folder of their own.
pub fn build_for_lab(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = build_of_lab(root, |_| true)?;
    copy_monitor_crds(&bin).context("the definitions of PodMonitor, PrometheusRule and ServiceMonitor")?;
    Ok(bin)
}

/// Builds cert-manager into the folder of the lab's programs, where its chart then is, too.
pub fn build_cert_manager(root: &Path, bin: &Path) -> anyhow::Result<()> {
    build_all(root, bin, [&CERT_MANAGER])?;
    link_chart(&CERT_MANAGER.module.dir(root), bin).context("the chart of cert-manager")
}

/// Builds Prometheus and promtool into the folder of the lab's programs.
pub fn build_prometheus(root: &Path, bin: &Path) -> anyhow::Result<()> {
    build_all(root, bin, &PROMETHEUS)
}

/// `charts/cert-manager` beside the programs: of the very version that the program is made of.
fn link_chart(dir: &Path, bin: &Path) -> anyhow::Result<()> {
    let output = go(dir).args(["list", "-m", "-json", CERT_MANAGER_MODULE]).output().context("start go")?;
    ensure!(output.status.success(), "go list: {}", String::from_utf8_lossy(&output.stderr));
    let module: Value = serde_json::from_slice(&output.stdout).context("go list")?;
    let chart = Path::new(module["Dir"].as_str().context("no Dir")?).join("deploy/charts/cert-manager");
    ensure!(chart.join("Chart.yaml").exists(), "{} is no chart", chart.display());
    let folder = bin.join("charts");
    let (link, next) = (folder.join("cert-manager"), folder.join(format!("next-{}", std::process::id())));
    if std::fs::read_link(&link).is_ok_and(|there| there == chart) {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    std::os::unix::fs::symlink(&chart, &next).with_context(|| format!("link {}", next.display()))?;
    std::fs::rename(&next, &link).with_context(|| format!("link {}", link.display()))
}

/// `crds/NAME.yaml` beside the programs.
fn copy_monitor_crds(bin: &Path) -> anyhow::Result<()> {
    let folder = bin.join("crds");
    if MONITOR_CRDS.iter().all(|name| folder.join(format!("{name}.yaml")).exists()) {
        return Ok(());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let output = Command::new("go")
        .current_dir(bin)
        .env("GOWORK", "off")
        .args(["mod", "download", "-json", PROMETHEUS_OPERATOR])
        .output()?;
    let module: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("go mod download: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(output.status.success(), "go mod download: {}", module["Error"]);
    ensure!(module["Sum"] == PROMETHEUS_OPERATOR_HASH, "{PROMETHEUS_OPERATOR} has the hash {}", module["Sum"]);
    let dir = Path::new(module["Dir"].as_str().context("no Dir")?).join("example/prometheus-operator-crd");
    for name in MONITOR_CRDS {
        let from = dir.join(format!("monitoring.coreos.com_{name}.yaml"));
        let text = std::fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        // Beside its place first, so that one cut short is not taken for whole.
        let next = folder.join(format!("{name}.next"));
        std::fs::write(&next, text)?;
        std::fs::rename(&next, folder.join(format!("{name}.yaml")))?;
    }
    Ok(())
}

/// Of these, the programs of Kubernetes alone.
pub fn build_kubernetes(root: &Path) -> anyhow::Result<PathBuf> {
    build_of_lab(root, |target| target.file == HYPERKUBE)
}

fn build_of_lab(root: &Path, wanted: impl Fn(&Target) -> bool) -> anyhow::Result<PathBuf> {
    let bin = folder_of(Module::Lab.pins(root)?)?;
    build_all(root, &bin, LAB.iter().filter(|target| wanted(target)))?;
    for name in HYPERKUBE_NAMES {
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(HYPERKUBE, &link).with_context(|| format!("link {}", link.display()))?;
        }
    }
    Ok(bin)
}

/// Builds the programs of the bench, and no others, into the same folder.
pub fn build_for_bench(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = folder(root)?;
    build_all(root, &bin, TARGETS.iter().filter(|target| BENCHED.contains(&target.file)).chain([&LOAD]))?;
    Ok(bin)
}

/// Builds real etcd, for whoever wants it as a store, and returns where it is.
pub fn build_etcd(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = folder(root)?;
    build_all(root, &bin, TARGETS.iter().filter(|target| target.file == "etcd"))?;
    Ok(bin.join("etcd"))
}

/// The folder for what the scenarios use.
fn folder(root: &Path) -> anyhow::Result<PathBuf> {
    let mut all = Module::Etcd36.pins(root)?;
    all.add(Module::Etcd37.pins(root)?.hex().as_bytes());
    folder_of(all)
}

/// The folder for what is built of these pins.
fn folder_of(all: Fingerprint) -> anyhow::Result<PathBuf> {
    ensure!(
        Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()),
        "Go is missing: install the version that tests/e2e/tools/go.mod names (https://go.dev/dl)"
    );
    let bin = cache::dir()?.join("tools").join(all.hex()).join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    Ok(bin)
}

/// Builds those that are not there as their sources are now. What one call of `go` can build it does: it links several programs at a time, and
/// compiles while it links.
fn build_all<'a>(root: &Path, bin: &Path, targets: impl IntoIterator<Item = &'a Target>) -> anyhow::Result<()> {
    let mut batches: Vec<Vec<Stale<'a>>> = Vec::new();
    for target in targets {
        let Some(stale) = Stale::of(root, bin, target)? else { continue };
        match batches.iter_mut().find(|batch| batch.iter().all(|other| other.target.goes_with(target))) {
            Some(batch) => batch.push(stale),
            None => batches.push(vec![stale]),
        }
    }
    batches.iter().try_for_each(|batch| build_batch(root, bin, batch))
}

/// A target that has to be built, and the stamp that says from what it was.
struct Stale<'a> {
    target: &'a Target,
    stamp: PathBuf,
    sources: String,
}

impl<'a> Stale<'a> {
    /// None if it is there.
    fn of(root: &Path, bin: &Path, target: &'a Target) -> anyhow::Result<Option<Self>> {
        let dir = target.module.dir(root);
        let mut sources = target.module.pins(root)?;
        if target.package.starts_with("./") {
            sources.add_path(&dir.join(target.package))?;
            if target.suite && target.module == Module::Etcd36 {
                sources.add_path(&dir.join("target"))?;
            }
        }
        let (stamp, sources) = (bin.join(format!(".{}.built-from", target.file)), sources.hex());
        let there = bin.join(target.file).exists() && std::fs::read_to_string(&stamp).is_ok_and(|it| it == sources);
        Ok((!there).then_some(Self { target, stamp, sources }))
    }
}

/// `batch` is not empty, and its targets go with each other.
fn build_batch(root: &Path, bin: &Path, batch: &[Stale<'_>]) -> anyhow::Result<()> {
    let files: Vec<&str> = batch.iter().map(|stale| stale.target.file).collect();
    println!("building {}", files.join(", "));
    let Target { module, suite, tags, .. } = *batch[0].target;
    // Built beside their places, so that an interrupted build leaves nothing that looks whole.
    let next = bin.join(format!("next-{}", std::process::id()));
    std::fs::create_dir_all(&next).with_context(|| format!("create {}", next.display()))?;
    let mut command = go(&module.dir(root));
    if suite {
        command.args(["test", "-c"]);
    } else {
        command.args(["build", "-tags", tags, "-ldflags", &module.linker_flags()]);
    }
    let packages = batch.iter().map(|stale| stale.target.package);
    let built = must(command.arg("-o").arg(&next).args(packages)).and_then(|()| {
        batch.iter().try_for_each(|Stale { target, stamp, sources }| {
            std::fs::rename(next.join(target.built_as()), bin.join(target.file))?;
            Ok(std::fs::write(stamp, sources)?)
        })
    });
    std::fs::remove_dir_all(&next)?;
    built.with_context(|| format!("build {}", files.join(", ")))
}

fn go(dir: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly")
        .env("GOWORK", "off");
    command
}

/// `go vet` on the suites and programs of our own, and that their pins are complete; what the programs test of themselves. Not on cert-manager: all
/// that it links would have to be read for that.
pub fn vet(root: &Path) -> anyhow::Result<()> {
    for module in [Module::Etcd36, Module::Etcd37] {
        let ours = TARGETS.iter().filter(|t| t.suite || OWN.contains(&t.file)).chain([&LOAD]);
        let packages: Vec<&str> = ours.filter(|t| t.module == module).map(|t| t.package).collect();
        must(go(&module.dir(root)).arg("vet").args(packages))?;
    }
    must(go(&Module::Lab.dir(root)).arg("vet").args(OWN_OF_LAB))?;
    must(go(&Module::Etcd36.dir(root)).args(["test", "./cmd/traffic", "./cmd/porcupine"]))?;
    Ok(())
}

/// `gofmt` on all of our Go files.
pub fn formatted(root: &Path) -> anyhow::Result<()> {
    let output = Command::new("gofmt").arg("-l").arg(Module::Etcd36.dir(root)).output().context("start gofmt")?;
    if !output.status.success() || !output.stdout.is_empty() {
        bail!(
            "gofmt -w is needed for:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
