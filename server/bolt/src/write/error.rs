//! What can go wrong while a file is written.

use std::io;

use super::Tally;
use crate::BUCKETS_MAX;
use crate::KEY_LEN_MAX;
use crate::VALUE_LEN_MAX;

/// Why a file was not written. Bucket names are shown as UTF-8, `row` counts from 0 within the bucket.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("a row came before the first bucket")]
    NoBucket,
    #[error("bucket name of {0} bytes: 1 to {KEY_LEN_MAX} are allowed")]
    BucketNameLen(usize),
    #[error("bucket {name} does not come after {previous}")]
    BucketOrder { previous: String, name: String },
    #[error("more than {BUCKETS_MAX} buckets")]
    TooManyBuckets,
    #[error("bucket {bucket}, row {row}: key of {len} bytes: 1 to {KEY_LEN_MAX} are allowed")]
    KeyLen { bucket: String, row: u64, len: usize },
    #[error("bucket {bucket}, row {row}: value of {len} bytes: {VALUE_LEN_MAX} are allowed")]
    ValueLen { bucket: String, row: u64, len: usize },
    #[error("bucket {bucket}, row {row}: the key does not come after the one before")]
    KeyOrder { bucket: String, row: u64 },
    /// The second pass brought other buckets than the first.
    #[error("bucket {index} was {first} in the first pass, {second} in the second")]
    BucketsChanged { index: usize, first: String, second: String },
    /// The second pass brought other rows than the first.
    #[error("bucket {bucket}: {first} in the first pass, {second} in the second, or lengths in another order")]
    RowsChanged { bucket: String, first: Tally, second: Tally },
    #[error("the second pass needs more than the {pages} pages of the first")]
    PagesChanged { pages: u64 },
    /// An earlier call failed: the output is torn.
    #[error("an earlier write failed")]
    Failed,
    #[error("write: {0}")]
    Io(#[from] io::Error),
}
