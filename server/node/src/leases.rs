//! Leases as clients ask for them, and the leader's tasks that end them.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use garboard_mvcc::Error as MvccError;
use garboard_mvcc::Response;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::peers as pb_peers;
use garboard_proto::peers::peers_client::PeersClient;
use garboard_proto::raft::Batch;
use garboard_proto::raft::Command;
use garboard_proto::raft::LeaseCheckpoint;
use garboard_proto::raft::LeaseRemaining;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;
use garboard_runtime::random;
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::transport::Channel;

use crate::consensus::Outcome;
use crate::error::Error;
use crate::lease::CHECKPOINT_INTERVAL;
use crate::lease::EXPIRY_SCAN_INTERVAL;
use crate::lease::REVOKES_PER_SCAN;
use crate::members::from_link;
use crate::node::Node;
use crate::node::command;
use crate::node::unexpected;
use crate::peers::Line;
use crate::peers::LinkError;

/// Pause before the leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Leases of one checkpoint command.
const CHECKPOINT_LEASES: usize = 1_000;

impl Node {
    /// Grants a lease; an id of 0 lets this member choose one, a TTL below the minimum is raised to it. That it is too large is found out
    /// last, as in etcd: behind alarms.
    ///
    /// # Errors
    /// The TTL is too large, the id is taken, or the proposal failed.
    pub async fn lease_grant(&self, mut request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Error> {
        request.ttl = request.ttl.max(self.0.config.min_lease_ttl_s());
        while request.id == 0 {
            let random = random::u64().map_err(|e| Error::Internal(format!("no randomness: {e}")))?;
            request.id = i64::try_from(random >> 1).unwrap_or(0);
        }
        match self.propose(command(Op::LeaseGrant(request))).await? {
            Response::LeaseGrant(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts a lease's lifetime anew; returns its TTL in seconds. The leader does it, without the log.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] when it is unknown or has expired; no leader could be found in time.
    pub async fn lease_renew(&self, id: i64) -> Result<i64, Error> {
        let request = || pb_peers::LeaseRenewRequest { id };
        self.at_leader(
            || self.lease_renew_here(id),
            |mut client, leader| async move {
                let result = client.lease_renew(self.links().request(leader, request())).await;
                self.links().answer(leader, result).await.map(|answer| answer.ttl_s)
            },
        )
        .await
    }

    /// Renews as the leader.
    pub(crate) async fn lease_renew_here(&self, id: i64) -> Result<i64, Error> {
        // Whoever was paused may have been succeeded meanwhile: the renewal would be one that nobody knows of.
        let term =
            if self.roster().is_alone() { self.consensus().view().term } else { self.0.reads.wait_here().await? };
        let ttl_s = self.0.leases.renew(term, id)?.ok_or(Error::LeaseNotFound)?;
        self.0.metrics.lease_renewed.inc();
        if self.0.store.lease(id).is_some_and(|lease| lease.remaining_ttl_s > 0) {
            // A remainder written down before the renewal would shorten the lease under the next leader.
            let leases = vec![LeaseRemaining { id, remaining_ttl_s: 0 }];
            self.propose(command(Op::LeaseCheckpoint(LeaseCheckpoint { leases }))).await?;
        }
        Ok(ttl_s)
    }

    /// What is left of a lease. An unknown one has TTL -1, as in etcd.
    ///
    /// # Errors
    /// No leader could be proved.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.at_leader(
            || self.lease_time_to_live_here(id, keys),
            |mut client, leader| async move {
                let request = pb::LeaseTimeToLiveRequest { id, keys };
                let result = client.lease_time_to_live(self.links().request(leader, request)).await;
                self.links().answer(leader, result).await
            },
        )
        .await
    }

    /// The same, as the leader.
    pub(crate) async fn lease_time_to_live_here(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let term = self.0.reads.wait_here().await?;
        let remaining = self.0.leases.remaining(term, id)?.filter(|left| !left.is_zero());
        let (Some(lease), Some(remaining)) = (self.0.store.lease(id), remaining) else {
            return Ok(pb::LeaseTimeToLiveResponse { header: None, id, ttl: -1, granted_ttl: 0, keys: Vec::new() });
        };
        Ok(pb::LeaseTimeToLiveResponse {
            header: None,
            id,
            ttl: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            granted_ttl: lease.ttl_s,
            keys: if keys { lease.keys } else { Vec::new() },
        })
    }

    /// Does what only the leader can: here, or there. Safe to do twice.
    async fn at_leader<T, H, T1>(
        &self,
        here: impl Fn() -> H,
        there: impl Fn(PeersClient<Channel>, u64) -> T1,
    ) -> Result<T, Error>
    where
        H: Future<Output = Result<T, Error>>,
        T1: Future<Output = Result<T, LinkError>>,
    {
        let deadline = clock::now() + self.request_timeout();
        loop {
            let view = self.consensus().view();
            let result = if view.is_leader || view.leader == 0 {
                here().await
            } else {
                let call = there(self.links().client(view.leader, Line::Log), view.leader);
                let result = clock::timeout_at(deadline, call).await.map_err(|_| Error::Timeout)?;
                result.map_err(from_link)
            };
            match result {
                Err(Error::NotLeader | Error::NoLeader | Error::LeaderChanged) if clock::now() < deadline => {
                    clock::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Proposes what this member has decided as the leader of `term`; in another term it does not get into the log.
    async fn propose_in_term(&self, term: u64, commands: Vec<Command>) -> Result<Vec<Outcome>, Error> {
        let batch = Batch { commands, ..Batch::default() };
        let (tell, told) = oneshot::channel();
        let deliver = move |result| {
            // Whoever asked may have given up.
            let _ = tell.send(result);
        };
        self.consensus().propose_in_term(term, Bytes::from(batch.encode_to_vec()), deliver).await?;
        match clock::timeout(self.request_timeout(), told).await {
            Ok(Ok(result)) => result.map_err(Error::from),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// The ids of all leases.
    pub fn leases(&self) -> Vec<i64> {
        self.0.store.leases().into_iter().map(|lease| lease.id).collect()
    }
}

/// Revokes expired leases while this member leads.
pub(crate) async fn run_expiry(node: Node) {
    let mut ticks = clock::interval(EXPIRY_SCAN_INTERVAL);
    loop {
        ticks.tick().await;
        let (term, expired) = node.0.leases.take_expired(REVOKES_PER_SCAN);
        if expired.is_empty() {
            continue;
        }
        let revokes = expired.iter().map(|id| command(Op::LeaseRevoke(pb::LeaseRevokeRequest { id: *id })));
        match node.propose_in_term(term, revokes.collect()).await {
            Ok(outcomes) => {
                for (id, outcome) in expired.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(_) => node.0.metrics.lease_expired.inc(),
                        Err(MvccError::LeaseNotFound) => node.0.leases.revoked(id),
                        Err(error) => {
                            tracing::warn!(lease = %format!("{id:x}"), %error, "an expired lease could not be revoked yet");
                            node.0.leases.not_revoked(term, id);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(leases = expired.len(), %error, "expired leases could not be revoked yet");
                expired.into_iter().for_each(|id| node.0.leases.not_revoked(term, id));
            }
        }
    }
}

/// Writes remaining TTLs down while this member leads, so that a new leader does not start long leases anew.
pub(crate) async fn run_checkpoints(node: Node) {
    let mut ticks = clock::interval(CHECKPOINT_INTERVAL);
    loop {
        ticks.tick().await;
        let (term, long_lived) = node.0.leases.long_lived();
        for chunk in long_lived.chunks(CHECKPOINT_LEASES) {
            let leases = chunk.iter().map(|(id, left)| LeaseRemaining { id: *id, remaining_ttl_s: *left }).collect();
            let checkpoint = command(Op::LeaseCheckpoint(LeaseCheckpoint { leases }));
            if let Err(error) = node.propose_in_term(term, vec![checkpoint]).await {
                tracing::warn!(error = %error, "remaining lease TTLs could not be written down");
                break;
            }
        }
    }
}
