//! Writes: many objects at once, and writers that go on while the store is killed.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use serde_json::Value;
use serde_json::json;

use super::apiserver::ControlPlane;
use super::inventory::KINDS;
use super::inventory::Kind;
use super::inventory::version_of;
use crate::http::Answer;
use crate::http::Http;

const THREADS: usize = 8;

/// An object of a kind, as a user would write it.
pub fn object(kind: Kind, name: &str, batch: usize) -> Value {
    let metadata = json!({"name": name, "labels": {"batch": batch.to_string()}});
    match kind.name {
        "configmaps" => {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": "c".repeat(600)}})
        }
        "secrets" => {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"password": name}})
        }
        "leases" => json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata,
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}}),
        "pods" => json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [{"name": "main", "image": "registry.invalid/pause:1"}]}}),
        _ => {
            json!({"apiVersion": "garboard.dev/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": batch, "colour": "blue"}})
        }
    }
}

pub fn name(kind: Kind, i: usize) -> String {
    format!("{}-{i:05}", kind.name)
}

/// Creates all objects of all kinds but those that exist.
pub fn create_all(plane: &ControlPlane) -> anyhow::Result<usize> {
    let work: Vec<(Kind, usize)> = KINDS.iter().flat_map(|kind| (0..kind.count).map(|i| (*kind, i))).collect();
    in_parallel(&work, |(kind, i)| {
        let answer = plane.http.post(&plane.url(kind.path), &object(*kind, &name(*kind, *i), i % 10))?;
        ensure!(answer.status == 201, "create {}: {answer:?}", name(*kind, *i));
        Ok(())
    })?;
    Ok(work.len())
}

/// Patches every third object of each kind.
pub fn patch_some(plane: &ControlPlane, round: usize) -> anyhow::Result<usize> {
    let work: Vec<(Kind, usize)> =
        KINDS.iter().flat_map(|kind| (0..kind.count).step_by(3).map(|i| (*kind, i))).collect();
    let patch = json!({"metadata": {"annotations": {"garboard.dev/round": round.to_string()}}});
    in_parallel(&work, |(kind, i)| {
        let answer = plane.http.merge_patch(&plane.url(&format!("{}/{}", kind.path, name(*kind, *i))), &patch)?;
        ensure!(answer.status == 200, "patch {}: {answer:?}", name(*kind, *i));
        Ok(())
    })?;
    Ok(work.len())
}

/// Deletes one by one what ends in 9.
pub fn delete_some(plane: &ControlPlane) -> anyhow::Result<usize> {
    let work: Vec<(Kind, usize)> =
        KINDS.iter().flat_map(|kind| (9..kind.count).step_by(10).map(|i| (*kind, i))).collect();
    in_parallel(&work, |(kind, i)| {
        let answer = plane.http.delete(&plane.url(&format!("{}/{}", kind.path, name(*kind, *i))))?;
        ensure!(answer.status == 200, "delete {}: {answer:?}", name(*kind, *i));
        Ok(())
    })?;
    Ok(work.len())
}

fn in_parallel<T: Sync>(work: &[T], each: impl Fn(&T) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                        each(item)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
    })
}

/// Why a request was not acknowledged, in the API server's words.
fn reason(answer: &anyhow::Result<Answer>) -> String {
    match answer {
        Ok(answer) => {
            let said: Option<Value> = serde_json::from_str(&answer.body).ok();
            let message = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or(&answer.body);
            format!("{} {}", answer.status, message.trim())
        }
        Err(error) => format!("no answer: {error:#}"),
    }
}

/// One client that creates, replaces and deletes its own object over and over, and holds the API to every answer.
pub struct LiveWriter {
    http: Http,
    collection: String,
    kind: Kind,
    url: String,
    name: String,
    /// The version last acknowledged; none while the object is absent.
    version: Option<u64>,
    round: u64,
    /// The last requests and what became of them, for the message of a failure.
    trail: VecDeque<String>,
    /// The version of each object that was acknowledged with one.
    pub versions: Vec<u64>,
    /// What was answered instead of an acknowledgement, and how often.
    pub failures: BTreeMap<String, u64>,
    progress: Arc<AtomicU64>,
}

// === impl LiveWriter ===

