//! Range, sentence by sentence.

use garboard_mvcc::Error;
use garboard_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};

use crate::member::*;

const NONE: i32 = 0;
const ASCEND: i32 = 1;
const DESCEND: i32 = 2;
const VERSION: i32 = 1;
const MOD: i32 = 3;
const VALUE: i32 = 4;

/// Keys a to e; values descend as keys ascend, and c was changed last.
fn filled() -> Member {
    let mut member = Member::new();
    for (key, value) in [("a", "5"), ("b", "4"), ("c", "3"), ("d", "2"), ("e", "1")] {
        member.put(key, value);
    }
    member.put("c", "3");
    member
}

fn keys(response: &RangeResponse) -> String {
    response.kvs.iter().map(|kv| text(&kv.key)).collect::<Vec<_>>().join(" ")
}

fn answer(member: &Member, request: RangeRequest) -> (String, i64, bool) {
    let response = member.range(request).unwrap();
    (keys(&response), response.count, response.more)
}

#[test]
fn ranges_are_named_by_key_and_end() {
    let member = filled();
    let names = |key: &str, range_end: &str| answer(&member, span(key, range_end)).0;
    assert_eq!(names("b", ""), "b");
    assert_eq!(names("x", ""), "");
    assert_eq!(names("b", "d"), "b c");
    assert_eq!(names("b", "\0"), "b c d e");
    assert_eq!(names("\0", "\0"), "a b c d e");
    assert_eq!(names("d", "b"), "");
}

#[test]
fn count_is_exact_whatever_the_limit_and_the_filters_say() {
    let member = filled();
    let limited = |limit| RangeRequest { limit, ..all() };
    assert_eq!(answer(&member, limited(2)), ("a b".into(), 5, true));
    assert_eq!(answer(&member, limited(5)), ("a b c d e".into(), 5, false));
    assert_eq!(answer(&member, limited(0)), ("a b c d e".into(), 5, false));
    assert_eq!(answer(&member, RangeRequest { min_mod_revision: 5, ..all() }), ("c d e".into(), 5, false));
    let counted = RangeRequest { count_only: true, limit: 1, ..all() };
    assert_eq!(answer(&member, counted), ("".into(), 5, false));
    assert_eq!(answer(&member, RangeRequest { count_only: true, ..get("a") }), ("".into(), 1, false));
}

#[test]
fn the_limit_comes_after_filter_and_sort() {
    let member = filled();
    let sorted = |sort_target, sort_order, limit| RangeRequest { sort_target, sort_order, limit, ..all() };
    assert_eq!(answer(&member, sorted(0, DESCEND, 2)), ("e d".into(), 5, true));
    assert_eq!(answer(&member, sorted(MOD, ASCEND, 2)), ("a b".into(), 5, true));
    assert_eq!(answer(&member, sorted(MOD, DESCEND, 2)), ("c e".into(), 5, true));
    assert_eq!(answer(&member, sorted(VERSION, DESCEND, 1)), ("c".into(), 5, true));
    assert_eq!(answer(&member, sorted(VALUE, ASCEND, 3)), ("e d c".into(), 5, true));
    let filtered = RangeRequest { max_mod_revision: 3, limit: 2, ..all() };
    assert_eq!(answer(&member, filtered), ("a b".into(), 5, false));
    let created = RangeRequest { min_create_revision: 3, max_create_revision: 5, limit: 1, ..all() };
    assert_eq!(answer(&member, created), ("b".into(), 5, true));
}

#[test]
fn without_an_order_other_targets_ascend_but_the_limit_comes_first() {
    let member = filled();
    let unordered = |limit| RangeRequest { sort_target: VALUE, sort_order: NONE, limit, ..all() };
    assert_eq!(answer(&member, unordered(0)), ("e d c b a".into(), 5, false));
    assert_eq!(answer(&member, unordered(2)), ("c b".into(), 5, true), "of the three keys that the limit let through");
}

#[test]
fn keys_only_leaves_out_the_value_alone() {
    let mut member = filled();
    member.grant(4, 60).unwrap();
    member.put_with(PutRequest { lease: 4, ..put("c", "6") }).unwrap();
    let full = member.range(get("c")).unwrap();
    let bare = member.range(RangeRequest { keys_only: true, ..get("c") }).unwrap();
    assert_eq!((text(&full.kvs[0].value), text(&bare.kvs[0].value)), ("6".into(), String::new()));
    assert_eq!((bare.kvs[0].lease, bare.kvs[0].version, bare.kvs[0].mod_revision), (4, 3, 8));
    let by_value = RangeRequest { keys_only: true, sort_target: VALUE, sort_order: ASCEND, ..all() };
    assert_eq!(answer(&member, by_value).0, "e d b a c");
}

#[test]
fn old_revisions_are_readable_down_to_the_compacted_one() {
    let mut member = filled();
    member.delete(delete("a", "c"));
    let at = |member: &Member, revision| {
        let response = member.range(RangeRequest { revision, ..all() });
        response.map(|response| {
            assert_eq!(response.header.unwrap().revision, member.revision(), "the header says the current one");
            keys(&response)
        })
    };
    assert_eq!(at(&member, 3), Ok("a b".into()));
    assert_eq!(at(&member, 7), Ok("a b c d e".into()));
    assert_eq!(at(&member, -5), Ok("c d e".into()), "the latest");
    assert_eq!(at(&member, 9), Err(Error::FutureRevision));
    member.compact(7).unwrap();
    member.finish_compaction();
    assert_eq!(at(&member, 6), Err(Error::Compacted));
    assert_eq!(at(&member, 7), Ok("a b c d e".into()));
    assert_eq!(at(&member, 8), Ok("c d e".into()));
}

#[test]
fn many_keys_are_read_in_steps_of_one_revision() {
    let mut member = Member::new();
    for key in 0..3000 {
        member.put(&format!("k{key:05}"), "v");
    }
    member.delete(delete("k01500", ""));
    let response = member.range(all()).unwrap();
    assert_eq!((response.kvs.len(), response.count), (2999, 2999));
    let limited = member.range(RangeRequest { limit: 1999, ..all() }).unwrap();
    assert_eq!((limited.kvs.len(), limited.count, limited.more), (1999, 2999, true));
    assert_eq!(limited.kvs, response.kvs[..1999]);
    let old = member.range(RangeRequest { revision: 2500, count_only: true, ..all() }).unwrap();
    assert_eq!(old.count, 2499);
}

#[test]
fn an_answer_in_pieces_is_whole_whatever_the_size_of_its_rows() {
    let mut member = Member::new();
    for (n, len) in
        [0, 1, 100, 16_300, 16_384, 16_400, 70_000, 65_536, 3, 200_000, 15_000, 15_000, 15_000, 15_000, 15_000]
            .into_iter()
            .enumerate()
    {
        member.put(&format!("k{n:02}"), &"v".repeat(len));
    }
    // Compares the pieces with the message, for the whole range and for parts of it.
    for limit in 0..16 {
        let request = RangeRequest { limit, ..span("k", "l") };
        assert_eq!(member.range(request).unwrap().count, 15);
    }
}
