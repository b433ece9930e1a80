//! Two members apply the same commands and differ in everything else: when they flush, compact and restart.

use proptest::prelude::*;

use garboard_mvcc::StoreOptions;

use crate::member::Member;
use crate::requests::command;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_commands_same_replies_same_hash(
        commands in prop::collection::vec(command(), 1..50),
        whims in prop::collection::vec((any::<bool>(), 0usize..4, prop::bool::weighted(0.1)), 50),
    ) {
        let mut quiet = Member::new();
        let mut busy = Member::with(StoreOptions { cache_bytes: 0, ..StoreOptions::default() });
        for (op, (flush, rows, restart)) in commands.into_iter().zip(whims) {
            prop_assert_eq!(quiet.apply(op.clone()), busy.apply(op));
            if flush {
                busy.flush();
            }
            if rows > 0 {
                busy.store.compaction_step(rows).expect("compaction");
            }
            if restart {
                busy = busy.flushed_crash();
            }
            prop_assert_eq!(quiet.store.hash_kv(0), busy.store.hash_kv(0));
        }
        prop_assert_eq!(quiet.store.hash(), busy.store.hash());
        let compacted = quiet.store.compact_revision();
        for revision in compacted.max(1)..=quiet.revision() {
            prop_assert_eq!(quiet.store.hash_kv(revision), busy.store.hash_kv(revision));
        }
        busy.finish_compaction();
        prop_assert_eq!(quiet.store.hash(), busy.store.hash());
    }
}
