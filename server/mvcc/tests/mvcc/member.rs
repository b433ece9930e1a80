//! One member: a store over a backend in memory, and the log that made it. Requests for tests in few words.

use std::sync::Arc;

use bytes::Bytes;
use garboard_mvcc::backend::memory::MemoryBackend;
use garboard_mvcc::{Applier, CompactionStep, Error, Position, Response, Store, StoreOptions};
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use prost::Message as _;

pub struct Member {
    pub backend: Arc<MemoryBackend>,
    pub store: Arc<Store>,
    applier: Applier,
    options: StoreOptions,
    index: u64,
}

impl Member {
    pub fn new() -> Member {
        Member::with(StoreOptions::default())
    }

    pub fn with(options: StoreOptions) -> Member {
        Member::open(MemoryBackend::new(), options)
    }

    pub fn open(backend: Arc<MemoryBackend>, options: StoreOptions) -> Member {
        let (store, applier) = Store::open(backend.clone(), options.clone()).expect("the tables are sound");
        let index = store.applied().index;
        Member { backend, store, applier, options, index }
    }

    /// What comes up after a crash now.
    pub fn crash(&self) -> Member {
        Member::open(self.backend.fork(), self.options.clone())
    }

    /// A restart: everything applied is in the tables.
    pub fn flushed_crash(&self) -> Member {
        self.flush();
        self.crash()
    }

    /// Applies one command as part of the current entry.
    pub fn apply_open(&mut self, op: Op) -> Result<Response, Error> {
        self.applier.apply(Command { op: Some(op) })
    }

    pub fn finish_entry(&mut self) {
        self.index += 1;
        self.applier.finish_entry(Position { term: 1, index: self.index }, None);
    }

    /// Applies one command as an entry of its own.
    pub fn apply(&mut self, op: Op) -> Result<Response, Error> {
        let response = self.apply_open(op);
        self.finish_entry();
        response
    }

    pub fn flush(&self) -> bool {
        let Some(checkpoint) = self.store.take_checkpoint() else { return false };
        self.backend.write(&checkpoint);
        self.store.checkpoint_written(checkpoint);
        true
    }

    /// Runs a scheduled compaction to its end, its deletions included.
    pub fn finish_compaction(&self) {
        loop {
            match self.store.compaction_step(3).expect("compaction") {
                CompactionStep::Idle => break,
                CompactionStep::Waiting => assert!(self.flush(), "nothing to wait for"),
                CompactionStep::More | CompactionStep::Finished(_) => {}
            }
        }
        self.flush();
    }

    pub fn put(&mut self, key: &str, value: &str) -> PutResponse {
        self.put_with(put(key, value)).expect("put")
    }

    pub fn put_with(&mut self, request: PutRequest) -> Result<PutResponse, Error> {
        match self.apply(Op::Put(request))? {
            Response::Put(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    pub fn delete(&mut self, request: DeleteRangeRequest) -> DeleteRangeResponse {
        match self.apply(Op::DeleteRange(request)) {
            Ok(Response::DeleteRange(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    pub fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Error> {
        match self.apply(Op::Txn(request))? {
            Response::Txn(response) => Ok(response),
            other => panic!("{other:?}"),
        }
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Error> {
        self.apply(Op::Compaction(CompactionRequest { revision, physical: false })).map(drop)
    }

    pub fn grant(&mut self, id: i64, ttl_s: i64) -> Result<(), Error> {
        self.apply(Op::LeaseGrant(LeaseGrantRequest { id, ttl: ttl_s })).map(drop)
    }

    pub fn revoke(&mut self, id: i64) -> Result<(), Error> {
        self.apply(Op::LeaseRevoke(LeaseRevokeRequest { id })).map(drop)
    }

    pub fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let answer = self.store.range(&request)?;
        // What goes to a client is written from the rows: it must read as the same.
        let rows = self.store.range_rows(&request)?;
        let header = answer.header.unwrap_or_default();
        let len = rows.encoded_len(&header);
        let bytes: Vec<u8> = rows.pieces(&header, &[]).flatten().collect();
        assert_eq!(bytes.len(), len);
        assert_eq!(RangeResponse::decode(&bytes[..]).as_ref(), Ok(&answer));
        Ok(answer)
    }

    /// Keys and values that exist now.
    pub fn all(&self) -> Vec<(String, String)> {
        let response = self.range(all()).expect("range");
        response.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }

    pub fn revision(&self) -> i64 {
        self.store.revision()
    }
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

pub fn span(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(range_end), ..RangeRequest::default() }
}

pub fn all() -> RangeRequest {
    span("\0", "\0")
}

pub fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false }
}

pub fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn put_op(key: &str, value: &str) -> RequestOp {
    op(Request::RequestPut(put(key, value)))
}

pub fn delete_op(key: &str, range_end: &str) -> RequestOp {
    op(Request::RequestDeleteRange(delete(key, range_end)))
}

pub fn range_op(request: RangeRequest) -> RequestOp {
    op(Request::RequestRange(request))
}

pub fn txn_op(request: TxnRequest) -> RequestOp {
    op(Request::RequestTxn(request))
}

pub fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}
