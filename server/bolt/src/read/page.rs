//! One page: a header that was checked, and its bytes by offset.
//!
//! Invariants: nothing outside of the page is handed out; at most [`PREFIX_LEN_MAX`] bytes of it are kept, what lies behind is
//! read when asked for; elements are handed out in turn, and their keys and values never overlap, so that reading all of a
//! page costs no more than its length.

use super::Fault;
use super::Pages;
use super::ReadError;
use crate::KEY_LEN_MAX;
use crate::format::BRANCH;
use crate::format::BranchElement;
use crate::format::ELEMENT_LEN;
use crate::format::FIRST_PAGE;
use crate::format::HEADER_LEN;
use crate::format::LEAF;
use crate::format::LeafElement;
use crate::format::PageHeader;

/// Bytes of one page that are kept in memory.
const PREFIX_LEN_MAX: u64 = 128 << 10;

pub(super) struct Page {
    /// For an inline page, the page that it lies in.
    pub id: u64,
    /// Where it starts in the file.
    pub offset: u64,
    pub is_leaf: bool,
    pub count: u16,
    /// 0 for an inline page.
    pub overflow: u32,
    len: u64,
    prefix: Vec<u8>,
}

/// A key, and a value or a child, by their place in the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub flags: u32,
    /// The child of a branch element.
    pub page: u64,
    key_at: u64,
    key_len: usize,
    value_len: usize,
    end: u64,
}

// === impl Page ===

impl Page {
    pub fn load(pages: &Pages<'_>, id: u64) -> Result<Self, ReadError> {
        assert!((FIRST_PAGE..pages.high_water).contains(&id), "page ids are checked where they are read");
        let offset = id * pages.page_size;
        let fault = |fault| ReadError::Page { page: id, offset, fault };
        let mut prefix = vec![0; pages.page_size as usize];
        pages.read_at(&mut prefix, offset)?;
        let header = header(&prefix);
        if header.id != id {
            return Err(fault(Fault::Id(header.id)));
        }
        let overflow = header.overflow;
        if u64::from(overflow) >= pages.high_water - id {
            return Err(fault(Fault::Overflow { overflow, high_water: pages.high_water }));
        }
        let len = (1 + u64::from(overflow)) * pages.page_size;
        let mut page = Self::checked(header, id, offset, len, prefix)?;
        if len > pages.page_size {
            let first = page.prefix.len();
            page.prefix.resize(len.min(PREFIX_LEN_MAX) as usize, 0);
            pages.read_at(&mut page.prefix[first..], offset + first as u64)?;
        }
        Ok(page)
    }

    /// A page inside the value of a bucket; `id` and `offset` say where that lies.
    pub fn inline(bytes: Vec<u8>, id: u64, offset: u64) -> Result<Self, ReadError> {
        let fault = |fault| ReadError::Page { page: id, offset, fault };
        assert!(bytes.len() >= HEADER_LEN, "an inline page has a header");
        let header = header(&bytes);
        if header.flags != LEAF {
            return Err(fault(Fault::Flags(header.flags)));
        }
        if header.overflow != 0 {
            return Err(fault(Fault::Overflow { overflow: header.overflow, high_water: 0 }));
        }
        Self::checked(header, id, offset, bytes.len() as u64, bytes)
    }

    fn checked(header: PageHeader, id: u64, offset: u64, len: u64, prefix: Vec<u8>) -> Result<Self, ReadError> {
        let fault = |fault| ReadError::Page { page: id, offset, fault };
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            flags => return Err(fault(Fault::Flags(flags))),
        };
        let count = header.count;
        if HEADER_LEN as u64 + ELEMENT_LEN as u64 * u64::from(count) > len {
            return Err(fault(Fault::Count { count, len }));
        }
        if count == 0 && !is_leaf {
            return Err(fault(Fault::NoChildren));
        }
        Ok(Self { id, offset, is_leaf, count, overflow: header.overflow, len, prefix })
    }

    /// An error that names the element `index` of this page.
    pub fn fault(&self, index: u16, fault: Fault) -> ReadError {
        ReadError::Page { page: self.id, offset: self.element_offset(index), fault }
    }

    /// Where the element `index` lies in the file.
    pub fn element_offset(&self, index: u16) -> u64 {
        self.offset + element_at(index)
    }

    /// The element `index`; `previous` is the one before it.
    pub fn element(
        &self,
        pages: &Pages<'_>,
        index: u16,
        previous: Option<&Element>,
        value_len_max: u32,
    ) -> Result<Element, ReadError> {
        assert!(index < self.count, "elements are asked for by count");
        let mut bytes = [0; ELEMENT_LEN];
        self.read(pages, element_at(index), &mut bytes)?;
        let (flags, pos, key_len, value_len, page) = if self.is_leaf {
            let element = LeafElement::decode(&bytes);
            (element.flags, element.pos, element.key_len, element.value_len, 0)
        } else {
            let element = BranchElement::decode(&bytes);
            (0, element.pos, element.key_len, 0, element.page)
        };
        if key_len == 0 || key_len as usize > KEY_LEN_MAX {
            return Err(self.fault(index, Fault::KeyLen { index, len: key_len }));
        }
        if value_len > value_len_max {
            return Err(self.fault(index, Fault::ValueLen { index, len: value_len, max: value_len_max }));
        }
        let key_at = element_at(index) + u64::from(pos);
        let end = key_at + u64::from(key_len) + u64::from(value_len);
        let start = previous.map_or(element_at(self.count), |previous| previous.end);
        if key_at < start || end > self.len {
            return Err(self.fault(index, Fault::Bounds { index }));
        }
        if !self.is_leaf && !(FIRST_PAGE..pages.high_water).contains(&page) {
            return Err(self.fault(index, Fault::Child { index, page, high_water: pages.high_water }));
        }
        Ok(Element { flags, page, key_at, key_len: key_len as usize, value_len: value_len as usize, end })
    }

    /// Replaces what is in `key`.
    pub fn key(&self, pages: &Pages<'_>, element: &Element, key: &mut Vec<u8>) -> Result<(), ReadError> {
        key.resize(element.key_len, 0);
        self.read(pages, element.key_at, key)
    }

    /// Replaces what is in `value`.
    pub fn value(&self, pages: &Pages<'_>, element: &Element, value: &mut Vec<u8>) -> Result<(), ReadError> {
        value.resize(element.value_len, 0);
        self.read(pages, self.value_at(element), value)
    }

    /// Where the element's value starts, from the start of the page.
    pub fn value_at(&self, element: &Element) -> u64 {
        element.key_at + element.key_len as u64
    }

    fn read(&self, pages: &Pages<'_>, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = at + buf.len() as u64;
        assert!(end <= self.len, "what is read lies inside of the page");
        if end <= self.prefix.len() as u64 {
            buf.copy_from_slice(&self.prefix[at as usize..end as usize]);
            return Ok(());
        }
        pages.read_at(buf, self.offset + at)
    }
}

fn header(bytes: &[u8]) -> PageHeader {
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&bytes[..HEADER_LEN]);
    PageHeader::decode(&header)
}

fn element_at(index: u16) -> u64 {
    HEADER_LEN as u64 + ELEMENT_LEN as u64 * u64::from(index)
}
