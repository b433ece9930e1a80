//! Turns the pages of the second pass into bytes.
//!
//! Invariant: pages come in the order of their ids, so that page `n` is written when `n` pages were written before it.

use std::io;
use std::io::Write;

use super::WriteError;
use super::tree::Child;
use super::tree::Extent;
use super::tree::Pages;
use crate::format::BRANCH;
use crate::format::BUCKET_ELEMENT;
use crate::format::BranchElement;
use crate::format::ELEMENT_LEN;
use crate::format::FREELIST;
use crate::format::HEADER_LEN;
use crate::format::LEAF;
use crate::format::LeafElement;
use crate::format::META;
use crate::format::Meta;
use crate::format::PageHeader;
use crate::format::PageSize;

pub(super) struct Emitter<W> {
    out: W,
    page_size: PageSize,
    /// Pages of the whole file, as the metas say.
    pages: u64,
    written: u64,
    /// The rows of the open leaf: flags, key length, value length.
    rows: Vec<(u32, u32, u32)>,
    /// Their keys and values.
    data: Vec<u8>,
    /// The page being assembled.
    page: Vec<u8>,
}

// === impl Emitter ===

impl<W: Write> Emitter<W> {
    pub fn new(out: W, page_size: PageSize, pages: u64) -> Self {
        Self { out, page_size, pages, written: 0, rows: Vec::new(), data: Vec::new(), page: Vec::new() }
    }

    /// The metas and an empty freelist. Both metas say the same, so that either will do; the first is the newer.
    pub fn head(&mut self, root: u64, freelist: u64) -> Result<(), WriteError> {
        for (id, txid) in [(0, 2), (1, 1)] {
            let meta = Meta { page_size: self.page_size, root, freelist, high_water: self.pages, txid };
            self.begin(Extent { id, overflow: 0 }, META, 0)?;
            self.page.extend_from_slice(&meta.encode());
            self.write()?;
        }
        self.begin(Extent { id: freelist, overflow: 0 }, FREELIST, 0)?;
        self.write()
    }

    /// Adds a row to the open leaf.
    pub fn row(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.rows.push((flags, len_u32(key), len_u32(value)));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    pub fn bucket_row(&mut self, name: &[u8], value: &[u8]) {
        self.row(BUCKET_ELEMENT, name, value);
    }

    pub fn flush(&mut self) -> io::Result<()> {
        assert_eq!(self.written, self.pages, "the file ends where the metas say");
        self.out.flush()
    }

    pub fn into_output(self) -> W {
        self.out
    }

    fn begin(&mut self, extent: Extent, flags: u16, count: usize) -> Result<(), WriteError> {
        assert_eq!(extent.id, self.written, "pages come in the order of their ids");
        if extent.id + u64::from(extent.overflow) >= self.pages {
            return Err(WriteError::PagesChanged { pages: self.pages });
        }
        let count = u16::try_from(count).expect("a page holds fewer than 65536 elements");
        let header = PageHeader { id: extent.id, flags, count, overflow: extent.overflow };
        self.page.clear();
        self.page.extend_from_slice(&header.encode());
        self.written += 1 + u64::from(extent.overflow);
        Ok(())
    }

    /// Pads the page that was assembled to whole pages and writes it.
    fn write(&mut self) -> Result<(), WriteError> {
        let len = self.page.len().next_multiple_of(self.page_size.bytes() as usize);
        self.page.resize(len, 0);
        Ok(self.out.write_all(&self.page)?)
    }
}

impl<W: Write> Pages<Box<[u8]>> for Emitter<W> {
    fn leaf(&mut self, extent: Extent, count: u16) -> Result<(), WriteError> {
        assert_eq!(usize::from(count), self.rows.len(), "a leaf has the rows that came since the last");
        self.begin(extent, LEAF, self.rows.len())?;
        let mut data_at = HEADER_LEN + ELEMENT_LEN * self.rows.len();
        for (flags, key_len, value_len) in self.rows.drain(..) {
            let pos = position(data_at, self.page.len());
            self.page.extend_from_slice(&LeafElement { flags, pos, key_len, value_len }.encode());
            data_at += key_len as usize + value_len as usize;
        }
        self.page.extend_from_slice(&self.data);
        self.data.clear();
        assert_eq!(data_at, self.page.len(), "positions end where the data does");
        self.write()
    }

    fn branch(&mut self, extent: Extent, children: &[Child<Box<[u8]>>]) -> Result<(), WriteError> {
        self.begin(extent, BRANCH, children.len())?;
        let mut data_at = HEADER_LEN + ELEMENT_LEN * children.len();
        for Child { key, page } in children {
            assert!(*page < extent.id, "children come before their parent");
            let pos = position(data_at, self.page.len());
            self.page.extend_from_slice(&BranchElement { pos, key_len: len_u32(key), page: *page }.encode());
            data_at += key.len();
        }
        children.iter().for_each(|child| self.page.extend_from_slice(&child.key));
        assert_eq!(data_at, self.page.len(), "positions end where the data does");
        self.write()
    }
}

/// From an element to its key.
fn position(data_at: usize, element_at: usize) -> u32 {
    u32::try_from(data_at - element_at).expect("rows are below 2^32 bytes")
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("lengths were checked")
}
