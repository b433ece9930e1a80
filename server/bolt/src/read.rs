//! Reads a file that may have been made to harm: nothing in it is believed before it is checked.
//!
//! Invariants: no input panics, allocates by a number that only the file states, or is read for longer than its length times
//! [`BUCKETS_MAX`](crate::BUCKETS_MAX). Data pages carry no checksums: a flipped bit in a key or value is seen only if it breaks
//! an order or a bound. The freelist is not needed to read, and not looked at.

mod cursor;
mod error;
mod page;

use std::io;

use crate::BUCKETS_MAX;
use crate::KEY_LEN_MAX;
use crate::format::BUCKET_ELEMENT;
use crate::format::BUCKET_LEN;
use crate::format::FIRST_PAGE;
use crate::format::HEADER_LEN;
use crate::format::META;
use crate::format::META_LEN;
use crate::format::Meta;
use crate::format::MetaFault;
use crate::format::NO_FREELIST;
use crate::format::PageHeader;
use crate::format::PageSize;
use crate::format::decode_bucket;
use cursor::Cursor;
use cursor::Place;
pub use error::Fault;
pub use error::ReadError;
use page::Page;

/// Longest file that is read, in bytes: it bounds the bit a page that a walk keeps (128 MiB with pages of 1 KiB).
const FILE_LEN_MAX: u64 = 1 << 40;

/// Bytes at positions: what a file is to the reader.
pub trait ReadAt: Sync {
    /// Bytes in all.
    fn file_len(&self) -> io::Result<u64>;

    /// Fills all of `buf`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the bytes end before.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

/// What a reader accepts beyond what the format itself bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest value, in bytes; a reader keeps one. etcd has 1.5 MiB by default.
    pub value_len_max: u32,
}

/// An open file: the newest state that one of its metas describes.
pub struct Database<'a> {
    pages: Pages<'a>,
    limits: Limits,
    meta: Meta,
    buckets: Vec<Bucket>,
}

/// A bucket by name.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: Vec<u8>,
    root: Root,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    Page(u64),
    Inline { bytes: Vec<u8>, page: u64, offset: u64 },
}

/// The rows of a bucket in key order.
pub struct Rows<'a> {
    pages: Pages<'a>,
    cursor: Cursor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// The pages of a file, all of which lie inside of it.
#[derive(Clone, Copy)]
struct Pages<'a> {
    source: &'a dyn ReadAt,
    page_size: u64,
    high_water: u64,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { value_len_max: 256 << 20 }
    }
}

// === impl Database ===

impl<'a> Database<'a> {
    /// Opens with the default [`Limits`]. Bytes behind the last page are ignored, such as the checksum of an etcd snapshot.
    pub fn open(source: &'a dyn ReadAt) -> Result<Self, ReadError> {
        Self::open_within(source, Limits::default())
    }

    pub fn open_within(source: &'a dyn ReadAt, limits: Limits) -> Result<Self, ReadError> {
        let len = source.file_len().map_err(|source| ReadError::Io { offset: 0, len: 0, source })?;
        if len > FILE_LEN_MAX {
            return Err(ReadError::TooLarge { len, max: FILE_LEN_MAX });
        }
        let (page, meta) = newest_meta(source, len)?;
        let page_size = meta.page_size.bytes();
        let fault =
            |what, found| ReadError::Meta { page, offset: page * page_size, what, found, high_water: meta.high_water };
        let expected = u128::from(meta.high_water) * u128::from(page_size);
        if expected > u128::from(len) {
            return Err(ReadError::Truncated { page, expected, len });
        }
        if !(FIRST_PAGE..meta.high_water).contains(&meta.root) {
            return Err(fault("root", meta.root));
        }
        if meta.freelist != NO_FREELIST && !(FIRST_PAGE..meta.high_water).contains(&meta.freelist) {
            return Err(fault("freelist", meta.freelist));
        }
        let pages = Pages { source, page_size, high_water: meta.high_water };
        let buckets = read_buckets(&pages, meta.root)?;
        Ok(Self { pages, limits, meta, buckets })
    }

