//! The database, as it is sent to a member.
//!
//! The read transaction is what makes a snapshot one: as long as it lives, the same rows can be sent again from any point of them, over
//! another connection. A few of the last points are kept, by which the receiver's word of what it has is checked.

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use garboard_mvcc::Position;
use garboard_mvcc::meta;
use garboard_proto::peers as pb;
use garboard_proto::peers::snapshot_part::Part;
use garboard_proto::raft::StoredMembership;
use garboard_runtime::clock;
use garboard_runtime::random;
use garboard_runtime::spawn;
use garboard_storage::backend::Backend;
use garboard_storage::backend::ReadTxn;
use garboard_storage::backend::Table;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;

/// Rows of one part, in bytes.
const PART_BYTES: usize = 1 << 20;
/// Parts read ahead of the connection.
const PARTS_WAITING: usize = 2;
/// At most so many bytes of rows are sent in a second: the disk and the network are the clients' first.
const BYTES_PER_S: u64 = 128 << 20;
/// Pages that a sending pins are not reused: after so long it is given up, and begun anew.
const SENDING_MAX: Duration = Duration::from_secs(600);
/// Points kept, one for each part: more parts than windows and buffers between two members hold.
const POINTS_KEPT: usize = 256;

/// One state of the database, for sending.
pub(crate) struct Outgoing {
    /// No other snapshot has it.
    pub(crate) id: u64,
    pub(crate) position: Position,
    pub(crate) membership: StoredMembership,
    view: Arc<ReadTxn>,
    opened: clock::Instant,
}

/// A place between two parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Point {
    rows: u64,
    crc32c: u32,
    /// Index in [`Table::ALL`].
    table: usize,
    /// The last row before it, if there is one in this table.
    key: Option<Bytes>,
}

/// The last points of what one connection was given.
#[derive(Clone)]
pub(crate) struct Points(Arc<Mutex<VecDeque<Point>>>);

// === impl Point ===

impl Point {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn proto(&self) -> pb::SnapshotPoint {
        pb::SnapshotPoint { rows: self.rows, crc32c: self.crc32c }
    }
}

// === impl Points ===

impl Points {
    fn from(point: Point) -> Self {
        Self(Arc::new(Mutex::new(VecDeque::from([point]))))
    }

    fn push(&self, point: Point) {
        let mut points = self.0.lock();
        if points.len() == POINTS_KEPT {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// The point at which a receiver says it is; none if it cannot be there.
    pub(crate) fn find(&self, point: pb::SnapshotPoint) -> Option<Point> {
        self.0.lock().iter().find(|known| known.proto() == point).cloned()
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Opens the database as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn open(backend: &Backend) -> io::Result<Self> {
        let view = backend.read().map_err(io::Error::other)?;
        let row = |name: &str| view.get(Table::Meta, name.as_bytes()).map_err(io::Error::other);
        let missing = |name: &str| io::Error::other(format!("the database has no row {name}"));
        let applied = row(meta::APPLIED)?.and_then(|bytes| meta::decode_position(&bytes));
        let position = applied.ok_or_else(|| missing(meta::APPLIED))?;
        let membership = row(meta::MEMBERSHIP)?.ok_or_else(|| missing(meta::MEMBERSHIP))?;
        let membership = StoredMembership::decode(membership).map_err(io::Error::other)?;
        let id = random::u64().map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
        Ok(Self { id, position, membership, view: Arc::new(view), opened: clock::now() })
    }

    /// Whether it has pinned pages for long enough.
    pub(crate) fn is_too_old(&self) -> bool {
        self.opened.elapsed() > SENDING_MAX
    }

    /// What comes behind the head of a connection that goes on at `from`. Reading ends when the stream is dropped.
    pub(crate) fn parts(&self, from: Point) -> (impl Stream<Item = pb::SnapshotPart> + Send + use<>, Points) {
        let (to, sent) = mpsc::channel(PARTS_WAITING);
        let points = Points::from(from.clone());
        let (view, index, until) = (Arc::clone(&self.view), self.position.index, self.opened + SENDING_MAX);
        let mut reading = Reading::new(to, points.clone(), from, until);
        drop(spawn::blocking(move || {
            tracing::info!(index, rows = reading.at.rows, "sending a snapshot to a member");
            if let Err(error) = reading.run(&view) {
                tracing::warn!(error, rows = reading.at.rows, "a snapshot was not sent to its end");
            }
        }));
        (stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) }), points)
    }
}

/// Reads from a point on.
struct Reading {
    to: mpsc::Sender<pb::SnapshotPart>,
    points: Points,
    /// Behind the last row read; its key is that of the last row sent.
    at: Point,
    started: clock::Instant,
    until: clock::Instant,
    bytes: u64,
    part: pb::SnapshotRows,
    part_bytes: usize,
}

// === impl Reading ===

impl Reading {
    fn new(to: mpsc::Sender<pb::SnapshotPart>, points: Points, at: Point, until: clock::Instant) -> Self {
        let part = pb::SnapshotRows::default();
        Self { to, points, at, started: clock::now(), until, bytes: 0, part, part_bytes: 0 }
    }

    /// Sends all rows and the end; without the end, the receiver takes what it got for a part.
    fn run(&mut self, view: &ReadTxn) -> Result<(), String> {
        for (number, table) in Table::ALL.into_iter().enumerate().skip(self.at.table) {
            if number != self.at.table {
                (self.at.table, self.at.key) = (number, None);
            }
            let start = self.at.key.take();
            let start = start.as_deref().map_or(Bound::Included(&b""[..]), Bound::Excluded);
            self.part.table = table as u32;
            let mut result = Ok(());
            view.scan_bounds(table, (start, Bound::Unbounded), &mut |key, value| {
                result = self.row(key, value);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|error| error.to_string())?;
            result?;
            self.flush()?;
        }
        self.put(Part::End(pb::SnapshotEnd { rows: self.at.rows }))
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let key = Bytes::copy_from_slice(key);
        self.at.rows += 1;
        self.at.crc32c = crc32c::crc32c_append(crc32c::crc32c_append(self.at.crc32c, &key), value);
        self.part_bytes += key.len() + value.len();
        self.part.keys.push(key);
        self.part.values.push(Bytes::copy_from_slice(value));
        if self.part_bytes < PART_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.part.keys.is_empty() {
            return Ok(());
        }
        let next = pb::SnapshotRows { table: self.part.table, ..pb::SnapshotRows::default() };
        let mut part = std::mem::replace(&mut self.part, next);
        part.crc32c = self.at.crc32c;
        self.bytes += std::mem::take(&mut self.part_bytes) as u64;
        self.at.key = part.keys.last().cloned();
        // Before the receiver can say that it has come so far.
        self.points.push(self.at.clone());
        self.put(Part::Rows(part))?;
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / BYTES_PER_S);
        clock::pause_thread(due.saturating_sub(self.started.elapsed()));
        if clock::now() > self.until {
            return Err("it took too long".to_owned());
        }
        Ok(())
    }

    fn put(&self, part: Part) -> Result<(), String> {
        let part = pb::SnapshotPart { part: Some(part) };
        self.to.blocking_send(part).map_err(|_| "the connection is gone".to_owned())
    }
}
