//! `backup copy`: a folder as it is, for a server that is to change it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use super::Failure;
use super::Reason;

/// Copies what is in `from`; whatever an earlier try has left in `to` goes.
///
/// # Errors
/// Something in it is neither a file nor a folder, or the disk. It is not complete then.
pub fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::io(to, &error)),
        _ => {}
    }
    folder(from, to)
}

fn folder(from: &Path, to: &Path) -> Result<(), Failure> {
    DirBuilder::new().mode(0o700).create(to).map_err(|error| Failure::io(to, &error))?;
    let unread = |error| Failure::io(from, &error);
    for entry in std::fs::read_dir(from).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_dir() {
            folder(&path, &target)?;
        } else if kind.is_file() {
            std::fs::copy(&path, &target).map_err(|error| Failure::io(&target, &error))?;
        } else {
            return Err(Failure::new(Reason::Foreign, format!("{} is no file", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_whole_over_what_an_earlier_try_has_left() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        std::fs::create_dir_all(from.join("member/wal")).unwrap();
        std::fs::write(from.join("member/wal/1"), "log").unwrap();
        std::fs::write(from.join("lock"), "").unwrap();
        std::fs::create_dir_all(to.join("old")).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(std::fs::read(to.join("member/wal/1")).unwrap(), b"log");
        assert!(to.join("lock").exists() && !to.join("old").exists());
        std::os::unix::fs::symlink("elsewhere", from.join("link")).unwrap();
        assert_eq!(copy(&from, &to).unwrap_err().reason, Reason::Foreign);
        assert_eq!(copy(&root.path().join("absent"), &to).unwrap_err().reason, Reason::Io);
    }
}
