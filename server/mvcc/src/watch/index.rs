//! Who watches a key: a map for single keys, a balanced tree for ranges. A look-up costs what it finds, not what there is.

mod tree;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use bytes::Bytes;

use super::range::KeyRange;
use tree::RangeTree;

/// Ranges with members `K -> V`. Several members may share a range.
#[derive(Debug)]
pub(super) struct Index<K, V> {
    keys: HashMap<Bytes, BTreeMap<K, V>>,
    ranges: RangeTree<K, V>,
}

impl<K: Ord, V> Index<K, V> {
    pub(super) fn new() -> Self {
        Self { keys: HashMap::new(), ranges: RangeTree::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    pub(super) fn insert(&mut self, range: &KeyRange, member: K, value: V) {
        let replaced = match range {
            KeyRange::Key(key) => self.keys.entry(key.clone()).or_default().insert(member, value),
            KeyRange::Range(start, end) => self.ranges.insert(start, end, member, value),
        };
        assert!(replaced.is_none(), "a watcher was registered twice");
    }

    pub(super) fn remove(&mut self, range: &KeyRange, member: &K) {
        let removed = match range {
            KeyRange::Key(key) => {
                let members = self.keys.get_mut(key);
                let removed = members.and_then(|members| members.remove(member));
                if self.keys.get(key).is_some_and(BTreeMap::is_empty) {
                    self.keys.remove(key);
                }
                removed
            }
            KeyRange::Range(start, end) => self.ranges.remove(start, end, member),
        };
        assert!(removed.is_some(), "a watcher was registered nowhere");
    }

    /// Visits every member whose range holds `key`, each once, until the visitor breaks.
    pub(super) fn stab<'a>(
        &'a self,
        key: &[u8],
        visit: &mut dyn FnMut(&'a K, &'a V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(members) = self.keys.get(key) {
            for (member, value) in members {
                visit(member, value)?;
            }
        }
        self.ranges.stab(key, visit)
    }
}
