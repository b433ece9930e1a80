//! Restores in place: a cluster that a live Kubernetes stores in goes back to a backup; and forth again to what it was, with operators that
//! die at each step.

mod recover;

use std::collections::BTreeSet;

use anyhow::Context as _;
use anyhow::bail;
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
use super::archive::condition;
use super::control_plane::ControlPlane;
use super::outside::Dies;
use super::outside::Outside;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::Store;
use crate::output;
use crate::scenario::Lab;
use crate::wait::until;
pub use recover::operator_recover;

const RESTORE: &str = include_str!("../../../../../docs/examples/restore.yaml");
/// Its name, and that of the backup that it takes first.
const NAME: &str = "back";
const SAFETY: &str = "back-safety";
/// The default of `revisionBump`.
const BUMP: i64 = 1_000_000_000;
/// ConfigMaps of the Kubernetes that are in the backup.
const KEPT: usize = 20;
/// One that is not,
const LATER: &str = "of-later";
/// and where it is stored.
const LATER_KEY: &str = "/registry/configmaps/default/of-later";

struct Scene<'a> {
    cluster: &'a Kubernetes,
    store: Store<'a>,
    plane: ControlPlane<'a>,
    steps: Steps,
    /// Of the store, before the restore.
    id: String,
    /// The newest that the Kubernetes on it has given out before the restore.
    newest: i64,
}

