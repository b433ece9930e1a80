//! A member that says what a test wants.

use std::cell::Cell;

use futures_util::Stream;
use futures_util::stream;
use garboard_proto::etcdserverpb as pb;
use sha2::Digest as _;
use sha2::Sha256;
use tonic::Status;

use crate::archive::member::Member;
use crate::store::StoreError;

/// Of the first snapshot.
pub const REVISION: i64 = 50;
const BLOB_BYTES: usize = 1000;

pub struct Fake {
    pub header: Option<pb::ResponseHeader>,
    /// With its hash at the end.
    pub raw: Vec<u8>,
    /// A stream ends with an error, or as if it was over.
    pub breaks_at: Option<usize>,
    pub ends_at: Option<usize>,
    /// In place of what is left.
    pub says_remaining: Option<u64>,
    /// So many snapshots are compacted before they are asked for.
    pub compactions: Cell<i64>,
    pub compacted_at: Cell<i64>,
    /// How far the member's own revision is.
    pub ahead: i64,
    pub hash: u32,
    pub keys: i64,
    /// Gives no answer at all.
    pub silent: bool,
    /// Snapshots that were begun: each is one revision further.
    pub begun: Cell<i64>,
    /// Called with the question for a hash.
    pub when_asked: Option<Box<dyn Fn()>>,
}

// === impl Fake ===

impl Fake {
    pub fn new() -> Self {
        let mut raw: Vec<u8> = (0..100_000_u32).map(|n| (n / 7 * (n % 13)) as u8).collect();
        raw.extend_from_slice(&Sha256::digest(&raw));
        Self {
            header: Some(pb::ResponseHeader { cluster_id: 0xabc, revision: REVISION, ..Default::default() }),
            raw,
            breaks_at: None,
            ends_at: None,
            says_remaining: None,
            compactions: 0.into(),
            compacted_at: Cell::new(-1),
            ahead: 0,
            hash: 77,
            keys: 5,
            silent: false,
            begun: 0.into(),
            when_asked: None,
        }
    }

    pub fn silent() -> Self {
        Self { silent: true, ..Self::new() }
    }

    fn answers(&self) -> Result<(), StoreError> {
        if self.silent { Err(Status::unavailable("no route").into()) } else { Ok(()) }
    }

    fn messages(&self, before: i64) -> Vec<Result<pb::SnapshotResponse, StoreError>> {
        let mut header = self.header;
        if let Some(header) = &mut header {
            header.revision += before;
        }
        let file = self.raw.len() - 32;
        let mut sent = 0;
        let mut messages = Vec::new();
        // The hash is a message of its own.
        for blob in self.raw[..file].chunks(BLOB_BYTES).chain([&self.raw[file..]]) {
            if self.ends_at.is_some_and(|at| sent >= at) {
                break;
            }
            if self.breaks_at.is_some_and(|at| sent >= at) {
                messages.push(Err(Status::internal("the disk").into()));
                break;
            }
            sent += blob.len();
            let remaining_bytes = self.says_remaining.unwrap_or(file.saturating_sub(sent) as u64);
            let blob = blob.to_vec().into();
            messages.push(Ok(pb::SnapshotResponse {
                header: header.take(),
                remaining_bytes,
                blob,
                ..Default::default()
            }));
        }
        messages
    }
}

impl Member for Fake {
    async fn status(&self) -> Result<pb::StatusResponse, StoreError> {
        self.answers()?;
        let header = pb::ResponseHeader { revision: REVISION + self.ahead, ..Default::default() };
        Ok(pb::StatusResponse { header: Some(header), version: "3.6.0".to_owned(), ..Default::default() })
    }

    async fn snapshot(&self) -> Result<impl Stream<Item = Result<pb::SnapshotResponse, StoreError>>, StoreError> {
        self.answers()?;
        let before = self.begun.replace(self.begun.get() + 1);
        Ok(stream::iter(self.messages(before)))
    }

    async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, StoreError> {
        self.answers()?;
        if let Some(call) = &self.when_asked {
            call();
        }
        if self.compactions.get() > 0 {
            self.compactions.set(self.compactions.get() - 1);
            return Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted").into());
        }
        Ok(pb::HashKvResponse {
            hash: self.hash,
            compact_revision: self.compacted_at.get(),
            hash_revision: revision,
            ..Default::default()
        })
    }

    async fn count(&self, _: i64) -> Result<i64, StoreError> {
        self.answers()?;
        Ok(self.keys)
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.answers()?;
        self.compacted_at.set(revision);
        Ok(())
    }
}
