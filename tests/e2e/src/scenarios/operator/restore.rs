//! New clusters from backups: from an EtcdBackup, from a file when no object is left, from real etcd's snapshot; and from files that nobody may
//! be founded from.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::archive;
use super::archive::Backup;
use super::archive::CLAIM;
use super::archive::FIRST;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::Store;
use super::store::volume_folder;
use crate::etcdctl::Etcdctl;
use crate::scenario::Lab;
use crate::server::Member;
use crate::wait::until;

const RESTORED: &str = include_str!("../../../../../docs/examples/restored.yaml");
/// What the example names.
const SOURCE: &str = "backupRef: {name: before-upgrade}";
/// The default of `revisionBump`.
const BUMP: i64 = 1_000_000_000;
/// Keys of the store that is backed up, and of etcd's.
const KEYS: usize = 30;

/// A file that no cluster may be founded from.
struct Bad {
    what: &'static str,
    /// What is done to the files of a backup in a folder.
    spoil: fn(&Path) -> anyhow::Result<()>,
    reason: &'static str,
}

const BAD: [Bad; 4] = [
    Bad {
        what: "a flipped bit",
        spoil: |folder| {
            change(&packed(folder), |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            })
        },
        reason: "Damaged",
    },
    Bad {
        what: "an end cut off",
        spoil: |folder| change(&packed(folder), |bytes| bytes.truncate(bytes.len() - 1)),
        reason: "Damaged",
    },
    Bad { what: "a manifest of another format", spoil: later_format, reason: "Foreign" },
    Bad { what: "no manifest", spoil: |folder| Ok(std::fs::remove_file(manifest(folder))?), reason: "Missing" },
];

fn packed(folder: &Path) -> PathBuf {
    folder.join(format!("{FIRST}.db.zst"))
}

fn manifest(folder: &Path) -> PathBuf {
    folder.join(format!("{FIRST}.json"))
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    change(&mut bytes);
    Ok(std::fs::write(file, bytes)?)
}

fn later_format(folder: &Path) -> anyhow::Result<()> {
    let file = manifest(folder);
    let mut said: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    said["format"] = 99.into();
    Ok(std::fs::write(&file, said.to_string())?)
}

/// The example of another name, size and source.
fn example(name: &str, size: usize, source: &str) -> String {
    RESTORED.replace("restored", name).replace("size: 3", &format!("size: {size}")).replace(SOURCE, source)
}

fn file(path: &str) -> String {
    format!("volume: {{claimName: {CLAIM}, path: {path}}}")
}

struct Scene<'a> {
    lab: &'a Lab,
    cluster: &'a Kubernetes,
    steps: Steps,
    /// Of the backup.
    revision: i64,
}

pub fn operator_restore(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    let mut scene = Scene { lab, cluster: &cluster, steps, revision: 0 };
    scene.restore_a_backup()?;
    scene.restore_a_file_alone()?;
    scene.restore_of_etcd()?;
    scene.refused()?;
    let held = scene.steps.count();
    cluster.down()?;
    Ok(held)
}

// === impl Scene ===

