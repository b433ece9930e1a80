//! A sorted map of keys that knows how many of them exist: a B+tree of three levels, each node with the sum of what is below it.
//!
//! Three levels of 128 hold two million keys; beyond, the top level grows. A range is counted by its border leaves and the sums between.
//! Invariants: no leaf and no branch is empty; `first` of a node is not above its first key, and above the last key before it; a
//! sum's `live` is exact, its `newest` never too low.

use std::ops::Bound;

use super::key_index::KeyIndex;

/// Entries of a leaf and leaves of a branch, at most. Few in tests, so that a few keys make many nodes.
const FULL: usize = if cfg!(test) { 4 } else { 128 };

#[derive(Debug, Default)]
pub(super) struct Tree {
    branches: Vec<Branch>,
    len: usize,
    live: usize,
}

#[derive(Debug)]
struct Branch {
    first: Box<[u8]>,
    leaves: Vec<Leaf>,
    sum: Sum,
}

#[derive(Debug)]
struct Leaf {
    first: Box<[u8]>,
    entries: Vec<Entry>,
    sum: Sum,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    pub(super) index: KeyIndex,
}

/// What is said of all entries below a node.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    /// Keys that exist now.
    live: usize,
    /// The main revision of the latest change. From there on a key exists if it does now.
    newest: i64,
}

/// Where an entry stands, or would; in key order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    branch: usize,
    leaf: usize,
    entry: usize,
}

// === impl Sum ===

impl Sum {
    fn of(index: &KeyIndex) -> Self {
        Self { live: usize::from(index.latest().is_some()), newest: index.newest() }
    }

    fn add(self, other: Self) -> Self {
        Self { live: self.live + other.live, newest: self.newest.max(other.newest) }
    }
}

// === impl Leaf ===

impl Leaf {
    fn new(entries: Vec<Entry>) -> Self {
        let first = entries[0].key.clone();
        let mut leaf = Self { first, entries, sum: Sum::default() };
        leaf.sum_up();
        leaf
    }

    fn sum_up(&mut self) {
        self.sum = self.entries.iter().fold(Sum::default(), |sum, entry| sum.add(Sum::of(&entry.index)));
    }
}

// === impl Branch ===

impl Branch {
    fn new(leaves: Vec<Leaf>) -> Self {
        let first = leaves[0].first.clone();
        let mut branch = Self { first, leaves, sum: Sum::default() };
        branch.sum_up();
        branch
    }

    fn sum_up(&mut self) {
        self.sum = self.leaves.iter().fold(Sum::default(), |sum, leaf| sum.add(leaf.sum));
    }
}

/// Makes room for one more at `at`: what is cut off goes into a node of its own. Behind the last one only that is new, so that keys that come
/// in order leave full nodes behind.
fn cut<T>(full: &mut Vec<T>, at: usize) -> Vec<T> {
    let from = if at == full.len() { at } else { full.len() / 2 };
    full.split_off(from)
}

// === impl Tree ===

impl Tree {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keys that exist now.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Where the key is, or where it would come.
    fn find(&self, key: &[u8]) -> Result<Place, Place> {
        let branch = self.branches.partition_point(|branch| *branch.first <= *key).saturating_sub(1);
        let Some(node) = self.branches.get(branch) else { return Err(Place::default()) };
        let leaf = node.leaves.partition_point(|leaf| *leaf.first <= *key).saturating_sub(1);
        let found = node.leaves[leaf].entries.binary_search_by(|entry| (*entry.key).cmp(key));
        let place = |entry| Place { branch, leaf, entry };
        found.map(place).map_err(place)
    }

    /// The first place at or behind a bound.
    pub(super) fn from(&self, bound: Bound<&[u8]>) -> Place {
        match bound {
            Bound::Unbounded => Place::default(),
            Bound::Included(key) => self.find(key).unwrap_or_else(|place| place),
            Bound::Excluded(key) => {
                self.find(key).map(|place| Place { entry: place.entry + 1, ..place }).unwrap_or_else(|place| place)
            }
        }
    }

