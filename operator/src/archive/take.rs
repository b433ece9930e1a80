//! `backup take`: a member's snapshot becomes an archive on the volume.

use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;
use std::time::Instant;

use futures_util::StreamExt as _;
use garboard_proto::etcdserverpb as pb;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::Unit;
use serde_json::json;

use super::Failure;
use super::Folder;
use super::Manifest;
use super::Reason;
use super::folder::Temporary;
use super::manifest;
use super::manifest::Archive;
use super::manifest::Compression;
use super::member::Member;
use super::pack::HASH_BYTES;
use super::pack::Packed;
use super::pack::Packer;
use crate::store::Client;
use crate::store::Credentials;
use crate::store::StoreError;

/// How often a snapshot is taken anew because its revision was compacted meanwhile.
const RESTARTS: u32 = 3;
/// Between two lines that tell how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

pub struct Request {
    /// Name and host, in the order in which they are tried; at least one.
    pub members: Vec<(String, String)>,
    /// The folder with `tls.crt`, `tls.key` and `ca.crt`; `None`: plain text.
    pub tls: Option<PathBuf>,
    pub folder: Folder,
    pub namespace: String,
    pub cluster: String,
    /// Of the EtcdBackup.
    pub uid: String,
    pub compression: Compression,
}

/// A snapshot in a file that has no name yet.
struct Copied {
    taken_at: Time,
    header: pb::ResponseHeader,
    packed: Packed,
    temporary: Temporary,
}

/// What a member says of a revision.
struct Said {
    hashed: pb::HashKvResponse,
    keys: i64,
    server_version: String,
}

/// The backup, also when an earlier try has made it.
///
/// # Errors
/// There is none, and no file of this try.
pub async fn take(request: &Request) -> Result<Manifest, Failure> {
    let credentials = request.tls.as_deref().map(credentials).transpose()?;
    let mut members = Vec::new();
    for (name, host) in &request.members {
        let client = Client::patient(host, host, credentials.as_ref());
        members.push((name.as_str(), client.map_err(|error| Failure::new(Reason::Unreachable, error.in_full()))?));
    }
    of_any(request, &members).await
}

fn credentials(folder: &Path) -> Result<Credentials, Failure> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| Failure::io(&path, &error))
    };
    Ok(Credentials { ca: read("ca.crt")?, cert: read("tls.crt")?, key: read("tls.key")? })
}

/// Of the first member that can.
pub(super) async fn of_any<M: Member>(request: &Request, members: &[(&str, M)]) -> Result<Manifest, Failure> {
    request.folder.create()?;
    if let Some(manifest) = earlier(request)? {
        return Ok(manifest);
    }
    let mut failures = Vec::new();
    for (name, member) in members {
        match of(request, name, member).await {
            Err(failure) if failure.reason <= Reason::Interrupted => {
                eprintln!("{name}: {failure}");
                failures.push((name, failure));
            }
            done => return done,
        }
    }
    // The one that came furthest says whether another try may help.
    let reason = failures.iter().map(|(_, failure)| failure.reason).max().unwrap_or(Reason::Unreachable);
    let told: Vec<String> = failures.iter().map(|(name, failure)| format!("{name}: {}", failure.message)).collect();
    Err(Failure::new(reason, told.join("; ")))
}

/// What earlier tries have left: this backup, or files that nobody needs.
fn earlier(request: &Request) -> Result<Option<Manifest>, Failure> {
    let folder = &request.folder;
    let is_ours = |manifest: &Manifest| {
        let archive = folder.archive(manifest.archive.compression);
        let bytes = std::fs::symlink_metadata(archive).map(|file| file.len());
        manifest.uid == request.uid && bytes.is_ok_and(|bytes| bytes == manifest.archive.sum.bytes)
    };
    let temporaries = folder.temporaries()?;
    for path in &temporaries {
        // The try ended between its two renames: the archive has its name, and this is its manifest.
        if Manifest::read_from(path, folder).is_ok_and(|manifest| is_ours(&manifest)) && !folder.manifest().exists() {
            folder.place(path, &folder.manifest())?;
        }
    }
    folder.remove(temporaries)?;
    match Manifest::read(folder) {
        Ok(manifest) if is_ours(&manifest) => Ok(Some(manifest)),
        Ok(manifest) => {
            let (uid, bytes) = (manifest.uid, manifest.archive.sum.bytes);
            let why = format!("{} is of the EtcdBackup {uid}, with {bytes} bytes", folder.manifest().display());
            Err(Failure::new(Reason::NameTaken, why))
        }
        Err(failure) if failure.reason == Reason::Missing => unnamed(folder),
        Err(failure) if failure.reason == Reason::Io => Err(failure),
        Err(failure) => Err(Failure::new(Reason::NameTaken, failure.message)),
    }
}