pub fn operator_restore_in_place(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(EXAMPLE)?;
    let store = Store::new(&cluster, "store");
    store.wait(3)?;
    store.start_client()?;
    let plane = ControlPlane::start(lab, &cluster)?;
    let id = store.get("{.status.clusterID}")?;
    steps.held("a Kubernetes whose store is an EtcdCluster");
    let mut scene = Scene { cluster: &cluster, store, plane, steps, id, newest: 0 };
    scene.fill()?;
    scene.refusals()?;
    scene.unconfirmed()?;
    // By the installed operators, and as fast as they are: an API server does not wait for its store for ever.
    let founded = scene.restored()?;
    scene.seen_from_kubernetes()?;
    let Scene { mut store, plane, mut steps, id, .. } = scene;
    plane.end()?;
    let outside = Outside::instead(lab, &cluster)?;
    let ((), died) = outside.during(1, Some(Dies::Acted), || rolled_back(&store, &id, &founded))?;
    died_at(&died, &["BeginRestore", "PutAside", "TakeBack"])?;
    steps.held("rolled back, while operators died after each deed: the cluster that was, with what is in no backup");
    outside.during(1, None, || {
        store.check()?;
        store.agree()
    })?;
    steps.held("it is written to, and all members have one hash");
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// Operators have died at one of these steps at least: a step that is nothing but a record is not made again.
fn died_at(places: &BTreeSet<String>, wanted: &[&str]) -> anyhow::Result<()> {
    output::line(format_args!("    operators died: {}", places.iter().cloned().collect::<Vec<_>>().join(", ")));
    let died = wanted.iter().any(|step| places.iter().any(|place| place.ends_with(step)));
    ensure!(died, "no operator has died at any of {wanted:?}");
    Ok(())
}

// === impl Scene ===

impl Scene<'_> {
    /// Objects that are in the backup, and one that is not.
    fn fill(&mut self) -> anyhow::Result<()> {
        for n in 0..KEPT {
            self.plane.ok(&["create", "configmap", &kept(n)])?;
        }
        archive::make_claim(self.cluster, CLAIM)?;
        Backup::ask(self.cluster, FIRST, CLAIM, "verify: Restore")?.succeeded()?;
        self.plane.ok(&["create", "configmap", LATER])?;
        self.plane.ok(&["delete", "configmap", "kept-00"])?;
        self.newest = version_of(&self.plane, "configmaps")?;
        self.steps.held("a backup, and changes after it");
        Ok(())
    }

    fn refusals(&mut self) -> anyhow::Result<()> {
        let source = format!("backupRef: {{name: {FIRST}}}");
        ensure!(RESTORE.contains(&source), "the example has another source: {RESTORE}");
        let both = format!("{source}\n    volume: {{claimName: {CLAIM}, path: store/{FIRST}.db.zst}}");
        for (wrong, expected) in [
            (RESTORE.replace(&source, &both), "exactly one"),
            (RESTORE.replace("  source:", "  revisionBump: 10\n  source:"), "greater than or equal to 1000000"),
        ] {
            let Err(error) = self.cluster.apply(&wrong) else { bail!("an impossible spec is taken: {wrong}") };
            ensure!(format!("{error:#}").contains(expected), "{expected:?} is not said: {error:#}");
        }
        self.steps.held("impossible specs are refused");
        Ok(())
    }

    /// A plan is shown; without its token, and with a wrong one, nothing happens.
    fn unconfirmed(&mut self) -> anyhow::Result<()> {
        let before = self.store.uids("pods")?;
        self.cluster.apply(RESTORE)?;
        reach(self.cluster, NAME, "AwaitingConfirmation")?;
        let plan = status(self.cluster, NAME)?["plan"].clone();
        ensure!(plan["chosen"].as_str().is_some_and(|chosen| chosen.contains(FIRST)), "{plan}");
        ensure!(plan["clusterID"] == self.id.as_str(), "another cluster is to make way: {plan}");
        let loss = plan["expectedLoss"].as_str().unwrap_or_default();
        ensure!(loss.contains(&format!("after revision {}", plan["revision"])), "{plan}");
        confirm(&self.store, NAME, "nonsense")?;
        until("word that the token is wrong", LIMIT, || {
            let confirmed = condition(&status(self.cluster, NAME)?, "Confirmed");
            Ok((confirmed["status"] == "False" && confirmed["reason"] == "WrongToken").then_some(()))
        })?;
        let frozen = r#"--patch={"spec":{"source":{"backupRef":{"name":"other"}}}}"#;
        let patched = self.cluster.kubectl(&["patch", "etcdrestore", NAME, "--type=merge", frozen])?;
        ensure!(patched.stderr.contains("made once"), "{patched:?}");
        ensure!(status(self.cluster, NAME)?["phase"] == "AwaitingConfirmation", "{:#}", status(self.cluster, NAME)?);
        ensure!(self.store.uids("pods")? == before, "Pods were touched without a confirmation");
        let safety = self.cluster.kubectl_ok(&["get", "etcdbackup", SAFETY, "--ignore-not-found"])?;
        ensure!(safety.is_empty(), "a safety backup without a confirmation: {safety}");
        self.steps.held("without the token, and with a wrong one, nothing is touched");
        Ok(())
    }

    /// Answers the id of the cluster that was founded.
    fn restored(&self) -> anyhow::Result<String> {
        let plan = status(self.cluster, NAME)?["plan"].clone();
        confirm(&self.store, NAME, plan["token"].as_str().context("no token")?)?;
        reach(self.cluster, NAME, "Succeeded")?;
        let status = status(self.cluster, NAME)?;
        ensure!(condition(&status, "Complete")["status"] == "True", "{status:#}");
        let founded = status["clusterID"].as_str().context("no cluster was founded")?.to_owned();
        ensure!(founded != self.id && self.store.get("{.status.clusterID}")? == founded, "{status:#}");
        let revision = status["revision"].as_i64().context("no revision")?;
        ensure!(revision > self.newest + BUMP / 2, "revision {revision}, and {} was given out", self.newest);
        ensure!(status["oldVolumes"].as_array().is_some_and(|old| old.len() == 3), "{status:#}");
        self.store.wait(3)?;
        Ok(founded)
    }

    fn seen_from_kubernetes(&mut self) -> anyhow::Result<()> {
        Backup::new(self.cluster, SAFETY).succeeded()?;
        self.steps.held("restored in place; the safety backup is there, and so are the old volumes");
        let kept: Vec<String> = (0..KEPT).map(kept).collect();
        noticed(&self.plane, &mut self.steps, &kept, &[LATER], self.newest)
    }
}

/// A ConfigMap.
fn kept(n: usize) -> String {
    format!("kept-{n:02}")
}