    /// Behind all entries.
    pub(super) fn end(&self) -> Place {
        Place { branch: self.branches.len(), leaf: 0, entry: 0 }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&KeyIndex> {
        let place = self.find(key).ok()?;
        Some(&self.branches[place.branch].leaves[place.leaf].entries[place.entry].index)
    }

    /// Changes what is known of a key; `None` if nothing is.
    pub(super) fn change<T>(&mut self, key: &[u8], change: impl FnOnce(&mut KeyIndex) -> T) -> Option<T> {
        let place = self.find(key).ok()?;
        let branch = &mut self.branches[place.branch];
        let leaf = &mut branch.leaves[place.leaf];
        let index = &mut leaf.entries[place.entry].index;
        let before = Sum::of(index);
        let result = change(index);
        let after = Sum::of(index);
        for sum in [&mut leaf.sum, &mut branch.sum] {
            sum.live = sum.live - before.live + after.live;
            sum.newest = sum.newest.max(after.newest);
        }
        self.live = self.live - before.live + after.live;
        Some(result)
    }

    /// # Panics
    /// The key is there already.
    pub(super) fn insert(&mut self, key: Box<[u8]>, index: KeyIndex) {
        let place = self.find(&key).expect_err("the key is new");
        let sum = Sum::of(&index);
        self.len += 1;
        self.live += sum.live;
        if self.branches.is_empty() {
            self.branches.push(Branch::new(vec![Leaf::new(vec![Entry { key, index }])]));
            return;
        }
        let place = self.make_room(place, &key);
        let branch = &mut self.branches[place.branch];
        let leaf = &mut branch.leaves[place.leaf];
        if place.entry == 0 && key < leaf.first {
            leaf.first = key.clone();
            if key < branch.first {
                branch.first = key.clone();
            }
        }
        leaf.entries.insert(place.entry, Entry { key, index });
        leaf.sum = leaf.sum.add(sum);
        branch.sum = branch.sum.add(sum);
    }

    /// Splits the leaf at `place`, and its branch, if they are full; where the key's place is then.
    fn make_room(&mut self, place: Place, key: &[u8]) -> Place {
        let branch = &mut self.branches[place.branch];
        if branch.leaves[place.leaf].entries.len() < FULL {
            return place;
        }
        if branch.leaves.len() == FULL {
            let behind = cut(&mut branch.leaves, place.leaf + 1);
            if !behind.is_empty() {
                branch.sum_up();
                self.branches.insert(place.branch + 1, Branch::new(behind));
                let place = self.find(key).expect_err("the key is new");
                return self.make_room(place, key);
            }
            // The branch stays as it is: the leaf's other part begins the next one.
            return self.split_last_leaf(place, key);
        }
        let leaf = &mut branch.leaves[place.leaf];
        let mut behind = cut(&mut leaf.entries, place.entry);
        if behind.is_empty() {
            // The key comes behind the whole leaf: before the next leaf, or in a new one.
            behind.reserve(1);
            let empty = Leaf { first: key.into(), entries: behind, sum: Sum::default() };
            branch.leaves.insert(place.leaf + 1, empty);
            return Place { leaf: place.leaf + 1, entry: 0, ..place };
        }
        leaf.sum_up();
        branch.leaves.insert(place.leaf + 1, Leaf::new(behind));
        self.find(key).expect_err("the key is new")
    }

    /// Splits the last leaf of a full branch into a branch of its own.
    fn split_last_leaf(&mut self, place: Place, key: &[u8]) -> Place {
        let branch = &mut self.branches[place.branch];
        let leaf = &mut branch.leaves[place.leaf];
        let behind = cut(&mut leaf.entries, place.entry);
        if behind.is_empty() {
            let empty = Leaf { first: key.into(), entries: behind, sum: Sum::default() };
            let next = Branch { first: key.into(), leaves: vec![empty], sum: Sum::default() };
            self.branches.insert(place.branch + 1, next);
            return Place { branch: place.branch + 1, leaf: 0, entry: 0 };
        }
        leaf.sum_up();
        branch.sum_up();
        self.branches.insert(place.branch + 1, Branch::new(vec![Leaf::new(behind)]));
        self.find(key).expect_err("the key is new")
    }

    /// The entries from one place to another, a leaf at a time.
    pub(super) fn leaves(&self, from: Place, to: Place) -> impl Iterator<Item = &[Entry]> {
        let branches = self.branches.iter().enumerate().skip(from.branch);
        let leaves = branches.flat_map(move |(branch, node)| {
            let skipped = if branch == from.branch { from.leaf } else { 0 };
            node.leaves.iter().enumerate().skip(skipped).map(move |(leaf, node)| (branch, leaf, node))
        });
        leaves.take_while(move |(branch, leaf, _)| (*branch, *leaf) <= (to.branch, to.leaf)).map(
            move |(branch, leaf, node)| {
                let start = if (branch, leaf) == (from.branch, from.leaf) { from.entry } else { 0 };
                let all = node.entries.len();
                let end = if (branch, leaf) == (to.branch, to.leaf) { to.entry } else { all };
                &node.entries[start.min(all)..end.max(start.min(all))]
            },
        )
    }

    /// How many keys between two places exist at main revision `at`; `None` if more than `patience` of them had to be looked at one by one,
    /// because they have changed since.
    pub(super) fn count(&self, from: Place, to: Place, at: i64, patience: usize) -> Option<usize> {
        let (mut count, mut looked_at) = (0, 0);
        let mut place = from;
        while place < to {
            let Some(branch) = self.branches.get(place.branch) else { break };
            let (whole, next) =
                (place.leaf == 0 && place.entry == 0, Place { branch: place.branch + 1, leaf: 0, entry: 0 });
            if whole && next <= to && branch.sum.newest <= at {
                count += branch.sum.live;
                place = next;
                continue;
            }
            let Some(leaf) = branch.leaves.get(place.leaf) else {
                place = next;
                continue;
            };
            let next = Place { leaf: place.leaf + 1, entry: 0, ..place };
            if place.entry == 0 && next <= to && leaf.sum.newest <= at {
                count += leaf.sum.live;
            } else {
                let end = if next <= to { leaf.entries.len() } else { to.entry };
                let entries = &leaf.entries[place.entry.min(end)..end];
                looked_at += entries.len();
                if looked_at > patience {
                    return None;
                }
                count += entries.iter().filter(|entry| entry.index.get(at).is_some()).count();
            }
            place = next;
        }
        Some(count)
    }

    /// Shows the entries from a place on to `keep`, which changes them and says which stay, until it says stop; one that it stops at it has
    /// decided on. The key of the last entry shown, if it was told to stop.
    pub(super) fn retain_from(&mut self, from: Place, keep: &mut dyn FnMut(&mut Entry) -> Keep) -> Option<Box<[u8]>> {
        let (mut branch, mut leaf, mut entry) = (from.branch, from.leaf, from.entry);
        let mut stopped = None;
        while stopped.is_none() && branch < self.branches.len() {
            let node = &mut self.branches[branch];
            let Some(entries) = node.leaves.get_mut(leaf).map(|leaf| &mut leaf.entries) else {
                (branch, leaf, entry) = (branch + 1, 0, 0);
                continue;
            };
            let before = entries.len();
            let mut at = 0;
            entries.retain_mut(|each| {
                at += 1;
                if at <= entry || stopped.is_some() {
                    return true;
                }
                let kept = keep(each);
                if kept.stop {
                    stopped = Some(each.key.clone());
                }
                kept.stays
            });
            self.len -= before - entries.len();
            entry = 0;
            // What became empty goes; what became small joins the one before it.
            let joined = self.settle(branch, leaf);
            (branch, leaf) = match joined {
                Settled::Stays => (branch, leaf + 1),
                Settled::Gone => (branch, leaf),
                Settled::BranchGone => (branch, 0),
            };
        }
        stopped
    }

    /// Puts sums and shape right after entries of a leaf have changed or gone.
    fn settle(&mut self, branch: usize, leaf: usize) -> Settled {
        let node = &mut self.branches[branch];
        let live_before = node.sum.live;
        let mut settled = Settled::Stays;
        if node.leaves[leaf].entries.is_empty() {
            node.leaves.remove(leaf);
            settled = Settled::Gone;
        } else if leaf > 0 && node.leaves[leaf - 1].entries.len() + node.leaves[leaf].entries.len() <= FULL / 2 {
            let mut gone = node.leaves.remove(leaf);
            let previous = &mut node.leaves[leaf - 1];
            previous.entries.append(&mut gone.entries);
            previous.sum_up();
            settled = Settled::Gone;
        } else {
            node.leaves[leaf].sum_up();
        }
        node.sum_up();
        self.live = self.live - live_before + node.sum.live;
        if node.leaves.is_empty() {
            self.branches.remove(branch);
            return Settled::BranchGone;
        }
        settled
    }

    /// Checks the invariants, for tests.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut last: Option<&[u8]> = None;
        let (mut len, mut live) = (0, 0);
        for branch in &self.branches {
            assert!(!branch.leaves.is_empty() && branch.leaves.len() <= FULL);
            assert!(last.is_none_or(|last| last < &branch.first[..]) && branch.first <= branch.leaves[0].first);
            for leaf in &branch.leaves {
                assert!(!leaf.entries.is_empty() && leaf.entries.len() <= FULL);
                assert!(last.is_none_or(|last| last < &leaf.first[..]) && leaf.first <= leaf.entries[0].key);
                for entry in &leaf.entries {
                    assert!(last.is_none_or(|last| last < &entry.key[..]));
                    last = Some(&entry.key);
                }
                let exact = leaf.entries.iter().fold(Sum::default(), |sum, entry| sum.add(Sum::of(&entry.index)));
                assert!(leaf.sum.live == exact.live && leaf.sum.newest >= exact.newest);
                len += leaf.entries.len();
            }
            let exact = branch.leaves.iter().fold(Sum::default(), |sum, leaf| sum.add(leaf.sum));
            assert!(branch.sum.live == exact.live && branch.sum.newest >= exact.newest);
            live += exact.live;
        }
        assert_eq!((self.len, self.live), (len, live));
    }
}

/// What is to become of an entry, and whether to go on behind it.
pub(super) struct Keep {
    pub(super) stays: bool,
    pub(super) stop: bool,
}

/// Where the next leaf is after one has been settled.
enum Settled {
    Stays,
    Gone,
    BranchGone,
}
