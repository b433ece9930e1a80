//! Backups of a cluster whose clients never stop: taken, read by others than us, verified, kept and deleted; and all that they must not do.

mod damaged;
mod last;
mod volumes;

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use garboard_lab::Node;
use garboard_lab::packages;
use serde_json::Value;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::archive;
use super::archive::Backup;
use super::archive::CLAIM;
use super::archive::FIRST;
use super::archive::SHORTEST;
use super::archive::condition;
use super::archive::files;
use super::archive::manifest;
use super::archive::sha256;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::NAMESPACE;
use super::store::OPERATOR;
use super::store::Store;
use super::store::volume_folder;
use super::traffic::Traffic;
use crate::process::run_with_input;
use crate::random::Random;
use crate::scenario::Lab;
use crate::wait::until;

/// Values that no compression makes small: what a volume is full of before a snapshot fits.
const LARGE_VALUES: usize = 16;
const LARGE_BYTES: usize = 100_000;

struct Scene<'a> {
    lab: &'a Lab,
    cluster: &'a Kubernetes,
    store: Store<'a>,
    steps: Steps,
}

pub fn operator_backup(lab: &Lab) -> anyhow::Result<u32> {
    packages::need("zstd", "zstd")?;
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(EXAMPLE)?;
    let mut scene = Scene { lab, cluster: &cluster, store: Store::new(&cluster, "store"), steps };
    scene.store.wait(3)?;
    scene.store.start_client()?;
    let traffic = Traffic::start(&cluster, lab.seed)?;
    scene.fill()?;
    scene.steps.held("three members with something to keep, and clients");

    scene.refusals()?;
    scene.waits_for_its_claim()?;
    scene.taken()?;
    scene.of_the_leader()?;
    scene.verified()?;
    damaged::refused(&mut scene)?;
    scene.waits_for_its_cluster()?;
    scene.name_taken()?;
    scene.goes_with_its_files()?;
    scene.has_its_own_volume()?;
    scene.without_operators()?;
    volumes::full_and_read_only(&mut scene)?;

    traffic.judged(&scene.store, &mut scene.steps)?;
    last::final_backup(&mut scene)?;
    let held = scene.steps.count();
    cluster.down()?;
    Ok(held)
}

// === impl Scene ===

impl<'a> Scene<'a> {
    /// Through the client's own standard input: no argument is that long.
    fn fill(&mut self) -> anyhow::Result<()> {
        let mut random = Random::new(self.lab.seed);
        for n in 0..LARGE_VALUES {
            let value: String = (0..LARGE_BYTES).map(|_| char::from(b'!' + random.below(90) as u8)).collect();
            let put = ["exec", "--stdin", "client", "--", "/etcdctl", "put", &format!("large/{n:02}")];
            run_with_input(&mut self.cluster.command("kubectl", &put), &value)?.success("etcdctl put")?;
        }
        self.store.check()
    }

    /// The volume of the claim, on this machine.
    fn volume(&self) -> anyhow::Result<PathBuf> {
        volume_folder(self.cluster, CLAIM)
    }

    /// What is there of the cluster's backups.
    fn files(&self) -> anyhow::Result<Vec<String>> {
        files(&self.volume()?.join(self.store.name))
    }

