//! The script: fill, list, watch, patch, delete; then the same through kills of the store.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use serde_json::Value;
use serde_json::json;

use super::apiserver::ControlPlane;
use super::inventory::KINDS;
use super::inventory::NAMESPACE;
use super::inventory::everything;
use super::inventory::list;
use super::inventory::same;
use super::store::StoreCerts;
use super::traffic::LiveWriter;
use super::traffic::create_all;
use super::traffic::delete_some;
use super::traffic::name;
use super::traffic::object;
use super::traffic::patch_some;
use super::watch::Watcher;
use crate::output;
use crate::scenario::Lab;
use crate::server::Server;

const KILLS: u32 = 8;
const LIVE_WRITERS: usize = 10;

pub fn kube_apiserver(lab: &Lab) -> anyhow::Result<u32> {
    let start = Instant::now();
    let step = |what: &str| output::line(format_args!("    {:5.1} s  {what}", start.elapsed().as_secs_f64()));
    let certs = StoreCerts::new(lab)?;
    let store = certs.member(lab, "store")?.start()?;
    let mut plane = ControlPlane::start(lab, &certs, &[store.url()])?;
    step("kube-apiserver is ready");
    prepare(&plane)?;
    let watchers = watch_all(&plane)?;
    let mut terminal =
        plane.kubectl_spawn("kubectl-watch.out", &["get", "configmaps", "-n", NAMESPACE, "-w", "-o", "name"])?;

    let created = create_all(&plane)?;
    step(&format!("{created} objects created"));
    let mut checks = kubectl(&plane)?;
    step("kubectl has listed, patched, applied and deleted");
    let patched = patch_some(&plane, 1)?;
    let deleted = delete_some(&plane)?;
    step(&format!("{patched} objects patched, {deleted} deleted"));
    checks += agree(&plane, &watchers, 0)?;

    let (store, acknowledged, doubts) = kills(&mut plane, store)?;
    step(&format!("{KILLS} kills of the store under {acknowledged} writes, {doubts} in doubt"));
    checks += agree(&plane, &watchers, 1)?;
    plane.kubectl(&["create", "configmap", "-n", NAMESPACE, "seen-by-kubectl"])?;
    terminal.wait_output("a configmap after the kills", Duration::from_secs(30), |text| {
        text.contains("configmap/seen-by-kubectl")
    })?;
    checks += 1;

    // A new API server remembers no history, so that whoever watches must list again.
    drop(watchers);
    let before = everything(&plane)?;
    let _store = store.kill()?.start()?;
    plane.restart_apiserver()?;
    let compared = same(&before, &everything(&plane)?)?;
    step(&format!("{compared} objects are the same after store and kube-apiserver have started anew"));
    let watchers = watch_all(&plane)?;
    clean_up(&plane)?;
    step("everything is deleted");
    Ok(checks + agree(&plane, &watchers, 0)? + 2)
}

fn watch_all(plane: &ControlPlane) -> anyhow::Result<Vec<Watcher>> {
    KINDS.iter().map(|kind| Watcher::start(plane, *kind)).collect()
}

