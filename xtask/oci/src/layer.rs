//! The files of an image, as a tar that is the same wherever it is made.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use tar::EntryType;
use tar::Header;

/// Whom a folder belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

/// A tar of files that are as old as Unix.
pub(crate) struct Archive<W: Write>(tar::Builder<W>);

// === impl Archive ===

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Self(tar::Builder::new(to))
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(bytes.len() as u64);
        Ok(self.0.append_data(&mut header, path, bytes)?)
    }

    pub(crate) fn finish(self) -> anyhow::Result<W> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// The files of an image. Paths are from its root, without a slash before them; the folders above them come by themselves.
pub struct Layer {
    archive: Archive<Vec<u8>>,
    folders: BTreeSet<String>,
}

// === impl Layer ===

impl Layer {
    pub fn new() -> Self {
        Self { archive: Archive::new(Vec::new()), folders: BTreeSet::new() }
    }

    /// A folder of root's.
    pub fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        self.folder_of(path, mode, Owner::default())
    }

    pub fn folder_of(&mut self, path: &str, mode: u32, owner: Owner) -> anyhow::Result<()> {
        if self.folders.contains(path) {
            return Ok(());
        }
        self.above(path)?;
        self.folders.insert(path.to_owned());
        let mut header = header(EntryType::Directory, mode);
        header.set_uid(owner.user.into());
        header.set_gid(owner.group.into());
        Ok(self.archive.0.append_data(&mut header, format!("{path}/"), std::io::empty())?)
    }

    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        self.above(path)?;
        self.archive.file(path, mode, bytes)
    }

    /// A program of this machine.
    pub fn program(&mut self, path: &str, source: &Path) -> anyhow::Result<()> {
        let bytes = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
        self.file(path, 0o755, &bytes)
    }

    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        self.above(path)?;
        let mut header = header(EntryType::Symlink, 0o777);
        Ok(self.archive.0.append_link(&mut header, path, target)?)
    }

    fn above(&mut self, path: &str) -> anyhow::Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(folder, _)| self.folder(folder, 0o755))
    }

    pub(crate) fn finish(self) -> anyhow::Result<Vec<u8>> {
        self.archive.finish()
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}
