//! Writes: many commands of many clients become one log entry, one WAL write, one sync.
//!
//! A command waits in a bounded queue; one task takes what is there, encodes it once and proposes it, here or, when another member leads, to
//! that one ([`crate::forward`]). Only a few entries are under way at a time, so that under load the next gathers what arrives meanwhile.

use std::future::Future;
use std::pin::Pin;
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
use crate::forward;
use crate::forward::Forwarded;
use crate::forward::Waiting;
use crate::metrics::Metrics;
use crate::peers::Links;

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

pub(crate) type Reply = oneshot::Sender<Result<Response, Error>>;

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

/// Where entries go.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) consensus: Consensus,
    pub(crate) links: Arc<Links>,
    pub(crate) waiting: Arc<Waiting>,
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
    pub(crate) fn start(way: Way, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let (queue, incoming) = mpsc::channel(QUEUE_COMMANDS);
        spawn::task(run(way, incoming));
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

async fn run(way: Way, mut incoming: mpsc::Receiver<Proposal>) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    let mut held = None;
    while let Some(first) = next(&mut held, &mut incoming).await {
        // The permit comes before the gathering: what arrives while others are under way joins this entry.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let flight = gather(first, &mut held, &mut incoming, permit);
        launch(way.clone(), flight).await;
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
    let mut batch = Batch { commands: vec![first.command], ..Batch::default() };
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

/// Proposes the entry; one that was refused before it reached a log is tried again until its deadline.
async fn launch(way: Way, flight: Flight) {
    let view = way.consensus.view();
    if view.leader != 0 && !view.is_leader {
        spawn::task(send(way, flight, view.leader, view.term));
        return;
    }
    let again = way.clone();
    let batch = flight.batch.clone();
    let result = way.consensus.propose(batch, move |result| land(again, flight, result)).await;
    if let Err(error) = result {
        // The replies went with the closure: whoever waits sees its channel closed and answers "server stopped".
        tracing::error!(error = %error, "proposal not taken");
    }
}

fn land(way: Way, flight: Flight, result: Result<Vec<Outcome>, ConsensusError>) {
    match result {
        Ok(outcomes) => {
            assert_eq!(outcomes.len(), flight.replies.len(), "an entry has one outcome for each of its commands");
            for (reply, outcome) in flight.replies.into_iter().zip(outcomes) {
                // A client that has gone away does not want its reply.
                let _ = reply.send(outcome.map_err(Error::Mvcc));
            }
        }
        // It is in no log.
        Err(ConsensusError::LeaseExpired | ConsensusError::NoLeader | ConsensusError::NotLeader { .. })
            if clock::now() < flight.deadline =>
        {
            spawn::task(retry(way, flight));
        }
        Err(error) => answer_all(flight.replies, &error.into()),
    }
}

/// Boxed, since what it launches may come back here.
fn retry(way: Way, flight: Flight) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        clock::sleep(RETRY_PAUSE).await;
        launch(way, flight).await;
    })
}

fn answer_all(replies: Vec<Reply>, error: &Error) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}

/// Gives the entry to the leader of `term`, and waits until its outcomes have come with the log, or nobody waits for them any more.
async fn send(way: Way, flight: Flight, leader: u64, term: u64) {
    let Flight { batch, replies, deadline, _permit: permit } = flight;
    let (sequence, left) = way.waiting.enter(replies);
    let forwarded = clock::timeout_at(deadline, forward::forward(&way.links, leader, &batch, sequence)).await;
    match forwarded.unwrap_or(Forwarded::Unknown) {
        Forwarded::Refused => {
            let Some(replies) = way.waiting.take(sequence) else { return };
            if clock::now() < deadline {
                retry(way, Flight { batch, replies, deadline, _permit: permit }).await;
            } else {
                answer_all(replies, &Error::NoLeader);
            }
        }
        Forwarded::Lost => answer_all(way.waiting.take(sequence).unwrap_or_default(), &Error::LeaderChanged),
        // The next entries need not wait until this one is applied here.
        Forwarded::Taken => {
            drop(permit);
            let _ = clock::timeout_at(deadline, left).await;
            answer_all(way.waiting.take(sequence).unwrap_or_default(), &Error::Timeout);
        }
        Forwarded::Unknown => {
            drop(permit);
            let answered_or_lost = async {
                tokio::select! {
                    _ = left => {}
                    () = way.waiting.overtaken(term) => {}
                }
            };
            // Answered meanwhile, it has nobody left to be told.
            let error = match clock::timeout_at(deadline, answered_or_lost).await {
                Ok(()) => Error::LeaderChanged,
                Err(_) => Error::Timeout,
            };
            answer_all(way.waiting.take(sequence).unwrap_or_default(), &error);
        }
    }
}
