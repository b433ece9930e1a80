use proptest::prelude::*;

use super::*;

/// A page as it was handed out: where it lies, and the pages below it; a leaf has none.
#[derive(Default)]
struct Recorder {
    leaves: Vec<(Extent, u16)>,
    branches: Vec<(Extent, Vec<(usize, u64)>)>,
}

impl Pages<usize> for Recorder {
    fn leaf(&mut self, extent: Extent, count: u16) -> Result<(), WriteError> {
        self.leaves.push((extent, count));
        Ok(())
    }

    fn branch(&mut self, extent: Extent, children: &[Child<usize>]) -> Result<(), WriteError> {
        self.branches.push((extent, children.iter().map(|child| (child.key, child.page)).collect()));
        Ok(())
    }
}

fn build(page_size: u32, rows: &[(usize, usize)]) -> (Recorder, u64, u64) {
    let mut recorder = Recorder::default();
    let mut tree = Tree::new(PageSize::new(page_size).unwrap(), 3);
    for (key_len, value_len) in rows {
        tree.row(*key_len, *value_len, || *key_len, &mut recorder).unwrap();
    }
    let root = tree.finish(&mut recorder).unwrap();
    (recorder, root, tree.next_id())
}

/// Everything that bbolt and the writer rely on.
fn verify(page_size: u32, rows: &[(usize, usize)]) {
    let (recorder, root, next_id) = build(page_size, rows);
    let mut extents: Vec<_> = recorder.leaves.iter().map(|(extent, _)| *extent).collect();
    extents.extend(recorder.branches.iter().map(|(extent, _)| *extent));
    extents.sort_by_key(|extent| extent.id);
    let end = extents.iter().fold(3, |next, extent| {
        assert_eq!(extent.id, next, "pages follow each other");
        next + 1 + u64::from(extent.overflow)
    });
    assert_eq!(end, next_id);
    assert_eq!(recorder.leaves.iter().map(|(_, count)| usize::from(*count)).sum::<usize>(), rows.len());
    let mut children: Vec<_> =
        recorder.branches.iter().flat_map(|(_, children)| children.iter().map(|(_, page)| *page)).collect();
    children.push(root);
    children.sort_unstable();
    assert_eq!(children, extents.iter().map(|extent| extent.id).collect::<Vec<_>>(), "each page has one parent");
    for (extent, children) in &recorder.branches {
        let len: usize = 16 + children.iter().map(|(key, _)| 16 + key).sum::<usize>();
        assert!(children.len() >= 2, "{} children", children.len());
        assert_eq!(len.div_ceil(page_size as usize), extent.overflow as usize + 1);
        assert!(extent.overflow == 0 || children.len() <= 3, "a page overflows only when it must");
        assert!(children.is_sorted_by_key(|(_, page)| *page), "children are in key order");
        assert!(children.iter().all(|(_, page)| *page < extent.id), "children come first");
    }
}

#[test]
fn a_tree_without_rows_is_one_leaf() {
    let (recorder, root, next_id) = build(4096, &[]);
    assert_eq!((recorder.leaves, recorder.branches.len()), (vec![(Extent { id: 3, overflow: 0 }, 0)], 0));
    assert_eq!((root, next_id), (3, 4));
}

#[test]
fn a_leaf_is_filled_to_its_last_byte() {
    // 16 of header and three rows of 16 + 320 fill 1 KiB.
    let (recorder, root, _) = build(1024, &[(20, 300); 3]);
    assert_eq!((recorder.leaves, root), (vec![(Extent { id: 3, overflow: 0 }, 3)], 3));
    let (recorder, root, _) = build(1024, &[(20, 300), (20, 300), (20, 301)]);
    assert_eq!((recorder.leaves.len(), recorder.branches.len(), root), (2, 1, 5));
}

#[test]
fn a_large_row_shares_its_last_page() {
    let (recorder, ..) = build(1024, &[(10, 2_500), (10, 400), (10, 400)]);
    let extents = [(Extent { id: 3, overflow: 2 }, 2), (Extent { id: 6, overflow: 0 }, 1)];
    assert_eq!(recorder.leaves, extents);
}

#[test]
fn a_last_child_is_never_alone() {
    // One row a leaf, and branch keys of 300: three children a branch. Every remainder comes up.
    for rows in 1..40 {
        verify(1024, &vec![(300, 700); rows]);
    }
    // Two children a branch: the last of an odd number joins the pair before.
    for rows in 1..40 {
        verify(1024, &vec![(600, 400); rows]);
    }
}

proptest! {
    #[test]
    fn any_rows_make_a_sound_tree(
        page_size in prop_oneof![Just(1024_u32), Just(4096), Just(65536)],
        rows in prop::collection::vec((prop_oneof![1_usize..20, 1_usize..2000, Just(32_768)], 0_usize..9000), 0..300),
    ) {
        verify(page_size, &rows);
    }
}
