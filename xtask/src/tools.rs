//! The Go programs and suites of the scenarios: pinned by `tests/e2e/tools/go.mod`, built once, kept in the cache.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use crate::cache;
use crate::cache::Fingerprint;
use crate::step::must;

const KUBERNETES: &str = "v1.36.3";

/// What is built: its file, its module, its package; suites are compiled tests.
struct Target {
    file: &'static str,
    module: Module,
    package: &'static str,
    suite: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Module {
    Etcd36,
    Etcd37,
}

const fn program(file: &'static str, module: Module, package: &'static str) -> Target {
    Target { file, module, package, suite: false }
}

const fn suite(file: &'static str, module: Module, package: &'static str) -> Target {
    Target { file, module, package, suite: true }
}

const TARGETS: &[Target] = &[
    program("etcd", Module::Etcd36, "go.etcd.io/etcd/server/v3"),
    program("etcdctl", Module::Etcd36, "go.etcd.io/etcd/etcdctl/v3"),
    program("etcdutl", Module::Etcd36, "go.etcd.io/etcd/etcdutl/v3"),
    program("etcd37", Module::Etcd37, "go.etcd.io/etcd/server/v3"),
    program("hyperkube", Module::Etcd36, "./cmd/hyperkube"),
    program("bolt", Module::Etcd36, "./cmd/bolt"),
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

/// Programs that hyperkube is, by the name it is called by.
const HYPERKUBE_NAMES: [&str; 2] = ["kube-apiserver", "kubectl"];

/// The load generator of the bench, which needs no more than the servers beside it.
const LOAD: Target = program("load", Module::Etcd36, "./cmd/load");
const BENCHED: [&str; 2] = ["etcd", "etcd37"];

// === impl Module ===

impl Module {
    fn dir(self, root: &Path) -> PathBuf {
        match self {
            Self::Etcd36 => root.join("tests/e2e/tools"),
            Self::Etcd37 => root.join("tests/e2e/tools/etcd37"),
        }
    }

    /// Everything that decides which programs come out: the pins and our own mains.
    fn pins(self, root: &Path) -> anyhow::Result<Fingerprint> {
        let dir = self.dir(root);
        let mut fingerprint = Fingerprint::new();
        for name in ["go.mod", "go.sum", "tools.go"] {
            fingerprint.add_path(&dir.join(name))?;
        }
        if self == Self::Etcd36 {
            fingerprint.add_path(&dir.join("cmd/hyperkube"))?;
            fingerprint.add(KUBERNETES.as_bytes());
        }
        Ok(fingerprint)
    }
}

/// Builds what is not there yet and returns the folder with all of it.
pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = folder(root)?;
    for target in TARGETS {
        build_one(root, &bin, target).with_context(|| format!("build {}", target.file))?;
    }
    for name in HYPERKUBE_NAMES {
        let link = bin.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink("hyperkube", &link).with_context(|| format!("link {}", link.display()))?;
        }
    }
    Ok(bin)
}

/// Builds the programs of the bench, and no others, into the same folder.
pub fn build_for_bench(root: &Path) -> anyhow::Result<PathBuf> {
    let bin = folder(root)?;
    for target in TARGETS.iter().filter(|target| BENCHED.contains(&target.file)).chain([&LOAD]) {
        build_one(root, &bin, target).with_context(|| format!("build {}", target.file))?;
    }
    Ok(bin)
}

/// The folder for what is built of these pins.
fn folder(root: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()),
        "Go is missing: install the version that tests/e2e/tools/go.mod names (https://go.dev/dl)"
    );
    let mut all = Module::Etcd36.pins(root)?;
    all.add(Module::Etcd37.pins(root)?.hex().as_bytes());
    let bin = cache::dir()?.join("tools").join(all.hex()).join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    Ok(bin)
}

fn build_one(root: &Path, bin: &Path, target: &Target) -> anyhow::Result<()> {
    let dir = target.module.dir(root);
    let mut sources = target.module.pins(root)?;
    if target.package.starts_with("./") {
        sources.add_path(&dir.join(target.package))?;
        if target.suite && target.module == Module::Etcd36 {
            sources.add_path(&dir.join("target"))?;
        }
    }
    let (file, stamp) = (bin.join(target.file), bin.join(format!(".{}.built-from", target.file)));
    if file.exists() && std::fs::read_to_string(&stamp).is_ok_and(|built_from| built_from == sources.hex()) {
        return Ok(());
    }
    println!("building {}", target.file);
    // Built beside its place, so that an interrupted build leaves nothing that looks whole.
    let next = bin.join(format!("{}.next", target.file));
    let mut command = go(&dir);
    if target.suite {
        command.args(["test", "-c"]);
    } else {
        command.args(["build", "-ldflags", &linker_flags()]);
    }
    must(command.arg("-o").arg(&next).arg(target.package))?;
    std::fs::rename(&next, &file)?;
    Ok(std::fs::write(stamp, sources.hex())?)
}

/// Without these, kubectl and kube-apiserver call themselves v0.0.0.
fn linker_flags() -> String {
    let mut parts = KUBERNETES.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut flags = String::from("-s -w");
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in
            [("gitVersion", KUBERNETES), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
        {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
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

/// `go vet` on the suites and the load generator, and that their pins are complete.
pub fn vet(root: &Path) -> anyhow::Result<()> {
    for module in [Module::Etcd36, Module::Etcd37] {
        let ours = TARGETS.iter().filter(|t| t.suite || t.file == "bolt").chain([&LOAD]);
        let packages: Vec<&str> = ours.filter(|t| t.module == module).map(|t| t.package).collect();
        must(go(&module.dir(root)).arg("vet").args(packages))?;
    }
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