/// What a Kubernetes notices of a store that has begun anew: its caches, who watches, and its controllers. `newest`: what it had given out.
fn noticed(
    plane: &ControlPlane<'_>,
    steps: &mut Steps,
    kept: &[String],
    gone: &[&str],
    newest: i64,
) -> anyhow::Result<()> {
    // Answered from the watch cache alone, which has to have listed anew.
    let cached = format!("{}?resourceVersion=0", path("configmaps"));
    let mut last = Vec::new();
    until("caches that have listed anew", LIMIT, || {
        let output = plane.kubectl(&["get", "--raw", &cached])?;
        last = if output.status.success() { names(&output.stdout)? } else { vec![output.stderr] };
        let stale = last.iter().any(|name| gone.contains(&name.as_str()));
        Ok((!stale && kept.iter().all(|name| last.contains(name))).then_some(()))
    })
    .with_context(|| format!("{last:?}"))?;
    steps.held("the API server's cache has all that is to be there, and nothing else");

    let watch = format!("{}?watch=1&timeoutSeconds=10&resourceVersion={newest}", path("configmaps"));
    let mut told = String::new();
    until("word to who watches", LIMIT, || {
        let output = plane.kubectl(&["get", "--raw", &watch])?;
        told = output.stdout + &output.stderr;
        Ok((told.contains("too old resource version") || told.contains("Expired")).then_some(()))
    })
    .with_context(|| told.clone())?;
    steps.held("who watches from a revision of before is told to list anew");

    plane.ok(&["create", "configmap", "of-now"])?;
    let now = version_of(plane, "configmaps")?;
    ensure!(now > newest + BUMP / 2, "revision {now} after {newest}");
    plane.reconciles()?;
    plane.deploys("afterwards")?;
    steps.held("revisions have only gone up, and the controllers go on, with what is made afterwards as well");
    Ok(())
}

/// The revision of a list, as whoever watches from there remembers it.
fn version_of(plane: &ControlPlane<'_>, kind: &str) -> anyhow::Result<i64> {
    let list: Value = serde_json::from_str(&plane.ok(&["get", "--raw", &path(kind)])?)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    Ok(version.parse()?)
}

fn rolled_back(store: &Store<'_>, id: &str, founded: &str) -> anyhow::Result<()> {
    store.insist(&["patch", "etcdrestore", NAME, "--type=merge", r#"--patch={"spec":{"rollback":true}}"#])?;
    reach(store.cluster, NAME, "RolledBack")?;
    store.wait(3)?;
    ensure!(store.get("{.status.clusterID}")? == id, "{} instead of {id}", store.get("{.status.clusterID}")?);
    let found = until("answer of the store", LIMIT, || {
        let read = store.etcdctl(&["get", LATER_KEY, "--keys-only"])?;
        Ok(read.status.success().then_some(read.stdout))
    })?;
    ensure!(found.trim() == LATER_KEY, "what was not in the backup is lost: {found:?}");
    let mut kept = Vec::new();
    for volume in store.list("persistentvolumeclaims")? {
        let annotations = &volume["metadata"]["annotations"];
        let aside = !annotations["garboard.dev/detached"].is_null();
        let expected = if aside { founded } else { id };
        let name = volume["metadata"]["name"].to_string();
        ensure!(annotations["garboard.dev/cluster-id"] == expected, "{name} is not of {expected}: {annotations}");
        let data = store.folder(name.trim_matches('"'))?.join("data/member/identity");
        ensure!(data.exists(), "{} is gone", data.display());
        kept.push(aside);
    }
    ensure!(kept.iter().filter(|aside| **aside).count() == 3 && kept.len() == 6, "volumes: {kept:?}");
    Ok(())
}

fn path(kind: &str) -> String {
    format!("/api/v1/namespaces/default/{kind}")
}

fn names(list: &str) -> anyhow::Result<Vec<String>> {
    let list: Value = serde_json::from_str(list)?;
    let items = list["items"].as_array().context("no items")?;
    Ok(items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// The example, of another name and source.
pub fn manifest(name: &str, source: Value) -> anyhow::Result<Value> {
    let mut restore: Value = serde_yaml_ng::from_str(RESTORE)?;
    restore["metadata"]["name"] = name.into();
    restore["spec"]["source"] = source;
    Ok(restore)
}

/// Of an EtcdRestore.
pub fn status(cluster: &Kubernetes, name: &str) -> anyhow::Result<Value> {
    let restore: Value = serde_json::from_str(&cluster.kubectl_ok(&["get", "etcdrestore", name, "--output=json"])?)?;
    Ok(restore["status"].clone())
}

pub fn confirm(store: &Store<'_>, name: &str, token: &str) -> anyhow::Result<()> {
    let patch = format!(r#"{{"spec":{{"confirm":"{token}"}}}}"#);
    store.insist(&["patch", "etcdrestore", name, "--type=merge", "--patch", &patch])
}

fn reach(cluster: &Kubernetes, name: &str, phase: &str) -> anyhow::Result<()> {
    // Each operator that dies costs its start.
    until(&format!("phase {phase} of {name}"), LIMIT * 2, || {
        let status = status(cluster, name)?;
        ensure!(status["phase"] != "Failed", "it has failed: {status:#}");
        Ok((status["phase"] == phase).then_some(()))
    })
    .with_context(|| cluster.kubectl_ok(&["describe", "etcdrestore,etcdcluster"]).unwrap_or_default())
}
