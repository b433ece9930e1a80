//! What the API server says is there: every object with its version and content.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use super::apiserver::ControlPlane;

/// One kind of object as the script uses it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// The path of its collection in the namespace of the script.
    pub path: &'static str,
    pub count: usize,
}

pub const NAMESPACE: &str = "e2e";

pub const KINDS: [Kind; 5] = [
    Kind { name: "configmaps", path: "/api/v1/namespaces/e2e/configmaps", count: 1200 },
    Kind { name: "secrets", path: "/api/v1/namespaces/e2e/secrets", count: 600 },
    Kind { name: "leases", path: "/apis/coordination.k8s.io/v1/namespaces/e2e/leases", count: 500 },
    Kind { name: "pods", path: "/api/v1/namespaces/e2e/pods", count: 500 },
    Kind { name: "widgets", path: "/apis/garboard.dev/v1/namespaces/e2e/widgets", count: 300 },
];

/// Objects by name.
pub type Objects = BTreeMap<String, Value>;

/// Lists a collection in pages. All pages must show one and the same revision of the store.
pub fn list(plane: &ControlPlane, path: &str, page: usize) -> anyhow::Result<(Objects, String)> {
    let mut objects = Objects::new();
    let (mut next, mut revision) = (String::new(), String::new());
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = plane.url(&format!("{path}{separator}limit={page}&continue={next}"));
        let answer = plane.http.get(&url)?;
        ensure!(answer.status == 200, "GET {url}: {} {}", answer.status, answer.body);
        let body: Value = serde_json::from_str(&answer.body)?;
        let at = body["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
        ensure!(revision.is_empty() || revision == at, "{path}: one page at {revision}, the next at {at}");
        revision = at.to_owned();
        for item in body["items"].as_array().context("no items")? {
            let key = key_of(item)?;
            ensure!(objects.insert(key.clone(), bare(item.clone())).is_none(), "{path}: {key} is listed twice");
        }
        match body["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = token.to_owned(),
            _ => return Ok((objects, revision)),
        }
    }
}

/// All objects of the script, and of the cluster beside it.
pub fn everything(plane: &ControlPlane) -> anyhow::Result<BTreeMap<String, Objects>> {
    let mut all = BTreeMap::new();
    for kind in KINDS {
        all.insert(kind.path.to_owned(), list(plane, kind.path, 150)?.0);
    }
    for path in [
        "/api/v1/namespaces",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/scheduling.k8s.io/v1/priorityclasses",
    ] {
        all.insert(path.to_owned(), list(plane, path, 20)?.0);
    }
    Ok(all)
}

/// Says what differs first.
pub fn same(before: &BTreeMap<String, Objects>, after: &BTreeMap<String, Objects>) -> anyhow::Result<usize> {
    let mut compared = 0;
    for (path, objects) in before {
        let now = after.get(path).with_context(|| format!("{path} is missing"))?;
        for (name, object) in objects {
            let other = now.get(name).with_context(|| format!("{path}/{name} is lost"))?;
            ensure!(other == object, "{path}/{name} has changed:\n{object}\n{other}");
            compared += 1;
        }
        ensure!(now.len() == objects.len(), "{path}: {} objects, there were {}", now.len(), objects.len());
    }
    Ok(compared)
}

/// A list gives its items without the kind, a watch with it.
pub fn bare(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    object
}

pub fn key_of(object: &Value) -> anyhow::Result<String> {
    Ok(object["metadata"]["name"].as_str().context("an object without a name")?.to_owned())
}

pub fn version_of(object: &Value) -> anyhow::Result<u64> {
    Ok(object["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?.parse()?)
}
