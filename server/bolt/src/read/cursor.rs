//! Walks one tree in key order.
//!
//! Invariants: each page of the file is reached at most once, so a walk ends and costs no more than the file is long; keys
//! ascend strictly over the whole walk, since each page's keys lie between those of its parent; at most [`DEPTH_MAX`]
//! branches are kept. After an error the walk is over.

use super::Fault;
use super::Page;
use super::Pages;
use super::ReadError;
use super::page::Element;

/// Branches from the root down. A tree of two children a branch this high has more leaves than any file.
const DEPTH_MAX: usize = 48;

pub(super) struct Cursor {
    value_len_max: u32,
    branches: Vec<Branch>,
    leaf: Option<Leaf>,
    reached: PageSet,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Where a row was found, for errors about what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub page: u64,
    /// Of the value, in bytes from the start of the file.
    pub value_offset: u64,
    /// Of the element.
    pub offset: u64,
    pub index: u16,
    pub flags: u32,
}

/// Keys of a page: from the first, below the second.
#[derive(Clone, Default)]
struct Range {
    from: Option<Vec<u8>>,
    below: Option<Vec<u8>>,
}

struct Branch {
    page: Page,
    /// The child to go to next, and its key; none after the last.
    next: Option<(u16, Element, Vec<u8>)>,
    below: Option<Vec<u8>>,
}

struct Leaf {
    page: Page,
    index: u16,
    previous: Option<Element>,
    range: Range,
}

/// One bit for each page, set when it was reached.
struct PageSet(Vec<u64>);

// === impl Cursor ===

impl Cursor {
    /// Starts at the root page `root`, which is one of the file's.
    pub fn new(pages: &Pages<'_>, root: u64, value_len_max: u32) -> Result<Self, ReadError> {
        let mut cursor = Self::empty(value_len_max, PageSet::new(pages.high_water));
        cursor.enter(pages, root, Range::default())?;
        Ok(cursor)
    }

    /// Starts at an inline page, which has no pages below it.
    pub fn inline(page: Page, value_len_max: u32) -> Self {
        let mut cursor = Self::empty(value_len_max, PageSet(Vec::new()));
        cursor.leaf = Some(Leaf { page, index: 0, previous: None, range: Range::default() });
        cursor
    }

    fn empty(value_len_max: u32, reached: PageSet) -> Self {
        Self { value_len_max, branches: Vec::new(), leaf: None, reached, key: Vec::new(), value: Vec::new() }
    }

    /// Moves to the next row; its key and value are then in the cursor. None after the last row, and after an error.
    pub fn advance(&mut self, pages: &Pages<'_>) -> Result<Option<Place>, ReadError> {
        let result = self.try_advance(pages);
        if result.is_err() {
            self.end();
        }
        result
    }

    /// Ends the walk: what follows an error is not to be trusted.
    pub fn end(&mut self) {
        self.leaf = None;
        self.branches.clear();
    }

    fn try_advance(&mut self, pages: &Pages<'_>) -> Result<Option<Place>, ReadError> {
        loop {
            if let Some(leaf) = &mut self.leaf {
                if leaf.index < leaf.page.count {
                    return leaf.take(pages, self.value_len_max, &mut self.key, &mut self.value).map(Some);
                }
                self.leaf = None;
            }
            let Some(branch) = self.branches.last_mut() else { return Ok(None) };
            match branch.take(pages)? {
                Some((child, range)) => self.enter(pages, child, range)?,
                None => drop(self.branches.pop()),
            }
        }
    }

    fn enter(&mut self, pages: &Pages<'_>, id: u64, range: Range) -> Result<(), ReadError> {
        let page = Page::load(pages, id)?;
        let fault = |fault| ReadError::Page { page: id, offset: page.offset, fault };
        if !self.reached.insert_all(id, page.overflow) {
            return Err(fault(Fault::ReachedTwice));
        }
        if page.is_leaf {
            self.leaf = Some(Leaf { page, index: 0, previous: None, range });
            return Ok(());
        }
        if self.branches.len() == DEPTH_MAX {
            return Err(fault(Fault::Depth { max: DEPTH_MAX }));
        }
        let mut key = Vec::new();
        let element = page.element(pages, 0, None, 0)?;
        page.key(pages, &element, &mut key)?;
        range.check(&page, 0, &key)?;
        self.branches.push(Branch { page, next: Some((0, element, key)), below: range.below });
        Ok(())
    }
}

// === impl Branch ===

impl Branch {
    /// The next child and the range of its keys.
    fn take(&mut self, pages: &Pages<'_>) -> Result<Option<(u64, Range)>, ReadError> {
        let Some((index, element, from)) = self.next.take() else { return Ok(None) };
        let child = element.page;
        if index + 1 == self.page.count {
            return Ok(Some((child, Range { from: Some(from), below: self.below.clone() })));
        }
        let following = self.page.element(pages, index + 1, Some(&element), 0)?;
        let mut key = Vec::new();
        self.page.key(pages, &following, &mut key)?;
        if key <= from {
            return Err(self.page.fault(index + 1, Fault::KeyOrder { index: index + 1 }));
        }
        Range { from: None, below: self.below.clone() }.check(&self.page, index + 1, &key)?;
        self.next = Some((index + 1, following, key.clone()));
        Ok(Some((child, Range { from: Some(from), below: Some(key) })))
    }
}

// === impl Leaf ===

impl Leaf {
    fn take(
        &mut self,
        pages: &Pages<'_>,
        value_len_max: u32,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<Place, ReadError> {
        let index = self.index;
        let element = self.page.element(pages, index, self.previous.as_ref(), value_len_max)?;
        if index > 0 {
            // The key that was handed out last is the lower bound of this one; the buffers change places.
            std::mem::swap(self.range.from.get_or_insert_default(), key);
        }
        self.page.key(pages, &element, key)?;
        if index > 0 && self.range.from.as_deref().is_some_and(|from| from >= key.as_slice()) {
            return Err(self.page.fault(index, Fault::KeyOrder { index }));
        }
        self.range.check(&self.page, index, key)?;
        self.page.value(pages, &element, value)?;
        self.index += 1;
        self.previous = Some(element);
        Ok(Place {
            page: self.page.id,
            value_offset: self.page.offset + self.page.value_at(&element),
            offset: self.page.element_offset(index),
            index,
            flags: element.flags,
        })
    }
}

// === impl Range ===

impl Range {
    fn check(&self, page: &Page, index: u16, key: &[u8]) -> Result<(), ReadError> {
        let from = self.from.as_deref().is_none_or(|from| from <= key);
        let below = self.below.as_deref().is_none_or(|below| key < below);
        if from && below { Ok(()) } else { Err(page.fault(index, Fault::KeyRange { index })) }
    }
}

// === impl PageSet ===

impl PageSet {
    /// The number is one that the length of the file bounds.
    fn new(pages: u64) -> Self {
        Self(vec![0; pages.div_ceil(64) as usize])
    }

    /// False if any of the pages was in before.
    fn insert_all(&mut self, first: u64, overflow: u32) -> bool {
        (first..=first + u64::from(overflow)).all(|page| {
            let (word, bit) = (&mut self.0[(page / 64) as usize], 1 << (page % 64));
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }
}
