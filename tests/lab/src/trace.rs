//! What a lab has on the machine: taken while it runs, it says later what is left.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cgroup;
use crate::lab::Lab;

const NAMESPACES: [&str; 5] = ["mnt", "net", "pid", "uts", "ipc"];

pub struct Trace {
    /// As `/proc/<process>/ns` names them.
    namespaces: BTreeSet<PathBuf>,
    cgroups: Vec<String>,
    folder: PathBuf,
}

// === impl Trace ===

impl Trace {
    pub fn of(lab: &Lab) -> Self {
        let nodes = lab.everything();
        let firsts = nodes.iter().filter_map(|node| node.first().ok());
        Self {
            namespaces: firsts.flat_map(|first| namespaces(&first.id.to_string())).collect(),
            cgroups: nodes.iter().map(crate::node::Node::cgroup).collect(),
            folder: lab.home().to_owned(),
        }
    }

    /// Processes in its namespaces, cgroups, and mounts below its folder; none if it is gone.
    pub fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let number = id.chars().all(|c| c.is_ascii_digit());
            if number && namespaces(&id).iter().any(|namespace| self.namespaces.contains(namespace)) {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                left.push(format!("process {id} ({})", name.trim_end()));
            }
        }
        for name in &self.cgroups {
            left.extend(cgroup::left(name)?.iter().map(|folder| format!("cgroup {}", folder.display())));
        }
        let folder = self.folder.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let below = mounts.lines().filter(|line| line.split(' ').any(|field| field.starts_with(&*folder)));
        left.extend(below.map(|line| format!("mount {line}")));
        Ok(left)
    }
}

/// None for a process that is gone, or that is not ours to look at.
fn namespaces(id: &str) -> Vec<PathBuf> {
    NAMESPACES.iter().filter_map(|kind| std::fs::read_link(format!("/proc/{id}/ns/{kind}")).ok()).collect()
}
