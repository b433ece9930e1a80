//! Snapshots. Sent: the store as a bbolt file with etcd's buckets, so that every tool for etcd's backups reads it.
//!
//! One read transaction, gone through twice: the file's first pages say how long it is. Nothing is kept of what was read, so that memory
//! does not grow with the store; a client that reads slowly slows the second pass down.

mod file;
mod restore;
mod status;

use std::io;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;
use garboard_bolt::Layout;
use garboard_bolt::Measure;
use garboard_bolt::PageSize;
use garboard_bolt::WriteError;
use garboard_bolt::Writer;
use garboard_mvcc::meta;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_storage::backend::BackendError;
use garboard_storage::backend::ReadTxn;
use garboard_storage::backend::Table;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::consensus::MemberNode;
use crate::error::Error;
use crate::node::Node;
use crate::release::Version;
pub use file::SnapshotFileError;
pub(crate) use restore::RESTORING;
pub use restore::RestoreConfig;
pub use restore::Restored;
pub use restore::restore;
pub use restore::resume;
pub use status::SnapshotStatus;
pub use status::snapshot_status;

/// What etcd sends in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Blobs that wait for the client.
const BLOBS_WAITING: usize = 16;
/// The first etcd release that writes down which storage version its buckets have.
const STORAGE_VERSION_SINCE: Version = Version { major: 3, minor: 6 };

/// A snapshot on its way.
pub struct Snapshot {
    /// The store's revision in the file.
    pub revision: i64,
    /// Length of the file.
    pub file_len: u64,
    /// etcd's storage version of the file.
    pub version: String,
    /// The file in order, and behind it its SHA-256, as a blob of its own.
    pub blobs: mpsc::Receiver<Result<Bytes, Error>>,
}

impl Node {
    /// Begins a snapshot of what is applied now.
    ///
    /// # Errors
    /// The disk.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.flush().await?;
        let (tell, told) = oneshot::channel();
        let (blobs, received) = mpsc::channel(BLOBS_WAITING);
        let inner = Arc::clone(&self.0);
        let members = self.roster().members().into_iter().collect();
        drop(spawn::blocking(move || {
            let opened = inner.backend.read().map_err(SnapshotError::from);
            let source = opened.map(|view| Source { view, members });
            let measured = source.and_then(|source| Ok((source.revision()?, source.measure()?, source)));
            let (revision, layout, source) = match measured {
                Ok(measured) => measured,
                // Whoever asked may have gone away.
                Err(error) => return drop(tell.send(Err(error))),
            };
            let (started, bytes) = (clock::now(), layout.file_len());
            if tell.send(Ok((revision, bytes))).is_err() {
                return;
            }
            tracing::info!("total-bytes" = bytes, "sending database snapshot to client");
            let sent = source.write(layout, Blobs::new(blobs.clone()));
            let took = clock::now().saturating_duration_since(started);
            match sent {
                Ok(()) => {
                    inner.metrics.client_snapshot.observe(took.as_secs_f64());
                    tracing::info!("total-bytes" = bytes, took = ?took, "successfully sent database snapshot to client");
                }
                Err(error) => {
                    tracing::warn!(%error, took = ?took, "failed to send database snapshot to client");
                    let _ = blobs.blocking_send(Err(Error::Internal(error.to_string())));
                }
            }
        }));
        let begun = told.await.map_err(|_| Error::Stopped)?;
        let (revision, file_len) = begun.map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Snapshot { revision, file_len, version: self.storage_version(), blobs: received })
    }
}

