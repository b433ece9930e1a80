//! An AVL tree of ranges by (start, end); each node knows the furthest end below it, so that whole subtrees are skipped.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::watch::range::RangeEnd;

type Link<K, V> = Option<Box<Node<K, V>>>;

#[derive(Debug)]
struct Node<K, V> {
    start: Bytes,
    end: RangeEnd,
    members: BTreeMap<K, V>,
    furthest_end: RangeEnd,
    height: u8,
    left: Link<K, V>,
    right: Link<K, V>,
}

#[derive(Debug)]
pub(super) struct RangeTree<K, V> {
    root: Link<K, V>,
}

impl<K: Ord, V> RangeTree<K, V> {
    pub(super) fn new() -> Self {
        Self { root: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub(super) fn insert(&mut self, start: &Bytes, end: &RangeEnd, member: K, value: V) -> Option<V> {
        let mut replaced = None;
        self.root = Some(insert(self.root.take(), start, end, member, value, &mut replaced));
        replaced
    }

    pub(super) fn remove(&mut self, start: &Bytes, end: &RangeEnd, member: &K) -> Option<V> {
        let mut removed = None;
        self.root = remove(self.root.take(), start, end, member, &mut removed);
        removed
    }

    pub(super) fn stab<'a>(
        &'a self,
        key: &[u8],
        visit: &mut dyn FnMut(&'a K, &'a V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        stab(self.root.as_deref(), key, visit)
    }
}

fn stab<'a, K, V>(
    node: Option<&'a Node<K, V>>,
    key: &[u8],
    visit: &mut dyn FnMut(&'a K, &'a V) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some(node) = node else { return ControlFlow::Continue(()) };
    #[cfg(test)]
    tests::VISITED.with(|visited| visited.set(visited.get() + 1));
    if !node.furthest_end.is_after(key) {
        return ControlFlow::Continue(());
    }
    stab(node.left.as_deref(), key, visit)?;
    if node.start.as_ref() > key {
        return ControlFlow::Continue(());
    }
    if node.end.is_after(key) {
        for (member, value) in &node.members {
            visit(member, value)?;
        }
    }
    stab(node.right.as_deref(), key, visit)
}

fn insert<K: Ord, V>(
    link: Link<K, V>,
    start: &Bytes,
    end: &RangeEnd,
    member: K,
    value: V,
    replaced: &mut Option<V>,
) -> Box<Node<K, V>> {
    let Some(mut node) = link else {
        return Box::new(Node {
            start: start.clone(),
            end: end.clone(),
            members: BTreeMap::from([(member, value)]),
            furthest_end: end.clone(),
            height: 1,
            left: None,
            right: None,
        });
    };
    match node.order(start, end) {
        Ordering::Equal => {
            *replaced = node.members.insert(member, value);
            return node;
        }
        Ordering::Less => node.left = Some(insert(node.left.take(), start, end, member, value, replaced)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), start, end, member, value, replaced)),
    }
    node.balanced()
}

fn remove<K: Ord, V>(
    link: Link<K, V>,
    start: &Bytes,
    end: &RangeEnd,
    member: &K,
    removed: &mut Option<V>,
) -> Link<K, V> {
    let mut node = link?;
    match node.order(start, end) {
        Ordering::Less => node.left = remove(node.left.take(), start, end, member, removed),
        Ordering::Greater => node.right = remove(node.right.take(), start, end, member, removed),
        Ordering::Equal => {
            *removed = node.members.remove(member);
            if node.members.is_empty() {
                return joined(node.left.take(), node.right.take());
            }
            return Some(node);
        }
    }
    Some(node.balanced())
}

/// Splits the leftmost node off.
fn take_first<K: Ord, V>(mut node: Box<Node<K, V>>) -> (Box<Node<K, V>>, Link<K, V>) {
    match node.left.take() {
        None => {
            let rest = node.right.take();
            (node, rest)
        }
        Some(left) => {
            let (first, rest) = take_first(left);
            node.left = rest;
            (first, Some(node.balanced()))
        }
    }
}

/// The two subtrees of a removed node as one tree.
fn joined<K: Ord, V>(left: Link<K, V>, right: Link<K, V>) -> Link<K, V> {
    let Some(right) = right else { return left };
    let (mut first, rest) = take_first(right);
    first.left = left;
    first.right = rest;
    Some(first.balanced())
}

fn height<K, V>(link: &Link<K, V>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

impl<K: Ord, V> Node<K, V> {
    /// Where (start, end) lies, seen from this node.
    fn order(&self, start: &Bytes, end: &RangeEnd) -> Ordering {
        start.cmp(&self.start).then_with(|| end.cmp(&self.end))
    }

    fn refresh(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        let below = [&self.left, &self.right].into_iter().flatten().map(|child| &child.furthest_end);
        self.furthest_end = below.chain([&self.end]).max().unwrap_or(&self.end).clone();
    }

    fn balanced(mut self: Box<Self>) -> Box<Self> {
        if height(&self.left) > height(&self.right) + 1 {
            self.left = self.left.take().map(|left| {
                let leans_right = height(&left.right) > height(&left.left);
                if leans_right { left.rotated_left() } else { left }
            });
            return self.rotated_right();
        }
        if height(&self.right) > height(&self.left) + 1 {
            self.right = self.right.take().map(|right| {
                let leans_left = height(&right.left) > height(&right.right);
                if leans_left { right.rotated_right() } else { right }
            });
            return self.rotated_left();
        }
        self.refresh();
        self
    }

    fn rotated_left(mut self: Box<Self>) -> Box<Self> {
        let Some(mut top) = self.right.take() else { return self };
        self.right = top.left.take();
        self.refresh();
        top.left = Some(self);
        top.refresh();
        top
    }

    fn rotated_right(mut self: Box<Self>) -> Box<Self> {
        let Some(mut top) = self.left.take() else { return self };
        self.left = top.right.take();
        self.refresh();
        top.right = Some(self);
        top.refresh();
        top
    }
}

#[cfg(test)]
mod tests;