impl LiveWriter {
    pub fn new(plane: &ControlPlane, n: usize) -> Self {
        // Not pods: their deletion is two writes, and a kill between them leaves a third state.
        let kinds = KINDS.map(|kind| (kind.name != "pods").then_some(kind));
        let kind = kinds.into_iter().flatten().cycle().nth(n).unwrap_or(KINDS[0]);
        let name = format!("live-{n}");
        let collection = plane.url(kind.path);
        let url = format!("{collection}/{name}");
        Self {
            http: plane.http.clone(),
            collection,
            kind,
            url,
            name,
            version: None,
            round: 0,
            trail: VecDeque::new(),
            versions: Vec::new(),
            failures: BTreeMap::new(),
            progress: Arc::default(),
        }
    }

    /// Counts the acknowledged requests, for who wants to know while it runs.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    pub fn acknowledged(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    pub fn doubts(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn kind(&self) -> &'static str {
        self.kind.name
    }

    pub fn run(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.round += 1;
            let before = self.version;
            let (answer, deletes) = match (self.version, self.round % 5) {
                (None, _) => (self.create(), false),
                (Some(_), 0) => (self.http.delete(&self.url), true),
                (Some(_), _) => (self.patch(), false),
            };
            self.note(before, &answer);
            match answer {
                Ok(answer) if answer.status == 200 || answer.status == 201 => {
                    let version = if deletes { None } else { Some(version_of(&serde_json::from_str(&answer.body)?)?) };
                    ensure!(
                        version.is_none() || version > before,
                        "{}: version {version:?} after {before:?}",
                        self.url
                    );
                    self.version = version;
                    self.versions.extend(version);
                    self.progress.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) if answer.status == 404 || answer.status == 409 => {
                    bail!("{} at {before:?}: {} {}{}", self.url, answer.status, answer.body, self.trail())
                }
                // No answer, or one that says that the store did not answer: done or not done.
                doubt => {
                    *self.failures.entry(reason(&doubt)).or_default() += 1;
                    self.settle(before, deletes)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, before: Option<u64>, answer: &anyhow::Result<Answer>) {
        let outcome = match answer {
            Ok(answer) if answer.status < 300 => answer.status.to_string(),
            Ok(answer) => format!("{} {}", answer.status, answer.body),
            Err(error) => format!("{error:#}"),
        };
        if self.trail.len() == 6 {
            self.trail.pop_front();
        }
        self.trail.push_back(format!("\n  round {} at {before:?}: {outcome}", self.round));
    }

    fn create(&self) -> anyhow::Result<Answer> {
        self.http.post(&self.collection, &object(self.kind, &self.name, 99))
    }

    fn patch(&self) -> anyhow::Result<Answer> {
        self.http.merge_patch(
            &self.url,
            &json!({"metadata": {"annotations": {"garboard.dev/round": self.round.to_string()}}}),
        )
    }

    /// Finds out what became of a request in doubt. What was acknowledged before it must be there in either case.
    fn settle(&mut self, before: Option<u64>, deleted: bool) -> anyhow::Result<()> {
        let now = self.read()?;
        let fine = match (before, now) {
            (None, _) => true,
            (Some(_), None) => deleted,
            (Some(old), Some(new)) => new == old || (new > old && !deleted),
        };
        ensure!(fine, "{}: acknowledged at {before:?}, now {now:?}{}", self.url, self.trail());
        self.version = now;
        Ok(())
    }

    /// Reads until there is an answer.
    fn read(&self) -> anyhow::Result<Option<u64>> {
        let start = Instant::now();
        loop {
            if let Ok(answer) = self.http.get(&self.url) {
                match answer.status {
                    200 => return Ok(Some(version_of(&serde_json::from_str(&answer.body)?)?)),
                    404 => return Ok(None),
                    _ => {}
                }
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "{}: no answer for a minute", self.url);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn trail(&self) -> String {
        self.trail.iter().map(String::as_str).collect()
    }

    /// What was acknowledged last is what is there.
    pub fn check(&self) -> anyhow::Result<()> {
        let now = self.read().with_context(|| self.name.clone())?;
        ensure!(now == self.version, "{}: acknowledged {:?}, now {now:?}{}", self.url, self.version, self.trail());
        Ok(())
    }
}