#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    #[error("snapshot: {0}")]
    Backend(#[from] BackendError),
    #[error("snapshot: {0}")]
    Write(#[from] WriteError),
    #[error("snapshot: {0}")]
    Output(#[from] io::Error),
    #[error("snapshot: the row {} is no revision", meta::REVISION)]
    Revision,
}

/// What a pass hands on: lengths only, or the rows.
trait Sink {
    fn bucket(&mut self, name: &str) -> Result<(), WriteError>;
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError>;
}

impl Sink for Measure {
    fn bucket(&mut self, name: &str) -> Result<(), WriteError> {
        Measure::bucket(self, name.as_bytes())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        Measure::row(self, key.len(), value.len())
    }
}

impl<W: Write> Sink for Writer<W> {
    fn bucket(&mut self, name: &str) -> Result<(), WriteError> {
        Writer::bucket(self, name.as_bytes())
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        Writer::row(self, key, value)
    }
}

/// One state of the store.
struct Source {
    view: ReadTxn,
    members: Vec<(u64, MemberNode)>,
}

impl Source {
    /// Of the same transaction as all rows. A store in which nothing has been applied is at 1, as etcd's.
    fn revision(&self) -> Result<i64, SnapshotError> {
        match self.view.get(Table::Meta, meta::REVISION.as_bytes())? {
            Some(row) => meta::decode_revision(&row).ok_or(SnapshotError::Revision),
            None => Ok(1),
        }
    }

    fn measure(&self) -> Result<Layout, SnapshotError> {
        let mut measure = Measure::new(PageSize::DEFAULT);
        self.emit(&mut measure)?;
        Ok(measure.finish()?)
    }

    fn write(&self, layout: Layout, blobs: Blobs) -> Result<(), SnapshotError> {
        let mut writer = Writer::new(blobs, layout)?;
        self.emit(&mut writer)?;
        Ok(writer.finish()?.finish()?)
    }

    /// All buckets in the order of their names.
    fn emit(&self, sink: &mut impl Sink) -> Result<(), SnapshotError> {
        sink.bucket("alarm")?;
        self.copy(Table::Alarms, sink)?;
        sink.bucket("auth")?;
        sink.row(b"authEnabled", &[0])?;
        sink.row(b"authRevision", &1_u64.to_be_bytes())?;
        sink.bucket("authRoles")?;
        sink.bucket("authUsers")?;
        sink.bucket("cluster")?;
        if let Some(version) = self.view.get(Table::Meta, meta::CLUSTER_VERSION.as_bytes())? {
            sink.row(b"clusterVersion", &version)?;
        }
        sink.bucket("key")?;
        self.copy(Table::Revisions, sink)?;
        sink.bucket("lease")?;
        self.copy(Table::Leases, sink)?;
        sink.bucket("members")?;
        self.members(sink)?;
        sink.bucket("members_removed")?;
        sink.bucket("meta")?;
        self.meta(sink)
    }

    /// Rows that are etcd's to the byte: revisions, leases (`leasepb.Lease`), alarms.
    fn copy(&self, table: Table, sink: &mut impl Sink) -> Result<(), SnapshotError> {
        let mut outcome = Ok(());
        self.view.scan(table, &[], None, &mut |key, value| {
            outcome = sink.row(key, value);
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(outcome?)
    }

    fn members(&self, sink: &mut impl Sink) -> Result<(), SnapshotError> {
        let mut rows: Vec<(String, String)> = Vec::new();
        for (id, member) in &self.members {
            let mut value =
                json!({"id": id, "peerURLs": member.peer_urls, "name": member.name, "clientURLs": member.client_urls});
            if member.is_learner {
                value["isLearner"] = true.into();
            }
            rows.push((format!("{id:x}"), value.to_string()));
        }
        rows.sort_unstable();
        for (id, member) in rows {
            sink.row(id.as_bytes(), member.as_bytes())?;
        }
        Ok(())
    }

    fn meta(&self, sink: &mut impl Sink) -> Result<(), SnapshotError> {
        let applied = self.view.get(Table::Meta, meta::APPLIED.as_bytes())?.unwrap_or_default();
        let (term, index) = applied.split_at_checked(8).unwrap_or_default();
        let voters: Vec<u64> = self.members.iter().filter(|(_, m)| !m.is_learner).map(|(id, _)| *id).collect();
        let learners: Vec<u64> = self.members.iter().filter(|(_, m)| m.is_learner).map(|(id, _)| *id).collect();
        let mut state = json!({"voters": voters, "auto_leave": false});
        if !learners.is_empty() {
            state["learners"] = json!(learners);
        }
        sink.row(b"confState", state.to_string().as_bytes())?;
        sink.row(b"consistent_index", index)?;
        for (name, row) in
            [("finishedCompactRev", meta::FINISHED_COMPACTION), ("scheduledCompactRev", meta::SCHEDULED_COMPACTION)]
        {
            if let Some(revision) = self.view.get(Table::Meta, row.as_bytes())? {
                // A revision as in the keys of rows: main, `_`, sub.
                sink.row(name.as_bytes(), &[&revision[..], b"_", &[0; 8]].concat())?;
            }
        }
        if let Some(version) = self.view.get(Table::Meta, meta::CLUSTER_VERSION.as_bytes())?
            && std::str::from_utf8(&version).ok().and_then(Version::parse) >= Some(STORAGE_VERSION_SINCE)
        {
            sink.row(b"storageVersion", &version)?;
        }
        Ok(sink.row(b"term", term)?)
    }
}

/// Cuts what is written into blobs for the client.
struct Blobs {
    blobs: mpsc::Sender<Result<Bytes, Error>>,
    open: BytesMut,
    hash: Sha256,
}

impl Blobs {
    fn new(blobs: mpsc::Sender<Result<Bytes, Error>>) -> Self {
        Self { blobs, open: BytesMut::with_capacity(BLOB_BYTES), hash: Sha256::new() }
    }

    fn send(&self, blob: Bytes) -> io::Result<()> {
        self.blobs.blocking_send(Ok(blob)).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }

    /// The rest of the file, then its hash.
    fn finish(mut self) -> io::Result<()> {
        if !self.open.is_empty() {
            let rest = self.open.split().freeze();
            self.send(rest)?;
        }
        let hash = Bytes::copy_from_slice(&self.hash.clone().finalize());
        self.send(hash)
    }
}

impl Write for Blobs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOB_BYTES - self.open.len());
        self.hash.update(&bytes[..taken]);
        self.open.extend_from_slice(&bytes[..taken]);
        if self.open.len() == BLOB_BYTES {
            let full = std::mem::replace(&mut self.open, BytesMut::with_capacity(BLOB_BYTES)).freeze();
            self.send(full)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
