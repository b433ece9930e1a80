//! What a build of the server offers: the etcd release that it stands for, and the formats that it reads and writes.
//!
//! The format version is Garboard's own (docs/formats.md): it stands for what may be in log entries, rows and calls between members. What
//! clients see of versions is etcd's and has nothing to do with it.

use std::fmt;
use std::ops::RangeInclusive;

/// What this member was built as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The etcd release whose API it offers, `major.minor.patch`. Clients switch features by it: 3.7 only once all of etcd 3.7 is there.
    pub etcd_version: String,
    /// The formats that it can read.
    pub reads: RangeInclusive<u32>,
    /// The latest format that it would write, when all members would. A release reads a format before one writes it, so that there is a
    /// way back to the release before.
    pub writes: u32,
}

impl Default for Release {
    fn default() -> Self {
        Self { etcd_version: ETCD_VERSION.to_owned(), reads: 1..=1, writes: 1 }
    }
}

/// The etcd release that this build stands for.
pub const ETCD_VERSION: &str = "3.6.16";

impl Release {
    /// The cluster version that it would have.
    pub(crate) fn version(&self) -> Option<Version> {
        Version::parse(&self.etcd_version)
    }

    /// Whether it may be in a cluster of the version `determined`; of none yet, any may.
    ///
    /// # Errors
    /// Why not: the cluster has left this release behind.
    pub(crate) fn check_cluster_version(&self, determined: &str) -> Result<(), String> {
        if self.version() >= Version::parse(determined) {
            return Ok(());
        }
        Err(format!(
            "invalid downgrade; server version is lower than determined cluster version: {} is lower than {determined}",
            self.etcd_version
        ))
    }
}

/// An etcd version as clusters have it: without a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl Version {
    /// Of `3.5`, or of a semantic version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let mut parts = text.splitn(3, '.');
        let version = Self { major: number(parts.next()?)?, minor: number(parts.next()?)? };
        if let Some(patch) = parts.next() {
            number(patch.split(['-', '+']).next()?)?;
        }
        Some(version)
    }

    /// The one version that etcd can be downgraded to from here.
    pub(crate) fn before(self) -> Option<Self> {
        Some(Self { minor: self.minor.checked_sub(1)?, ..self })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_with_and_without_a_patch() {
        let version = |minor| Some(Version { major: 3, minor });
        assert_eq!(Version::parse("3.5"), version(5));
        assert_eq!(Version::parse("3.5.0-rc.1"), version(5));
        assert_eq!(Release::default().version(), version(6));
        for wrong in ["", "3", "3.", "v3.5", "3.5.", "3.5.x", "3.-1", "3.+5"] {
            assert_eq!(Version::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_release_reads_what_it_writes() {
        let release = Release::default();
        assert!(release.reads.contains(&release.writes));
    }
}
