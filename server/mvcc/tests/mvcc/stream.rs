//! RangeStream: merged, its chunks are the answer to Range.

use garboard_mvcc::Error;
use garboard_proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::member::*;

fn filled() -> Member {
    let mut member = Member::new();
    for key in 0..100 {
        member.put(&format!("k{key:03}"), &"v".repeat(100));
    }
    member
}

fn chunks(member: &Member, request: &RangeRequest, chunk_bytes: usize) -> Vec<RangeResponse> {
    let mut stream = member.store.range_stream(request, chunk_bytes).unwrap();
    std::iter::from_fn(|| stream.next_chunk()).collect::<Result<_, _>>().unwrap()
}

fn merged(chunks: Vec<RangeResponse>) -> RangeResponse {
    let mut whole = RangeResponse::default();
    let last = chunks.len() - 1;
    for (position, chunk) in chunks.into_iter().enumerate() {
        assert_eq!(chunk.header.is_some(), position == last, "the header comes last");
        assert!(position == last || (chunk.count == 0 && !chunk.more), "so do count and more");
        whole.kvs.extend(chunk.kvs);
        (whole.header, whole.count, whole.more) = (chunk.header, chunk.count, chunk.more);
    }
    whole
}

#[test]
fn merged_chunks_are_the_answer_to_range() {
    let mut member = filled();
    member.put("k050", "short");
    for request in [
        all(),
        get("k007"),
        get("missing"),
        span("k010", "k020"),
        span("x", "y"),
        RangeRequest { limit: 7, ..all() },
        RangeRequest { limit: 10, ..all() },
        RangeRequest { limit: 55, ..all() },
        RangeRequest { limit: 100, ..all() },
        RangeRequest { limit: 200, ..all() },
        RangeRequest { limit: 12, ..span("k010", "k020") },
        RangeRequest { revision: 60, ..all() },
        RangeRequest { keys_only: true, ..all() },
        RangeRequest { count_only: true, limit: 3, ..all() },
    ] {
        for chunk_bytes in [1, 1000, 1 << 20] {
            let whole = merged(chunks(&member, &request, chunk_bytes));
            assert_eq!(whole, member.range(request.clone()).unwrap(), "{request:?}");
        }
    }
}

#[test]
fn chunks_grow_towards_the_wanted_size() {
    let member = filled();
    let sizes = |chunk_bytes| -> Vec<usize> {
        chunks(&member, &all(), chunk_bytes).iter().map(|chunk| chunk.kvs.len()).collect()
    };
    assert_eq!(sizes(1 << 20), [10, 20, 40, 30]);
    assert_eq!(sizes(1500), [10; 10]);
    assert_eq!(sizes(1)[..6], [10, 5, 2, 1, 1, 1]);
}

#[test]
fn a_stream_stays_at_its_revision() {
    let mut member = filled();
    let expected = member.range(all()).unwrap();
    let mut stream = member.store.range_stream(&all(), 1).unwrap();
    let mut found = vec![stream.next_chunk().unwrap().unwrap()];
    member.delete(delete("k", "l"));
    member.put("k099x", "new");
    found.extend(std::iter::from_fn(|| stream.next_chunk()).map(Result::unwrap));
    assert_eq!(merged(found), expected);
}

#[test]
fn a_compaction_beyond_its_revision_ends_a_stream() {
    let mut member = filled();
    let mut stream = member.store.range_stream(&all(), 1).unwrap();
    assert!(stream.next_chunk().unwrap().is_ok());
    member.put("k", "v");
    member.compact(member.revision()).unwrap();
    assert_eq!(stream.next_chunk(), Some(Err(Error::Compacted)));
    assert_eq!(stream.next_chunk(), None);
    let old = RangeRequest { revision: 5, ..all() };
    assert_eq!(member.store.range_stream(&old, 1).err(), Some(Error::Compacted));
    let future = RangeRequest { revision: 500, ..all() };
    assert_eq!(member.store.range_stream(&future, 1).err(), Some(Error::FutureRevision));
}
