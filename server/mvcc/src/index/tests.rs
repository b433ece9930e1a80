//! The index against the plainest model: per key, every change that was ever made.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
struct Change {
    revision: Revision,
    tombstone: bool,
}

#[derive(Default)]
struct Model {
    changes: BTreeMap<Vec<u8>, Vec<Change>>,
}

impl Model {
    fn get(&self, key: &[u8], at: i64) -> Option<KeyVersion> {
        self.get_to(key, Revision::new(at, i64::MAX))
    }

    fn get_to(&self, key: &[u8], to: Revision) -> Option<KeyVersion> {
        let (mut created, mut version, mut last) = (0, 0, None);
        for change in self.changes.get(key)?.iter().take_while(|change| change.revision <= to) {
            if change.tombstone {
                (version, last) = (0, None);
                continue;
            }
            if version == 0 {
                created = change.revision.main;
            }
            version += 1;
            last = Some(change.revision);
        }
        last.map(|revision| KeyVersion { revision, created, version })
    }

    /// What etcd (3.5.16 on) keeps of a key: nothing older than what is visible at `at`, the tombstone of exactly `at`,
    /// and what came behind it.
    fn kept(changes: &[Change], at: i64) -> Vec<Revision> {
        if let Some(tombstone) = changes.iter().position(|change| change.tombstone && change.revision.main == at) {
            return changes[tombstone..].iter().map(|change| change.revision).collect();
        }
        let newer = changes.partition_point(|change| change.revision.main <= at);
        let mut kept: Vec<Revision> = changes[newer..].iter().map(|change| change.revision).collect();
        if let Some(last) = newer.checked_sub(1).map(|last| changes[last])
            && !last.tombstone
        {
            kept.insert(0, last.revision);
        }
        kept
    }

    fn live(&self) -> usize {
        self.changes.values().filter(|changes| changes.last().is_some_and(|change| !change.tombstone)).count()
    }
}

fn keys_at(index: &Index, range: KeyRange<'_>, at: i64, step: usize) -> Vec<(Vec<u8>, KeyVersion)> {
    let mut found = Vec::new();
    let mut after: Option<Box<[u8]>> = None;
    loop {
        after = index.visit(range, after.as_deref(), at, step, &mut |key, version| {
            found.push((key.to_vec(), version));
            ControlFlow::Continue(())
        });
        if after.is_none() {
            return found;
        }
    }
}

/// One write request: keys put, or deleted where they exist.
fn requests() -> impl Strategy<Value = Vec<Vec<(u8, bool)>>> {
    // Few keys with long histories, or many that fill nodes.
    prop_oneof![Just(6u8), Just(90u8)].prop_flat_map(|keys| {
        let change = (0..keys, prop::bool::weighted(0.35));
        prop::collection::vec(prop::collection::vec(change, 1..6), 1..70)
    })
}

fn build(requests: &[Vec<(u8, bool)>]) -> (Index, Model, i64) {
    let (mut index, mut model, mut main) = (Index::default(), Model::default(), 1);
    for request in requests {
        let mut sub = 0;
        for &(key, delete) in request {
            let key = vec![b'a' + key];
            let revision = Revision::new(main + 1, sub);
            let before = model.get(&key, i64::MAX);
            if delete {
                assert_eq!(index.tombstone(&key, revision), before);
            } else {
                let (now, previous) = index.put(&key, revision);
                assert_eq!(previous, before);
                assert_eq!(now.version, before.map_or(0, |before| before.version) + 1);
            }
            if !delete || before.is_some() {
                model.changes.entry(key).or_default().push(Change { revision, tombstone: delete });
                sub += 1;
            }
        }
        main += i64::from(sub > 0);
    }
    (index, model, main)
}

