//! Leases as clients ask for them, and the leader's tasks that end them.

use garboard_mvcc::Error as MvccError;
use garboard_mvcc::Response;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::raft::LeaseCheckpoint;
use garboard_proto::raft::LeaseRemaining;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;
use garboard_runtime::random;

use crate::error::Error;
use crate::lease::CHECKPOINT_INTERVAL;
use crate::lease::EXPIRY_SCAN_INTERVAL;
use crate::lease::REVOKES_PER_SCAN;
use crate::node::Node;
use crate::node::command;
use crate::node::unexpected;

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

    /// Starts a lease's lifetime anew; returns its TTL in seconds. Local to the leader.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] when it is unknown or has expired, [`Error::NotLeader`] on another member.
    pub async fn lease_renew(&self, id: i64) -> Result<i64, Error> {
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        let ttl_s = self.0.leases.renew(id).ok_or(Error::LeaseNotFound)?;
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
    /// No leader could be proved, or another member leads.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.linearizable_read().await?;
        if !self.is_leader() {
            return Err(Error::NotLeader);
        }
        let remaining = self.0.leases.remaining(id).filter(|left| !left.is_zero());
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
        for id in node.0.leases.take_expired(REVOKES_PER_SCAN) {
            match node.propose(command(Op::LeaseRevoke(pb::LeaseRevokeRequest { id }))).await {
                Ok(_) => node.0.metrics.lease_expired.inc(),
                Err(Error::Mvcc(MvccError::LeaseNotFound)) => node.0.leases.revoked(id),
                Err(error) => {
                    tracing::warn!(lease = %format!("{id:x}"), error = %error, "an expired lease could not be revoked yet");
                    node.0.leases.not_revoked(id);
                }
            }
        }
    }
}

/// Writes remaining TTLs down while this member leads, so that a new leader does not start long leases anew.
pub(crate) async fn run_checkpoints(node: Node) {
    let mut ticks = clock::interval(CHECKPOINT_INTERVAL);
    loop {
        ticks.tick().await;
        let long_lived = node.0.leases.long_lived();
        for chunk in long_lived.chunks(CHECKPOINT_LEASES) {
            let leases = chunk.iter().map(|(id, left)| LeaseRemaining { id: *id, remaining_ttl_s: *left }).collect();
            if let Err(error) = node.propose(command(Op::LeaseCheckpoint(LeaseCheckpoint { leases }))).await {
                tracing::warn!(error = %error, "remaining lease TTLs could not be written down");
                break;
            }
        }
    }
}
