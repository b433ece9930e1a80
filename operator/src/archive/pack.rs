//! The raw snapshot into its archive, as it comes. Memory does not grow with it.

use std::fs::File;
use std::io;
use std::io::Write as _;

use sha2::Digest as _;
use sha2::Sha256;
use zstd::Encoder;

use super::manifest::Compression;
use super::sum::Sum;
use super::sum::Summed;
use super::sum::hex;

/// etcd's hash behind its file.
pub const HASH_BYTES: usize = 32;
/// zstd's own default.
const LEVEL: i32 = 3;

pub struct Packer {
    archive: Archive,
    bytes: u64,
    /// Of all but `last`.
    hash: Sha256,
    /// The last 32 bytes so far, or fewer.
    last: Vec<u8>,
}

enum Archive {
    Zstd(Encoder<'static, Summed<File>>),
    None(Summed<File>),
}

/// What was packed, and what has become of it.
pub struct Packed {
    pub raw: Sum,
    pub archive: Sum,
}

// === impl Packer ===

impl Packer {
    pub fn new(file: File, compression: Compression) -> io::Result<Self> {
        let file = Summed::new(file);
        let archive = match compression {
            Compression::Zstd => {
                let mut encoder = Encoder::new(file, LEVEL)?;
                // For who looks at it with zstd alone.
                encoder.include_checksum(true)?;
                Archive::Zstd(encoder)
            }
            Compression::None => Archive::None(file),
        };
        Ok(Self { archive, bytes: 0, hash: Sha256::new(), last: Vec::new() })
    }

    pub fn add(&mut self, blob: &[u8]) -> io::Result<()> {
        self.bytes += blob.len() as u64;
        self.last.extend_from_slice(blob);
        let settled = self.last.len().saturating_sub(HASH_BYTES);
        self.hash.update(&self.last[..settled]);
        self.last.drain(..settled);
        match &mut self.archive {
            Archive::Zstd(encoder) => encoder.write_all(blob),
            Archive::None(file) => file.write_all(blob),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the last 32 bytes are the SHA-256 of all before them, as at the end of a snapshot.
    pub fn ends_with_its_hash(&self) -> bool {
        self.hash.clone().finalize()[..] == self.last[..]
    }

    /// Writes what is left, and syncs.
    pub fn finish(mut self) -> io::Result<Packed> {
        self.hash.update(&self.last);
        let raw = Sum { bytes: self.bytes, sha256: hex(&self.hash.finalize()) };
        let file = match self.archive {
            Archive::Zstd(encoder) => encoder.finish()?,
            Archive::None(file) => file,
        };
        file.inner.sync_all()?;
        Ok(Packed { raw, archive: file.sum() })
    }
}