    /// In order of their names.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The rows of a bucket.
    ///
    /// # Errors
    /// `NoBucket` if there is none of that name.
    pub fn rows(&self, name: &[u8]) -> Result<Rows<'a>, ReadError> {
        let found = self.buckets.binary_search_by(|bucket| (*bucket.name).cmp(name));
        let index = found.map_err(|_| ReadError::NoBucket(String::from_utf8_lossy(name).into_owned()))?;
        let value_len_max = self.limits.value_len_max;
        let cursor = match &self.buckets[index].root {
            Root::Page(root) => Cursor::new(&self.pages, *root, value_len_max)?,
            Root::Inline { bytes, page, offset } => {
                Cursor::inline(Page::inline(bytes.clone(), *page, *offset)?, value_len_max)
            }
        };
        Ok(Rows { pages: self.pages, cursor })
    }

    pub fn page_size(&self) -> PageSize {
        self.meta.page_size
    }

    /// The transaction that wrote this state.
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Bytes of the file's pages.
    pub fn file_len(&self) -> u64 {
        self.pages.high_water * self.pages.page_size
    }
}

// === impl Bucket ===

impl Bucket {
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    fn from_row(cursor: &Cursor, place: Place, pages: &Pages<'_>) -> Result<Self, ReadError> {
        let Place { page, offset, index, .. } = place;
        let fault = |fault| ReadError::Page { page, offset, fault };
        match place.flags {
            BUCKET_ELEMENT => {}
            0 => return Err(fault(Fault::NotABucket { index })),
            flags => return Err(fault(Fault::ElementFlags { index, flags })),
        }
        let len = cursor.value.len();
        let Some((header, rest)) = cursor.value.split_first_chunk::<BUCKET_LEN>() else {
            return Err(fault(Fault::BucketLen { index, len }));
        };
        let root = match decode_bucket(header) {
            0 if rest.len() < HEADER_LEN || rest.len() as u64 > pages.page_size => {
                return Err(fault(Fault::BucketLen { index, len }));
            }
            0 => Root::Inline { bytes: rest.to_vec(), page, offset: place.value_offset + BUCKET_LEN as u64 },
            _ if !rest.is_empty() => return Err(fault(Fault::BucketLen { index, len })),
            root if (FIRST_PAGE..pages.high_water).contains(&root) => Root::Page(root),
            root => return Err(fault(Fault::Child { index, page: root, high_water: pages.high_water })),
        };
        Ok(Self { name: cursor.key.clone(), root })
    }
}

// === impl Rows ===

impl Rows<'_> {
    /// The next row, valid until the next call. None after the last row, and after an error.
    ///
    /// Keeps one row, the branches above it, and a bit for each page of the file.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        let Some(place) = self.cursor.advance(&self.pages)? else { return Ok(None) };
        let Place { page, offset, index, flags, .. } = place;
        match flags {
            0 => Ok(Some(Row { key: &self.cursor.key, value: &self.cursor.value })),
            BUCKET_ELEMENT => Err(self.end(ReadError::Page { page, offset, fault: Fault::NestedBucket { index } })),
            flags => Err(self.end(ReadError::Page { page, offset, fault: Fault::ElementFlags { index, flags } })),
        }
    }

    fn end(&mut self, error: ReadError) -> ReadError {
        self.cursor.end();
        error
    }
}

// === impl Pages ===

impl Pages<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), ReadError> {
        read_at(self.source, buf, offset)
    }
}

// === impl ReadAt ===

