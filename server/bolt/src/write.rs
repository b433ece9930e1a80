//! Writes a file front to back in two passes over the same rows, since the metas come first and say how many pages follow.
//!
//! Pass one ([`Measure`]) gets lengths and yields a [`Layout`]; pass two ([`Writer`]) gets the rows and emits the pages:
//! two metas, an empty freelist, each bucket's tree, the root bucket's tree. The shape of a tree depends on lengths alone and
//! parents follow their children, so nothing is kept of a page that is written but its first key in the open parent.
//! Memory: both passes keep two branch pages for each height; the second also the open leaf and one page being
//! assembled, each as large as the largest row or a page. Neither grows with the file.

mod emit;
mod error;
mod tree;

use std::fmt;
use std::io::Write;

use crate::BUCKETS_MAX;
use crate::KEY_LEN_MAX;
use crate::VALUE_LEN_MAX;
use crate::format::BUCKET_LEN;
use crate::format::FIRST_PAGE;
use crate::format::PageSize;
use crate::format::encode_bucket;
use emit::Emitter;
pub use error::WriteError;
use tree::Child;
use tree::Extent;
use tree::FirstKey;
use tree::Pages;
use tree::Tree;

/// The freelist lies between the metas and the first bucket.
const FREELIST_PAGE: u64 = FIRST_PAGE;

/// Pass one: the lengths of all rows, bucket by bucket, in order of names and keys.
pub struct Measure {
    page_size: PageSize,
    tree: Tree<usize>,
    buckets: Vec<BucketLayout>,
}

/// What the first pass found: how large the file is and where its roots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    page_size: PageSize,
    /// Pages of the file, metas included.
    pages: u64,
    /// Root page of the bucket of buckets.
    root: u64,
    buckets: Vec<BucketLayout>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct BucketLayout {
    name: Box<[u8]>,
    rows: Tally,
    root: u64,
}

/// Pass two: the rows themselves. After an error the output is torn, and every call fails.
pub struct Writer<W: Write> {
    layout: Layout,
    tree: Tree<Box<[u8]>>,
    emitter: Emitter<W>,
    /// Buckets begun; the last of them is open.
    buckets: usize,
    rows: Tally,
    key: Vec<u8>,
    failed: bool,
}

/// How many rows a bucket has, and a digest of their lengths in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    /// Keys and values.
    pub bytes: u64,
    digest: u64,
}

/// The first pass has no use for pages.
struct Unwritten;

// === impl Measure ===

impl Measure {
    pub fn new(page_size: PageSize) -> Self {
        Self { page_size, tree: Tree::new(page_size, FREELIST_PAGE + 1), buckets: Vec::new() }
    }

    /// Begins a bucket. Names ascend.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.close_bucket()?;
        if name.is_empty() || name.len() > KEY_LEN_MAX {
            return Err(WriteError::BucketNameLen(name.len()));
        }
        if self.buckets.len() == BUCKETS_MAX {
            return Err(WriteError::TooManyBuckets);
        }
        if let Some(previous) = self.buckets.last()
            && *previous.name >= *name
        {
            return Err(WriteError::BucketOrder { previous: shown(&previous.name), name: shown(name) });
        }
        self.buckets.push(BucketLayout { name: name.into(), rows: Tally::default(), root: 0 });
        Ok(())
    }

    /// Adds a row to the bucket that was begun last. Lengths in bytes; a key has 1 to [`KEY_LEN_MAX`], a value up to
    /// [`VALUE_LEN_MAX`].
    pub fn row(&mut self, key_len: usize, value_len: usize) -> Result<(), WriteError> {
        let bucket = self.buckets.last_mut().ok_or(WriteError::NoBucket)?;
        check_lengths(bucket, bucket.rows.rows, key_len, value_len)?;
        bucket.rows.add(key_len, value_len);
        self.tree.row(key_len, value_len, || key_len, &mut Unwritten)
    }

    pub fn finish(mut self) -> Result<Layout, WriteError> {
        self.close_bucket()?;
        for bucket in &self.buckets {
            self.tree.row(bucket.name.len(), BUCKET_LEN, || bucket.name.len(), &mut Unwritten)?;
        }
        let root = self.tree.finish(&mut Unwritten)?;
        Ok(Layout { page_size: self.page_size, pages: self.tree.next_id(), root, buckets: self.buckets })
    }

    fn close_bucket(&mut self) -> Result<(), WriteError> {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.root = self.tree.finish(&mut Unwritten)?;
        }
        Ok(())
    }
}

// === impl Layout ===

impl Layout {
    /// Bytes of the file that the second pass will write.
    pub fn file_len(&self) -> u64 {
        self.pages * self.page_size.bytes()
    }
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    /// Writes the pages that come before all rows. Each page is one `write_all`.
    pub fn new(out: W, layout: Layout) -> Result<Self, WriteError> {
        let mut emitter = Emitter::new(out, layout.page_size, layout.pages);
        emitter.head(layout.root, FREELIST_PAGE)?;
        let tree = Tree::new(layout.page_size, FREELIST_PAGE + 1);
        Ok(Self { layout, tree, emitter, buckets: 0, rows: Tally::default(), key: Vec::new(), failed: false })
    }