impl Scene<'_> {
    fn volume(&self) -> anyhow::Result<PathBuf> {
        volume_folder(self.cluster, CLAIM)
    }

    /// A cluster that is told to begin with a backup, before there is one.
    fn restore_a_backup(&mut self) -> anyhow::Result<()> {
        self.cluster.apply(EXAMPLE)?;
        let store = Store::new(self.cluster, "store");
        store.wait(3)?;
        store.start_client()?;
        for n in 0..KEYS {
            store.etcdctl_ok(&["put", &format!("key{n:03}"), "before"])?;
        }
        store.etcdctl_ok(&["del", "key000"])?;
        self.steps.held("a cluster with something to keep");

        self.cluster.apply(RESTORED)?;
        let restored = Store::new(self.cluster, "restored");
        told(&restored, "BackupMissing")?;
        nothing_of(&restored)?;
        self.steps.held("one that is to be restored makes nothing while there is no backup");

        archive::make_claim(self.cluster, CLAIM)?;
        let status = Backup::ask(self.cluster, FIRST, CLAIM, "deletionPolicy: Retain")?.succeeded()?;
        self.revision = status["revision"].as_i64().context("no revision in the status")?;
        store.etcdctl_ok(&["put", "key-of-later", "after"])?;
        restored.wait(3)?;
        let message = restored.get(r#"{.status.conditions[?(@.type=="Restored")].message}"#)?;
        ensure!(message.contains(&format!("revision {} of EtcdBackup {FIRST}", self.revision)), "{message}");
        ensure!(restored.get("{.status.clusterID}")? != store.get("{.status.clusterID}")?, "both are one cluster");
        self.is_restored(&restored, KEYS - 1, self.revision + BUMP)?;
        let pods = serde_json::to_string(&restored.list("pods")?)?;
        ensure!(!pods.contains(CLAIM), "a member has the backup's volume: {pods}");
        self.steps.held("with the backup it is founded from that: its keys, at later revisions, and none from before");

        let other = r#"--patch={"spec":{"bootstrap":{"restore":{"revisionBump":7}}}}"#;
        for patch in [other, r#"--patch={"spec":{"bootstrap":null}}"#] {
            let patched = self.cluster.kubectl(&["patch", "etcdcluster", "restored", "--type=merge", patch])?;
            ensure!(patched.stderr.contains("cannot be changed"), "{patch}: {patched:?}");
        }
        self.steps.held("what it was founded from cannot be changed");
        Ok(())
    }

    /// Nothing is left but the volume; and the founder's Pod is killed at what it does.
    fn restore_a_file_alone(&mut self) -> anyhow::Result<()> {
        let restored = Store::new(self.cluster, "restored");
        for gone in [&Store::new(self.cluster, "store"), &restored] {
            end(gone)?;
        }
        Backup::new(self.cluster, FIRST).delete()?;
        let folder = self.volume()?.join("store");
        ensure!(packed(&folder).is_file() && manifest(&folder).is_file(), "no files in {}", folder.display());
        self.steps.held("every object deleted, and the files are there");

        self.cluster.apply(&example("restored", 1, &file(&format!("store/{FIRST}.db.zst"))))?;
        let mut killed = Vec::new();
        for _ in 0..3 {
            let pod = until("Pod of the founder", LIMIT, || {
                let pods = restored.list("pods")?;
                Ok(pods.into_iter().find(|pod| !killed.contains(&pod["metadata"]["uid"])))
            })?;
            let name = pod["metadata"]["name"].as_str().context("a Pod without a name")?;
            self.cluster.kubectl_ok(&["delete", "pod", name, "--grace-period=0", "--force"])?;
            killed.push(pod["metadata"]["uid"].clone());
        }
        restored.wait(1)?;
        self.is_restored(&restored, KEYS - 1, self.revision + BUMP)?;
        self.steps.held("from the file alone, with a founder that is killed again and again");

        restored.scale(3)?;
        restored.wait(3)?;
        self.is_restored(&restored, KEYS - 1, self.revision + BUMP)?;
        restored.agree()?;
        self.steps.held("it grows to three: all members have the same");
        let id = restored.get("{.status.clusterID}")?;
        restored.delete()?;
        restored.apply(&example("restored", 3, &file("nowhere/absent.db")))?;
        restored.wait(3)?;
        ensure!(restored.get("{.status.clusterID}")? == id, "another cluster on the volumes of the first");
        told(&restored, "Adopted")?;
        self.steps.held("deleted and applied again with another source: its volumes are what it goes on with");
        end(&restored)
    }

    /// As `etcdctl snapshot save` leaves it; and revisions that go on where it ends.
    fn restore_of_etcd(&mut self) -> anyhow::Result<()> {
        let etcd = Member::reference(self.lab, "etcd")?.start()?;
        let ctl = Etcdctl::new(self.lab, etcd.url());
        for n in 0..KEYS {
            ctl.ok(&["put", &format!("key{n:03}"), "of etcd"])?;
        }
        let snapshot = self.lab.path("etcd.snapshot");
        ctl.ok(&["snapshot", "save", &snapshot.display().to_string()])?;
        drop(etcd);
        // Readable for the user that members run as.
        std::fs::write(self.volume()?.join("etcd.snapshot"), std::fs::read(&snapshot)?)?;

        let source = format!("{}\n      revisionBump: 0", file("etcd.snapshot"));
        self.cluster.apply(&example("of-etcd", 1, &source))?;
        let store = Store::new(self.cluster, "of-etcd");
        store.wait(1)?;
        store.start_client()?;
        let revision = i64::try_from(KEYS)? + 1;
        ensure!(revision_of(&store)? == revision, "etcd was at {revision}, this one is at {}", revision_of(&store)?);
        ensure!(keys(&store, &["--rev=6"])? == 5, "history of etcd is lost");
        ensure!(keys(&store, &[])? == KEYS, "keys of etcd are lost");
        self.steps.held("a snapshot of real etcd, with its history and at its revision");
        end(&store)
    }

    fn refused(&mut self) -> anyhow::Result<()> {
        let (good, spoilt) = (self.volume()?.join("store"), self.volume()?.join("spoilt"));
        let store = Store::new(self.cluster, "refused");
        let manifest_of = example("refused", 1, &file(&format!("spoilt/{FIRST}.db.zst")));
        for Bad { what, spoil, reason } in BAD {
            copy(&good, &spoilt)?;
            spoil(&spoilt)?;
            self.cluster.apply(&manifest_of)?;
            told(&store, reason)?;
            until("word that somebody has to decide", LIMIT, || {
                Ok((store.condition("Stalled")? == "True").then_some(()))
            })?;
            is_not_founded(&store)?;
            let event = "--field-selector=involvedObject.name=refused,reason=Refused,type=Warning";
            let events = self.cluster.kubectl_ok(&["get", "events", "--output=name", event])?;
            ensure!(!events.trim().is_empty(), "no Event tells of {what}");
            // Its volume goes with it: nobody would know what is on it.
            store.delete()?;
            store.wait_none("persistentvolumeclaims")?;
            self.steps.held(&format!("{what}: refused as {reason}, and nothing is founded"));
        }
        copy(&good, &spoilt)?;
        self.cluster.apply(&manifest_of)?;
        store.wait(1)?;
        self.is_restored(&store, KEYS - 1, self.revision + BUMP)?;
        self.steps.held("of the same name, from whole files in a folder of another name");
        Ok(())
    }

    /// All that was in the backup, and nothing else; at `revision`, and with no history of before.
    fn is_restored(&self, store: &Store<'_>, count: usize, revision: i64) -> anyhow::Result<()> {
        ensure!(store.condition("Restored")? == "True", "the condition Restored is {}", store.condition("Restored")?);
        store.start_client()?;
        ensure!(keys(store, &[])? == count, "{} keys of {count}", keys(store, &[])?);
        let now = revision_of(store)?;
        ensure!(now == revision, "revision {now}, not {revision}");
        let old = store.etcdctl(&["get", "key001", &format!("--rev={}", self.revision)])?;
        ensure!(old.stderr.contains("required revision has been compacted"), "history of before: {old:?}");
        Ok(())
    }
}

