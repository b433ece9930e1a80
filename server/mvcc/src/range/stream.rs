//! RangeStream (etcd 3.7): the answer to a range in chunks of disjoint keys in key order, all of one revision. Header,
//! `more` and `count` come with the last chunk; merged, the chunks are what Range answers.
//!
//! Between chunks nothing is held: a compaction beyond the stream's revision ends it with `Compacted`, as in etcd.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use garboard_proto::etcdserverpb::{RangeRequest, RangeResponse};
use prost::Message as _;

use super::{Total, range};
use crate::error::Error;
use crate::store::{Store, View};

const FIRST_CHUNK_KEYS: i64 = 10;

pub struct RangeStream {
    store: Arc<Store>,
    /// What is left: its key moves on, its limit is the next chunk's.
    request: RangeRequest,
    /// The client's limit; `i64::MAX` if there is none.
    limit: i64,
    chunk_bytes: usize,
    sent: i64,
    header_revision: Option<i64>,
    done: bool,
}

impl Store {
    /// Begins a stream. `chunk_bytes` is what chunks grow towards (etcd: max-request-bytes). The request has passed
    /// `validate::range_stream`.
    pub fn range_stream(self: &Arc<Self>, request: &RangeRequest, chunk_bytes: usize) -> Result<RangeStream, Error> {
        self.view().resolve(request.revision)?;
        let limit = if request.limit <= 0 { i64::MAX } else { request.limit };
        let mut request = request.clone();
        request.limit = FIRST_CHUNK_KEYS.min(limit);
        let store = self.clone();
        Ok(RangeStream { store, request, limit, chunk_bytes, sent: 0, header_revision: None, done: false })
    }
}

impl RangeStream {
    /// The next chunk; `None` behind the last one and behind an error.
    pub fn next_chunk(&mut self) -> Option<Result<RangeResponse, Error>> {
        if self.done {
            return None;
        }
        let chunk = if self.request.count_only { self.count() } else { self.chunk() };
        self.done |= chunk.is_err();
        Some(chunk)
    }

    fn count(&mut self) -> Result<RangeResponse, Error> {
        self.done = true;
        self.store.read(|view| range(view, &self.request, Total::Skipped))
    }

    fn chunk(&mut self) -> Result<RangeResponse, Error> {
        let store = Arc::clone(&self.store);
        store.read(|view| self.chunk_of(view))
    }

    fn chunk_of(&mut self, view: &View<'_>) -> Result<RangeResponse, Error> {
        let mut response = range(view, &self.request, Total::Skipped)?;
        // The revision is fixed by the first chunk; later ones read there, whatever was written since.
        let header_revision = *self.header_revision.get_or_insert(view.current);
        if self.request.revision <= 0 {
            self.request.revision = header_revision;
        }
        self.sent += response.kvs.len() as i64;
        let next = response.kvs.last().filter(|_| response.more).map(|last| after(&last.key));
        self.done = next.is_none() || self.sent == self.limit;
        let bytes = if self.done { 0 } else { response.encoded_len() };
        if let Some(next) = next {
            self.request.key = next;
        }
        if !self.done {
            (response.header, response.more, response.count) = (None, false, 0);
            self.request.limit = next_limit(self.request.limit, bytes, self.chunk_bytes).min(self.limit - self.sent);
            return Ok(response);
        }
        response.header = super::header(header_revision);
        response.count = self.sent;
        if response.more {
            let rest = RangeRequest { count_only: true, limit: 0, ..self.request.clone() };
            response.count += range(view, &rest, Total::Counted)?.count;
        }
        Ok(response)
    }
}

/// The first key behind `key`.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Doubles or halves outside of half to twice the target, so that chunks near it keep their size.
fn next_limit(last: i64, bytes: usize, target: usize) -> i64 {
    if bytes < target / 2 {
        last.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        (last / 2).max(1)
    } else {
        last
    }
}
