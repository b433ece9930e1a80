//! What a backup is: the JSON beside its archive (docs/formats.md).

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::Serialize;

use super::Failure;
use super::Folder;
use super::Reason;
pub use super::sum::Sum;

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;
/// Bytes. Names have limits: no manifest comes near.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    pub namespace: String,
    pub cluster: String,
    /// In hex.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    pub backup: String,
    /// Of the EtcdBackup.
    pub uid: String,
    /// That gave the snapshot.
    pub member: String,
    pub taken_at: Time,
    /// Of the snapshot.
    pub revision: i64,
    /// Under which `hash_kv` was computed; -1: nothing was compacted.
    pub compact_revision: i64,
    /// What HashKV says of the revision.
    #[serde(rename = "hashKV")]
    pub hash_kv: u32,
    /// At the revision.
    pub keys: i64,
    /// The snapshot as the member sent it, with the hash at its end.
    pub raw: Sum,
    pub archive: Archive,
    /// As the member's Status says: the etcd release that it stands for.
    pub server_version: String,
    pub operator_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Its name, in the folder of the manifest.
    pub file: String,
    #[serde(flatten)]
    pub sum: Sum,
    pub compression: Compression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Zstd,
    None,
}

// === impl Compression ===

impl Compression {
    pub const ALL: [Self; 2] = [Self::Zstd, Self::None];
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            other => Err(format!("no compression {other}: zstd or none")),
        }
    }
}

// === impl Manifest ===

impl Manifest {
    /// The backup's own manifest.
    ///
    /// # Errors
    /// `Missing`; `Foreign`: of another backup, not of the cluster whose folder it is in, or of an unknown format; `Damaged`;
    /// or it cannot be read.
    pub fn read(folder: &Folder) -> Result<Self, Failure> {
        Self::read_from(&folder.manifest(), folder)
    }

    /// One that may not have its name yet.
    pub(super) fn read_from(path: &Path, folder: &Folder) -> Result<Self, Failure> {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new(Reason::Missing, format!("there is no {}", path.display())),
            _ => Failure::io(path, &error),
        })?;
        if text.len() as u64 > BYTES_MAX {
            return Err(Failure::new(Reason::Damaged, format!("{}: longer than any manifest", path.display())));
        }
        Self::parse(&text, folder)
            .map_err(|(reason, why)| Failure::new(reason, format!("manifest {}: {why}", path.display())))
    }

    fn parse(text: &[u8], folder: &Folder) -> Result<Self, (Reason, String)> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Known {
            format: u32,
        }

        let damaged = |error: serde_json::Error| (Reason::Damaged, error.to_string());
        let Known { format } = serde_json::from_slice(text).map_err(damaged)?;
        if format != FORMAT {
            return Err((Reason::Foreign, format!("its format is {format}; this release knows {FORMAT}")));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(damaged)?;
        if manifest.backup != folder.backup() {
            return Err((Reason::Foreign, format!("it is of the backup {}", manifest.backup)));
        }
        if folder.cluster().is_some_and(|cluster| cluster != manifest.cluster.as_str()) {
            return Err((
                Reason::Foreign,
                format!("it is of the cluster {}, whose folder this is not", manifest.cluster),
            ));
        }
        if manifest.archive.file != folder.archive_name(manifest.archive.compression) {
            return Err((Reason::Damaged, format!("its archive cannot be {}", manifest.archive.file)));
        }
        Ok(manifest)
    }
}
