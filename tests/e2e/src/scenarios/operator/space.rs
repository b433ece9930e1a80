//! An EtcdCluster whose quota is full.

use anyhow::ensure;

use super::super::kubernetes::Steps;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::Store;
use crate::process::Output;
use crate::process::run_with_input;
use crate::wait::until;

/// A quota of so much, in `QUOTA`.
const QUOTA_BYTES: u64 = 16 << 20;
const QUOTA: &str = "size: 3\n  config:\n    quotaBackend: 16Mi";
/// Below `--max-request-bytes`.
const VALUE_BYTES: usize = 1_000_000;
/// Writes by which it must be full.
const WRITES_MAX: usize = 64;

/// Space is made by the operator once it may: not before.
pub fn reclaim(store: &mut Store<'_>, steps: &mut Steps) -> anyhow::Result<()> {
    store.delete()?;
    store.delete_all("persistentvolumeclaims")?;
    store.wait_none("persistentvolumeclaims")?;
    store.apply(&EXAMPLE.replace("size: 3", QUOTA))?;
    *store = Store::new(store.cluster, store.name);
    store.wait(3)?;
    store.start_client()?;
    store.check()?;
    ensure!(store.condition("QuotaSufficient")? == "True", "QuotaSufficient is not True at first");
    let pods = store.uids("pods")?;

    let value = "v".repeat(VALUE_BYTES);
    let mut refused = None;
    for _ in 0..WRITES_MAX {
        let put = put(store, &value)?;
        if !put.status.success() {
            refused = Some(put.stderr);
            break;
        }
    }
    let Some(refused) = refused else { anyhow::bail!("{WRITES_MAX} MB fit into a quota of 16 MiB") };
    ensure!(refused.contains("database space exceeded"), "{refused}");
    until("word that the quota is full, and whose task it is", LIMIT, || {
        let reason = store.get(r#"{.status.conditions[?(@.type=="QuotaSufficient")].reason}"#)?;
        Ok((reason == "Manual").then_some(()))
    })?;
    ensure!(
        store.etcdctl_ok(&["alarm", "list"])?.contains("NOSPACE"),
        "the alarm is gone, and nobody was to disarm it"
    );
    ensure!(!put(store, "small")?.status.success(), "a write under NOSPACE");
    steps.held("one key overwritten until the quota is full: nothing is written, and it says so");

    store.patch(r#"{"spec":{"maintenance":{"nospace":"Reclaim"}}}"#)?;
    until("room", LIMIT, || Ok((store.condition("QuotaSufficient")? == "True").then_some(())))?;
    let alarms = store.etcdctl_ok(&["alarm", "list"])?;
    ensure!(alarms.trim().is_empty(), "{alarms}");
    store.wait(3)?;
    store.check()?;
    let size: u64 = store.get("{.status.dbSizeBytes}")?.parse()?;
    ensure!(size < QUOTA_BYTES / 2, "{size} bytes after the history of one key is gone");
    let kept = store.etcdctl_ok(&["get", "large", "--print-value-only"])?;
    ensure!(kept.trim_end() == value, "{} bytes are left of the newest value", kept.len());
    ensure!(store.get("{.status.operation}")?.is_empty(), "the operation has no end");
    ensure!(store.uids("pods")? == pods, "a Pod was restarted to make room");
    store.agree()?;
    steps.held("the spec asks for it: the history is gone, and writes are taken again");
    Ok(())
}

fn put(store: &Store<'_>, value: &str) -> anyhow::Result<Output> {
    let args = ["exec", "--stdin", "client", "--", "/etcdctl", "put", "large"];
    run_with_input(&mut store.cluster.command("kubectl", &args), value)
}
