//! The shape of a bucket's B+tree, built from rows in key order: which rows share a page, which pages a parent, and the page ids.
//!
//! Invariants: the shape depends on lengths alone, so both passes get the same. Ids are given in the order in which pages are
//! handed out, children before their parent, so the file is written without seeking and only the open pages are kept. Every
//! branch page has at least two children: bbolt panics when it deletes from a branch that has one.

use super::WriteError;
use crate::format::ELEMENT_LEN;
use crate::format::HEADER_LEN;
use crate::format::PageSize;

/// The first key of a page, as far as a pass needs it.
pub(super) trait FirstKey {
    fn of(key: &[u8]) -> Self;
    fn len(&self) -> usize;
}

/// A length is all that the first pass has.
impl FirstKey for usize {
    fn of(key: &[u8]) -> Self {
        key.len()
    }

    fn len(&self) -> usize {
        *self
    }
}

impl FirstKey for Box<[u8]> {
    fn of(key: &[u8]) -> Self {
        key.into()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Where a page lies: from page `id` on, `overflow` pages more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub id: u64,
    pub overflow: u32,
}

#[derive(Debug)]
pub(super) struct Child<K> {
    pub key: K,
    pub page: u64,
}

/// Takes the pages as they are complete, in the order of their ids.
pub(super) trait Pages<K> {
    /// The rows since the last leaf are one page.
    fn leaf(&mut self, extent: Extent, count: u16) -> Result<(), WriteError>;

    fn branch(&mut self, extent: Extent, children: &[Child<K>]) -> Result<(), WriteError>;
}

pub(super) struct Tree<K> {
    page_size: u64,
    next_id: u64,
    leaf: Leaf<K>,
    /// Branch pages by height, the parents of leaves first.
    levels: Vec<Level<K>>,
}

/// The open leaf.
struct Leaf<K> {
    first: Option<K>,
    count: u16,
    used: u64,
    /// The page size, or what a first row larger than that rounds up to.
    capacity: u64,
}

/// The branch pages of one height that are not handed out yet.
struct Level<K> {
    /// Full, kept back until the open one has two children.
    full: Vec<Child<K>>,
    open: Vec<Child<K>>,
    open_len: u64,
}

// === impl Tree ===

impl<K: FirstKey> Tree<K> {
    pub fn new(page_size: PageSize, next_id: u64) -> Self {
        let leaf = Leaf { first: None, count: 0, used: HEADER_LEN as u64, capacity: page_size.bytes() };
        Self { page_size: page_size.bytes(), next_id, leaf, levels: Vec::new() }
    }

    /// The id of the next page: the number of pages so far, those before the first tree included.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Makes room for one more row. The row belongs to the leaf that is handed out next after this call.
    pub fn row(
        &mut self,
        key_len: usize,
        value_len: usize,
        first: impl FnOnce() -> K,
        pages: &mut impl Pages<K>,
    ) -> Result<(), WriteError> {
        let len = (ELEMENT_LEN + key_len + value_len) as u64;
        if self.leaf.count > 0 && self.leaf.used + len > self.leaf.capacity {
            self.close_leaf(pages)?;
        }
        if self.leaf.count == 0 {
            self.leaf.first = Some(first());
            self.leaf.capacity = (self.leaf.used + len).next_multiple_of(self.page_size);
        }
        self.leaf.count += 1;
        self.leaf.used += len;
        assert!(self.leaf.used <= self.leaf.capacity, "a leaf is within its pages");
        Ok(())
    }

