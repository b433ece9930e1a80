//! Linearizable reads: leadership is proved to a quorum once for all reads that wait (ReadIndex, Raft thesis 6.4).
//!
//! A read joins the next round, never one that has begun: the round's commit index must be taken after the read arrived. A follower asks
//! the leader for its index, and waits until it has applied that far.

use std::sync::Arc;
use std::time::Duration;

use garboard_proto::peers as pb;
use garboard_proto::peers::read_index_response::Result as Indexed;
use garboard_proto::peers::refused::Reason;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_runtime::wake;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::consensus::Consensus;
use crate::consensus::ConsensusError;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::peers::Line;
use crate::peers::Links;

/// Reads that may wait; more wait for a place.
const QUEUE_READS: usize = 16_384;
/// Pause before a round that found no proven leader is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Where the proof comes from.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) consensus: Consensus,
    pub(crate) links: Arc<Links>,
    /// The last entry applied here.
    pub(crate) applied: watch::Receiver<u64>,
}

/// The way in for linearizable reads.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    queue: mpsc::Sender<Reply<()>>,
    /// For those who want this member's own proof, or none.
    queue_here: mpsc::Sender<Reply<u64>>,
    timeout: Duration,
}

impl ReadIndex {
    /// Starts the tasks that run the rounds, on the current runtime.
    pub(crate) fn start(ground: Ground, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let (queue, incoming) = mpsc::channel(QUEUE_READS);
        let (queue_here, incoming_here) = mpsc::channel(QUEUE_READS);
        spawn::task(run(ground.clone(), Arc::clone(&metrics), incoming, timeout));
        spawn::task(run_here(ground.consensus, incoming_here));
        Self { queue, queue_here, timeout }
    }

    /// Returns once a read of the local state is linearizable.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        self.wait_in(&self.queue).await
    }

    /// The same, if this member leads, with the term in which it does; it does not ask another.
    pub(crate) async fn wait_here(&self) -> Result<u64, Error> {
        self.wait_in(&self.queue_here).await
    }

    async fn wait_in<T>(&self, queue: &mpsc::Sender<Reply<T>>) -> Result<T, Error> {
        let (reply, result) = oneshot::channel();
        let round = async {
            queue.send(reply).await.map_err(|_| Error::Stopped)?;
            wake::gathered(result).await.unwrap_or(Err(Error::Stopped))
        };
        clock::timeout(self.timeout, round).await.unwrap_or(Err(Error::Timeout))
    }
}

async fn run(ground: Ground, metrics: Arc<Metrics>, mut incoming: mpsc::Receiver<Reply<()>>, timeout: Duration) {
    let mut waiting = Vec::new();
    while incoming.recv_many(&mut waiting, QUEUE_READS).await > 0 {
        let result = round(&ground, timeout).await;
        if result.is_err() {
            metrics.read_indexes_failed.inc();
        }
        answer(&mut waiting, &result);
    }
}

async fn run_here(consensus: Consensus, mut incoming: mpsc::Receiver<Reply<u64>>) {
    let mut waiting = Vec::new();
    while incoming.recv_many(&mut waiting, QUEUE_READS).await > 0 {
        let result = consensus.read_index().await.map_err(Error::from);
        answer(&mut waiting, &result);
    }
}

fn answer<T: Clone>(waiting: &mut Vec<Reply<T>>, result: &Result<T, Error>) {
    for reply in waiting.drain(..) {
        // A client that has gone away does not want its reply.
        let _ = reply.send(result.clone());
    }
}

/// Tries until it is proved, by whoever leads by then.
async fn round(ground: &Ground, timeout: Duration) -> Result<(), Error> {
    let deadline = clock::now() + timeout;
    loop {
        let view = ground.consensus.view();
        let result = if view.leader == 0 || view.is_leader {
            ground.consensus.read_index().await.map(drop)
        } else {
            let asked = clock::timeout_at(deadline, ask(ground, view.leader)).await;
            asked.unwrap_or(Err(ConsensusError::NoLeader))
        };
        match result {
            Ok(()) => return Ok(()),
            Err(ConsensusError::Stopped(_)) => return Err(Error::Stopped),
            // A leader is without its lease until its first quorum acknowledgement; nothing was done that could not be done again.
            Err(_) if clock::now() < deadline => clock::sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks `leader` for its index, and waits until it is applied here.
async fn ask(ground: &Ground, leader: u64) -> Result<(), ConsensusError> {
    let mut client = ground.links.client(leader, Line::Log);
    let result = client.read_index(ground.links.request(leader, pb::ReadIndexRequest {})).await;
    let answer = ground.links.answer(leader, result).await.map_err(|_| ConsensusError::NoLeader)?;
    let Some(Indexed::Index(index)) = answer.result else { return Err(ConsensusError::NoLeader) };
    let mut applied = ground.applied.clone();
    let reached = applied.wait_for(|applied| *applied >= index).await;
    reached.map(drop).map_err(|_| ConsensusError::Stopped("nothing is applied any more".into()))
}

impl Node {
    /// The index up to which a member has to have applied the log for a linearizable read now, if this member leads.
    pub(crate) async fn read_index_for(&self) -> Indexed {
        match self.0.reads.wait_here().await {
            // What is applied here by now is at or behind the index that was proved.
            Ok(_) => Indexed::Index(self.store().applied().index),
            Err(_) => {
                let leader = self.consensus().view().leader;
                let reason = if leader == 0 { Reason::NoLeader } else { Reason::NotLeader };
                Indexed::Refused(pb::Refused { reason: reason.into(), leader })
            }
        }
    }
}