/// A `&dyn ReadAt` points to something sized, so it is the slice and not its bytes.
impl ReadAt for &[u8] {
    fn file_len(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What a file has in all of its buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub buckets: usize,
    pub rows: u64,
    /// Keys and values.
    pub bytes: u64,
}

/// Opens `bytes` and reads all rows of all buckets: the whole surface that a hostile file can reach, for fuzzing.
pub fn read_all(bytes: &[u8]) -> Result<Summary, ReadError> {
    let database = Database::open(&bytes)?;
    let mut summary = Summary { buckets: database.buckets().len(), ..Summary::default() };
    for bucket in database.buckets() {
        let mut rows = database.rows(bucket.name())?;
        while let Some(row) = rows.next_row()? {
            summary.rows += 1;
            summary.bytes += (row.key.len() + row.value.len()) as u64;
        }
    }
    Ok(summary)
}

/// The valid meta with the higher transaction, and its page.
fn newest_meta(source: &dyn ReadAt, len: u64) -> Result<(u64, Meta), ReadError> {
    let first = meta_at(source, len, 0, 0)?;
    // Where the second meta lies depends on the page size. If the first does not tell, it is where one tells its own offset.
    let second = match first {
        Ok(meta) => meta_at(source, len, 1, meta.page_size.bytes())?,
        Err(_) => {
            let mut second = Err(MetaFault::Missing);
            for page_size in PageSize::all() {
                match meta_at(source, len, 1, page_size.bytes())? {
                    Ok(meta) => {
                        second = Ok(meta);
                        break;
                    }
                    // A candidate that is no meta at all says less than one that is a damaged one.
                    Err(MetaFault::Missing | MetaFault::Header) => {}
                    Err(fault) => second = Err(fault),
                }
            }
            second
        }
    };
    match (first, second) {
        (Ok(first), Ok(second)) if second.txid > first.txid => Ok((1, second)),
        (Ok(first), _) => Ok((0, first)),
        (Err(_), Ok(second)) => Ok((1, second)),
        (Err(first), Err(second)) => Err(ReadError::NoMeta { first, second }),
    }
}

fn meta_at(source: &dyn ReadAt, len: u64, page: u64, offset: u64) -> Result<Result<Meta, MetaFault>, ReadError> {
    let mut bytes = [0; HEADER_LEN + META_LEN];
    if offset + bytes.len() as u64 > len {
        return Ok(Err(MetaFault::Missing));
    }
    read_at(source, &mut bytes, offset)?;
    let (mut header, mut meta) = ([0; HEADER_LEN], [0; META_LEN]);
    header.copy_from_slice(&bytes[..HEADER_LEN]);
    meta.copy_from_slice(&bytes[HEADER_LEN..]);
    let header = PageHeader::decode(&header);
    if header.flags != META || header.id != page {
        return Ok(Err(MetaFault::Header));
    }
    Ok(Meta::decode(&meta).and_then(|meta| match page {
        1 if meta.page_size.bytes() != offset => Err(MetaFault::PageSize(meta.page_size.bytes() as u32)),
        _ => Ok(meta),
    }))
}

fn read_buckets(pages: &Pages<'_>, root: u64) -> Result<Vec<Bucket>, ReadError> {
    // A bucket's value is a header, and a page at most.
    let value_len_max = BUCKET_LEN as u32 + PageSize::MAX;
    let mut cursor = Cursor::new(pages, root, value_len_max)?;
    let mut buckets = Vec::new();
    while let Some(place) = cursor.advance(pages)? {
        if buckets.len() == BUCKETS_MAX {
            return Err(ReadError::TooManyBuckets);
        }
        assert!(cursor.key.len() <= KEY_LEN_MAX, "keys were checked");
        let bucket = Bucket::from_row(&cursor, place, pages)?;
        if matches!(bucket.root, Root::Page(_)) && buckets.iter().any(|other: &Bucket| other.root == bucket.root) {
            return Err(ReadError::Page { page: place.page, offset: place.offset, fault: Fault::ReachedTwice });
        }
        buckets.push(bucket);
    }
    Ok(buckets)
}

fn read_at(source: &dyn ReadAt, buf: &mut [u8], offset: u64) -> Result<(), ReadError> {
    source.read_at(buf, offset).map_err(|error| ReadError::Io { offset, len: buf.len(), source: error })
}

#[cfg(test)]
mod tests;