fn compact(index: &mut Index, at: i64, step: usize) -> BTreeSet<(Revision, bool)> {
    let mut dropped = BTreeSet::new();
    let mut after: Option<Box<[u8]>> = None;
    loop {
        after = index.compact(after.as_deref(), at, step, 2, &mut |revision, tombstone| {
            assert!(dropped.insert((revision, tombstone)), "dropped once");
        });
        if after.is_none() {
            return dropped;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_revision_reads_as_in_the_model(requests in requests(), step in 1usize..5) {
        let (index, model, newest) = build(&requests);
        prop_assert_eq!(index.live(), model.live());
        let all = KeyRange { start: b"", end: RangeEnd::Unbounded };
        for at in 0..=newest + 1 {
            let expected: Vec<_> = model.changes.keys()
                .filter_map(|key| Some((key.clone(), model.get(key, at)?)))
                .collect();
            prop_assert_eq!(keys_at(&index, all, at, step), expected);
        }
    }

    #[test]
    fn counts_are_those_of_a_walk(requests in requests(), start in 0u8..100, end in 0u8..100, part in 0.0f64..1.0) {
        let (mut index, _, newest) = build(&requests);
        let (start, end) = ([b'a' + start], [b'a' + end]);
        for compacted in [0, (part * newest as f64) as i64 + 1] {
            if compacted > 0 {
                compact(&mut index, compacted, 3);
            }
            index.keys.check();
            for range in [KeyRange::new(&start, &end), KeyRange::new(&start, b"\0"), KeyRange::new(&start, b"")] {
                for at in compacted..=newest + 1 {
                    let walked = keys_at(&index, range, at, usize::MAX).len();
                    prop_assert_eq!(index.count(range, at, usize::MAX), Some(walked));
                    // What changed since is looked at; what did not is not.
                    let quick = index.count(range, at, 0);
                    prop_assert!(quick.is_none_or(|quick| quick == walked));
                }
            }
            let all = KeyRange { start: b"", end: RangeEnd::Unbounded };
            prop_assert_eq!(index.count(all, newest, 0), Some(index.live()));
        }
    }

    #[test]
    fn compaction_keeps_what_etcd_keeps(requests in requests(), cuts in prop::collection::vec(0.0f64..1.0, 1..4), step in 1usize..5) {
        let (mut index, mut model, newest) = build(&requests);
        let mut cuts: Vec<i64> = cuts.iter().map(|part| (part * newest as f64) as i64 + 1).collect();
        cuts.sort();
        for at in cuts {
            let mut expected = BTreeSet::new();
            for (key, changes) in &mut model.changes {
                let kept = Model::kept(changes, at);
                for change in changes.iter() {
                    let survives = kept.contains(&change.revision);
                    if index.keys.get(key.as_slice()).is_some() {
                        prop_assert_eq!(index.survives(key, change.revision, at), survives);
                    }
                    if !survives {
                        expected.insert((change.revision, change.tombstone));
                    }
                }
            }
            let before: Vec<_> = (at..=newest).map(|at| index.visible(at)).collect();
            let dropped = compact(&mut index, at, step);
            prop_assert_eq!(&dropped, &expected);
            let after: Vec<_> = (at..=newest).map(|at| index.visible(at)).collect();
            prop_assert_eq!(before, after, "nothing that can still be read changes");
            for changes in model.changes.values_mut() {
                changes.retain(|change| !dropped.contains(&(change.revision, change.tombstone)));
            }
            model.changes.retain(|_, changes| !changes.is_empty());
            prop_assert_eq!(index.len(), model.changes.len());
            index.keys.check();
        }
    }

    #[test]
    fn an_index_restored_from_its_rows_is_the_same(requests in requests(), part in 0.0f64..1.0) {
        let (mut index, model, newest) = build(&requests);
        let at = (part * newest as f64) as i64 + 1;
        let dropped = compact(&mut index, at, 3);
        let mut rows: Vec<(Vec<u8>, Change, i64, i64)> = Vec::new();
        for (key, changes) in &model.changes {
            for &change in changes {
                let found = model.get_to(key, change.revision);
                let (created, version) = found.map_or((0, 0), |found| (found.created, found.version));
                if !dropped.contains(&(change.revision, change.tombstone)) {
                    rows.push((key.clone(), change, created, version));
                }
            }
        }
        rows.sort_by_key(|(_, change, ..)| change.revision);
        let mut restored = Index::default();
        for (key, change, created, version) in &rows {
            restored.restore(key, change.revision, change.tombstone, *created, *version);
        }
        prop_assert_eq!(restored.live(), index.live());
        prop_assert_eq!(restored.len(), index.len());
        for at in at..=newest {
            prop_assert_eq!(restored.visible(at), index.visible(at));
        }
    }

    #[test]
    fn ranges_are_those_of_etcd(start in 0u8..8, end in 0u8..8) {
        let mut index = Index::default();
        for key in 0..6u8 {
            index.put(&[b'a' + key], Revision::new(2, i64::from(key)));
        }
        let (start, end) = ([b'a' + start], [b'a' + end]);
        let names = |range_end: &[u8]| -> Vec<u8> {
            keys_at(&index, KeyRange::new(&start, range_end), 2, 2).into_iter().map(|(key, _)| key[0]).collect()
        };
        let expect = |accepts: &dyn Fn(u8) -> bool| (b'a'..b'g').filter(|&key| accepts(key)).collect::<Vec<_>>();
        prop_assert_eq!(names(b""), expect(&|key| key == start[0]));
        prop_assert_eq!(names(b"\0"), expect(&|key| key >= start[0]));
        prop_assert_eq!(names(&end), expect(&|key| key >= start[0] && key < end[0]));
    }
}

impl Index {
    fn visible(&self, at: i64) -> Vec<(Vec<u8>, KeyVersion)> {
        keys_at(self, KeyRange { start: b"", end: RangeEnd::Unbounded }, at, usize::MAX)
    }
}

/// The example that etcd's own documentation of the key index gives: put 1, put 2, delete 3, put 4, delete 5.
#[test]
fn generations_compact_as_documented() {
    let steps = [(1, vec![1, 2, 3, 4, 5]), (2, vec![2, 3, 4, 5]), (3, vec![3, 4, 5]), (4, vec![4, 5]), (5, vec![5])];
    for (at, left) in steps.into_iter().chain([(6, vec![])]) {
        let mut index = Index::default();
        index.put(b"foo", Revision::new(1, 0));
        index.put(b"foo", Revision::new(2, 0));
        index.tombstone(b"foo", Revision::new(3, 0));
        index.put(b"foo", Revision::new(4, 0));
        index.tombstone(b"foo", Revision::new(5, 0));
        let kept: Vec<i64> = (1..=5).filter(|&main| index.survives(b"foo", Revision::new(main, 0), at)).collect();
        assert_eq!(kept, left, "compacted at {at}");
        compact(&mut index, at, 10);
        assert_eq!(index.len(), usize::from(!left.is_empty()));
    }
}

#[test]
fn a_key_with_one_revision_takes_no_allocation() {
    assert_eq!(size_of::<KeyIndex>(), 24);
    let mut index = Index::default();
    index.put(b"k", Revision::new(2, 0));
    index.put(b"k", Revision::new(3, 0));
    assert!(matches!(index.keys.get(b"k"), Some(KeyIndex::Many(_))));
    compact(&mut index, 3, 10);
    assert!(matches!(index.keys.get(b"k"), Some(KeyIndex::One { version: 2, .. })));
    assert_eq!(index.get(b"k", 3), Some(KeyVersion { revision: Revision::new(3, 0), created: 2, version: 2 }));
}

#[test]
fn versions_past_32_bits_are_kept() {
    let version = i64::from(u32::MAX);
    let mut index = Index::default();
    index.restore(b"k", Revision::new(9, 0), false, 2, version);
    index.put(b"k", Revision::new(10, 0));
    compact(&mut index, 10, 10);
    assert_eq!(index.get(b"k", 10).map(|found| found.version), Some(version + 1));
}

#[test]
#[should_panic(expected = "ascend")]
fn a_revision_that_goes_back_is_a_bug() {
    let mut index = Index::default();
    index.put(b"k", Revision::new(3, 0));
    index.put(b"k", Revision::new(3, 0));
}
