//! Images of containers as archives, written without a builder: an OCI image layout in a tar, of one layer and for one platform.
//!
//! The archive also carries the `manifest.json` of `docker save`, so that `docker load` of any age takes it. The same input gives the
//! same bytes: nothing of the machine or the clock gets in.
//! Source: <https://github.com/opencontainers/image-spec> (image-layout.md, manifest.md, config.md).
#![forbid(unsafe_code)]
// For developers' programs, not part of the server: it opens files as it likes.
#![allow(clippy::disallowed_methods)]

mod layer;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

pub use layer::Layer;
pub use layer::Owner;

/// When everything was made, as far as an image tells.
const CREATED: &str = "1970-01-01T00:00:00Z";
const MEDIA_TYPE: &str = "application/vnd.oci.image";

/// As Go and images name what this program was built for.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What an image is besides its files.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// `repository:tag`.
    pub reference: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user:group`, in numbers; root if it is empty.
    pub user: String,
    /// Where its program starts; the root if it is empty.
    pub folder: String,
    pub labels: Vec<(String, String)>,
}

/// Bytes and what they are called by.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: hex(&Sha256::digest(&bytes)), bytes }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("{MEDIA_TYPE}.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

// === impl Image ===

impl Image {
    /// Writes the archive in one step: whoever reads `to` finds it whole or not at all.
    pub fn write(&self, layer: Layer, to: &Path) -> anyhow::Result<()> {
        let next = to.with_extension("next");
        let file = File::create(&next).with_context(|| format!("create {}", next.display()))?;
        self.write_to(layer, file).with_context(|| format!("write {}", next.display()))?;
        std::fs::rename(&next, to).with_context(|| format!("rename to {}", to.display()))
    }

    fn write_to(&self, layer: Layer, to: impl Write) -> anyhow::Result<()> {
        let (_, tag) = self.reference.rsplit_once(':').context("a reference is repository:tag")?;
        let layer = Blob::new(layer.finish()?);
        let config = Blob::json(&self.config(&layer));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": format!("{MEDIA_TYPE}.manifest.v1+json"),
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar")],
        }));
        let mut listed = manifest.descriptor("manifest.v1+json");
        listed["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        listed["annotations"] =
            json!({"io.containerd.image.name": self.reference, "org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": format!("{MEDIA_TYPE}.index.v1+json"),
            "manifests": [listed],
        });
        let docker = json!([{"Config": config.path(), "RepoTags": [self.reference], "Layers": [layer.path()]}]);
        let mut archive = layer::Archive::new(to);
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.file("index.json", 0o644, index.to_string().as_bytes())?;
        archive.file("manifest.json", 0o644, docker.to_string().as_bytes())?;
        for blob in [&config, &manifest, &layer] {
            archive.file(&blob.path(), 0o644, &blob.bytes)?;
        }
        archive.finish()?.flush()?;
        Ok(())
    }

    fn config(&self, layer: &Blob) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "created": CREATED,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.cmd,
                "Env": self.env,
                "User": self.user,
                "WorkingDir": if self.folder.is_empty() { "/" } else { &self.folder },
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
            "history": [{"created": CREATED, "created_by": "garboard"}],
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
