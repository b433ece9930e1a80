//! `backup unpack`: the raw snapshot out of its archive, proved on the way.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write as _;
use std::path::Path;

use zstd::Decoder;

use super::Failure;
use super::Folder;
use super::Manifest;
use super::Reason;
use super::manifest::Compression;
use super::sum::Summed;

const BUFFER_BYTES: usize = 128 << 10;

/// Writes the snapshot to `to` and syncs it.
///
/// # Errors
/// There is no such backup, it is not what its manifest says, or the disk. `to` is removed then.
pub fn unpack(folder: &Folder, to: &Path) -> Result<(), Failure> {
    let done = prove(folder, to);
    if done.is_err() {
        // Half a snapshot is none.
        let _ = std::fs::remove_file(to);
    }
    done
}

fn prove(folder: &Folder, to: &Path) -> Result<(), Failure> {
    let manifest = Manifest::read(folder)?;
    let path = folder.archive(manifest.archive.compression);
    let archive = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Reason::Missing, format!("there is no {}", path.display())),
        _ => Failure::io(&path, &error),
    })?;
    let bytes = archive.metadata().map_err(|error| Failure::io(&path, &error))?.len();
    if bytes != manifest.archive.sum.bytes {
        return Err(damaged(&path, &format!("archive size: {bytes} bytes, not {}", manifest.archive.sum.bytes)));
    }
    let raw = File::create(to).map_err(|error| Failure::writing(to, manifest.raw.bytes, &error))?;
    copy(&manifest, &path, archive, to, raw)
}

fn copy(manifest: &Manifest, from: &Path, archive: File, to: &Path, raw: File) -> Result<(), Failure> {
    let (mut archive, mut raw) = (Summed::new(archive), Summed::new(raw));
    let failed = |error: io::Error| Failure::writing(to, manifest.raw.bytes, &error);
    let unread = |error: io::Error| match error.raw_os_error() {
        Some(_) => Failure::io(from, &error),
        None => damaged(from, &format!("zstd: {error}")),
    };
    let mut reader: Box<dyn Read + '_> = match manifest.archive.compression {
        Compression::Zstd => Box::new(Decoder::new(&mut archive).map_err(unread)?),
        Compression::None => Box::new(&mut archive),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        if raw.bytes + read as u64 > manifest.raw.bytes {
            return Err(damaged(from, &format!("raw size: more than {} bytes", manifest.raw.bytes)));
        }
        raw.write_all(&buffer[..read]).map_err(failed)?;
    }
    drop(reader);
    if archive.sum() != manifest.archive.sum {
        return Err(damaged(from, &format!("archive sha256: {}", archive.sum().sha256)));
    }
    if raw.bytes != manifest.raw.bytes {
        return Err(damaged(from, &format!("raw size: {} bytes, not {}", raw.bytes, manifest.raw.bytes)));
    }
    if raw.sum() != manifest.raw {
        return Err(damaged(from, &format!("raw sha256: {}", raw.sum().sha256)));
    }
    raw.inner.sync_all().map_err(failed)
}

/// `what` begins with the check that failed.
fn damaged(archive: &Path, what: &str) -> Failure {
    Failure::new(Reason::Damaged, format!("{}: {what}", archive.display()))
}
