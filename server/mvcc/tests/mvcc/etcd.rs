//! What a real etcd 3.6.16 answered to 2000 random requests (`etcd/record.go`), HashKV included: this store answers the
//! same, whatever is flushed meanwhile.

use std::fmt::Debug;

use garboard_mvcc::validate::{self, Invalid};
use garboard_mvcc::{Error, Response};
use garboard_proto::etcdserverpb::*;
use garboard_proto::raft::command::Op;
use prost::Message;

use crate::member::Member;

const REPLIES: &[u8] = include_bytes!("etcd/replies.bin");

struct Record<'a> {
    kind: u8,
    request: &'a [u8],
    response: Result<&'a [u8], &'a str>,
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

fn take_sized<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let len = u32::from_be_bytes(take(input, 4).try_into().unwrap());
    take(input, len as usize)
}

fn take_record<'a>(input: &mut &'a [u8]) -> Record<'a> {
    let kind = take(input, 1)[0];
    let request = take_sized(input);
    let failed = take(input, 1)[0] == 1;
    let answer = take_sized(input);
    let response = if failed { Err(std::str::from_utf8(answer).unwrap()) } else { Ok(answer) };
    Record { kind, request, response }
}

fn decode<T: Message + Default>(bytes: &[u8]) -> T {
    T::decode(bytes).unwrap()
}

/// etcd's text for a refusal.
fn text(error: &Error) -> String {
    let of_mvcc = matches!(error, Error::Compacted | Error::FutureRevision | Error::NoSpace);
    format!("etcdserver: {}{error}", if of_mvcc { "mvcc: " } else { "" })
}

fn invalid(error: Invalid) -> String {
    format!("etcdserver: {error}")
}

fn apply(member: &mut Member, op: Op) -> Result<Vec<u8>, String> {
    let response = member.apply(op).map_err(|error| text(&error))?;
    Ok(match response {
        Response::Put(response) => response.encode_to_vec(),
        Response::DeleteRange(response) => response.encode_to_vec(),
        Response::Txn(response) => response.encode_to_vec(),
        Response::Compaction(response) => response.encode_to_vec(),
        Response::LeaseGrant(response) => response.encode_to_vec(),
        Response::LeaseRevoke(response) => response.encode_to_vec(),
        other => panic!("{other:?}"),
    })
}

fn answer(member: &mut Member, kind: u8, request: &[u8]) -> Result<Vec<u8>, String> {
    match kind {
        b'p' => {
            let request: PutRequest = decode(request);
            validate::put(&request).map_err(invalid)?;
            apply(member, Op::Put(request))
        }
        b'd' => apply(member, Op::DeleteRange(decode(request))),
        b't' => {
            let request: TxnRequest = decode(request);
            validate::txn(&request, 128).map_err(invalid)?;
            if validate::is_read_only(&request) {
                let response = member.store.read_txn(&request).map_err(|error| text(&error))?;
                return Ok(response.encode_to_vec());
            }
            apply(member, Op::Txn(request))
        }
        b'r' => {
            let request: RangeRequest = decode(request);
            validate::range(&request).map_err(invalid)?;
            Ok(member.range(request).map_err(|error| text(&error))?.encode_to_vec())
        }
        b'g' => apply(member, Op::LeaseGrant(decode(request))),
        b'v' => apply(member, Op::LeaseRevoke(decode(request))),
        b'c' => apply(member, Op::Compaction(decode(request))),
        b'h' => {
            let request: HashKvRequest = decode(request);
            let found = member.store.hash_kv(request.revision).map_err(|error| text(&error))?;
            let header = Some(ResponseHeader { revision: found.revision, ..ResponseHeader::default() });
            let (hash, compact_revision, hash_revision) = (found.hash, found.compact_revision, found.hash_revision);
            Ok(HashKvResponse { header, hash, compact_revision, hash_revision }.encode_to_vec())
        }
        other => panic!("kind {other}"),
    }
}

fn replay(mut replies: &[u8], mut between: impl FnMut(usize, &mut Member)) {
    let mut member = Member::new();
    let mut count = 0;
    while !replies.is_empty() {
        let record = take_record(&mut replies);
        let found = answer(&mut member, record.kind, record.request);
        let same = match (&found, &record.response) {
            (Ok(found), Ok(expected)) => found == expected,
            (Err(found), Err(expected)) => found == expected,
            _ => false,
        };
        assert!(same, "record {count}: {}", describe(&record, &found));
        between(count, &mut member);
        count += 1;
    }
    assert!(count >= 2000, "the file is whole");
}

fn describe(record: &Record<'_>, found: &Result<Vec<u8>, String>) -> String {
    fn show<Q: Message + Default + Debug, R: Message + Default + Debug>(
        record: &Record<'_>,
        found: &Result<Vec<u8>, String>,
    ) -> String {
        let found = found.as_ref().map(|bytes| decode::<R>(bytes));
        let expected = record.response.map(decode::<R>);
        format!("{:?}\nfound    {found:?}\nexpected {expected:?}", decode::<Q>(record.request))
    }
    match record.kind {
        b'p' => show::<PutRequest, PutResponse>(record, found),
        b'd' => show::<DeleteRangeRequest, DeleteRangeResponse>(record, found),
        b't' => show::<TxnRequest, TxnResponse>(record, found),
        b'r' => show::<RangeRequest, RangeResponse>(record, found),
        b'g' => show::<LeaseGrantRequest, LeaseGrantResponse>(record, found),
        b'v' => show::<LeaseRevokeRequest, LeaseRevokeResponse>(record, found),
        b'c' => show::<CompactionRequest, CompactionResponse>(record, found),
        _ => show::<HashKvRequest, HashKvResponse>(record, found),
    }
}

#[test]
fn answers_what_etcd_answered() {
    replay(REPLIES, |_, _| {});
}

#[test]
fn answers_the_same_from_disk_and_while_compacting() {
    replay(REPLIES, |count, member| {
        if count % 7 == 0 {
            member.flush();
        }
        member.store.compaction_step(1).unwrap();
        if count % 50 == 0 {
            *member = member.flushed_crash();
        }
    });
}
