//! Snapshots between members: the rows of the database, table by table, over as many connections as it takes.
//!
//! What is sent is the database as it is when the sending begins: at or behind what openraft was told, and the head says where.

use std::io;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::StreamExt as _;
use futures_util::stream;
use garboard_mvcc::Position;
use garboard_proto::peers as pb;
use garboard_proto::raft::LogPosition;
use garboard_storage::backend::Backend;
use openraft::raft::SnapshotResponse;

use super::membership::Stored;
use super::raft::Consensus;
use super::types::TypeConfig;
use super::types::Vote;
use super::types::log_id;
use super::wire;
use crate::install::Incoming;
use crate::install::Outgoing;
use crate::install::Point;
use crate::install::Points;

/// A snapshot that has come whole.
pub(crate) struct Received {
    pub(crate) position: Position,
    pub(crate) membership: Stored,
    pub(crate) database: Incoming,
}

/// What openraft passes around.
pub(crate) enum SnapshotData {
    /// This member's own database.
    Own(Arc<Backend>),
    /// From a peer.
    Received(Box<Received>),
}

/// Opens what is sent of a snapshot.
pub(super) fn open(snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>) -> io::Result<Outgoing> {
    match snapshot.snapshot {
        SnapshotData::Own(backend) => Outgoing::open(&backend),
        SnapshotData::Received(_) => Err(io::Error::other("a received snapshot is not sent on")),
    }
}

/// What one connection carries of a snapshot: a head, and all that comes behind `from`.
pub(super) fn parts(
    vote: &Vote,
    outgoing: &Outgoing,
    from: &Point,
) -> (impl Stream<Item = pb::SnapshotPart> + Send + use<>, Points) {
    let head = pb::SnapshotHead {
        vote: Some(wire::vote(vote)),
        last: Some(LogPosition { term: outgoing.position.term, index: outgoing.position.index }),
        membership: Some(outgoing.membership.clone()),
        id: outgoing.id,
        from: Some(from.proto()),
    };
    let head = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Head(head)) };
    let (parts, points) = outgoing.parts(from.clone());
    (stream::once(std::future::ready(head)).chain(parts), points)
}

impl Consensus {
    /// Hands a snapshot that has come whole to raft, which takes it unless it knows a newer leader.
    pub(crate) async fn answer_snapshot(
        &self,
        vote: Option<pb::Vote>,
        received: Received,
    ) -> io::Result<pb::SnapshotResponse> {
        let vote = wire::from_vote(vote)?;
        let meta = openraft::SnapshotMeta {
            last_log_id: Some(log_id(received.position.term, received.position.index)),
            last_membership: received.membership.membership.clone(),
        };
        let snapshot = openraft::Snapshot { meta, snapshot: SnapshotData::Received(Box::new(received)) };
        let SnapshotResponse { vote } =
            self.raft.install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
        Ok(pb::SnapshotResponse { vote: Some(wire::vote(&vote)) })
    }
}