/// No archive may be there, of either name.
fn unnamed(folder: &Folder) -> Result<Option<Manifest>, Failure> {
    for compression in Compression::ALL {
        let archive = folder.archive(compression);
        if archive.symlink_metadata().is_ok() {
            let why = format!("there is a {} without a manifest", archive.display());
            return Err(Failure::new(Reason::NameTaken, why));
        }
    }
    Ok(None)
}

async fn of<M: Member>(request: &Request, name: &str, member: &M) -> Result<Manifest, Failure> {
    let interrupted = |why: String| Failure::new(Reason::Interrupted, why);
    for _ in 0..=RESTARTS {
        let copied = copy(request, member).await?;
        match ask(member, copied.header.revision).await {
            Ok(said) => return keep(request, name, &copied, said),
            Err(error) if error.says("required revision has been compacted") => {
                eprintln!("{name}: revision {} was compacted meanwhile", copied.header.revision);
            }
            Err(error) => return Err(interrupted(error.in_full())),
        }
    }
    Err(interrupted(format!("{} snapshots in a row were compacted while they came", RESTARTS + 1)))
}

/// The snapshot into a temporary file.
async fn copy<M: Member>(request: &Request, member: &M) -> Result<Copied, Failure> {
    let unreachable = |why: String| Failure::new(Reason::Unreachable, why);
    let now = Timestamp::now();
    // As it will be read back: in JSON a time has whole seconds.
    let taken_at = Time(now.round(Unit::Second).unwrap_or(now));
    let messages = member.snapshot().await.map_err(|error| unreachable(error.in_full()))?;
    let mut messages = pin!(messages);
    let first = messages.next().await.ok_or_else(|| unreachable("an answer without a message".to_owned()))?;
    let mut message = first.map_err(|error| unreachable(error.in_full()))?;
    let header = message.header.filter(|header| header.revision > 0).ok_or_else(|| {
        Failure::new(Reason::MemberTooOld, "it does not tell the revision of its snapshot: its release is too old")
    })?;
    let total = message.remaining_bytes.saturating_add((message.blob.len() + HASH_BYTES) as u64);
    request.folder.has_room(total, request.compression)?;

    let temporary = request.folder.temporary()?;
    let failed = |error: io::Error| Failure::writing(&temporary.path, total, &error);
    let file = temporary.file.try_clone().map_err(failed)?;
    let mut packer = Packer::new(file, request.compression).map_err(failed)?;
    let mut told = Instant::now();
    let left = loop {
        packer.add(&message.blob).map_err(failed)?;
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            tell(packer.bytes(), total);
        }
        message = match messages.next().await {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                let why = format!("after {} of {total} bytes: {}", packer.bytes(), error.in_full());
                return Err(Failure::new(Reason::Interrupted, why));
            }
            None => break message.remaining_bytes,
        };
    };
    if left > 0 || !packer.ends_with_its_hash() {
        let why = format!("it ended after {} of {total} bytes, or is not what its own hash says", packer.bytes());
        return Err(Failure::new(Reason::Interrupted, why));
    }
    let packed = packer.finish().map_err(failed)?;
    Ok(Copied { taken_at, header, packed, temporary })
}

async fn ask<M: Member>(member: &M, revision: i64) -> Result<Said, StoreError> {
    let hashed = member.hash_kv(revision).await?;
    let keys = member.count(revision).await?;
    Ok(Said { hashed, keys, server_version: member.status().await?.version })
}

/// Gives archive and manifest their names.
fn keep(request: &Request, name: &str, copied: &Copied, said: Said) -> Result<Manifest, Failure> {
    let folder = &request.folder;
    let manifest = Manifest {
        format: manifest::FORMAT,
        namespace: request.namespace.clone(),
        cluster: request.cluster.clone(),
        cluster_id: format!("{:x}", copied.header.cluster_id),
        backup: folder.backup().to_owned(),
        uid: request.uid.clone(),
        member: name.to_owned(),
        taken_at: copied.taken_at.clone(),
        revision: copied.header.revision,
        compact_revision: said.hashed.compact_revision,
        hash_kv: said.hashed.hash,
        keys: said.keys,
        raw: copied.packed.raw.clone(),
        archive: Archive {
            file: folder.archive_name(request.compression),
            sum: copied.packed.archive.clone(),
            compression: request.compression,
        },
        server_version: said.server_version,
        operator_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // Synced before the archive has its name: a try that finds the two knows whose they are.
    let mut temporary = folder.temporary()?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from);
    let written = text.and_then(|text| temporary.file.write_all(&text)).and_then(|()| temporary.file.sync_all());
    written.map_err(|error| Failure::io(&temporary.path, &error))?;
    folder.sync()?;
    let archive = folder.archive(request.compression);
    folder.place(&copied.temporary.path, &archive)?;
    if let Err(failure) = folder.place(&temporary.path, &folder.manifest()) {
        folder.remove([archive])?;
        return Err(failure);
    }
    Ok(manifest)
}

fn tell(bytes: u64, total: u64) {
    // Nobody may be reading it.
    let _ = writeln!(io::stdout(), "{}", json!({"bytes": bytes, "totalBytes": total}));
}
