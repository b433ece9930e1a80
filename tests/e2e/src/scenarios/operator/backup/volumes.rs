//! Volumes that take no backup, because they are full or read-only: what is on them stays as it is, and the next backup is taken when they do.

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Node;

use super::super::archive::Backup;
use super::Scene;

const MANIFEST: &str = include_str!("volumes.yaml");
const CLAIM: &str = "small";
/// To the last block: what is left after the large ones is filled by small ones.
const FILL: &str = "dd if=/dev/zero of=/backup/filler bs=1M; dd if=/dev/zero of=/backup/rest bs=4k; sync";
/// Sums of all that belongs to backups.
const SUMS: &str = "find /backup/store -type f -exec sha256sum {} + | sort -k 2";
/// In the path of a mount of the class expandable, and at its end where the node itself has it.
const DRIVER: &str = "csi.lab.garboard.dev";
const STAGED: &str = "/globalmount";

/// Its volume is a file system of 300 MiB in a file of a node, so both are as real as they can be.
pub fn full_and_read_only(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.cluster.apply(MANIFEST)?;
    scene.cluster.kubectl_ok(&["wait", "--for=condition=Ready", "pod/filler", "--timeout=120s"])?;
    taken(scene, "with-space")?;
    let before = in_filler(scene, SUMS)?;
    ensure!(before.lines().count() == 2, "files of one backup:\n{before}");

    in_filler(scene, FILL)?;
    let free = in_filler(scene, "df -P -k /backup")?;
    let backup = Backup::ask(scene.cluster, "without-space", CLAIM, "")?;
    backup.failed("NoSpace").context(free)?;
    backup.told_of("Warning")?;
    let after = in_filler(scene, SUMS)?;
    ensure!(after == before, "before:\n{before}after:\n{after}");
    scene.steps.held("a full volume: NoSpace, nothing half-written is left, and the older backup is whole");
    in_filler(scene, "rm /backup/filler /backup/rest")?;
    taken(scene, "with-space-again")?;
    scene.steps.held("with space again, the next one is taken");

    let (node, mount) = mounted(scene)?;
    let remount = |how: &str| node.exec("mount", &["--options", how, &mount])?.success("mount");
    remount("remount,ro")?;
    let backup = Backup::ask(scene.cluster, "read-only", CLAIM, "")?;
    backup.failed("ReadOnly")?;
    remount("remount,rw")?;
    taken(scene, "writable-again")?;
    let after = in_filler(scene, SUMS)?;
    ensure!(before.lines().all(|sum| after.contains(sum)), "before:\n{before}after:\n{after}");
    scene.steps.held("a read-only one: ReadOnly, and the next one is taken when it is not");
    Ok(())
}

fn taken(scene: &Scene<'_>, name: &str) -> anyhow::Result<()> {
    Backup::ask(scene.cluster, name, CLAIM, "")?.succeeded().map(drop)
}

/// What a script prints in the Pod that has the volume.
fn in_filler(scene: &Scene<'_>, script: &str) -> anyhow::Result<String> {
    scene.cluster.kubectl_ok(&["exec", "filler", "--", "sh", "-c", script])
}

/// The node that the volume is on, and where it is mounted there.
fn mounted<'a>(scene: &Scene<'a>) -> anyhow::Result<(Node<'a>, String)> {
    let name = scene.cluster.kubectl_ok(&["get", "pod", "filler", "--output=jsonpath={.spec.nodeName}"])?;
    let node = scene.cluster.nodes().into_iter().find(|node| node.name() == name).context("no such node")?;
    let mounts = node.exec("findmnt", &["--noheadings", "--raw", "--types=xfs", "--output=TARGET"])?;
    let mounts = mounts.success("findmnt")?.stdout;
    let staged = mounts.lines().find(|target| target.contains(DRIVER) && target.ends_with(STAGED));
    let staged = staged.with_context(|| format!("{name} has mounted no such volume: {mounts}"))?.to_owned();
    Ok((node, staged))
}
