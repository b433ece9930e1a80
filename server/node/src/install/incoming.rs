//! A database that comes from a member, built into a file of its own.
//!
//! One comes at a time. When its connection breaks, what has come is kept for a while, for the same sender to go on with the same snapshot;
//! anything else throws it away. Each part continues the checksum of all before it, so that nothing is left out, doubled or mixed in.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt as _;
use garboard_mvcc::Position;
use garboard_mvcc::meta;
use garboard_proto::peers as pb;
use garboard_proto::peers::snapshot_held_response::Held as HeldProto;
use garboard_proto::peers::snapshot_part::Part;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_storage::Disk;
use garboard_storage::backend::Backend;
use garboard_storage::backend::BackendOptions;
use garboard_storage::backend::Table;
use garboard_storage::backend::WriteBatch;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;

use super::META_INSTALLED;
use crate::metrics::Metrics;

/// A sender that says nothing for so long is gone.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// What has come of a snapshot is kept for so long after its connection broke.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(60);
/// Bytes of rows in one transaction of the new file.
const BATCH_BYTES: usize = 8 << 20;

/// Which snapshot: nobody else sends one of this id, and this sender no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotKey {
    pub(crate) from: u64,
    pub(crate) id: u64,
}

/// A database that has come whole, under a name of its own.
pub(crate) struct Incoming(pub(super) Backend);

/// What this member has of the last snapshot that it was sent.
#[derive(Default)]
pub(crate) enum Held {
    #[default]
    Nothing,
    Part(Box<Building>),
    Taken(SnapshotKey, pb::SnapshotResponse),
}

/// A database that is coming.
pub(crate) struct Building {
    key: SnapshotKey,
    position: Position,
    backend: Backend,
    batch: WriteBatch,
    bytes: usize,
    /// What has come.
    point: pb::SnapshotPoint,
    begun: clock::Instant,
}

/// Receives one snapshot at a time.
pub(crate) struct Receiver {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: BackendOptions,
    kept_for: Duration,
    metrics: Arc<Metrics>,
    held: Arc<tokio::sync::Mutex<Held>>,
    /// The snapshot whose sender has said that its connection is gone.
    broken: watch::Sender<Option<SnapshotKey>>,
}

/// Throws away what a snapshot that was cut short has left of the database at `db_path`.
pub(crate) fn clear(disk: &dyn Disk, db_path: &Path) -> io::Result<()> {
    remove(disk, &incoming_path(db_path))
}

fn incoming_path(db_path: &Path) -> PathBuf {
    db_path.with_extension("incoming")
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    Backend::remove(disk, path).map_err(io::Error::other)
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Whether the connection ended, and not what came over it.
pub(crate) fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionAborted)
}

// === impl Building ===

