//! `backup compare`: a member that was started from the restored snapshot is held against the manifest.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;

use super::Failure;
use super::Folder;
use super::Manifest;
use super::Reason;
use super::member::Member;
use crate::store::Client;
use crate::store::StoreError;

/// A restored member has to serve within so long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What the restored member has, and the manifest too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    pub revision: i64,
    #[serde(rename = "hashKV")]
    pub hash_kv: u32,
    pub keys: i64,
}

/// Compares when the plain-text member at `host` serves.
///
/// # Errors
/// It does not within ten minutes, or is something else than the manifest says.
pub async fn compare(folder: &Folder, host: &str) -> Result<Compared, Failure> {
    let manifest = Manifest::read(folder)?;
    let member = Client::new(host, host, None).map_err(failed)?;
    let end = Instant::now() + PATIENCE;
    while let Err(error) = member.read().await {
        if Instant::now() >= end {
            return Err(failed(error));
        }
        tokio::time::sleep(PAUSE).await;
    }
    hold(&manifest, &Client::patient(host, host, None).map_err(failed)?).await
}

/// The member against the manifest.
pub(super) async fn hold<M: Member>(manifest: &Manifest, member: &M) -> Result<Compared, Failure> {
    // A later one is what leases that ended have made of it: the hash is that of the manifest's.
    let latest = member.status().await.map_err(failed)?.header.unwrap_or_default().revision;
    if latest < manifest.revision {
        return Err(mismatch(format!("the restored member is at revision {latest}, not {}", manifest.revision)));
    }
    let mut hashed = member.hash_kv(manifest.revision).await.map_err(failed)?;
    if hashed.compact_revision < manifest.compact_revision {
        member.compact(manifest.compact_revision).await.map_err(failed)?;
        hashed = member.hash_kv(manifest.revision).await.map_err(failed)?;
    }
    let keys = member.count(manifest.revision).await.map_err(failed)?;
    let (found, wanted) =
        ((hashed.hash, hashed.compact_revision, keys), (manifest.hash_kv, manifest.compact_revision, manifest.keys));
    if found != wanted {
        let told = |(hash, compacted, keys)| format!("hash {hash}, compacted at {compacted}, {keys} keys");
        return Err(mismatch(format!(
            "at revision {} the restored member has {}; the manifest says {}",
            manifest.revision,
            told(found),
            told(wanted)
        )));
    }
    Ok(Compared { revision: manifest.revision, hash_kv: hashed.hash, keys })
}

/// A member that knows no such revision is another one than the manifest's.
fn failed(error: StoreError) -> Failure {
    if error.says("mvcc: required revision") {
        return mismatch(error.to_string());
    }
    Failure::new(Reason::Unreachable, error.in_full())
}

fn mismatch(why: String) -> Failure {
    Failure::new(Reason::Mismatch, why)
}
