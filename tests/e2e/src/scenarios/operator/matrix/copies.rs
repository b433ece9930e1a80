//! Backups and a restore among the changes: API server, operators and Pods may be away at any time, so that everything is asked for again.

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;
use serde_json::json;

use super::super::archive;
use super::super::archive::Backup;
use super::super::archive::CLAIM;
use super::super::archive::files;
use super::super::restore_in_place as in_place;
use super::super::schedule;
use super::super::store::LIMIT;
use super::super::store::Store;
use super::super::store::volume_folder;
use crate::wait::until;

const BACKUPS: &str = "etcdbackups";
const SCHEDULE: &str = "every";
const RESTORE: &str = "restore";

/// One on a volume of its own, and one by a schedule, for which the former goes: both restored to see that they are good, and then deleted.
pub fn backed_up(store: &Store<'_>) -> anyhow::Result<()> {
    let own = backup("own", |backup| {
        backup["metadata"]["labels"] = json!({"garboard.dev/schedule": SCHEDULE, "garboard.dev/cluster": store.name});
        backup["spec"]["destination"] = json!({"volumeTemplate": {"size": "1Gi"}});
        backup["spec"]["verify"] = "Restore".into();
    })?;
    store.apply(&own)?;
    let taken =
        until("backup on a volume of its own", LIMIT, || ended(store, "own")).with_context(|| describe(store))?;
    ensure!(is_verified(&taken), "not verified: {taken:#}");
    let claim = taken["claim"].as_str().context("no claim")?.to_owned();
    make_claim(store)?;
    store.apply(&every_minute()?)?;
    until("backup by a schedule, and the end of the one before", LIMIT, || {
        let Ok(names) = names(store, BACKUPS) else { return Ok(None) };
        let Some(next) = names.iter().find(|name| *name != "own") else { return Ok(None) };
        let is_next = ended(store, next)?.is_some_and(|status| is_verified(&status));
        Ok((is_next && !names.iter().any(|name| name == "own")).then_some(()))
    })
    .with_context(|| describe(store))?;
    delete(store, "etcdbackupschedules", SCHEDULE)?;
    gone(store, "etcdbackupschedules")?;
    backups_gone(store)?;
    until(&format!("end of the claim {claim}"), LIMIT, || {
        Ok(names(store, "persistentvolumeclaims").is_ok_and(|names| !names.contains(&claim)).then_some(()))
    })
}

/// To a backup that was just taken. The volumes of the cluster that was, and the backups, are deleted.
pub fn restored(store: &Store<'_>) -> anyhow::Result<()> {
    make_claim(store)?;
    store.apply(&backup("first", |_| ())?)?;
    until("backup to go back to", LIMIT, || ended(store, "first")).with_context(|| describe(store))?;
    let before = super::cluster_id(store)?;
    store.apply(&in_place::manifest(RESTORE, json!({"backupRef": {"name": "first"}}))?.to_string())?;
    let old = until("end of a restore", LIMIT * 2, || {
        let Ok(status) = in_place::status(store.cluster, RESTORE) else { return Ok(None) };
        ensure!(status["phase"] != "Failed", "it has failed: {status:#}");
        // A plan may be shown anew: its token is another one then.
        if let Some(token) = status["plan"]["token"].as_str().filter(|_| status["phase"] == "AwaitingConfirmation") {
            in_place::confirm(store, RESTORE, token)?;
        }
        Ok((status["phase"] == "Succeeded").then(|| status["oldVolumes"].clone()))
    })
    .with_context(|| describe(store))?;
    let now = super::cluster_id(store)?;
    ensure!(now != before, "it is still the cluster {before}");
    let old: Vec<&str> = old.as_array().into_iter().flatten().filter_map(|volume| volume["claim"].as_str()).collect();
    ensure!(old.len() == 3, "volumes of the cluster that was: {old:?}");
    delete(store, "etcdrestores", RESTORE)?;
    gone(store, "etcdrestores")?;
    old.iter().try_for_each(|volume| delete(store, "persistentvolumeclaims", volume))?;
    old.iter().try_for_each(|volume| store.wait_gone("persistentvolumeclaims", volume))?;
    backups_gone(store)
}

/// The example under another name, and otherwise as `change` makes it.
fn backup(name: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<String> {
    let mut backup: Value = serde_yaml_ng::from_str(&archive::manifest(name, CLAIM, ""))?;
    change(&mut backup);
    Ok(backup.to_string())
}

/// The example of a schedule, for every minute, of which one backup is kept.
fn every_minute() -> anyhow::Result<String> {
    let mut schedule: Value = serde_yaml_ng::from_str(schedule::EXAMPLE)?;
    schedule["metadata"]["name"] = SCHEDULE.into();
    schedule["spec"]["schedule"] = "* * * * *".into();
    schedule["spec"]["retention"] = json!({"keepLast": 1});
    Ok(schedule.to_string())
}

fn make_claim(store: &Store<'_>) -> anyhow::Result<()> {
    until("claim for backups", LIMIT, || Ok(archive::make_claim(store.cluster, CLAIM).ok()))
}

/// The status of a backup, when it has succeeded.
fn ended(store: &Store<'_>, name: &str) -> anyhow::Result<Option<Value>> {
    let Ok(status) = Backup::new(store.cluster, name).status() else { return Ok(None) };
    ensure!(status["phase"] != "Failed", "{name} has failed: {status:#}");
    Ok((status["phase"] == "Succeeded").then_some(status))
}

fn is_verified(status: &Value) -> bool {
    status["verification"]["result"] == "Passed"
}

/// Deletes all that there are, and sees that nothing is left of them on the volume of the claim.
fn backups_gone(store: &Store<'_>) -> anyhow::Result<()> {
    store.insist(&["delete", BACKUPS, "--all", "--wait=false"])?;
    gone(store, BACKUPS)?;
    let folder = until("volume of the backups", LIMIT, || Ok(volume_folder(store.cluster, CLAIM).ok()))?;
    let left = files(&folder.join(store.name))?;
    ensure!(left.is_empty(), "left of backups that are deleted: {left:?}");
    Ok(())
}

fn delete(store: &Store<'_>, kind: &str, name: &str) -> anyhow::Result<()> {
    store.insist(&["delete", kind, name, "--ignore-not-found", "--wait=false"])
}

/// Waits until there is none of a kind.
fn gone(store: &Store<'_>, kind: &str) -> anyhow::Result<()> {
    until(&format!("end of all {kind}"), LIMIT, || {
        Ok(names(store, kind).is_ok_and(|names| names.is_empty()).then_some(()))
    })
    .with_context(|| describe(store))
}

fn names(store: &Store<'_>, kind: &str) -> anyhow::Result<Vec<String>> {
    let names = store.cluster.kubectl_ok(&["get", kind, "--output=jsonpath={.items[*].metadata.name}"])?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn describe(store: &Store<'_>) -> String {
    let all = ["describe", "etcdbackups,etcdbackupschedules,etcdrestores,etcdclusters"];
    store.cluster.kubectl_ok(&all).unwrap_or_default()
}
