//! On what was measured: the machine, the file system of the data, and the versions.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::run::Bench;

/// Lines for the head of the table. The commit is known only of a server that was just built.
pub fn describe(root: &Path, bench: &Bench, built: bool) -> anyhow::Result<String> {
    let proc =
        |name: &str| std::fs::read_to_string(format!("/proc/{name}")).with_context(|| format!("read /proc/{name}"));
    let (model, cores) = processors(&proc("cpuinfo")?);
    let kernel = proc("sys/kernel/osrelease")?;
    let data = bench.folder.canonicalize()?;
    let file_system = file_system(&proc("mounts")?, &data).unwrap_or_else(|| "unknown file system".to_owned());
    let commit = if built { commit(root).map(|commit| format!(" ({commit})")) } else { None }.unwrap_or_default();
    let mut versions = Vec::new();
    for contender in bench.contenders.iter().filter(|contender| contender.name != "garboard again") {
        let (name, commit) = if contender.ours { ("Garboard", commit.as_str()) } else { ("etcd", "") };
        versions.push(format!("{name} {}{commit}", contender.version()?));
    }
    Ok(format!(
        "- Machine: {model}, {cores} cores shared with the load generator, {}, Linux {}, data on {file_system}.\n- Servers: {}; {}, default flags.",
        memory(&proc("meminfo")?),
        kernel.trim(),
        versions.join(", "),
        if bench.members == 1 { "one member".to_owned() } else { format!("{} members each", bench.members) }
    ))
}

fn processors(cpuinfo: &str) -> (String, usize) {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(value);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    (model.unwrap_or_else(|| "unknown CPU".to_owned()), cores)
}

fn memory(meminfo: &str) -> String {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or_else(|| "unknown memory".to_owned(), |kib: f64| format!("{:.0} GiB", kib / 1024.0 / 1024.0))
}

/// Type of the mount whose folder is the longest that holds the path; the last one mounted there wins.
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(folder, _)| path.starts_with(folder));
    holding.max_by_key(|(folder, _)| folder.len()).map(|(_, kind)| kind.to_owned())
}

/// The commit of the checkout, if it is one.
fn commit(root: &Path) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_and_counted() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 3 GHz\n";
        assert_eq!(processors(cpuinfo), ("Some CPU @ 3 GHz".to_owned(), 2));
        assert_eq!(processors(""), ("unknown CPU".to_owned(), 0));
    }

    #[test]
    fn the_closest_mount_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        let of = |path: &str| file_system(mounts, Path::new(path));
        assert_eq!(of("/root/data").as_deref(), Some("ext4"));
        assert_eq!(of("/tmp/xy").as_deref(), Some("tmpfs"));
        assert_eq!(of("/tmp/x/y").as_deref(), Some("xfs"));
    }

    #[test]
    fn memory_is_shown_in_gib() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       24576000 kB\n"), "23 GiB");
        assert_eq!(memory(""), "unknown memory");
    }
}