pub fn prepare(plane: &ControlPlane) -> anyhow::Result<()> {
    plane.kubectl(&["create", "namespace", NAMESPACE])?;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}, "colour": {"type": "string"}}}}});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.garboard.dev"},
        "spec": {
            "group": "garboard.dev", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    plane.kubectl_with_input(&["apply", "-f", "-"], &crd.to_string())?;
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/widgets.garboard.dev"])?;
    // Established is said before the path is served everywhere.
    let start = Instant::now();
    while plane.http.get(&plane.url(KINDS[4].path))?.status != 200 {
        ensure!(start.elapsed() < Duration::from_secs(30), "the custom resource is not served");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What people do: kubectl with pages, selectors, patches, apply, scale of hundreds in one file.
fn kubectl(plane: &ControlPlane) -> anyhow::Result<u32> {
    for kind in KINDS {
        let text = plane.kubectl(&["get", kind.name, "-n", NAMESPACE, "-o", "name", "--chunk-size=101"])?;
        let count = text.lines().filter(|line| line.contains(&format!("{}-", kind.name))).count();
        ensure!(count == kind.count, "kubectl lists {count} of {} {}", kind.count, kind.name);
    }
    let selected =
        plane.kubectl(&["get", "configmaps", "-n", NAMESPACE, "-l", "batch=3", "-o", "name", "--chunk-size=50"])?;
    ensure!(selected.lines().count() == KINDS[0].count / 10, "a selector finds {}", selected.lines().count());

    let bulk: Vec<Value> = (0..100).map(|i| object(KINDS[0], &format!("bulk-{i}"), 77)).collect();
    let file = json!({"apiVersion": "v1", "kind": "List", "items": bulk}).to_string();
    let applied = plane.kubectl_with_input(&["apply", "-n", NAMESPACE, "-f", "-"], &file)?;
    ensure!(
        applied.matches(" created").count() == 100,
        "kubectl apply creates {}",
        applied.matches(" created").count()
    );
    let again = plane.kubectl_with_input(&["apply", "-n", NAMESPACE, "-f", "-"], &file)?;
    ensure!(again.matches(" unchanged").count() == 100, "kubectl apply again changes something");

    let widget = name(KINDS[4], 0);
    plane.kubectl(&[
        "patch",
        "widget",
        &widget,
        "-n",
        NAMESPACE,
        "--type=merge",
        "-p",
        r#"{"spec":{"colour":"red"}}"#,
    ])?;
    let colour = plane.kubectl(&["get", "widget", &widget, "-n", NAMESPACE, "-o", "jsonpath={.spec.colour}"])?;
    ensure!(colour == "red", "a patched widget is {colour}");
    plane.kubectl(&["label", "pod", &name(KINDS[3], 0), "-n", NAMESPACE, "tier=edge"])?;
    plane.kubectl(&["annotate", "secrets", "-l", "batch=5", "-n", NAMESPACE, "seen=yes"])?;
    let conflict = plane.http.put(
        &plane.url(&format!("{}/{}", KINDS[0].path, name(KINDS[0], 0))),
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(KINDS[0], 0), "resourceVersion": "1"}}),
    )?;
    ensure!(conflict.status == 409, "a write against an old version gives {}", conflict.status);
    plane.kubectl(&["delete", "configmaps", "-n", NAMESPACE, "-l", "batch=77"])?;
    let (left, _) = list(plane, &format!("{}?labelSelector=batch%3D77", KINDS[0].path), 50)?;
    ensure!(left.is_empty(), "{} are left after a delete by selector", left.len());
    let gone =
        plane.http.get(&plane.url(&format!("{}?resourceVersion=1&resourceVersionMatch=Exact", KINDS[0].path)))?;
    ensure!(gone.status == 200 || gone.status == 410, "a list at revision 1 gives {}", gone.status);
    Ok(16)
}

/// Each watcher must believe what a list shows, and have come back as often as it was cut off.
pub fn agree(plane: &ControlPlane, watchers: &[Watcher], resumed_at_least: u64) -> anyhow::Result<u32> {
    for watcher in watchers {
        let (events, resumed) = watcher.agree(plane)?;
        ensure!(
            events > 0 && resumed >= resumed_at_least,
            "watch of {}: {events} events, resumed {resumed} times",
            watcher.kind.name
        );
    }
    Ok(u32::try_from(watchers.len())?)
}

/// Kills and restarts the store while clients write; each holds the API to what it was told.
fn kills(plane: &mut ControlPlane, store: Server) -> anyhow::Result<(Server, u64, u64)> {
    let stop = AtomicBool::new(false);
    let mut writers: Vec<LiveWriter> = (0..LIVE_WRITERS).map(|n| LiveWriter::new(plane, n)).collect();
    let outcome = std::thread::scope(|scope| {
        let threads: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run(&stop))).collect();
        let killed = (0..KILLS).try_fold(store, |store, n| {
            std::thread::sleep(Duration::from_millis(900 + u64::from(n) * 130));
            let member = store.kill()?;
            std::thread::sleep(Duration::from_millis(u64::from(n % 4) * 250));
            member.start()
        });
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        let wrote = threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        wrote.and(killed)
    });
    let store = outcome?;
    plane.wait_ready(Duration::from_secs(60))?;
    writers.iter().try_for_each(LiveWriter::check)?;
    let totals = writers.iter().fold((0, 0), |(a, d), writer| (a + writer.acknowledged(), d + writer.doubts()));
    ensure!(totals.0 > 100, "{} writes under {KILLS} kills prove little", totals.0);
    Ok((store, totals.0, totals.1))
}

fn clean_up(plane: &ControlPlane) -> anyhow::Result<()> {
    for kind in KINDS {
        // One request that deletes a whole collection, page by page in the API server.
        let answer = plane.http.delete(&plane.url(kind.path))?;
        ensure!(answer.status == 200, "delete all {}: {}", kind.name, answer.status);
        let (left, _) = list(plane, kind.path, 100)?;
        ensure!(left.is_empty(), "{} {} are left", left.len(), kind.name);
    }
    Ok(())
}
