//! The ids of cluster and member, by etcd's formulas, so that a restored or migrated cluster is recognised.

use std::io;

use garboard_storage::DataDir;
use sha1::Digest as _;
use sha1::Sha1;

/// `member/identity`: which member of which cluster this data directory is. Written once, before anything else.
const FILE: &str = "identity";
const FILE_BYTES_MAX: usize = 4096;
const HEADLINE: &str = "garboard identity 1";

/// Which member of which cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
}

/// The identity in the data directory, if it has one.
pub(crate) fn read(data_dir: &DataDir) -> io::Result<Option<Identity>> {
    let Some(bytes) = data_dir.read_member_file(FILE, FILE_BYTES_MAX)? else { return Ok(None) };
    let path = data_dir.member_dir().join(FILE);
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is not an identity file", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    parse(&text).ok_or_else(invalid).map(Some)
}

/// Gives the data directory its identity.
pub(crate) fn write(data_dir: &DataDir, identity: Identity) -> io::Result<()> {
    data_dir.write_member_file(FILE, render(identity).as_bytes())
}

fn render(identity: Identity) -> String {
    format!("{HEADLINE}\ncluster {:016x}\nmember {:016x}\n", identity.cluster_id, identity.member_id)
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADLINE) {
        return None;
    }
    let mut id = |field: &str| {
        let digits = lines.next()?.strip_prefix(field)?.strip_prefix(' ')?;
        u64::from_str_radix(digits, 16).ok()
    };
    Some(Identity { cluster_id: id("cluster")?, member_id: id("member")? })
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
        let identity = Identity { cluster_id: 1, member_id: u64::MAX };
        let text = render(identity);
        assert_eq!(parse(&text), Some(identity));
        assert_eq!(parse(&text.replace("member", "membar")), None);
        assert_eq!(parse(&text[..30]), None);
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t", None), member_id(&[b, a], "t", None));
    }
}
