//! Both ends of a snapshot between members, with what lies between them cut, mixed up and left alone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::ops::ControlFlow;

use futures_util::stream;
use garboard_proto::raft::StoredMembership;
use garboard_storage::disk::memory::MemoryDisk;
use prost::Message as _;

use super::super::Outgoing;
use super::super::Point;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const DB: &str = "/data/member/db";
const POSITION: Position = Position { term: 3, index: 77 };
const KEY: SnapshotKey = SnapshotKey { from: 1, id: 11 };

type Rows = BTreeMap<(u32, Vec<u8>), Vec<u8>>;
type Parts = Vec<io::Result<pb::SnapshotPart>>;

fn disk() -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DB).parent().unwrap()).unwrap();
    Arc::new(disk)
}

/// A database of a few parts, whose values begin with `mark`.
fn database(mark: u8) -> Backend {
    let backend = Backend::open(disk(), Path::new(DB), BackendOptions::default()).unwrap();
    let mut batch = WriteBatch::default();
    batch.put(Table::Meta, meta::APPLIED.as_bytes(), meta::encode_position(POSITION));
    batch.put(Table::Meta, meta::MEMBERSHIP.as_bytes(), StoredMembership::default().encode_to_vec());
    batch.put(Table::Leases, vec![7; 8], vec![mark; 20]);
    for n in 0..60_u32 {
        batch.put(Table::Revisions, n.to_be_bytes().to_vec(), vec![mark; 100_000]);
    }
    backend.commit(&batch).unwrap();
    backend
}

