//! A client that watches one collection for the whole run and resumes where it was, as informers do.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::io::BufReader;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use serde_json::Value;

use super::apiserver::ControlPlane;
use super::inventory::Kind;
use super::inventory::Objects;
use super::inventory::bare;
use super::inventory::key_of;
use super::inventory::list;
use super::inventory::version_of;
use crate::http::Http;

/// What the watcher believes, from one list and all events since.
struct View {
    objects: Objects,
    revision: u64,
    /// The version of each event.
    seen: BTreeSet<u64>,
    resumed: u64,
    fault: Option<String>,
}

pub struct Watcher {
    pub kind: Kind,
    view: Arc<Mutex<View>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Watcher ===

impl Watcher {
    pub fn start(plane: &ControlPlane, kind: Kind) -> anyhow::Result<Self> {
        let (objects, revision) = list(plane, kind.path, 500)?;
        let view = Arc::new(Mutex::new(View {
            objects,
            revision: revision.parse()?,
            seen: BTreeSet::new(),
            resumed: 0,
            fault: None,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let url =
            plane.url(&format!("{}?watch=true&timeoutSeconds=20&allowWatchBookmarks=true&resourceVersion=", kind.path));
        let (shared, stopped, http) = (view.clone(), stop.clone(), plane.http.clone());
        let thread = std::thread::spawn(move || follow(&http, &url, &shared, &stopped));
        Ok(Self { kind, view, stop, thread: Some(thread) })
    }

    /// Waits until the view is exactly what a list shows, and returns the number of events and of resumptions.
    pub fn agree(&self, plane: &ControlPlane) -> anyhow::Result<(u64, u64)> {
        let (objects, _) = list(plane, self.kind.path, 500)?;
        let start = Instant::now();
        loop {
            {
                let view = lock(&self.view);
                if let Some(fault) = &view.fault {
                    bail!("watch of {}: {fault}", self.kind.name);
                }
                if view.objects == objects {
                    return Ok((view.seen.len() as u64, view.resumed));
                }
                if start.elapsed() > Duration::from_secs(40) {
                    let odd = objects
                        .iter()
                        .find(|(name, object)| view.objects.get(*name) != Some(object))
                        .map(|(name, _)| name);
                    let (seen, there) = (view.objects.len(), objects.len());
                    bail!(
                        "watch of {}: {seen} objects at revision {}, the list has {there}; for example {odd:?}",
                        self.kind.name,
                        view.revision
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Which of these versions no event has shown.
    pub fn missed(&self, versions: &[u64]) -> Vec<u64> {
        let view = lock(&self.view);
        versions.iter().filter(|version| !view.seen.contains(version)).copied().collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A watch ends within its timeoutSeconds; nobody waits for it here.
        drop(self.thread.take());
    }
}

fn lock(view: &Mutex<View>) -> std::sync::MutexGuard<'_, View> {
    view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn follow(http: &Http, url: &str, view: &Mutex<View>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let from = lock(view).revision;
        let Ok((status, body)) = http.stream(&format!("{url}{from}")) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if status != 200 {
            // The API server is on its way up or waits for its store.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        lock(view).resumed += 1;
        for line in BufReader::new(body).lines() {
            let Ok(line) = line else { break };
            let mut view = lock(view);
            match take(&mut view, &line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    view.fault.get_or_insert(format!("{error:#}: {line}"));
                    return;
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Applies one event; false ends this stream.
fn take(view: &mut View, line: &str) -> anyhow::Result<bool> {
    let event: Value = match serde_json::from_str(line) {
        Ok(event) => event,
        // A line that the end of the stream cut short.
        Err(_) => return Ok(false),
    };
    let object = &event["object"];
    let kind = event["type"].as_str().unwrap_or_default();
    if kind == "ERROR" {
        // "Gone" would mean lost history: nothing is compacted here within five minutes. Other errors end the stream only.
        ensure!(object["code"] != 410, "history is gone");
        return Ok(false);
    }
    let revision = version_of(object)?;
    if kind == "BOOKMARK" {
        ensure!(revision >= view.revision, "a bookmark at {revision} behind {}", view.revision);
        view.revision = revision;
        return Ok(true);
    }
    ensure!(revision > view.revision, "an event at {revision} behind {}", view.revision);
    view.revision = revision;
    view.seen.insert(revision);
    let name = key_of(object)?;
    match kind {
        "ADDED" => ensure!(view.objects.insert(name, bare(object.clone())).is_none(), "added twice"),
        "MODIFIED" => {
            ensure!(view.objects.insert(name, bare(object.clone())).is_some(), "modified before it was added")
        }
        "DELETED" => ensure!(view.objects.remove(&name).is_some(), "deleted before it was added"),
        other => bail!("event type {other}"),
    }
    Ok(true)
}
