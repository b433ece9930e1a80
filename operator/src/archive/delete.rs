//! `backup delete`: the files of a backup, whatever of them there is.

use super::Failure;
use super::Folder;
use super::Manifest;
use super::Reason;
use super::manifest::Compression;

/// Removes the archive, then the manifest: a deletion that was cut short still tells whose the rest is.
///
/// An archive without a manifest stays, unless a try of this EtcdBackup was about to give it one: somebody else has put it there.
///
/// # Errors
/// With a `uid`, `Foreign`: the backup is another EtcdBackup's. The disk.
pub fn delete(folder: &Folder, uid: Option<&str>) -> Result<(), Failure> {
    if !folder.exists()? {
        return Ok(());
    }
    let is_ours = |manifest: &Manifest| uid.is_none_or(|uid| manifest.uid == uid);
    let temporaries = folder.temporaries()?;
    let archive_is_ours = match Manifest::read(folder) {
        Ok(manifest) if !is_ours(&manifest) => {
            let why = format!("{} is of the EtcdBackup {}", folder.manifest().display(), manifest.uid);
            return Err(Failure::new(Reason::Foreign, why));
        }
        Ok(_) => true,
        Err(failure) => match failure.reason {
            Reason::Damaged => true,
            Reason::Missing => {
                let mut begun = temporaries.iter().filter_map(|path| Manifest::read_from(path, folder).ok());
                uid.is_none() || begun.any(|manifest| is_ours(&manifest))
            }
            _ => return Err(failure),
        },
    };
    if archive_is_ours {
        folder.remove(Compression::ALL.map(|compression| folder.archive(compression)))?;
        folder.remove([folder.manifest()])?;
    }
    folder.remove(temporaries)
}