fn rows(backend: &Backend) -> Rows {
    let mut rows = Rows::new();
    let view = backend.read().unwrap();
    for table in Table::ALL {
        view.scan_bounds(table, (Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
            rows.insert((table as u32, key.to_vec()), value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    rows
}

/// What a receiver has of a database once all of it has come.
fn received(backend: &Backend) -> Rows {
    let mut rows = rows(backend);
    rows.insert((Table::Meta as u32, META_INSTALLED.as_bytes().to_vec()), meta::encode_position(POSITION).to_vec());
    rows
}

async fn parts(outgoing: &Outgoing, from: Point) -> Parts {
    outgoing.parts(from).0.map(Ok).collect().await
}

struct End {
    disk: Arc<MemoryDisk>,
    receiver: Arc<Receiver>,
}

// === impl End ===

impl End {
    fn new() -> Self {
        Self::keeping_for(KEPT_FOR)
    }

    fn keeping_for(kept_for: Duration) -> Self {
        let disk = disk();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let receiver = Receiver::new(disk.clone(), Path::new(DB), BackendOptions::default(), metrics);
        Self { disk, receiver: Arc::new(Receiver { kept_for, ..receiver }) }
    }

    async fn receive(&self, key: SnapshotKey, from: pb::SnapshotPoint, parts: Parts) -> io::Result<Rows> {
        let parts = stream::iter(parts);
        let (incoming, _held) = self.receiver.receive(key, POSITION, from, parts).await?;
        Ok(rows(&incoming.0))
    }

    /// Cuts the connection behind so many parts of a snapshot that is sent from its beginning.
    async fn cut(&self, outgoing: &Outgoing, count: usize) {
        let mut parts = parts(outgoing, Point::default()).await;
        parts.truncate(count);
        parts.push(Err(io::ErrorKind::ConnectionReset.into()));
        let error = self.receive(KEY, pb::SnapshotPoint::default(), parts).await.unwrap_err();
        assert!(is_break(&error), "{error}");
    }

    /// What it says it has.
    async fn point(&self, key: SnapshotKey) -> Option<pb::SnapshotPoint> {
        match self.receiver.held(key).await? {
            HeldProto::Point(point) => Some(point),
            HeldProto::Taken(_) => panic!("nothing was taken"),
        }
    }

    fn has_file(&self) -> bool {
        self.disk.exists(&incoming_path(Path::new(DB))).unwrap()
    }
}

fn row_count(parts: &Parts) -> usize {
    let rows = parts.iter().map(|part| match &part.as_ref().unwrap().part {
        Some(Part::Rows(rows)) => rows.keys.len(),
        _ => 0,
    });
    rows.sum()
}

#[tokio::test]
async fn a_snapshot_goes_on_wherever_it_was_cut() {
    let database = database(1);
    let (outgoing, expected) = (Outgoing::open(&database).unwrap(), received(&database));
    let count = parts(&outgoing, Point::default()).await.len();
    assert!(count > 6, "{count} parts");
    // The store goes on meanwhile; the snapshot does not.
    let mut batch = WriteBatch::default();
    batch.put(Table::Revisions, 30_u32.to_be_bytes().to_vec(), b"changed".to_vec());
    batch.put(Table::Revisions, 1000_u32.to_be_bytes().to_vec(), b"new".to_vec());
    batch.put(Table::Meta, meta::APPLIED.as_bytes(), meta::encode_position(Position { term: 3, index: 99 }));
    database.commit(&batch).unwrap();
    // From nothing at all to all but the end.
    for cut in 0..count {
        let end = End::new();
        let (sent, points) = outgoing.parts(Point::default());
        let mut parts: Parts = sent.map(Ok).collect().await;
        let all = row_count(&parts);
        parts.truncate(cut);
        let before = row_count(&parts);
        parts.push(Err(io::ErrorKind::ConnectionReset.into()));
        let error = end.receive(KEY, pb::SnapshotPoint::default(), parts).await.unwrap_err();
        assert!(is_break(&error), "{error}");

        let held = end.point(KEY).await.unwrap();
        assert_eq!(held.rows as usize, before, "cut behind {cut}");
        let rest = outgoing.parts(points.find(held).unwrap()).0.map(Ok).collect::<Parts>().await;
        assert_eq!(row_count(&rest), all - before, "cut behind {cut}: nothing is sent twice");
        assert!(end.receive(KEY, held, rest).await.unwrap() == expected, "cut behind {cut}");
    }
}

#[tokio::test]
async fn a_snapshot_comes_over_as_many_connections_as_it_takes() {
    let database = database(1);
    let outgoing = Outgoing::open(&database).unwrap();
    let (end, mut from, mut connections) = (End::new(), Point::default(), 0);
    loop {
        connections += 1;
        assert!(connections < 100, "it does not end");
        let (sent, points) = outgoing.parts(from.clone());
        // One part over each, and then it ends without an end.
        let sent: Parts = sent.take(1).map(Ok).collect().await;
        match end.receive(KEY, from.proto(), sent).await {
            Ok(rows) => break assert!(rows == received(&database)),
            Err(error) => assert!(is_break(&error), "{error}"),
        }
        from = points.find(end.point(KEY).await.unwrap()).unwrap();
    }
    assert!(connections > 6, "{connections} connections");
}

#[tokio::test]
async fn a_point_is_found_only_where_the_sender_was() {
    let outgoing = Outgoing::open(&database(1)).unwrap();
    let (sent, points) = outgoing.parts(Point::default());
    let parts: Vec<_> = sent.collect().await;
    let Some(Part::Rows(rows)) = &parts[1].part else { panic!("no rows") };
    let Some(Part::Rows(first)) = &parts[0].part else { panic!("no rows") };
    let point = pb::SnapshotPoint { rows: (first.keys.len() + rows.keys.len()) as u64, crc32c: rows.crc32c };
    assert_eq!(points.find(point).unwrap().proto(), point);
    assert_eq!(points.find(pb::SnapshotPoint { rows: point.rows + 1, ..point }), None);
    assert_eq!(points.find(pb::SnapshotPoint { crc32c: !point.crc32c, ..point }), None);
}

#[tokio::test]
async fn another_snapshot_begins_anew_and_is_never_mixed_with_what_is_there() {
    let (one, other) = (database(1), database(2));
    let (outgoing, another) = (Outgoing::open(&one).unwrap(), Outgoing::open(&other).unwrap());
    let end = End::new();
    end.cut(&outgoing, 4).await;
    let held = end.point(KEY).await.unwrap();
    for key in [SnapshotKey { from: 2, ..KEY }, SnapshotKey { id: 12, ..KEY }] {
        assert_eq!(end.point(key).await, None, "{key:?}");
        // Not from there, whoever says it; what is there stays.
        let error = end.receive(key, held, parts(&another, Point::default()).await).await.unwrap_err();
        assert!(error.to_string().contains("goes on where this member is not"), "{error}");
    }
    // Nor from elsewhere, nor by the rows of another.
    let elsewhere = pb::SnapshotPoint { rows: held.rows - 1, ..held };
    let error = end.receive(KEY, elsewhere, parts(&outgoing, Point::default()).await).await.unwrap_err();
    assert!(error.to_string().contains("goes on where this member is not"), "{error}");
    assert_eq!(end.point(KEY).await, Some(held));

    let key = SnapshotKey { from: 2, id: 12 };
    let all = parts(&another, Point::default()).await;
    assert!(end.receive(key, pb::SnapshotPoint::default(), all).await.unwrap() == received(&other));
    assert_eq!(end.point(KEY).await, None);
}

#[tokio::test]
async fn what_is_not_the_next_part_is_refused_and_nothing_is_left() {
    let (one, other) = (database(1), database(2));
    let (outgoing, another) = (Outgoing::open(&one).unwrap(), Outgoing::open(&other).unwrap());
    let all = || async { parts(&outgoing, Point::default()).await };
    let (mut without, mut doubled, mut swapped, mut mixed) = (all().await, all().await, all().await, all().await);
    drop(without.remove(3));
    let again = pb::SnapshotPart::clone(doubled[3].as_ref().unwrap());
    doubled.insert(3, Ok(again));
    swapped.swap(3, 4);
    mixed[3] = parts(&another, Point::default()).await.remove(3);
    for (name, parts) in [("without one", without), ("one doubled", doubled), ("swapped", swapped), ("mixed", mixed)] {
        let end = End::new();
        let error = end.receive(KEY, pb::SnapshotPoint::default(), parts).await.unwrap_err();
        assert!(error.to_string().contains("is not the next one"), "{name}: {error}");
        assert!(!is_break(&error), "{name}");
        assert!(!end.has_file(), "{name}");
        assert_eq!(end.point(KEY).await, None, "{name}");
    }
    let end = End::new();
    end.cut(&outgoing, 3).await;
    let held = end.point(KEY).await.unwrap();
    // The rest of another, from where this one was cut.
    let rest = parts(&another, Point::default()).await.split_off(3);
    let error = end.receive(KEY, held, rest).await.unwrap_err();
    assert!(error.to_string().contains("is not the next one"), "{error}");
    assert!(!end.has_file());
}

#[tokio::test]
async fn what_nobody_goes_on_with_is_thrown_away() {
    let outgoing = Outgoing::open(&database(1)).unwrap();
    let end = End::keeping_for(Duration::from_millis(20));
    end.cut(&outgoing, 3).await;
    assert!(end.has_file());
    let until = clock::now() + PATIENCE;
    while end.has_file() {
        assert!(clock::now() < until, "the file stays");
        tokio::task::yield_now().await;
    }
    assert_eq!(end.point(KEY).await, None);
}

#[tokio::test]
async fn who_waits_on_a_dead_connection_gives_way_to_the_next() {
    let outgoing = Outgoing::open(&database(1)).unwrap();
    let end = End::new();
    let mut some = parts(&outgoing, Point::default()).await;
    some.truncate(3);
    let count = row_count(&some);
    let (silent, is_silent) = tokio::sync::oneshot::channel();
    let dead = stream::iter(some).chain(stream::once(Box::pin(async move {
        silent.send(()).unwrap();
        std::future::pending().await
    })));
    let receiver = Arc::clone(&end.receiver);
    let waiting =
        spawn::task(async move { receiver.receive(KEY, POSITION, pb::SnapshotPoint::default(), dead).await.map(drop) });
    clock::timeout(PATIENCE, is_silent).await.unwrap().unwrap();
    // Another's word does not end it.
    let (other, own) = (SnapshotKey { id: 12, ..KEY }, KEY);
    assert!(clock::timeout(Duration::from_millis(50), end.receiver.held(other)).await.is_err());
    assert!(!waiting.is_finished());
    // Long before it would give up by itself.
    let held = clock::timeout(PART_TIMEOUT / 3, end.point(own)).await.unwrap().unwrap();
    assert!(is_break(&waiting.await.unwrap().unwrap_err()));
    assert_eq!(held.rows as usize, count);
}