    /// Begins the next bucket, the same as in the first pass.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.guard(|writer| writer.try_bucket(name))
    }

    /// Adds a row; its key comes after the one before, and its lengths are those of the first pass.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.guard(|writer| writer.try_row(key, value))
    }

    /// Writes what is left, flushes, and gives the output back.
    ///
    /// # Errors
    /// `RowsChanged` or `BucketsChanged` when fewer came than in the first pass.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.guard(Self::try_finish)?;
        Ok(self.emitter.into_output())
    }

    /// Runs one step, none after one that failed.
    fn guard(&mut self, step: impl FnOnce(&mut Self) -> Result<(), WriteError>) -> Result<(), WriteError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(WriteError::Failed);
        }
        step(self)?;
        self.failed = false;
        Ok(())
    }

    fn try_bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.close_bucket()?;
        let first = self.layout.buckets.get(self.buckets).map(|bucket| &*bucket.name);
        if first != Some(name) {
            return Err(self.buckets_changed(shown(name)));
        }
        self.buckets += 1;
        Ok(())
    }

    fn try_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let open = self.buckets.checked_sub(1).ok_or(WriteError::NoBucket)?;
        let bucket = &self.layout.buckets[open];
        check_lengths(bucket, self.rows.rows, key.len(), value.len())?;
        if *self.key >= *key {
            return Err(WriteError::KeyOrder { bucket: shown(&bucket.name), row: self.rows.rows });
        }
        self.rows.add(key.len(), value.len());
        if self.rows.rows > bucket.rows.rows || self.rows.bytes > bucket.rows.bytes {
            return Err(rows_changed(bucket, self.rows));
        }
        self.key.clear();
        self.key.extend_from_slice(key);
        self.tree.row(key.len(), value.len(), || key.into(), &mut self.emitter)?;
        self.emitter.row(0, key, value);
        Ok(())
    }

    fn try_finish(&mut self) -> Result<(), WriteError> {
        self.close_bucket()?;
        if self.buckets < self.layout.buckets.len() {
            return Err(self.buckets_changed("none".to_owned()));
        }
        for bucket in &self.layout.buckets {
            let name = &*bucket.name;
            self.tree.row(name.len(), BUCKET_LEN, || FirstKey::of(name), &mut self.emitter)?;
            self.emitter.bucket_row(name, &encode_bucket(bucket.root));
        }
        let root = self.tree.finish(&mut self.emitter)?;
        assert_eq!(root, self.layout.root, "equal rows give equal roots");
        assert_eq!(self.tree.next_id(), self.layout.pages, "equal rows give equal files");
        Ok(self.emitter.flush()?)
    }

    fn close_bucket(&mut self) -> Result<(), WriteError> {
        let Some(open) = self.buckets.checked_sub(1) else { return Ok(()) };
        let rows = std::mem::take(&mut self.rows);
        self.key.clear();
        let bucket = &self.layout.buckets[open];
        if rows != bucket.rows {
            return Err(rows_changed(bucket, rows));
        }
        let root = self.tree.finish(&mut self.emitter)?;
        assert_eq!(root, bucket.root, "equal rows give equal roots");
        Ok(())
    }

    fn buckets_changed(&self, second: String) -> WriteError {
        let index = self.buckets;
        let first = self.layout.buckets.get(index).map_or("none".to_owned(), |bucket| shown(&bucket.name));
        WriteError::BucketsChanged { index, first, second }
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, key_len: usize, value_len: usize) {
        self.rows += 1;
        self.bytes += (key_len + value_len) as u64;
        for len in [key_len, value_len] {
            // Multiplying and rotating by turns lets every length, and its place, reach all bits.
            self.digest = (self.digest ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {} bytes", self.rows, self.bytes)
    }
}

// === impl Unwritten ===

impl<K> Pages<K> for Unwritten {
    fn leaf(&mut self, _: Extent, _: u16) -> Result<(), WriteError> {
        Ok(())
    }

    fn branch(&mut self, _: Extent, _: &[Child<K>]) -> Result<(), WriteError> {
        Ok(())
    }
}

fn check_lengths(bucket: &BucketLayout, row: u64, key_len: usize, value_len: usize) -> Result<(), WriteError> {
    if key_len == 0 || key_len > KEY_LEN_MAX {
        return Err(WriteError::KeyLen { bucket: shown(&bucket.name), row, len: key_len });
    }
    if value_len > VALUE_LEN_MAX {
        return Err(WriteError::ValueLen { bucket: shown(&bucket.name), row, len: value_len });
    }
    Ok(())
}

fn rows_changed(bucket: &BucketLayout, second: Tally) -> WriteError {
    WriteError::RowsChanged { bucket: shown(&bucket.name), first: bucket.rows, second }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests;
