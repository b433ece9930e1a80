use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

thread_local! {
    pub(super) static VISITED: Cell<usize> = const { Cell::new(0) };
}

fn found(tree: &RangeTree<usize, ()>, key: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let _ = tree.stab(key, &mut |member, ()| {
        found.push(*member);
        ControlFlow::Continue(())
    });
    found.sort_unstable();
    found
}

fn check(node: Option<&Node<usize, ()>>) -> (u8, Option<RangeEnd>) {
    let Some(node) = node else { return (0, None) };
    let (left, left_end) = check(node.left.as_deref());
    let (right, right_end) = check(node.right.as_deref());
    assert!(left.abs_diff(right) <= 1, "unbalanced");
    assert_eq!(node.height, 1 + left.max(right));
    let furthest = left_end.into_iter().chain(right_end).chain([node.end.clone()]).max();
    assert_eq!(Some(&node.furthest_end), furthest.as_ref());
    assert!(!node.members.is_empty());
    (node.height, furthest)
}

fn range() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    let key = || prop::collection::vec(0_u8..4, 0..4);
    (key(), prop::option::weighted(0.9, key()))
}

fn as_end(end: Option<&Vec<u8>>) -> RangeEnd {
    end.map_or(RangeEnd::Unbounded, |end| RangeEnd::At(Bytes::copy_from_slice(end)))
}

proptest! {
    #[test]
    fn finds_what_a_linear_search_finds(
        steps in prop::collection::vec((range(), any::<bool>(), any::<prop::sample::Index>()), 1..120),
        keys in prop::collection::vec(prop::collection::vec(0_u8..4, 0..5), 8),
    ) {
        let mut tree = RangeTree::new();
        let mut model = Vec::new();
        for (number, ((start, end), add, victim)) in steps.into_iter().enumerate() {
            if add || model.is_empty() {
                let (start, end) = (Bytes::from(start), as_end(end.as_ref()));
                prop_assert!(tree.insert(&start, &end, number, ()).is_none());
                model.push((start, end, number));
            } else {
                let (start, end, number) = model.swap_remove(victim.index(model.len()));
                prop_assert!(tree.remove(&start, &end, &number).is_some());
                prop_assert!(tree.remove(&start, &end, &number).is_none());
            }
            check(tree.root.as_deref());
            for key in &keys {
                let holds = |(start, end, _): &&(Bytes, RangeEnd, usize)| start <= key && end.is_after(key);
                let expected: BTreeSet<usize> = model.iter().filter(holds).map(|(.., number)| *number).collect();
                prop_assert_eq!(found(&tree, key), expected.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn ten_thousand_prefixes_are_not_scanned_for_one_key() {
    let mut tree = RangeTree::new();
    for number in 0..10_000_usize {
        let start = Bytes::from(format!("/registry/pods/ns{number:05}/"));
        let end = RangeEnd::At(Bytes::from(format!("/registry/pods/ns{number:05}0")));
        tree.insert(&start, &end, number, ());
    }
    tree.insert(&Bytes::from_static(b"/registry/"), &RangeEnd::At(Bytes::from_static(b"/registry0")), 10_000, ());
    for number in (0..10_000).step_by(97) {
        VISITED.with(|visited| visited.set(0));
        assert_eq!(found(&tree, format!("/registry/pods/ns{number:05}/x").as_bytes()), [number, 10_000]);
        let visited = VISITED.with(Cell::get);
        assert!(visited < 80, "{visited} nodes visited");
    }
}
