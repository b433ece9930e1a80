//! What etcd checks of a request before it is proposed, and what a request costs against the quota. Pure functions: the
//! API calls them, apply relies on them only where it says so.

use garboard_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;

use crate::range::{has_default_order, has_revision_filters};

mod intervals;
#[cfg(test)]
mod tests;

/// Estimates of what a key's and a lease's metadata take, as in etcd.
const PUT_OVERHEAD_BYTES: u64 = 256;
const LEASE_COST_BYTES: u64 = 64;

/// Why a request is refused unseen. `garboard-api` gives each etcd's status and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("key is not provided")]
    EmptyKey,
    /// An operation of a transaction that is none.
    #[error("key not found")]
    KeyNotFound,
    #[error("value is provided")]
    ValueProvided,
    #[error("lease is provided")]
    LeaseProvided,
    #[error("too many operations in txn request")]
    TooManyOps,
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    #[error("invalid sort option")]
    InvalidSortOption,
    /// Unimplemented, not an invalid argument: clients then fall back to Range.
    #[error("RangeStream does not support custom sort orders")]
    StreamSortOrder,
    /// As `StreamSortOrder`.
    #[error("RangeStream does not support revision filters")]
    StreamRevisionFilters,
}

pub fn range(request: &RangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    let sortable = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if sortable { Ok(()) } else { Err(Invalid::InvalidSortOption) }
}

pub fn range_stream(request: &RangeRequest) -> Result<(), Invalid> {
    range(request)?;
    // etcd lets a target other than the key pass without an order, and then sends some keys twice and others never.
    if !has_default_order(request) || request.sort_target() != SortTarget::Key {
        return Err(Invalid::StreamSortOrder);
    }
    if has_revision_filters(request) {
        return Err(Invalid::StreamRevisionFilters);
    }
    Ok(())
}

pub fn put(request: &PutRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() { Err(Invalid::EmptyKey) } else { Ok(()) }
}

/// How deep transactions may be nested. Decoding stops at a hundred messages in each other, of which each level takes two; what was taken
/// from a client must be read again from the log, where two more are around it.
const NESTED_MAX: usize = 32;

/// `max_txn_ops` bounds compares and each branch; what a transaction uses of it, the ones nested in it cannot.
pub fn txn(request: &TxnRequest, max_txn_ops: usize) -> Result<(), Invalid> {
    check_txn(request, max_txn_ops, NESTED_MAX)?;
    intervals::check(&request.success)?;
    intervals::check(&request.failure)
}

fn check_txn(request: &TxnRequest, max_ops: usize, max_nested: usize) -> Result<(), Invalid> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = max_ops.checked_sub(ops) else { return Err(Invalid::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Invalid::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| check_op(op, left, max_nested))
}

fn check_op(op: &RequestOp, max_ops: usize, max_nested: usize) -> Result<(), Invalid> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => {
            let left = max_nested.checked_sub(1).ok_or(Invalid::TooManyOps)?;
            check_txn(request, max_ops, left)
        }
        None => Err(Invalid::KeyNotFound),
    }
}

fn all_ranges(request: &TxnRequest, accepts: &dyn Fn(&RangeRequest) -> bool) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => accepts(range),
        // Through the log even when it only reads, as in etcd: a CORRUPT alarm refuses what goes there.
        Some(Request::RequestTxn(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

/// Whether a transaction can be served without the log (`Store::read_txn`).
pub fn is_read_only(request: &TxnRequest) -> bool {
    all_ranges(request, &|_| true)
}

/// Whether a read-only transaction may be served from this member's state as it is.
pub fn is_serializable(request: &TxnRequest) -> bool {
    all_ranges(request, &|range| range.serializable)
}

/// etcd's estimate of what a command adds to the database; 0 if it passes under a NOSPACE alarm.
pub fn cost(command: &Command) -> u64 {
    command.op.as_ref().map_or(0, cost_of)
}

pub(crate) fn cost_of(op: &Op) -> u64 {
    match op {
        Op::Put(request) => cost_put(request),
        Op::Txn(request) => cost_txn(request),
        Op::LeaseGrant(_) => LEASE_COST_BYTES,
        Op::DeleteRange(_)
        | Op::Compaction(_)
        | Op::LeaseRevoke(_)
        | Op::LeaseCheckpoint(_)
        | Op::Alarm(_)
        | Op::ClusterVersion(_)
        | Op::FormatVersion(_)
        | Op::Downgrade(_) => 0,
    }
}

fn cost_put(request: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + request.key.len() as u64 + request.value.len() as u64
}

fn cost_txn(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(Request::RequestPut(put)) => cost_put(put),
                Some(Request::RequestTxn(nested)) => cost_txn(nested),
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
            })
            .sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
