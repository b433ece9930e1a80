//! Where builds and downloads are kept: outside the checkout, shared by all of them.

use std::path::PathBuf;

use anyhow::Context as _;

/// The cache folder, made if it is not there.
pub fn dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("GARBOARD_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("garboard")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/garboard")))
        .context("none of GARBOARD_CACHE, XDG_CACHE_HOME and HOME is set")?;
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// FNV-1a, 64 bits: a name for contents that is the same with every compiler.
#[derive(Clone, Copy)]
pub struct Fingerprint(u64);

// === impl Fingerprint ===

impl Fingerprint {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a file or, in the order of their names, all files below a folder.
    pub fn add_path(&mut self, path: &std::path::Path) -> anyhow::Result<()> {
        if path.is_dir() {
            let mut entries: Vec<PathBuf> =
                std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
            entries.sort();
            return entries.iter().try_for_each(|entry| self.add_path(entry));
        }
        self.add(path.file_name().unwrap_or_default().as_encoded_bytes());
        self.add(&std::fs::read(path).with_context(|| format!("read {}", path.display()))?);
        Ok(())
    }

    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}
