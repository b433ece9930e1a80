//! Every request of the API as bytes: decoded as the server does, checked, and applied to a state machine.
//!
//! An input is a list of steps, each a byte that says what and a chunk: the request. A request may be refused in any way but by a
//! panic, and a refused one leaves no trace. Some steps are no requests: they flush, compact and restart the member between them.

mod kinds;

use garboard_mvcc::Error;
use garboard_mvcc::backend::memory::MemoryBackend;
use garboard_mvcc::validate;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::watch_request::RequestUnion;
use garboard_proto::raft::command::Op;
use prost::Message;

use crate::input::Input;
use crate::state_machine::StateMachine;
pub use kinds::Kind;

const STEPS_MAX: usize = 64;
/// `--max-txn-ops`.
const TXN_OPS_MAX: usize = 16;
/// What chunks of a streamed range grow towards, in bytes.
const CHUNK_BYTES: usize = 512;
/// The shortest TTL that a lease gets, in seconds.
const LEASE_TTL_MIN_S: i64 = 2;

/// What came of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answered: usize,
    pub refused: usize,
    pub malformed: usize,
}

enum Refusal {
    /// No message of that type.
    Malformed,
    Refused,
}

impl From<prost::DecodeError> for Refusal {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

impl From<validate::Invalid> for Refusal {
    fn from(_: validate::Invalid) -> Self {
        Self::Refused
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        assert!(!error.is_fatal(), "a request ended the member: {error}");
        Self::Refused
    }
}

pub fn run(input: &[u8]) -> Tally {
    let mut input = Input(input);
    let mut member = StateMachine::open(MemoryBackend::new()).expect("empty tables");
    let mut tally = Tally::default();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let kind = Kind::of(input.byte());
        let before = (member.store.revision(), member.store.leases().len(), member.store.alarms());
        match step(&mut member, kind, input.chunk()) {
            Ok(()) => tally.answered += 1,
            Err(refusal) => {
                let now = (member.store.revision(), member.store.leases().len(), member.store.alarms());
                assert_eq!(now, before, "{kind:?} was refused and left a trace");
                match refusal {
                    Refusal::Malformed => tally.malformed += 1,
                    Refusal::Refused => tally.refused += 1,
                }
            }
        }
        member.drain_watches();
    }
    member.restart();
    tally
}

fn step(member: &mut StateMachine, kind: Kind, body: &[u8]) -> Result<(), Refusal> {
    match kind {
        Kind::Range => range(member, &pb::RangeRequest::decode(body)?),
        Kind::RangeStream => range_stream(member, &pb::RangeRequest::decode(body)?),
        Kind::Put => {
            let request = pb::PutRequest::decode(body)?;
            validate::put(&request)?;
            apply(member, Op::Put(request))
        }
        Kind::DeleteRange => {
            let request = pb::DeleteRangeRequest::decode(body)?;
            validate::delete_range(&request)?;
            apply(member, Op::DeleteRange(request))
        }
        Kind::Txn => txn(member, pb::TxnRequest::decode(body)?),
        Kind::Compact => apply(member, Op::Compaction(pb::CompactionRequest::decode(body)?)),
        Kind::LeaseGrant => {
            let mut request = pb::LeaseGrantRequest::decode(body)?;
            request.ttl = request.ttl.max(LEASE_TTL_MIN_S);
            apply(member, Op::LeaseGrant(request))
        }
        Kind::LeaseRevoke => apply(member, Op::LeaseRevoke(pb::LeaseRevokeRequest::decode(body)?)),
        Kind::LeaseTimeToLive => {
            let request = pb::LeaseTimeToLiveRequest::decode(body)?;
            member.store.lease(request.id).map(drop).ok_or(Refusal::Refused)
        }
        Kind::Alarm => apply(member, Op::Alarm(pb::AlarmRequest::decode(body)?)),
        Kind::HashKv => Ok(member.store.hash_kv(pb::HashKvRequest::decode(body)?.revision).map(drop)?),
        Kind::Watch => watch(member, pb::WatchRequest::decode(body)?),
        Kind::Flush => {
            member.flush();
            Ok(())
        }
        Kind::CompactionStep => {
            member.compaction_step();
            Ok(())
        }
        Kind::Restart => {
            member.restart();
            Ok(())
        }
        Kind::Other => Ok(kinds::decode_any(body)?),
    }
}

fn apply(member: &mut StateMachine, op: Op) -> Result<(), Refusal> {
    member.apply(op)?;
    Ok(())
}

fn range(member: &StateMachine, request: &pb::RangeRequest) -> Result<(), Refusal> {
    validate::range(request)?;
    let answer = member.store.range(request)?;
    let found = i64::try_from(answer.kvs.len()).unwrap_or(i64::MAX);
    assert!(found <= answer.count, "{found} keys of {}", answer.count);
    assert!(request.limit <= 0 || found <= request.limit, "{found} keys, {} asked for", request.limit);
    // Leave nothing that cannot be sent.
    assert_eq!(answer.encode_to_vec().len(), answer.encoded_len());
    Ok(())
}

fn range_stream(member: &StateMachine, request: &pb::RangeRequest) -> Result<(), Refusal> {
    validate::range_stream(request)?;
    let whole = member.store.range(request)?;
    let mut stream = member.store.range_stream(request, CHUNK_BYTES)?;
    let mut merged = pb::RangeResponse::default();
    while let Some(chunk) = stream.next_chunk() {
        let chunk = chunk?;
        merged.header = chunk.header.or(merged.header);
        merged.kvs.extend(chunk.kvs);
        (merged.more, merged.count) = (chunk.more, chunk.count);
    }
    assert_eq!(merged, whole, "the chunks are not the answer");
    Ok(())
}

fn txn(member: &mut StateMachine, request: pb::TxnRequest) -> Result<(), Refusal> {
    validate::txn(&request, TXN_OPS_MAX)?;
    if validate::is_read_only(&request) {
        member.store.read_txn(&request)?;
        return Ok(());
    }
    apply(member, Op::Txn(request))
}

fn watch(member: &StateMachine, request: pb::WatchRequest) -> Result<(), Refusal> {
    if member.watches.is_answer_queue_full() {
        return Err(Refusal::Refused);
    }
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => member.watches.create(&create),
        Some(RequestUnion::CancelRequest(cancel)) => member.watches.cancel(cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => {
            member.watches.request_progress();
            member.watches.progress_tick();
        }
        None => {}
    }
    Ok(())
}
