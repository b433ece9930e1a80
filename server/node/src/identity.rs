//! The ids of cluster and member, by etcd's formulas, so that a restored or migrated cluster is recognised.

use std::collections::BTreeMap;
use std::io;

use garboard_runtime::random;
use garboard_storage::MemberFiles;
use sha1::Digest as _;
use sha1::Sha1;

/// `member/identity`: which member of which cluster this data directory is. Written once, before anything else.
pub(crate) const FILE: &str = "identity";
const FILE_BYTES_MAX: usize = 4096;
const HEADLINE: &str = "garboard identity 1";

/// Which member of which cluster, and by which data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// Drawn with the data directory: the same member on another disk has another one. Never 0.
    pub(crate) incarnation: u64,
}

/// What the identity file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) identity: Identity,
    /// Whether it found its cluster there, rather than founding it.
    pub(crate) joined: bool,
    /// Whether it was removed from its cluster, for good.
    pub(crate) removed: bool,
    /// Whether it was made a cluster of its own by `--force-new-cluster`, and not started without that flag since.
    pub(crate) forced: bool,
}

/// A number for a new data directory.
pub(crate) fn draw_incarnation() -> io::Result<u64> {
    random::u64().map(|n| n.max(1)).map_err(|error| io::Error::other(format!("no randomness: {error}")))
}

/// The identity in the data directory, if it has one.
pub(crate) fn read(files: &MemberFiles) -> io::Result<Option<Record>> {
    let Some(bytes) = files.read(FILE, FILE_BYTES_MAX)? else { return Ok(None) };
    let path = files.path(FILE);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is not an identity file", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    parse(&text).ok_or_else(invalid).map(Some)
}

/// Gives the data directory its identity.
pub(crate) fn write(files: &MemberFiles, record: &Record) -> io::Result<()> {
    files.write(FILE, render(record).as_bytes())
}

fn render(record: &Record) -> String {
    let Identity { cluster_id, member_id, incarnation } = record.identity;
    let mut text =
        format!("{HEADLINE}\ncluster {cluster_id:016x}\nmember {member_id:016x}\nincarnation {incarnation:016x}\n");
    if record.joined {
        text.push_str("joined\n");
    }
    if record.removed {
        text.push_str("removed\n");
    }
    if record.forced {
        text.push_str("forced\n");
    }
    text
}

fn parse(text: &str) -> Option<Record> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADLINE) {
        return None;
    }
    let mut id = |field: &str| {
        let digits = lines.next()?.strip_prefix(field)?.strip_prefix(' ')?;
        u64::from_str_radix(digits, 16).ok()
    };
    let identity = Identity { cluster_id: id("cluster")?, member_id: id("member")?, incarnation: id("incarnation")? };
    let mut record = Record { identity, joined: false, removed: false, forced: false };
    for line in lines {
        match line {
            "joined" => record.joined = true,
            "removed" => record.removed = true,
            "forced" => record.forced = true,
            _ => return None,
        }
    }
    (identity.incarnation != 0).then_some(record)
}

/// By which incarnations the other members were met, before the membership says so: `member/peers`.
const PINS_FILE: &str = "peers";
const PINS_BYTES_MAX: usize = 1 << 20;

/// What [`write_pins`] wrote; nothing when it never did.
pub(crate) fn read_pins(files: &MemberFiles) -> io::Result<BTreeMap<u64, u64>> {
    let Some(bytes) = files.read(PINS_FILE, PINS_BYTES_MAX)? else { return Ok(BTreeMap::new()) };
    let path = files.path(PINS_FILE);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let pin = |line: &str| {
        let (id, incarnation) = line.split_once(' ')?;
        Some((u64::from_str_radix(id, 16).ok()?, u64::from_str_radix(incarnation, 16).ok()?))
    };
    text.lines().map(|line| pin(line).ok_or_else(invalid)).collect()
}

/// Durable when it returns.
pub(crate) fn write_pins(files: &MemberFiles, pins: &BTreeMap<u64, u64>) -> io::Result<()> {
    let text: String = pins.iter().map(|(id, incarnation)| format!("{id:016x} {incarnation:016x}\n")).collect();
    files.write(PINS_FILE, text.as_bytes())
}

/// A member's id: the first eight bytes of SHA-1 over its sorted peer URLs, the cluster token and, for a member added at run
/// time, the Unix time in seconds.
pub fn member_id(peer_urls: &[String], token: &str, added_at_s: Option<u64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut text = urls.concat();
    text.push_str(token);
    if let Some(at) = added_at_s {
        text.push_str(&at.to_string());
    }
    first_eight(text.as_bytes())
}

/// The cluster's id: the first eight bytes of SHA-1 over the sorted ids of its first members.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_eight(&bytes)
}

fn first_eight(bytes: &[u8]) -> u64 {
    let hash = Sha1::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_member_has_etcds_well_known_ids() {
        let id = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(id, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[id]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn an_identity_file_reads_back_and_a_damaged_one_does_not() {
        let identity = Identity { cluster_id: 1, member_id: u64::MAX, incarnation: 7 };
        for flags in 0..8 {
            let record = Record { identity, joined: flags & 1 > 0, removed: flags & 2 > 0, forced: flags & 4 > 0 };
            let text = render(&record);
            assert_eq!(parse(&text), Some(record));
            assert_eq!(parse(&text.replace("member", "membar")), None);
            assert_eq!(parse(&text[..30]), None);
            assert_eq!(parse(&format!("{text}else\n")), None);
        }
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t", None), member_id(&[b, a], "t", None));
    }
}
