//! What can be wrong with a file that is read.

use std::io;

use crate::BUCKETS_MAX;
use crate::KEY_LEN_MAX;
use crate::format::MetaFault;

/// Why a file, or a part of it, was not read. Offsets are bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read {len} bytes at offset {offset}: {source}")]
    Io { offset: u64, len: usize, source: io::Error },
    #[error("file of {len} bytes: {max} are allowed")]
    TooLarge { len: u64, max: u64 },
    #[error("no valid meta page: the one at offset 0 {first}, the second {second}")]
    NoMeta { first: MetaFault, second: MetaFault },
    /// A meta is intact and says what cannot be.
    #[error("meta page {page} at offset {offset}: the {what} is page {found}, of {high_water} pages")]
    Meta { page: u64, offset: u64, what: &'static str, found: u64, high_water: u64 },
    #[error("meta page {page} states {expected} bytes, the file has {len}")]
    Truncated { page: u64, expected: u128, len: u64 },
    #[error("page {page} at offset {offset}: {fault}")]
    Page { page: u64, offset: u64, fault: Fault },
    #[error("more than {BUCKETS_MAX} buckets")]
    TooManyBuckets,
    #[error("no bucket {0}")]
    NoBucket(String),
}

/// What is wrong with a page. `index` is the element's, from 0; the offset beside it is the element's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the header says page {0}")]
    Id(u64),
    #[error("neither a branch nor a leaf: flags {0:#06x}")]
    Flags(u16),
    #[error("{overflow} overflow pages, beyond the {high_water} pages of the file")]
    Overflow { overflow: u32, high_water: u64 },
    #[error("{count} elements do not fit {len} bytes")]
    Count { count: u16, len: u64 },
    #[error("a branch without children")]
    NoChildren,
    #[error("element {index}: key and value lie outside of the page, or over what comes before")]
    Bounds { index: u16 },
    #[error("element {index}: key of {len} bytes, 1 to {KEY_LEN_MAX} are allowed")]
    KeyLen { index: u16, len: u32 },
    #[error("element {index}: value of {len} bytes, {max} are allowed")]
    ValueLen { index: u16, len: u32, max: u32 },
    #[error("element {index}: the key does not come after the one before")]
    KeyOrder { index: u16 },
    #[error("element {index}: the key is not between those of the parent")]
    KeyRange { index: u16 },
    #[error("element {index}: child {page} is not one of the pages 2 to {high_water}")]
    Child { index: u16, page: u64, high_water: u64 },
    #[error("element {index}: unknown flags {flags:#010x}")]
    ElementFlags { index: u16, flags: u32 },
    #[error("element {index}: a bucket within a bucket")]
    NestedBucket { index: u16 },
    #[error("element {index}: a row that is no bucket, in the bucket of buckets")]
    NotABucket { index: u16 },
    #[error("element {index}: a bucket of {len} bytes")]
    BucketLen { index: u16, len: usize },
    #[error("a page that was reached before")]
    ReachedTwice,
    #[error("deeper than {max} pages")]
    Depth { max: usize },
}
