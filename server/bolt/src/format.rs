//! The bytes of pages, elements and metas, as structs; no judgement on what the numbers mean.
//!
//! ```text
//! page    id u64 | flags u16 | count u16 | overflow u32 | elements, then keys and values    (overflow: further pages it covers)
//! leaf    flags u32 | pos u32 | key length u32 | value length u32        (pos: from the element to its key; the value follows)
//! branch  pos u32 | key length u32 | page u64
//! bucket  root page u64 | sequence u64                                  (value of a root row; root 0: a page follows inline)
//! meta    magic u32 | version u32 | page size u32 | flags u32 | root bucket 16 | freelist u64 | high water u64 | txid u64 | FNV-1a u64
//! ```

/// Bytes of a page header, and of a leaf or a branch element.
pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const ELEMENT_LEN: usize = 16;
pub(crate) const BUCKET_LEN: usize = 16;
pub(crate) const META_LEN: usize = 64;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;
/// Marks a leaf element whose value is a bucket.
pub(crate) const BUCKET_ELEMENT: u32 = 0x01;

/// The first page that is no meta.
pub(crate) const FIRST_PAGE: u64 = 2;
/// The freelist of a file that was written with `NoFreelistSync`, as etcd does.
pub(crate) const NO_FREELIST: u64 = u64::MAX;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Bytes of a page: a power of two from 1 KiB to 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u32);

impl PageSize {
    pub(crate) const MIN: u32 = 1 << 10;
    pub(crate) const MAX: u32 = 1 << 16;

    /// What etcd has on amd64.
    pub const DEFAULT: Self = Self(4096);

    /// None unless `bytes` is a power of two from 1 KiB to 64 KiB.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= Self::MIN && bytes <= Self::MAX { Some(Self(bytes)) } else { None }
    }

    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=6).map(|shift| Self(Self::MIN << shift))
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    pub overflow: u32,
}

impl PageHeader {
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: u32_at(bytes, 12),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeafElement {
    pub flags: u32,
    pub pos: u32,
    pub key_len: u32,
    pub value_len: u32,
}

impl LeafElement {
    pub fn encode(self) -> [u8; ELEMENT_LEN] {
        let mut bytes = [0; ELEMENT_LEN];
        for (field, number) in bytes.chunks_exact_mut(4).zip([self.flags, self.pos, self.key_len, self.value_len]) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub fn decode(bytes: &[u8; ELEMENT_LEN]) -> Self {
        Self { flags: u32_at(bytes, 0), pos: u32_at(bytes, 4), key_len: u32_at(bytes, 8), value_len: u32_at(bytes, 12) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BranchElement {
    pub pos: u32,
    pub key_len: u32,
    pub page: u64,
}

impl BranchElement {
    pub fn encode(self) -> [u8; ELEMENT_LEN] {
        let mut bytes = [0; ELEMENT_LEN];
        bytes[0..4].copy_from_slice(&self.pos.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.key_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.page.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; ELEMENT_LEN]) -> Self {
        Self { pos: u32_at(bytes, 0), key_len: u32_at(bytes, 4), page: u64_at(bytes, 8) }
    }
}

/// The value of a bucket that has pages of its own.
pub(crate) fn encode_bucket(root: u64) -> [u8; BUCKET_LEN] {
    let mut bytes = [0; BUCKET_LEN];
    bytes[0..8].copy_from_slice(&root.to_le_bytes());
    bytes
}

/// The root page of a bucket from its value; 0 says that the page follows inline.
pub(crate) fn decode_bucket(bytes: &[u8; BUCKET_LEN]) -> u64 {
    u64_at(bytes, 0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub page_size: PageSize,
    /// Root page of the bucket of buckets.
    pub root: u64,
    pub freelist: u64,
    /// Pages of the file, metas included; pages from here on are not part of it.
    pub high_water: u64,
    pub txid: u64,
}

/// Why a meta page does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaFault {
    #[error("is beyond the end of the file")]
    Missing,
    #[error("has no meta page header")]
    Header,
    #[error("has magic {0:#010x}")]
    Magic(u32),
    #[error("has format version {0}")]
    Version(u32),
    #[error("has checksum {found:#018x} where its bytes give {computed:#018x}")]
    Checksum { found: u64, computed: u64 },
    #[error("states a page size of {0} bytes")]
    PageSize(u32),
}

impl Meta {
    pub fn encode(self) -> [u8; META_LEN] {
        let mut bytes = [0; META_LEN];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.high_water.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let checksum = fnv1a(&bytes[..56]);
        bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; META_LEN]) -> Result<Self, MetaFault> {
        let (magic, version) = (u32_at(bytes, 0), u32_at(bytes, 4));
        if magic != MAGIC {
            return Err(MetaFault::Magic(magic));
        }
        if version != VERSION {
            return Err(MetaFault::Version(version));
        }
        let (found, computed) = (u64_at(bytes, 56), fnv1a(&bytes[..56]));
        if found != computed {
            return Err(MetaFault::Checksum { found, computed });
        }
        let page_size = u32_at(bytes, 8);
        Ok(Self {
            page_size: PageSize::new(page_size).ok_or(MetaFault::PageSize(page_size))?,
            root: u64_at(bytes, 16),
            freelist: u64_at(bytes, 32),
            high_water: u64_at(bytes, 40),
            txid: u64_at(bytes, 48),
        })
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let header = PageHeader { id: 1 << 40, flags: LEAF, count: 513, overflow: 70_000 };
        assert_eq!(PageHeader::decode(&header.encode()), header);
        let leaf = LeafElement { flags: 1, pos: 2 << 20, key_len: 3 << 10, value_len: 4 << 24 };
        assert_eq!(LeafElement::decode(&leaf.encode()), leaf);
        let branch = BranchElement { pos: 77, key_len: 88, page: 99 << 33 };
        assert_eq!(BranchElement::decode(&branch.encode()), branch);
        assert_eq!(decode_bucket(&encode_bucket(12_345)), 12_345);
        let meta = Meta { page_size: PageSize::DEFAULT, root: 7, freelist: NO_FREELIST, high_water: 9, txid: 11 };
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn fnv1a_gives_the_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn page_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(
            PageSize::all().map(PageSize::bytes).collect::<Vec<_>>(),
            [1024, 2048, 4096, 8192, 16384, 32768, 65536]
        );
        for bytes in [0, 1, 512, 1023, 1025, 4095, 6144, 1 << 17, u32::MAX] {
            assert_eq!(PageSize::new(bytes), None, "{bytes}");
        }
    }
}
