//! Apply: the one way in which the state changes. Commands come in log order, on one thread, and give the same state and
//! the same replies on every member.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use garboard_proto::etcdserverpb::alarm_request::AlarmAction;
use garboard_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse, DeleteRangeResponse,
    LeaseGrantResponse, LeaseRevokeResponse, PutRequest, PutResponse, TxnResponse,
};
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;

use crate::alarm;
use crate::backend::{Position, Table};
use crate::checkpoint::Rows;
use crate::counters::add;
use crate::error::Error;
use crate::meta;
use crate::range::header;
use crate::store::Store;
use crate::txn;
use crate::validate;

mod lease;
pub(crate) mod write;

use write::Write;

/// What a command answers. Headers carry the revision only.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseCheckpoint,
    Alarm(AlarmResponse),
    ClusterVersion,
    FormatVersion,
    Downgrade,
}

/// The one writer of a [`Store`].
pub struct Applier {
    store: Arc<Store>,
    /// Rows of the small tables that the current entry changed.
    rows: Rows,
    /// The newest compaction that the current entry asked for.
    compaction: Option<i64>,
}

impl Applier {
    pub(crate) fn new(store: Arc<Store>) -> Applier {
        Applier { store, rows: Rows::new(), compaction: None }
    }

    /// Applies one command. An error that is not fatal ([`Error::is_fatal`]) is its answer, and nothing has changed; a
    /// fatal one may leave a half-applied command behind: the member has to end.
    pub fn apply(&mut self, command: Command) -> Result<Response, Error> {
        let op = command.op.ok_or(Error::UnknownCommand)?;
        self.check_alarms(&op)?;
        match op {
            Op::Put(request) => {
                self.check_put(&request)?;
                self.write(|write| write.put(&request)).map(Response::Put)
            }
            Op::DeleteRange(request) => self.write(|write| write.delete_range(&request)).map(Response::DeleteRange),
            Op::Txn(request) => {
                add(&self.store.tally.txns, 1);
                self.write(|write| txn::apply(write, &request)).map(Response::Txn)
            }
            Op::Compaction(request) => self.compact(request).map(Response::Compaction),
            Op::LeaseGrant(request) => self.lease_grant(request).map(Response::LeaseGrant),
            Op::LeaseRevoke(request) => self.lease_revoke(request).map(Response::LeaseRevoke),
            Op::LeaseCheckpoint(request) => {
                self.lease_checkpoint(request);
                Ok(Response::LeaseCheckpoint)
            }
            Op::Alarm(request) => Ok(Response::Alarm(self.alarm(request))),
            Op::ClusterVersion(request) => {
                let version = Bytes::from(request.version.clone());
                self.rows.insert((Table::Meta, meta::key(meta::CLUSTER_VERSION)), Some(version));
                self.store.cluster.write().version = Some(request.version);
                Ok(Response::ClusterVersion)
            }
            Op::FormatVersion(request) => {
                let mut cluster = self.store.cluster.write();
                if request.version > cluster.format {
                    cluster.format = request.version;
                    let version = Bytes::copy_from_slice(&request.version.to_be_bytes());
                    self.rows.insert((Table::Meta, meta::key(meta::FORMAT_VERSION)), Some(version));
                }
                Ok(Response::FormatVersion)
            }
            Op::Downgrade(request) => {
                let target = Some(request.target).filter(|target| !target.is_empty());
                let row = target.clone().map(Bytes::from);
                self.rows.insert((Table::Meta, meta::key(meta::DOWNGRADE)), row);
                self.store.cluster.write().downgrade = target;
                Ok(Response::Downgrade)
            }
        }
    }

    /// Ends an entry: what was applied since the last call may go into a checkpoint, with this position. `membership` is
    /// what the entry made of it, `None` if it left it alone.
    pub fn finish_entry(&mut self, position: Position, membership: Option<Bytes>) {
        let rows = std::mem::take(&mut self.rows);
        let revision = self.store.revision();
        {
            let mut pending = self.store.pending.lock();
            let cost = pending.finish(position, revision, membership, rows);
            // Under the lock: a checkpoint that takes it is written, and counted off, on another thread.
            self.store.pending_bytes.fetch_add(cost, Relaxed);
        }
        if let Some(at) = self.compaction.take() {
            self.store.compaction.lock().schedule(at);
        }
    }

    /// The alarms come before everything else, CORRUPT before NOSPACE.
    fn check_alarms(&self, op: &Op) -> Result<(), Error> {
        let (corrupt, no_space) = {
            let cluster = self.store.cluster.read();
            (cluster.alarms.has(AlarmType::Corrupt), cluster.alarms.has(AlarmType::Nospace))
        };
        let closed_by_corrupt = !matches!(
            op,
            Op::LeaseCheckpoint(_) | Op::Alarm(_) | Op::ClusterVersion(_) | Op::FormatVersion(_) | Op::Downgrade(_)
        );
        if corrupt && closed_by_corrupt {
            return Err(Error::Corrupt);
        }
        if no_space && validate::cost_of(op) > 0 {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    /// What refuses a put: a lease that is not there, or nothing to take the ignored value or lease from.
    fn check_put(&self, request: &PutRequest) -> Result<(), Error> {
        if request.lease != 0 && !self.store.leases.read().contains(request.lease) {
            return Err(Error::LeaseNotFound);
        }
        let ignores = request.ignore_value || request.ignore_lease;
        if ignores && self.store.index.read().keys.get(&request.key, self.store.revision()).is_none() {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    /// Runs what may write, and publishes it as one revision if it did.
    fn write<T>(&mut self, run: impl FnOnce(&mut Write<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut write = Write::new(&self.store);
        let result = run(&mut write);
        match &result {
            Ok(_) => write.publish(),
            Err(error) => assert!(error.is_fatal() || !write.has_changes(), "a refused command leaves no trace"),
        }
        result
    }

    fn compact(&mut self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        let at = request.revision;
        let revision = self.store.revision();
        let epoch = {
            let mut index = self.store.index.write();
            if at <= index.compact_revision {
                return Err(Error::Compacted);
            }
            if at > revision {
                return Err(Error::FutureRevision);
            }
            index.compact_revision = at;
            std::mem::take(&mut index.epoch)
        };
        self.store.compaction.lock().end_epoch(at, epoch);
        self.compaction = Some(at);
        self.rows.insert((Table::Meta, meta::key(meta::SCHEDULED_COMPACTION)), Some(meta::encode_revision(at)));
        Ok(CompactionResponse { header: header(revision) })
    }

    fn alarm(&mut self, request: AlarmRequest) -> AlarmResponse {
        let mut cluster = self.store.cluster.write();
        let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let key = (Table::Alarms, alarm::row_key(&alarm));
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => cluster.alarms.list(request.alarm),
            Ok(AlarmAction::Activate) if request.alarm != AlarmType::None as i32 => {
                if cluster.alarms.activate(alarm) {
                    self.rows.insert(key, Some(Bytes::new()));
                }
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) if cluster.alarms.deactivate(alarm) => {
                self.rows.insert(key, None);
                vec![alarm]
            }
            _ => Vec::new(),
        };
        AlarmResponse { header: header(self.store.revision()), alarms }
    }
}
