//! Writes: many commands of many clients become one log entry, one WAL write, one sync.
//!
//! A command waits in a bounded queue; one task takes what is there, encodes it once and proposes it. Only a few entries are under
//! way at a time, so that under load the next entry gathers what arrives meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garboard_mvcc::Response;
use garboard_proto::raft::Batch;
use garboard_proto::raft::Command;
use garboard_runtime::clock;
use garboard_runtime::clock::Instant;
use garboard_runtime::spawn;
use garboard_runtime::wake;
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::consensus::Consensus;
use crate::consensus::ConsensusError;
use crate::consensus::Outcome;
use crate::error::Error;
use crate::metrics::Metrics;

/// Commands that may wait; one more is refused with "too many requests", as etcd refuses when 5,000 entries wait to be applied.
const QUEUE_COMMANDS: usize = 16_384;
/// Commands of one entry.
const BATCH_COMMANDS: usize = 1_024;
/// Bytes after which an entry takes no further command.
const BATCH_BYTES: usize = 1 << 20;
/// Entries under way.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Pause before what a leader without a lease, or no leader at all, refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

type Reply = oneshot::Sender<Result<Response, Error>>;

struct Proposal {
    command: Command,
    bytes: usize,
    deadline: Instant,
    reply: Reply,
}

/// One entry on its way, with those who wait for it.
struct Flight {
    batch: Bytes,
    replies: Vec<Reply>,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The way in for writes.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl Proposer {
    /// Starts the task that proposes, on the current runtime.
    pub(crate) fn start(consensus: Consensus, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let (queue, incoming) = mpsc::channel(QUEUE_COMMANDS);
        spawn::task(run(consensus, incoming));
        Self { queue, metrics, timeout }
    }

    /// Proposes `command` (`bytes` long when marshalled) and waits until this member has applied it.
    pub(crate) async fn propose(&self, command: Command, bytes: usize) -> Result<Response, Error> {
        let deadline = clock::now() + self.timeout;
        let (reply, outcome) = oneshot::channel();
        let proposal = Proposal { command, bytes, deadline, reply };
        self.queue.try_send(proposal).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        let _pending = self.metrics.pending_proposal();
        let result = match clock::timeout_at(deadline, wake::gathered(outcome)).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        };
        if !matches!(result, Ok(_) | Err(Error::Mvcc(_))) {
            self.metrics.proposals_failed.inc();
        }
        result
    }
}

async fn run(consensus: Consensus, mut incoming: mpsc::Receiver<Proposal>) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut held = None;
    while let Some(first) = next(&mut held, &mut incoming).await {
        // The permit comes before the gathering: what arrives while others are under way joins this entry.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let flight = gather(first, &mut held, &mut incoming, permit);
        launch(consensus.clone(), flight).await;
    }
}

async fn next(held: &mut Option<Proposal>, incoming: &mut mpsc::Receiver<Proposal>) -> Option<Proposal> {
    match held.take() {
        Some(proposal) => Some(proposal),
        None => incoming.recv().await,
    }
}

fn gather(
    first: Proposal,
    held: &mut Option<Proposal>,
    incoming: &mut mpsc::Receiver<Proposal>,
    permit: OwnedSemaphorePermit,
) -> Flight {
    let mut bytes = first.bytes;
    let mut deadline = first.deadline;
    let mut batch = Batch { commands: vec![first.command] };
    let mut replies = vec![first.reply];
    while batch.commands.len() < BATCH_COMMANDS {
        let Ok(proposal) = incoming.try_recv() else { break };
        if bytes + proposal.bytes > BATCH_BYTES {
            *held = Some(proposal);
            break;
        }
        bytes += proposal.bytes;
        deadline = deadline.max(proposal.deadline);
        batch.commands.push(proposal.command);
        replies.push(proposal.reply);
    }
    Flight { batch: Bytes::from(batch.encode_to_vec()), replies, deadline, _permit: permit }
}

/// Proposes the entry; one that was refused before it reached the log is tried again until its deadline.
async fn launch(consensus: Consensus, flight: Flight) {
    let again = consensus.clone();
    let batch = flight.batch.clone();
    let result = consensus.propose(batch, move |result| land(again, flight, result)).await;
    if let Err(error) = result {
        // The replies went with the closure: whoever waits sees its channel closed and answers "server stopped".
        tracing::error!(error = %error, "proposal not taken");
    }
}

fn land(consensus: Consensus, flight: Flight, result: Result<Vec<Outcome>, ConsensusError>) {
    match result {
        Ok(outcomes) => {
            assert_eq!(outcomes.len(), flight.replies.len(), "an entry has one outcome for each of its commands");
            for (reply, outcome) in flight.replies.into_iter().zip(outcomes) {
                // A client that has gone away does not want its reply.
                let _ = reply.send(outcome.map_err(Error::Mvcc));
            }
        }
        Err(ConsensusError::LeaseExpired | ConsensusError::NoLeader) if clock::now() < flight.deadline => {
            spawn::task(async move {
                clock::sleep(RETRY_PAUSE).await;
                launch(consensus, flight).await;
            });
        }
        Err(error) => {
            let error = Error::from(error);
            for reply in flight.replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
