//! Lease commands. Ids are chosen, and lifetimes raised to the minimum, before a grant is proposed.

use garboard_proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse};
use garboard_proto::raft::LeaseCheckpoint;

use super::Applier;
use crate::backend::Table;
use crate::counters::add;
use crate::error::Error;
use crate::lease::{LEASE_TTL_MAX_S, row_key};
use crate::range::header;

impl Applier {
    pub(super) fn lease_grant(&mut self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Error> {
        let (id, ttl_s) = (request.id, request.ttl);
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if ttl_s > LEASE_TTL_MAX_S {
            return Err(Error::LeaseTtlTooLarge);
        }
        {
            let mut leases = self.store.leases.write();
            if leases.contains(id) {
                return Err(Error::LeaseExists);
            }
            leases.grant(id, ttl_s, 0);
            self.rows.insert((Table::Leases, row_key(id)), leases.record(id));
        }
        add(&self.store.tally.leases_granted, 1);
        Ok(LeaseGrantResponse { header: header(self.store.revision()), id, ttl: ttl_s, error: String::new() })
    }

    /// Deletes the lease with the keys attached to it: in key order, as one revision.
    pub(super) fn lease_revoke(&mut self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Error> {
        let id = request.id;
        let keys = {
            let leases = self.store.leases.read();
            if !leases.contains(id) {
                return Err(Error::LeaseNotFound);
            }
            leases.keys(id)
        };
        self.write(|write| keys.iter().try_for_each(|key| write.delete_key(key)))?;
        self.store.leases.write().remove(id);
        self.rows.insert((Table::Leases, row_key(id)), None);
        add(&self.store.tally.leases_revoked, 1);
        Ok(LeaseRevokeResponse { header: header(self.store.revision()) })
    }

    /// Leases that are gone meanwhile are passed over.
    pub(super) fn lease_checkpoint(&mut self, request: LeaseCheckpoint) {
        let mut leases = self.store.leases.write();
        for lease in request.leases {
            if leases.checkpoint(lease.id, lease.remaining_ttl_s) {
                self.rows.insert((Table::Leases, row_key(lease.id)), leases.record(lease.id));
            }
        }
    }
}
