//! The cgroups of a node's Pods, of version 1 (a folder in each hierarchy) and of version 2 (one folder).

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;

use crate::wait::until;

/// The kernel lets go of a cgroup some time after its last process.
const LIMIT: Duration = Duration::from_secs(20);

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    at: PathBuf,
    unified: bool,
}

/// Makes the cgroup of a node, with what its children need to exist in it.
pub fn create(name: &str) -> anyhow::Result<()> {
    let hierarchies = controlling(mounted()?);
    ensure!(!hierarchies.is_empty(), "no cgroups are mounted below /sys/fs/cgroup");
    for Hierarchy { at, unified } in hierarchies {
        let folder = at.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        if unified {
            delegate(&at)?;
            delegate(&folder)?;
        }
        // A cpuset without CPUs and memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (false, Ok(all)) = (unified, std::fs::read_to_string(at.join(file))) {
                std::fs::write(folder.join(file), all).with_context(|| format!("set {file} of {name}"))?;
            }
        }
    }
    Ok(())
}

/// Version 2: the controllers of a cgroup are there for its children.
fn delegate(folder: &Path) -> anyhow::Result<()> {
    let available = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        let file = folder.join("cgroup.subtree_control");
        std::fs::write(&file, format!("+{controller}"))
            .with_context(|| format!("add {controller} to {}", file.display()))?;
    }
    Ok(())
}

/// Removes the cgroup of a node that has ended, with all below it.
pub fn remove(name: &str) -> anyhow::Result<()> {
    for Hierarchy { at, .. } in mounted()? {
        let folder = at.join(name);
        until("removal of a cgroup", LIMIT, || {
            if folder.exists() {
                // Processes that are about to be gone are still in the way of some.
                remove_below(&folder);
            }
            Ok((!folder.exists()).then_some(()))
        })
        .with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

fn remove_below(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

/// The folders of a node's cgroup that are there.
pub fn left(name: &str) -> anyhow::Result<Vec<PathBuf>> {
    Ok(mounted()?.into_iter().map(|hierarchy| hierarchy.at.join(name)).filter(|folder| folder.exists()).collect())
}

fn mounted() -> anyhow::Result<Vec<Hierarchy>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(hierarchies(&mounts))
}

fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let all = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (at, kind) = (PathBuf::from(fields.nth(1)?), fields.next()?);
        let unified = kind == "cgroup2";
        (kind == "cgroup" || unified).then_some(Hierarchy { at, unified })
    });
    all.collect()
}

/// Those that a node's cgroup is made in: version 2 if it is alone. Beside version 1 it has no controllers; runc uses it by itself.
fn controlling(all: Vec<Hierarchy>) -> Vec<Hierarchy> {
    let (unified, split): (Vec<_>, Vec<_>) = all.into_iter().partition(|hierarchy| hierarchy.unified);
    if split.is_empty() { unified } else { split }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_counts_where_it_is_alone() {
        let two = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n/dev/vda / ext4 rw 0 0\n";
        assert_eq!(controlling(hierarchies(two)), [Hierarchy { at: "/sys/fs/cgroup".into(), unified: true }]);
        let one = "tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
";
        assert_eq!(hierarchies(one).len(), 3);
        let at: Vec<PathBuf> = controlling(hierarchies(one)).into_iter().map(|hierarchy| hierarchy.at).collect();
        assert_eq!(at, [PathBuf::from("/sys/fs/cgroup/cpu"), PathBuf::from("/sys/fs/cgroup/memory")]);
    }
}
