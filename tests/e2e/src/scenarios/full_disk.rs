//! A disk that fills up: what adds data is refused, everything else goes on, and service returns with space.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;

use crate::etcdctl::Etcdctl;
use crate::scenario::Lab;
use crate::server::Member;

/// Room for two segments of the log, the reserve of three times as much, and a little.
const DISK_MIB: u64 = 344;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const PATIENCE: Duration = Duration::from_secs(20);

pub fn full_disk(lab: &Lab) -> anyhow::Result<u32> {
    let disk = lab.path("disk");
    std::fs::create_dir_all(&disk)?;
    let mut member = Member::new(lab, "server")?;
    member.data_dir = disk.join("data");
    // The member has a mount of its own, in a user namespace, so that nobody need be root.
    let mount = format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && exec \"$@\"");
    member.prefix = ["unshare", "--mount", "--map-root-user", "sh", "-c", &mount].map(str::to_owned).to_vec();
    member.prefix.push(disk.display().to_string());
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());

    // Its own writes fill it: refused in time, and taken again once deleted, compacted and defragmented.
    let value = "v".repeat(100_000);
    let mut written = 0;
    let refused = loop {
        let output = ctl.run(&["put", &format!("fill/{written:04}"), &value])?;
        if !output.status.success() {
            break output.stderr;
        }
        written += 1;
        ensure!(written < 2 * DISK_MIB * 10, "{written} values of 100 kB fit on {DISK_MIB} MiB");
    };
    ensure!(refused.contains(NO_SPACE), "refused after {written} values with: {refused}");
    ensure!(ctl.ok(&["get", "fill/0000", "--print-value-only"])?.trim() == value, "a read while there is no space");
    ensure!(ctl.ok(&["endpoint", "status", "-w", "json"])?.contains("disk space"), "the status does not complain");
    ctl.ok(&["del", "--prefix", "fill/"])?;
    let revision = (written + 2).to_string();
    ctl.ok(&["compact", &revision, "--physical"])?;
    ctl.ok(&["defrag"])?;
    taken_again(&ctl)?;

    // Somebody else's file fills it, and goes. The disk is reached through the process that has mounted it.
    let file = format!("/proc/{}/root{}/other", server.process.id(), disk.display());
    fill(Path::new(&file), 100 << 20)?;
    let start = Instant::now();
    while ctl.run(&["put", "k", "v"])?.status.success() {
        ensure!(start.elapsed() < PATIENCE, "nothing is refused with a full disk");
    }
    ensure!(ctl.ok(&["get", "k"])?.starts_with('k'), "a read while the disk is full");
    std::fs::remove_file(&file)?;
    taken_again(&ctl)?;
    Ok(7)
}

fn taken_again(ctl: &Etcdctl) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let output = ctl.run(&["put", "k", "v"])?;
        if output.status.success() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("still refused with space: {}", output.stderr);
        }
    }
}

fn fill(path: &Path, bytes: usize) -> anyhow::Result<()> {
    Ok(std::fs::write(path, vec![b'x'; bytes])?)
}
