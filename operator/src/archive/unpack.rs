//! `backup unpack`: the raw snapshot out of its archive, proved on the way.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use zstd::Decoder;

use super::Failure;
use super::Folder;
use super::Manifest;
use super::Reason;
use super::folder::remove;
use super::folder::sync;
use super::manifest::Compression;
use super::sum::Summed;

const BUFFER_BYTES: usize = 128 << 10;

/// Writes the snapshot to `to` and syncs it. Whatever has this name is whole: it gets it last.
///
/// # Errors
/// There is no such backup, it is not what its manifest says, or the disk. There is no `to` then.
pub fn unpack(folder: &Folder, to: &Path) -> Result<Manifest, Failure> {
    remove(to)?;
    let manifest = Manifest::read(folder)?;
    unpack_known(folder, &manifest, to)?;
    Ok(manifest)
}

/// The same, of a file that somebody names: an archive whose manifest is beside it, or a snapshot, which is copied as it is.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_file(file: &Path, to: &Path) -> Result<Option<Manifest>, Failure> {
    remove(to)?;
    if let Some(folder) = Folder::of(file)? {
        let manifest = Manifest::read(&folder)?;
        // It may also be what somebody has unpacked from the archive, beside it.
        if folder.archive(manifest.archive.compression) == file {
            unpack_known(&folder, &manifest, to)?;
            return Ok(Some(manifest));
        }
    }
    let (snapshot, bytes) = open(file)?;
    write(to, bytes, |raw| pump(snapshot, |error| Failure::io(file, &error), raw))?;
    Ok(None)
}

/// Removes what was unpacked to `to`, and what was not finished.
pub fn discard(to: &Path) -> Result<(), Failure> {
    remove(to)?;
    remove(&unfinished(to))?;
    to.parent().map_or(Ok(()), sync)
}

fn unfinished(to: &Path) -> PathBuf {
    let mut path = to.as_os_str().to_owned();
    path.push(".tmp");
    path.into()
}

/// The file, and its length.
fn open(path: &Path) -> Result<(File, u64), Failure> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    match opened {
        Ok((bytes, file)) => Ok((file, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(Reason::Missing, format!("there is no {}", path.display())))
        }
        Err(error) => Err(Failure::io(path, &error)),
    }
}

/// Never into a file that somebody may be reading: a Pod that was given up may go on for a while.
fn write(to: &Path, bytes: u64, fill: impl FnOnce(&mut Raw<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let path = unfinished(to);
    let failed = |error: io::Error| Failure::writing(to, bytes, &error);
    remove(&path)?;
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let mut raw = Raw { file: Summed::new(file), to, bytes };
    let done = fill(&mut raw).and_then(|()| raw.file.inner.sync_all().map_err(failed));
    if done.is_err() {
        // Half a snapshot is none.
        remove(&path)?;
        return done;
    }
    std::fs::rename(&path, to).map_err(failed)?;
    to.parent().map_or(Ok(()), sync)
}

/// The snapshot as it is written.
struct Raw<'a> {
    file: Summed<File>,
    to: &'a Path,
    /// That it will have.
    bytes: u64,
}

/// `unread`: what is wrong when the source cannot be read.
fn pump(mut from: impl Read, unread: impl Fn(io::Error) -> Failure, raw: &mut Raw<'_>) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        raw.file.write_all(&buffer[..read]).map_err(|error| Failure::writing(raw.to, raw.bytes, &error))?;
    }
}

fn unpack_known(folder: &Folder, manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    let path = folder.archive(manifest.archive.compression);
    let (archive, bytes) = open(&path)?;
    if bytes != manifest.archive.sum.bytes {
        return Err(damaged(&path, &format!("archive size: {bytes} bytes, not {}", manifest.archive.sum.bytes)));
    }
    write(to, manifest.raw.bytes, |raw| copy(manifest, &path, archive, raw))
}

fn copy(manifest: &Manifest, from: &Path, archive: File, raw: &mut Raw<'_>) -> Result<(), Failure> {
    let mut archive = Summed::new(archive);
    let unread = |error: io::Error| match error.raw_os_error() {
        Some(_) => Failure::io(from, &error),
        None => damaged(from, &format!("zstd: {error}")),
    };
    let reader: Box<dyn Read + '_> = match manifest.archive.compression {
        Compression::Zstd => Box::new(Decoder::new(&mut archive).map_err(unread)?),
        Compression::None => Box::new(&mut archive),
    };
    // A byte more is enough to tell that there are too many.
    pump(reader.take(manifest.raw.bytes.saturating_add(1)), unread, raw)?;
    if raw.file.bytes > manifest.raw.bytes {
        return Err(damaged(from, &format!("raw size: more than {} bytes", manifest.raw.bytes)));
    }
    if archive.sum() != manifest.archive.sum {
        return Err(damaged(from, &format!("archive sha256: {}", archive.sum().sha256)));
    }
    if raw.file.bytes != manifest.raw.bytes {
        return Err(damaged(from, &format!("raw size: {} bytes, not {}", raw.file.bytes, manifest.raw.bytes)));
    }
    if raw.file.sum() != manifest.raw {
        return Err(damaged(from, &format!("raw sha256: {}", raw.file.sum().sha256)));
    }
    Ok(())
}

/// `what` begins with the check that failed.
fn damaged(archive: &Path, what: &str) -> Failure {
    Failure::new(Reason::Damaged, format!("{}: {what}", archive.display()))
}