/// Deletes a cluster and its volumes.
fn end(store: &Store<'_>) -> anyhow::Result<()> {
    store.delete()?;
    store.delete_all("persistentvolumeclaims")?;
    store.wait_none("persistentvolumeclaims")
}

/// Waits until the condition Restored is False for a reason.
fn told(store: &Store<'_>, reason: &str) -> anyhow::Result<()> {
    let path =
        r#"{.status.conditions[?(@.type=="Restored")].status} {.status.conditions[?(@.type=="Restored")].reason}"#;
    until(&format!("word of {reason}"), LIMIT, || Ok((store.get(path)? == format!("False {reason}")).then_some(())))
        .with_context(|| store.cluster.kubectl_ok(&["describe", "etcdcluster", store.name]).unwrap_or_default())
}

fn nothing_of(store: &Store<'_>) -> anyhow::Result<()> {
    for kind in ["pods", "persistentvolumeclaims", "etcdmembers"] {
        let names = store.names(kind)?;
        ensure!(names.is_empty(), "{kind}: {names:?}");
    }
    Ok(())
}

/// No server has begun, and there is nothing that one could begin on.
fn is_not_founded(store: &Store<'_>) -> anyhow::Result<()> {
    let id = store.get("{.status.clusterID}")?;
    ensure!(id.is_empty(), "it is the cluster {id}");
    for pod in store.list("pods")? {
        let server = &pod["status"]["containerStatuses"][0];
        ensure!(!server["state"]["waiting"].is_null() && server["lastState"]["terminated"].is_null(), "{server}");
    }
    for claim in store.names("persistentvolumeclaims")? {
        let data = store.folder(&claim)?.join("data");
        ensure!(!data.join("member/identity").exists(), "{} is a member's", data.display());
    }
    Ok(())
}

/// The files of `from` into a folder of which nothing else is left.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir(to)?;
    for file in [packed, manifest] {
        // Readable for the user that members run as.
        std::fs::write(file(to), std::fs::read(file(from))?)?;
    }
    Ok(())
}

/// Whole, of those that every scenario writes.
fn keys(store: &Store<'_>, more: &[&str]) -> anyhow::Result<usize> {
    let listed = store.etcdctl_ok(&[&["get", "key", "--prefix", "--keys-only"], more].concat())?;
    Ok(listed.lines().filter(|line| !line.is_empty()).count())
}

fn revision_of(store: &Store<'_>) -> anyhow::Result<i64> {
    let answer: Value = serde_json::from_str(&store.etcdctl_ok(&["get", "none", "--write-out=json"])?)?;
    answer["header"]["revision"].as_i64().context("no revision")
}
