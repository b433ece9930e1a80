//! Clusters that are deleted and are to leave a backup behind: they stay and serve until there is one, or until nobody asks for one any more.

use anyhow::Context as _;
use anyhow::ensure;

use super::super::archive;
use super::super::archive::Backup;
use super::super::archive::CLAIM;
use super::super::store::LIMIT;
use super::super::store::SHORTEST as CLUSTER;
use super::super::store::Store;
use super::Scene;
use crate::wait::until;

const FINALIZER: &str = "garboard.dev/final-backup";
/// There is no such claim.
const NOWHERE: &str = "nowhere";

fn asked(claim: &str) -> String {
    format!(r#"{{"spec":{{"deletion":{{"finalBackup":{{"destination":{{"volume":{{"claimName":"{claim}"}}}}}}}}}}}}"#)
}

/// When the clients have ended: the cluster of the scenario goes with this.
pub fn final_backup(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    // Founded while the other one is looked at.
    scene.cluster.apply(&CLUSTER.replace("store", "brief").replace("size: 3", "size: 1"))?;
    let brief = Store::new(scene.cluster, "brief");
    brief.patch(&asked(NOWHERE))?;

    scene.store.patch(&asked(NOWHERE))?;
    delete(&scene.store)?;
    scene.store.check()?;
    ensure!(scene.store.names("pods")?.len() == 3, "members: {:?}", scene.store.names("pods"));
    scene.steps.held("deleted, and a final backup has no claim: the cluster says so, stays and serves");
    let keys = keys(&scene.store)?;
    scene.store.patch(&asked(CLAIM))?;
    goes(&scene.store)?;
    // The one before has gone: this is the only one.
    let of_a_cluster = ["--selector=garboard.dev/final-of", "--output=jsonpath={.items[*].metadata.name}"];
    let name = scene.cluster.kubectl_ok(&[&["get", "etcdbackups"], &of_a_cluster[..]].concat())?;
    let status = Backup::new(scene.cluster, &name).succeeded().context("of the final backup")?;
    ensure!(status["keys"] == keys, "{keys} keys before, then {status:#}");
    archive::whole(scene.lab, &scene.volume()?, &name, &status)?;
    scene.steps.held("with a claim that is there it goes, and leaves an EtcdBackup whose file has all keys");

    brief.wait(1)?;
    delete(&brief)?;
    brief.patch(r#"{"spec":{"deletion":{"finalBackup":null}}}"#)?;
    goes(&brief)?;
    scene.steps.held("one of which nobody asks for a backup any more goes without");
    Ok(())
}

/// Deletes it once it is held, and waits until it says what its backup waits for.
fn delete(store: &Store<'_>) -> anyhow::Result<()> {
    until("finalizer", LIMIT, || Ok(store.get("{.metadata.finalizers}")?.contains(FINALIZER).then_some(())))?;
    store.insist(&["delete", "etcdcluster", store.name, "--wait=false"])?;
    let told = r#"{.status.conditions[?(@.type=="FinalBackup")].message}"#;
    until("word on the final backup", LIMIT, || {
        let waits = store.condition("FinalBackup")? == "False" && store.get(told)?.contains("VolumeMissing");
        Ok(waits.then_some(()))
    })
}

/// All of them, when none of a client's goes any more by itself.
fn keys(store: &Store<'_>) -> anyhow::Result<i64> {
    until("end of the clients' leases", LIMIT, || {
        Ok(store.etcdctl_ok(&["lease", "list"])?.contains("found 0 leases").then_some(()))
    })?;
    let fields = store.etcdctl_ok(&["get", "", "--prefix", "--count-only", "--write-out=fields"])?;
    let count = fields.lines().find_map(|line| line.strip_prefix("\"Count\" : ")).context("no count")?;
    Ok(count.parse()?)
}

fn goes(store: &Store<'_>) -> anyhow::Result<()> {
    store.insist(&["wait", "--for=delete", &format!("etcdcluster/{}", store.name), "--timeout=180s"])?;
    store.wait_none("pods")
}