    /// Those that name a backup: its own.
    fn files_of(&self, backup: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.files()?.into_iter().filter(|file| file.contains(backup)).collect())
    }

    fn ask(&self, name: &str, more: &str) -> anyhow::Result<Backup<'a>> {
        Backup::ask(self.cluster, name, CLAIM, more)
    }

    fn refusals(&mut self) -> anyhow::Result<()> {
        let destination = format!("volume: {{claimName: {CLAIM}}}");
        ensure!(SHORTEST.contains(&destination), "the example has another destination: {SHORTEST}");
        let both = format!("{destination}\n    volumeTemplate: {{size: 1Gi}}");
        let outside = "volume: {claimName: backups, path: ../other}";
        for (wrong, expected) in [
            (SHORTEST.replace(&destination, &both), "exactly one"),
            (SHORTEST.replace(&destination, "{}"), "exactly one"),
            (SHORTEST.replace(&destination, outside), "relative path"),
            (manifest("odd", CLAIM, "compression: Gzip"), "Unsupported value"),
        ] {
            let Err(error) = self.cluster.apply(&wrong) else { bail!("an impossible spec is taken: {wrong}") };
            ensure!(format!("{error:#}").contains(expected), "{expected:?} is not said: {error:#}");
        }
        self.steps.held("impossible specs are refused");
        Ok(())
    }

    /// Before there is a claim at all: the example's backup begins here.
    fn waits_for_its_claim(&mut self) -> anyhow::Result<()> {
        self.cluster.apply(SHORTEST)?;
        let backup = Backup::new(self.cluster, FIRST);
        backup.waits_for("PersistentVolumeClaim")?;
        ensure!(backup.jobs()?.is_empty(), "a Job without a volume: {:?}", backup.jobs());
        archive::make_claim(self.cluster, CLAIM)?;
        backup.succeeded()?;
        self.steps.held("a claim that is not there is told of; when it is made, the backup is taken");
        Ok(())
    }

    fn taken(&mut self) -> anyhow::Result<()> {
        let backup = Backup::new(self.cluster, FIRST);
        let status = backup.succeeded()?;
        let member = status["member"].as_str().context("no member")?;
        ensure!(self.store.names("etcdmembers")?.iter().any(|name| name == member), "{member} is no member");
        ensure!(self.store.get("{.status.leader}")? != member, "the leader was asked, with two followers there");
        ensure!(status["clusterID"] == self.store.get("{.status.clusterID}")?, "of another cluster: {status:#}");
        ensure!(status["file"] == format!("store/{FIRST}.db.zst") && status["claim"] == CLAIM, "{status:#}");
        for count in ["revision", "keys", "rawSizeBytes", "sizeBytes"] {
            ensure!(status[count].as_i64().is_some_and(|count| count > 0), "{count}: {status:#}");
        }
        for time in ["startedAt", "completedAt"] {
            ensure!(status[time].is_string(), "no {time}: {status:#}");
        }
        backup.at_rest()?;
        backup.told_of("Normal")?;
        self.steps.held("the shortest manifest: a follower's state, as the status and Events tell");

        let raw = archive::whole(self.lab, &self.volume()?, FIRST, &status)?;
        ensure!(self.files_of(FIRST)? == [format!("{FIRST}.db.zst"), format!("{FIRST}.json")], "{:?}", self.files());
        self.steps.held("zstd, sha256sum, etcdutl and our own snapshot status find in the files what the status says");
        archive::restored(self.lab, &raw, &status)?;
        self.steps.held("real etcd restores it: the same HashKV, and as many keys");

        let change = r#"--patch={"spec":{"compression":"None"}}"#;
        let changed = self.cluster.kubectl(&["patch", "etcdbackup", FIRST, "--type=merge", change])?;
        ensure!(!changed.status.success(), "a backup that was taken is changed: {changed:?}");
        let listed = self.cluster.kubectl_ok(&["get", "eb", FIRST])?;
        ensure!(listed.contains("Succeeded"), "{listed}");
        self.steps.held("its spec stays as it is");
        Ok(())
    }

    fn of_the_leader(&mut self) -> anyhow::Result<()> {
        let backup = self.ask("of-the-leader", "source: Leader\ncompression: None")?;
        let status = backup.succeeded()?;
        ensure!(status["member"] == self.store.get("{.status.leader}")?, "another than the leader: {status:#}");
        ensure!(status["file"] == "store/of-the-leader.db", "{status:#}");
        ensure!(status["sizeBytes"] == status["rawSizeBytes"], "{status:#}");
        archive::whole(self.lab, &self.volume()?, "of-the-leader", &status)?;
        self.steps.held("the leader's state, as it is, without compression");
        Ok(())
    }

    fn verified(&mut self) -> anyhow::Result<()> {
        let backup = self.ask("verified", "verify: Restore")?;
        let status = backup.succeeded()?;
        ensure!(status["verification"]["result"] == "Passed", "{status:#}");
        ensure!(condition(&status, "Verified")["status"] == "True", "{status:#}");
        backup.at_rest()?;
        archive::whole(self.lab, &self.volume()?, "verified", &status)?;
        self.steps.held("restored in a Pod: the same revision, HashKV and keys");
        let unproven = Backup::new(self.cluster, FIRST).succeeded()?;
        ensure!(condition(&unproven, "Verified")["status"] != "True", "verified by nobody: {unproven:#}");
        Ok(())
    }

    fn waits_for_its_cluster(&mut self) -> anyhow::Result<()> {
        self.cluster.apply(&manifest("of-nobody", CLAIM, "").replace("name: store", "name: nobody"))?;
        let backup = Backup::new(self.cluster, "of-nobody");
        backup.waits_for("nobody")?;
        ensure!(backup.jobs()?.is_empty(), "a Job without a cluster: {:?}", backup.jobs());
        backup.delete()?;
        self.steps.held("a cluster that is not there is told of; the backup can be deleted");
        Ok(())
    }

    /// Nothing that a backup has not written itself is written over, or removed with it.
    fn name_taken(&mut self) -> anyhow::Result<()> {
        let sums = |scene: &Self| -> anyhow::Result<Vec<String>> {
            let folder = scene.volume()?.join(scene.store.name);
            scene.files_of("kept")?.iter().map(|file| Ok(format!("{file} {}", sha256(&folder.join(file))?))).collect()
        };
        let backup = self.ask("kept", "deletionPolicy: Retain")?;
        backup.succeeded()?;
        let before = sums(self)?;
        ensure!(before.len() == 2, "files of one backup: {before:?}");
        backup.delete()?;
        ensure!(sums(self)? == before, "retained: {before:?}, then {:?}", sums(self)?);
        self.steps.held("deleted with Retain: its files stay");

        let again = self.ask("kept", "")?;
        again.failed("NameTaken")?;
        again.told_of("Warning")?;
        ensure!(sums(self)? == before, "of that name before: {before:?}, then {:?}", sums(self)?);
        again.delete()?;
        ensure!(sums(self)? == before, "of that name before: {before:?}, then {:?}", sums(self)?);
        self.steps.held("another of that name fails, and deleting that one removes nothing of the first");
        Ok(())
    }

    fn goes_with_its_files(&mut self) -> anyhow::Result<()> {
        let others = self.files()?;
        let backup = self.ask("fleeting", "")?;
        backup.succeeded()?;
        ensure!(self.files_of("fleeting")?.len() == 2, "{:?}", self.files());
        backup.delete()?;
        ensure!(self.files()? == others, "before and after it: {others:?}, then {:?}", self.files()?);
        self.steps.held("deleted: its files have gone, and no others");
        Ok(())
    }

    fn has_its_own_volume(&mut self) -> anyhow::Result<()> {
        let own = manifest("own", CLAIM, "").replace("volume: {claimName: backups}", "volumeTemplate: {size: 1Gi}");
        self.cluster.apply(&own)?;
        let backup = Backup::new(self.cluster, "own");
        let status = backup.succeeded()?;
        let claim = status["claim"].as_str().context("no claim")?;
        archive::whole(self.lab, &volume_folder(self.cluster, claim)?, "own", &status)?;
        backup.delete()?;
        until(&format!("end of the claim {claim}"), LIMIT, || {
            let left = self.cluster.kubectl_ok(&["get", "pvc", claim, "--ignore-not-found", "--output=name"])?;
            Ok(left.trim().is_empty().then_some(()))
        })?;
        self.steps.held("on a volume of its own, which goes with it");
        Ok(())
    }

    /// It is taken while no operator runs, and verified while they are killed.
    fn without_operators(&mut self) -> anyhow::Result<()> {
        let home = format!("--namespace={NAMESPACE}");
        let scale = |replicas: &str| {
            let replicas = format!("--replicas={replicas}");
            self.cluster.kubectl_ok(&[&home, "scale", "deployment", OPERATOR, &replicas]).map(drop)
        };
        let replicas =
            self.cluster.kubectl_ok(&[&home, "get", "deployment", OPERATOR, "--output=jsonpath={.spec.replicas}"])?;
        let nodes = self.cluster.nodes();
        // Its Pod has nowhere to run before the operators have gone.
        nodes.iter().try_for_each(Node::cordon)?;
        let backup = self.ask("orphaned", "verify: Restore")?;
        let job = || Ok::<_, anyhow::Error>(backup.jobs()?.into_iter().next());
        until("Job of a backup", LIMIT, job)?;
        scale("0")?;
        self.cluster.kubectl_ok(&[&home, "wait", "--for=delete", "pods", "--all", "--timeout=120s"])?;
        nodes.iter().try_for_each(Node::uncordon)?;
        let done = |job: Value| job["status"]["completionTime"].is_string().then_some(());
        until("end of the Job without operators", LIMIT, || Ok(job()?.and_then(done)))?;
        ensure!(backup.phase()? == "Running", "nobody was there to write {}", backup.phase()?);
        scale(&replicas)?;
        backup.reach(&["Verifying"])?;
        self.cluster.kubectl_ok(&[&home, "delete", "pods", "--all", "--grace-period=0", "--force"])?;
        let status = backup.succeeded()?;
        ensure!(status["verification"]["result"] == "Passed", "{status:#}");
        archive::whole(self.lab, &self.volume()?, "orphaned", &status)?;
        let own = self.files_of("orphaned")?;
        ensure!(own == ["orphaned.db.zst", "orphaned.json"], "files of one backup: {own:?}");
        self.cluster.kubectl_ok(&[&home, "rollout", "status", &format!("deployment/{OPERATOR}"), "--timeout=180s"])?;
        self.steps
            .held("taken without operators, verified while all of them were killed: one archive, and it is whole");
        Ok(())
    }
}