    /// Hands out what is open and returns the root page; a tree without rows is one empty leaf. The next row begins a new tree.
    pub fn finish(&mut self, pages: &mut impl Pages<K>) -> Result<u64, WriteError> {
        if self.leaf.count == 0 {
            assert!(self.levels.is_empty(), "a leaf is open from the first row on");
            let extent = self.extent(self.leaf.used);
            pages.leaf(extent, 0)?;
            return Ok(extent.id);
        }
        self.close_leaf(pages)?;
        for height in 0.. {
            let level = &mut self.levels[height];
            if let ([child], []) = (level.open.as_slice(), level.full.as_slice()) {
                let root = child.page;
                assert_eq!(height + 1, self.levels.len(), "the root has no page above it");
                self.levels.clear();
                return Ok(root);
            }
            level.leave_none_alone();
            for children in [std::mem::take(&mut level.full), std::mem::take(&mut level.open)] {
                if !children.is_empty() {
                    let parent = self.hand_out(children, pages)?;
                    self.adopt(height + 1, parent, pages)?;
                }
            }
        }
        unreachable!("each height has fewer pages than the one below")
    }

    fn close_leaf(&mut self, pages: &mut impl Pages<K>) -> Result<(), WriteError> {
        let extent = self.extent(self.leaf.used);
        let count = std::mem::take(&mut self.leaf.count);
        self.leaf.used = HEADER_LEN as u64;
        let key = self.leaf.first.take().expect("a leaf with rows has a first key");
        pages.leaf(extent, count)?;
        self.adopt(0, Child { key, page: extent.id }, pages)
    }

    /// Adds a page to the open parent at `height`, and the parent to its own when that completes it.
    fn adopt(&mut self, height: usize, child: Child<K>, pages: &mut impl Pages<K>) -> Result<(), WriteError> {
        let mut adopted = Some(child);
        for height in height.. {
            let Some(child) = adopted.take() else { return Ok(()) };
            if height == self.levels.len() {
                self.levels.push(Level { full: Vec::new(), open: Vec::new(), open_len: HEADER_LEN as u64 });
            }
            if let Some(complete) = self.levels[height].push(child, self.page_size) {
                adopted = Some(self.hand_out(complete, pages)?);
            }
        }
        unreachable!("the heights end where nothing is complete")
    }

    fn hand_out(&mut self, mut children: Vec<Child<K>>, pages: &mut impl Pages<K>) -> Result<Child<K>, WriteError> {
        assert!(children.len() >= 2, "a branch has two children at least");
        let len = HEADER_LEN as u64 + children.iter().map(Child::len).sum::<u64>();
        let extent = self.extent(len);
        pages.branch(extent, &children)?;
        Ok(Child { key: children.swap_remove(0).key, page: extent.id })
    }

    fn extent(&mut self, len: u64) -> Extent {
        let pages = len.div_ceil(self.page_size);
        let extent =
            Extent { id: self.next_id, overflow: u32::try_from(pages - 1).expect("rows are below 2^32 bytes") };
        self.next_id += pages;
        extent
    }
}

// === impl Level ===

impl<K: FirstKey> Level<K> {
    /// Adds a child and returns the children of a page that is complete by that.
    fn push(&mut self, child: Child<K>, page_size: u64) -> Option<Vec<Child<K>>> {
        if self.open.len() >= 2 && self.open_len + child.len() > page_size {
            assert!(self.full.is_empty(), "a full page goes before the next one fills");
            self.full = std::mem::take(&mut self.open);
            self.open_len = HEADER_LEN as u64;
        }
        self.open_len += child.len();
        self.open.push(child);
        (self.open.len() == 2 && !self.full.is_empty()).then(|| std::mem::take(&mut self.full))
    }

    /// At the end: a child that would be alone in its page gets a sibling from the page before, or joins it.
    fn leave_none_alone(&mut self) {
        if self.open.len() != 1 || self.full.is_empty() {
            return;
        }
        if self.full.len() > 2 {
            let sibling = self.full.pop();
            self.open.splice(0..0, sibling);
        } else {
            self.full.append(&mut self.open);
        }
    }
}

// === impl Child ===

impl<K: FirstKey> Child<K> {
    fn len(&self) -> u64 {
        (ELEMENT_LEN + self.key.len()) as u64
    }
}

#[cfg(test)]
mod tests;
