//! Linearizable reads: leadership is proved to a quorum once for all reads that wait (ReadIndex, Raft thesis 6.4).
//!
//! A read joins the next round, never one that has begun: the round's commit index must be taken after the read arrived.

use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_runtime::wake;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::consensus::Consensus;
use crate::consensus::ConsensusError;
use crate::error::Error;
use crate::metrics::Metrics;

/// Reads that may wait; more wait for a place.
const QUEUE_READS: usize = 16_384;
/// Pause before a round that found no proven leader is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

type Reply = oneshot::Sender<Result<(), Error>>;

/// The way in for linearizable reads.
#[derive(Clone)]
pub(crate) struct ReadIndex {
    queue: mpsc::Sender<Reply>,
    timeout: Duration,
}

impl ReadIndex {
    /// Starts the task that runs the rounds, on the current runtime.
    pub(crate) fn start(consensus: Consensus, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let (queue, incoming) = mpsc::channel(QUEUE_READS);
        spawn::task(run(consensus, metrics, incoming, timeout));
        Self { queue, timeout }
    }

    /// Returns once a read of the local state is linearizable.
    pub(crate) async fn wait(&self) -> Result<(), Error> {
        let (reply, result) = oneshot::channel();
        let round = async {
            self.queue.send(reply).await.map_err(|_| Error::Stopped)?;
            wake::gathered(result).await.unwrap_or(Err(Error::Stopped))
        };
        clock::timeout(self.timeout, round).await.unwrap_or(Err(Error::Timeout))
    }
}

async fn run(consensus: Consensus, metrics: Arc<Metrics>, mut incoming: mpsc::Receiver<Reply>, timeout: Duration) {
    let mut waiting = Vec::new();
    while incoming.recv_many(&mut waiting, QUEUE_READS).await > 0 {
        let result = round(&consensus, timeout).await;
        if result.is_err() {
            metrics.read_indexes_failed.inc();
        }
        for reply in waiting.drain(..) {
            // A client that has gone away does not want its reply.
            let _ = reply.send(result.clone());
        }
    }
}

async fn round(consensus: &Consensus, timeout: Duration) -> Result<(), Error> {
    let deadline = clock::now() + timeout;
    loop {
        match consensus.read_index().await {
            Ok(()) => return Ok(()),
            // A leader is without its lease until its first quorum acknowledgement.
            Err(ConsensusError::LeaseExpired | ConsensusError::NoLeader) if clock::now() < deadline => {
                clock::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
