//! The node's file systems: the machine's own, except for what a node has to itself.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use garboard_lab::spec::OWN;
use garboard_lab::spec::PROGRAMS;
use garboard_lab::spec::Spec;
use rustix::mount::MountFlags;
use rustix::mount::MountPropagationFlags as Propagation;
use rustix::mount::UnmountFlags;

const CGROUP: &str = "/sys/fs/cgroup";

/// What kubelet sets for the whole machine when it starts. It finds files that say so already, and the machine stays as it is.
const PRETENDED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub fn set_up(spec: &Spec) -> anyhow::Result<()> {
    rustix::mount::mount_change("/", Propagation::PRIVATE | Propagation::REC).context("make mounts private")?;
    mount("proc", "/proc")?;
    mount("tmpfs", "/run")?;
    bind(&spec.folder, OWN)?;
    bind(&spec.programs, PROGRAMS)?;
    sysfs()?;
    for folder in ["log", "var/lib", "var/log", "var/tmp"] {
        folder_at(&Path::new(OWN).join(folder))?;
    }
    let run = Path::new(OWN).join("var/run");
    if !run.is_symlink() {
        std::os::unix::fs::symlink("/run", &run).context("link /var/run")?;
    }
    bind(&Path::new(OWN).join("var"), "/var")?;
    for (name, value) in PRETENDED {
        let file = PathBuf::from("/run/lab").join(name.replace('/', "_"));
        std::fs::write(&file, format!("{value}\n")).with_context(|| format!("write {}", file.display()))?;
        bind_file(&file, &format!("/proc/sys/{name}"))?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forward packets of Pods")?;
    // What kubelet mounts for a Pod is seen in the containers that ask to see it.
    rustix::mount::mount_change("/", Propagation::SHARED | Propagation::REC).context("share mounts")
}

/// A sysfs of this network namespace hides the machine's cgroups: they are put back below it.
fn sysfs() -> anyhow::Result<()> {
    let aside = Path::new("/run/lab/cgroup");
    folder_at(aside)?;
    rustix::mount::mount_bind_recursive(CGROUP, aside).context("put cgroups aside")?;
    mount("sysfs", "/sys")?;
    rustix::mount::mount_bind_recursive(aside, CGROUP).context("put cgroups back")?;
    rustix::mount::unmount(aside, UnmountFlags::DETACH).context("unmount cgroups aside")
}

fn mount(kind: &str, at: &str) -> anyhow::Result<()> {
    rustix::mount::mount(kind, at, kind, MountFlags::empty(), None).with_context(|| format!("mount {kind} at {at}"))
}

fn bind(source: &Path, at: &str) -> anyhow::Result<()> {
    folder_at(Path::new(at))?;
    bind_file(source, at)
}

fn bind_file(source: &Path, at: &str) -> anyhow::Result<()> {
    rustix::mount::mount_bind(source, at).with_context(|| format!("mount {} at {at}", source.display()))
}

fn folder_at(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}