impl Building {
    fn rows(&mut self, part: pb::SnapshotRows) -> io::Result<()> {
        let table = Table::ALL.into_iter().find(|table| *table as u32 == part.table);
        let table = table.ok_or_else(|| invalid("a part of a snapshot is of an unknown table"))?;
        if part.keys.len() != part.values.len() {
            return Err(invalid("a part of a snapshot has keys without values"));
        }
        let mut crc = self.point.crc32c;
        for (key, value) in part.keys.iter().zip(&part.values) {
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
        }
        if crc != part.crc32c {
            return Err(invalid("a part of a snapshot was damaged on its way, or is not the next one"));
        }
        self.point = pb::SnapshotPoint { rows: self.point.rows + part.keys.len() as u64, crc32c: crc };
        for (key, value) in part.keys.into_iter().zip(part.values) {
            self.bytes += key.len() + value.len();
            self.batch.put(table, key, value);
        }
        if self.bytes >= BATCH_BYTES {
            self.bytes = 0;
            self.backend.commit(&std::mem::take(&mut self.batch)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn end(mut self: Box<Self>, end: pb::SnapshotEnd, metrics: &Metrics) -> io::Result<Incoming> {
        if end.rows != self.point.rows {
            return Err(invalid(format!("a snapshot of {} rows came with {}", end.rows, self.point.rows)));
        }
        self.batch.put(Table::Meta, META_INSTALLED.as_bytes(), meta::encode_position(self.position));
        let syncing = clock::now();
        self.backend.commit_durable(&self.batch).map_err(io::Error::other)?;
        metrics.snapshot_sync.observe(syncing.elapsed().as_secs_f64());
        let applied = self.backend.get_many(Table::Meta, &[meta::APPLIED.as_bytes()]).map_err(io::Error::other)?;
        let applied = applied.into_iter().flatten().next().and_then(|bytes| meta::decode_position(&bytes));
        if applied != Some(self.position) {
            return Err(invalid(format!("a snapshot at entry {} holds another: {applied:?}", self.position.index)));
        }
        metrics.snapshot_save.observe(self.begun.elapsed().as_secs_f64());
        Ok(Incoming(self.backend))
    }
}

// === impl Receiver ===

impl Receiver {
    pub(crate) fn new(disk: Arc<dyn Disk>, db_path: &Path, options: BackendOptions, metrics: Arc<Metrics>) -> Self {
        let path = incoming_path(db_path);
        Self {
            disk,
            path,
            options,
            kept_for: KEPT_FOR,
            metrics,
            held: Arc::default(),
            broken: watch::Sender::new(None),
        }
    }

    /// Builds the file of what comes behind a head, and what came of it before. The guard keeps others out until the snapshot is taken.
    ///
    /// # Errors
    /// Those of [`is_break`] leave what has come for the next connection; after all others nothing is left.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        key: SnapshotKey,
        position: Position,
        from: pb::SnapshotPoint,
        mut parts: impl Stream<Item = io::Result<pb::SnapshotPart>> + Send + Unpin,
    ) -> io::Result<(Incoming, OwnedMutexGuard<Held>)> {
        let held = Arc::clone(&self.held).try_lock_owned();
        let mut held = held.map_err(|_| io::Error::other("another snapshot is being received"))?;
        self.broken.send_if_modified(|broken| broken.take_if(|broken| *broken == key).is_some());
        let mut building = match std::mem::take(&mut *held) {
            Held::Part(part) if part.key == key && part.position == position && part.point == from => part,
            other if from.rows == 0 => {
                // Closed before its file goes.
                drop(other);
                let receiver = Arc::clone(self);
                blocking(move || receiver.begin(key, position)).await?
            }
            other => {
                *held = other;
                return Err(invalid("a snapshot goes on where this member is not"));
            }
        };
        let mut broken = self.broken.subscribe();
        let built = loop {
            let gone = broken.wait_for(|broken| *broken == Some(key));
            let next = tokio::select! {
                next = next(&mut parts) => next,
                _ = gone => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its sender has lost the connection")),
            };
            match next {
                Ok(Some(Part::Rows(rows))) => {
                    let added = blocking(move || building.rows(rows).map(|()| building)).await;
                    building = self.or_removed(added).await?;
                }
                Ok(Some(Part::End(end))) => {
                    let metrics = Arc::clone(&self.metrics);
                    break blocking(move || building.end(end, &metrics)).await;
                }
                Ok(Some(Part::Head(_)) | None) => {
                    drop(building);
                    break Err(invalid("a snapshot begins twice"));
                }
                Err(error) => {
                    tracing::warn!(%error, rows = building.point.rows, "a snapshot was cut short; what has come is kept");
                    self.keep(&mut held, building);
                    return Err(error);
                }
            }
        };
        Ok((self.or_removed(built).await?, held))
    }

    fn begin(&self, key: SnapshotKey, position: Position) -> io::Result<Box<Building>> {
        remove(&*self.disk, &self.path)?;
        let backend = Backend::open(Arc::clone(&self.disk), &self.path, self.options.clone());
        let backend = backend.map_err(io::Error::other)?;
        let (point, begun) = (pb::SnapshotPoint::default(), clock::now());
        Ok(Box::new(Building { key, position, backend, batch: WriteBatch::default(), bytes: 0, point, begun }))
    }

    /// Keeps what has come for the next connection, and throws it away when none comes.
    fn keep(self: &Arc<Self>, held: &mut Held, building: Box<Building>) {
        let (key, point) = (building.key, building.point);
        *held = Held::Part(building);
        let (receiver, kept_for) = (Arc::downgrade(self), self.kept_for);
        drop(spawn::task(async move {
            clock::sleep(kept_for).await;
            let Some(receiver) = receiver.upgrade() else { return };
            // Somebody goes on with it, or with another.
            let Ok(mut held) = Arc::clone(&receiver.held).try_lock_owned() else { return };
            if matches!(&*held, Held::Part(part) if part.key == key && part.point == point) {
                tracing::warn!(rows = point.rows, "nobody went on with a snapshot; what has come is thrown away");
                *held = Held::Nothing;
                receiver.remove_or_warn().await;
            }
        }));
    }

    /// What has come of a snapshot whose sender says that its connection is gone. Whatever listens to that connection gives up first.
    pub(crate) async fn held(&self, key: SnapshotKey) -> Option<HeldProto> {
        self.broken.send_replace(Some(key));
        match &*self.held.lock().await {
            Held::Part(part) if part.key == key => Some(HeldProto::Point(part.point)),
            Held::Taken(taken, response) if *taken == key => Some(HeldProto::Taken(*response)),
            _ => None,
        }
    }

    async fn or_removed<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.remove_or_warn().await;
        }
        result
    }

    /// Removes the file. One that stays behind is removed before the next snapshot, or at the next start.
    pub(super) async fn remove_or_warn(&self) {
        let (disk, path) = (Arc::clone(&self.disk), self.path.clone());
        if let Err(error) = blocking(move || remove(&*disk, &path)).await {
            tracing::warn!(%error, "an unfinished snapshot cannot be removed");
        }
    }
}

/// The next part. All errors are those of the connection.
pub(super) async fn next(
    parts: &mut (impl Stream<Item = io::Result<pb::SnapshotPart>> + Unpin),
) -> io::Result<Option<Part>> {
    let next = clock::timeout(PART_TIMEOUT, parts.next()).await.map_err(|_| io::ErrorKind::TimedOut)?;
    let part = next.ok_or(io::ErrorKind::UnexpectedEof)?;
    part.map(|part| part.part).map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn::blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
