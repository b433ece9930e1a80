//! What a stream hands out: one `WatchResponse` without the parts that only the member knows.

use std::sync::Arc;

use bytes::BufMut;
use garboard_proto::etcdserverpb::ResponseHeader;
use prost::Message as _;
use prost::encoding::{bool, encode_varint, encoded_len_varint, int64, string};

use super::event::Event;

/// The watch id of answers that belong to no single watcher.
pub(super) const NO_WATCH_ID: i64 = -1;
/// Tag, length and four integers of a header, at most; fragments are cut before the header is known.
const HEADER_LEN_MAX: usize = 46;

/// What the stream's owner does next.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Output(WatchOutput),
    /// Call `catch_up` where blocking is allowed, then `next` again.
    CatchUp,
    /// Nothing until woken.
    Empty,
}

/// One response of the stream.
#[derive(Clone, Debug, Default)]
pub struct WatchOutput {
    /// Revision for the header; 0 in the message that cancels a compacted watcher, as in etcd.
    pub header_revision: i64,
    /// The watcher, or -1.
    pub watch_id: i64,
    /// Answers a create request.
    pub created: bool,
    /// The watcher is gone.
    pub canceled: bool,
    /// Not 0: the revisions the watcher needed are compacted up to here.
    pub compact_revision: i64,
    /// Why, if it was neither the client nor compaction.
    pub cancel_reason: String,
    /// More fragments of the same response follow.
    pub fragment: bool,
    /// In order of (main, sub).
    pub events: Vec<Arc<Event>>,
    /// Whether the watcher asked for previous values.
    pub with_prev_kv: bool,
}

impl WatchOutput {
    /// Bytes that [`encode`](Self::encode) writes.
    #[must_use]
    pub fn encoded_len(&self, header: &ResponseHeader) -> usize {
        let header_len = self.header(header).encoded_len();
        let events: usize = self.events.iter().map(|event| event.field_len(self.with_prev_kv)).sum();
        1 + encoded_len_varint(header_len as u64) + header_len + self.scalars_len() + events
    }

    /// Writes exactly the protobuf `WatchResponse`. `header` gives cluster, member and term; the revision is our own.
    pub fn encode(&self, header: &ResponseHeader, buf: &mut impl BufMut) {
        let header = self.header(header);
        buf.put_u8(0x0a);
        encode_varint(header.encoded_len() as u64, buf);
        header.encode_raw(buf);
        if self.watch_id != 0 {
            int64::encode(2, &self.watch_id, buf);
        }
        if self.created {
            bool::encode(3, &self.created, buf);
        }
        if self.canceled {
            bool::encode(4, &self.canceled, buf);
        }
        if self.compact_revision != 0 {
            int64::encode(5, &self.compact_revision, buf);
        }
        if !self.cancel_reason.is_empty() {
            string::encode(6, &self.cancel_reason, buf);
        }
        if self.fragment {
            bool::encode(7, &self.fragment, buf);
        }
        for event in &self.events {
            event.encode_field(self.with_prev_kv, buf);
        }
    }

    /// Refused: created and canceled at once.
    pub(super) fn refused(header_revision: i64, reason: &str) -> Self {
        let cancel_reason = reason.to_owned();
        Self { header_revision, watch_id: NO_WATCH_ID, created: true, canceled: true, cancel_reason, ..Self::default() }
    }

    /// Canceled because what it needs is compacted.
    pub(super) fn compacted(watch_id: i64, compact_revision: i64) -> Self {
        Self { watch_id, canceled: true, compact_revision, ..Self::default() }
    }

    /// Upper bound of what the response takes beside its events.
    pub(super) fn frame_len_max(&self) -> usize {
        HEADER_LEN_MAX + self.scalars_len() + 2
    }

    fn header(&self, header: &ResponseHeader) -> ResponseHeader {
        ResponseHeader { revision: self.header_revision, ..*header }
    }

    fn scalars_len(&self) -> usize {
        let flags = usize::from(self.created) + usize::from(self.canceled) + usize::from(self.fragment);
        let mut len = 2 * flags;
        if self.watch_id != 0 {
            len += int64::encoded_len(2, &self.watch_id);
        }
        if self.compact_revision != 0 {
            len += int64::encoded_len(5, &self.compact_revision);
        }
        if !self.cancel_reason.is_empty() {
            len += string::encoded_len(6, &self.cancel_reason);
        }
        len
    }
}
