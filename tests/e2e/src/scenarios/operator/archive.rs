//! EtcdBackups as their user sees them, and their files where the volume is on this machine.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::super::snapshot;
use super::store::LIMIT;
use crate::etcdctl::Etcdctl;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;
use crate::wait::until;

/// The claim of the example,
pub const CLAIM: &str = "backups";
/// and its name.
pub const FIRST: &str = "before-upgrade";
pub const SHORTEST: &str = include_str!("../../../../../docs/examples/backup.yaml");
const CLAIM_MANIFEST: &str = r"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: NAME}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
";

/// Makes a claim of the default class.
pub fn make_claim(cluster: &Kubernetes, name: &str) -> anyhow::Result<()> {
    cluster.apply(&CLAIM_MANIFEST.replace("NAME", name))
}

/// The example under another name and on another claim. It ends with its spec, and that with `more`.
pub fn manifest(name: &str, claim: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
    SHORTEST.replace(FIRST, name).replace(CLAIM, claim) + &more
}

/// An EtcdBackup of the namespace `default`.
pub struct Backup<'a> {
    cluster: &'a Kubernetes,
    name: String,
}

// === impl Backup ===

impl<'a> Backup<'a> {
    pub fn new(cluster: &'a Kubernetes, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    /// Asks for one like the example.
    pub fn ask(cluster: &'a Kubernetes, name: &str, claim: &str, more: &str) -> anyhow::Result<Self> {
        cluster.apply(&manifest(name, claim, more))?;
        Ok(Self::new(cluster, name))
    }

    fn object(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.cluster.kubectl_ok(&["get", "etcdbackup", &self.name, "--output=json"])?)?)
    }

    pub fn status(&self) -> anyhow::Result<Value> {
        Ok(self.object()?["status"].clone())
    }

    pub fn phase(&self) -> anyhow::Result<String> {
        Ok(self.object()?["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    fn until<T>(&self, what: &str, seen: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        until(&format!("{what} of {}", self.name), LIMIT, || Ok(seen(&self.object()?["status"])))
            .with_context(|| self.cluster.kubectl_ok(&["describe", "etcdbackup", &self.name]).unwrap_or_default())
    }

    /// Waits until it is in one of `phases`, or has ended.
    pub fn reach(&self, phases: &[&str]) -> anyhow::Result<()> {
        self.until(&format!("phase {phases:?}"), |status| {
            let phase = status["phase"].as_str()?;
            (phases.contains(&phase) || ["Succeeded", "Failed"].contains(&phase)).then_some(())
        })
    }

    fn ended(&self, wanted: &str) -> anyhow::Result<Value> {
        self.reach(&["Succeeded"])?;
        let status = self.status()?;
        ensure!(status["phase"] == wanted, "{} is not {wanted}: {status:#}", self.name);
        Ok(status)
    }

    /// Its status when it has succeeded.
    pub fn succeeded(&self) -> anyhow::Result<Value> {
        let status = self.ended("Succeeded")?;
        ensure!(condition(&status, "Complete")["status"] == "True", "not Complete: {status:#}");
        Ok(status)
    }

    /// Waits until it has failed, and for this reason.
    pub fn failed(&self, reason: &str) -> anyhow::Result<()> {
        let status = self.ended("Failed")?;
        let complete = condition(&status, "Complete");
        ensure!(complete["status"] == "False" && complete["reason"] == reason, "not for {reason}: {complete}");
        ensure!(!complete["message"].as_str().unwrap_or_default().is_empty(), "{reason} and nothing else: {complete}");
        Ok(())
    }

    /// Waits until it says that it waits, and what for.
    pub fn waits_for(&self, what: &str) -> anyhow::Result<()> {
        self.until(&format!("word on {what}"), |status| {
            let told = condition(status, "Complete")["message"].as_str()?.contains(what);
            (status["phase"] == "Pending" && told).then_some(())
        })
    }

    /// Deletes it. It is gone when its files are, if they go with it.
    pub fn delete(&self) -> anyhow::Result<()> {
        self.cluster.kubectl_ok(&["delete", "etcdbackup", &self.name, "--timeout=180s"])?;
        Ok(())
    }

    /// The Jobs that it has.
    pub fn jobs(&self) -> anyhow::Result<Vec<Value>> {
        let uid = self.object()?["metadata"]["uid"].clone();
        let jobs: Value = serde_json::from_str(&self.cluster.kubectl_ok(&["get", "jobs", "--output=json"])?)?;
        let owned = |job: &&Value| {
            job["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.iter().any(|of| of["uid"] == uid))
        };
        Ok(jobs["items"].as_array().context("no items")?.iter().filter(owned).cloned().collect())
    }

    /// Waits until nothing of it runs any more.
    pub fn at_rest(&self) -> anyhow::Result<()> {
        until(&format!("end of the Jobs of {}", self.name), LIMIT, || {
            Ok(self.jobs()?.iter().all(|job| job["status"]["completionTime"].is_string()).then_some(()))
        })
    }

    /// Waits until an Event tells of it.
    pub fn told_of(&self, kind: &str) -> anyhow::Result<()> {
        let of_it =
            format!("--field-selector=involvedObject.kind=EtcdBackup,involvedObject.name={},type={kind}", self.name);
        until(&format!("Event of type {kind} on {}", self.name), LIMIT, || {
            let events = self.cluster.kubectl_ok(&["get", "events", "--output=name", &of_it])?;
            Ok((!events.trim().is_empty()).then_some(()))
        })
    }
}

/// A condition of a status; null if there is none.
pub fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array();
    all.and_then(|all| all.iter().find(|of| of["type"] == kind)).cloned().unwrap_or_default()
}

/// What is in a folder, by name; what was not finished as well.
pub fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<anyhow::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

pub fn sha256(file: &Path) -> anyhow::Result<String> {
    let output = run(Command::new("sha256sum").arg(file))?.success("sha256sum")?.stdout;
    Ok(output.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// Holds the files of a backup that has succeeded, on the volume at `root`, against its status; the snapshot in them, for all other programs.
pub fn whole(lab: &Lab, root: &Path, name: &str, status: &Value) -> anyhow::Result<PathBuf> {
    let archive = root.join(status["file"].as_str().context("no file in the status")?);
    let folder = archive.parent().context("an archive in no folder")?;
    let text =
        std::fs::read_to_string(folder.join(format!("{name}.json"))).context("no manifest beside the archive")?;
    let manifest: Value = serde_json::from_str(&text)?;
    for field in ["member", "clusterID", "revision", "compactRevision", "keys", "hashKV", "serverVersion"] {
        ensure!(!status[field].is_null() && status[field] == manifest[field], "{field}: {status:#}\n{manifest:#}");
    }
    let raw = lab.path(&format!("{name}.db"));
    if archive.extension().is_some_and(|extension| extension == "zst") {
        run(Command::new("zstd").args(["--decompress", "--force", "--quiet", "-o"]).args([&raw, &archive]))?
            .success("zstd")?;
    } else {
        std::fs::copy(&archive, &raw)?;
    }
    for (file, said, bytes) in [(&archive, "archive", "sizeBytes"), (&raw, "raw", "rawSizeBytes")] {
        let (said, length) = (&manifest[said], std::fs::metadata(file)?.len());
        ensure!(length > 0 && said["bytes"] == length && status[bytes] == length, "{length} bytes: {status:#}\n{said}");
        ensure!(said["sha256"] == sha256(file)?, "{} has another SHA-256 than {said}", file.display());
    }
    ensure!(status["sha256"] == manifest["archive"]["sha256"], "{status:#}\n{manifest:#}");
    let seen = snapshot::status_of_both(lab, &raw.display().to_string())?;
    ensure!(seen["revision"] == status["revision"], "etcdutl sees {seen} where the status has {status:#}");
    Ok(raw)
}

/// Restores a snapshot into real etcd, which must hash and count as the status says.
pub fn restored(lab: &Lab, raw: &Path, status: &Value) -> anyhow::Result<()> {
    let member = Member::reference(lab, "restored")?;
    let mut etcdutl = Command::new(lab.tool("etcdutl"));
    run(snapshot::restore(&mut etcdutl, &raw.display().to_string(), &member))?.success("etcdutl snapshot restore")?;
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    let at = format!("--rev={}", status["revision"]);
    let hash = || Ok::<_, anyhow::Error>(ctl.json(&["endpoint", "hashkv", &at])?[0]["HashKV"].clone());
    // Clients may have had the cluster compacted after the snapshot and before it was hashed.
    let compacted = status["compactRevision"].as_i64().context("no compactRevision")?;
    if hash()?["compact_revision"].as_i64().unwrap_or_default() < compacted {
        ctl.ok(&["compact", &compacted.to_string(), "--physical"])?;
    }
    let hashed = hash()?;
    ensure!(hashed["hash"] == status["hashKV"], "etcd hashes {hashed} where the status has {status:#}");
    let fields = ctl.ok(&["get", "", "--prefix", "--count-only", "--write-out=fields", &at])?;
    let count = fields.lines().find_map(|line| line.strip_prefix("\"Count\" : ")).context("no count")?;
    ensure!(status["keys"] == count.parse::<i64>()?, "etcd counts {count} keys where the status has {status:#}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_becomes_others() {
        let read = |text: &str| serde_yaml_ng::from_str::<Value>(text).unwrap();
        assert_eq!(read(&manifest(FIRST, CLAIM, "")), read(SHORTEST));
        let other = read(&manifest("other", "elsewhere", "verify: Restore\ncompression: None"));
        assert_eq!(other["metadata"]["name"], "other");
        let mut spec = read(SHORTEST)["spec"].clone();
        spec["destination"]["volume"]["claimName"] = "elsewhere".into();
        spec["verify"] = "Restore".into();
        spec["compression"] = "None".into();
        assert_eq!(other["spec"], spec);
    }
}
