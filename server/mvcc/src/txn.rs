//! Txn: compares, then the operations of the branch that they choose, as one revision; transactions nest.
//!
//! All compares, nested ones too, look at the state before the transaction, and everything that can be refused is
//! refused before the first write: a transaction either happens or leaves no trace.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use garboard_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::etcdserverpb::response_op::Response;
use garboard_proto::etcdserverpb::{
    Compare, PutRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

use crate::apply::write::Write;
use crate::counters::add;
use crate::error::Error;
use crate::index::{KeyRange, KeyVersion};
use crate::range::{Total, header, range};
use crate::row::RowView;
use crate::store::{Store, View};
use crate::validate;

/// Rows fetched in one go for a compare over a range.
const COMPARE_ROWS: usize = 256;

impl Store {
    /// Serves a transaction without writes (`validate::is_read_only`) from the state as it is now.
    pub fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        assert!(validate::is_read_only(request), "writes go through the log");
        add(&self.tally.txns, 1);
        self.read(|view| {
            let path = choose(view, request)?;
            check(view, request, &mut path.iter().copied())?;
            let mut response = execute(&mut Executor::Read(view), request, &mut path.iter().copied())?;
            response.header = header(view.current);
            Ok(response)
        })
    }
}

/// Applies a transaction to `write`, which has no changes yet.
pub(crate) fn apply(write: &mut Write<'_>, request: &TxnRequest) -> Result<TxnResponse, Error> {
    let path = {
        let view = write.view();
        let path = choose(&view, request)?;
        check(&view, request, &mut path.iter().copied())?;
        path
    };
    let mut response = execute(&mut Executor::Write(write), request, &mut path.iter().copied())?;
    response.header = header(write.current());
    Ok(response)
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

/// Which branch is taken, of this transaction and of each nested one in it, in the order of execution.
fn choose(view: &View<'_>, request: &TxnRequest) -> Result<Vec<bool>, Error> {
    let mut path = Vec::with_capacity(1);
    choose_into(view, request, &mut path)?;
    Ok(path)
}

fn choose_into(view: &View<'_>, request: &TxnRequest, path: &mut Vec<bool>) -> Result<(), Error> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(view, compare)? {
            succeeded = false;
            break;
        }
    }
    path.push(succeeded);
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            choose_into(view, nested, path)?;
        }
    }
    Ok(())
}

/// What makes a transaction fail, looked for on the path that will be executed.
fn check(view: &View<'_>, request: &TxnRequest, path: &mut dyn Iterator<Item = bool>) -> Result<(), Error> {
    for op in branch(request, next(path)) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range_revision(view, range.revision)?,
            Some(Request::RequestPut(put)) => check_put(view, put)?,
            Some(Request::RequestTxn(nested)) => check(view, nested, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn next(path: &mut dyn Iterator<Item = bool>) -> bool {
    path.next().expect("the path has a choice for each transaction on it")
}

/// As in etcd, a negative revision is refused here once there was a compaction, while a plain Range reads the latest.
fn check_range_revision(view: &View<'_>, revision: i64) -> Result<(), Error> {
    if revision == 0 {
        Ok(())
    } else if revision > view.current {
        Err(Error::FutureRevision)
    } else if revision < view.compact {
        Err(Error::Compacted)
    } else {
        Ok(())
    }
}

/// As in etcd 3.6, a missing key is refused before a missing lease; a plain Put has it the other way round.
fn check_put(view: &View<'_>, put: &PutRequest) -> Result<(), Error> {
    if (put.ignore_value || put.ignore_lease) && view.get(&put.key, view.current).is_none() {
        return Err(Error::KeyNotFound);
    }
    if put.lease != 0 && !view.store.leases.read().contains(put.lease) {
        return Err(Error::LeaseNotFound);
    }
    Ok(())
}

enum Executor<'a, 'b> {
    Read(&'a View<'b>),
    Write(&'a mut Write<'b>),
}

fn execute(
    executor: &mut Executor<'_, '_>,
    request: &TxnRequest,
    path: &mut dyn Iterator<Item = bool>,
) -> Result<TxnResponse, Error> {
    let succeeded = next(path);
    let mut responses = Vec::with_capacity(branch(request, succeeded).len());
    for op in branch(request, succeeded) {
        let response = match (&op.request, &mut *executor) {
            (None, _) => None,
            (Some(Request::RequestRange(request)), Executor::Read(view)) => {
                Some(Response::ResponseRange(range(view, request, Total::Counted)?))
            }
            (Some(Request::RequestRange(request)), Executor::Write(write)) => {
                Some(Response::ResponseRange(range(&write.view(), request, Total::Counted)?))
            }
            (Some(Request::RequestPut(put)), Executor::Write(write)) => Some(Response::ResponsePut(write.put(put)?)),
            (Some(Request::RequestDeleteRange(delete)), Executor::Write(write)) => {
                Some(Response::ResponseDeleteRange(write.delete_range(delete)?))
            }
            (Some(Request::RequestTxn(nested)), _) => Some(Response::ResponseTxn(execute(executor, nested, path)?)),
            (Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)), Executor::Read(_)) => {
                unreachable!("asserted to be read-only")
            }
        };
        responses.push(ResponseOp { response });
    }
    // As in etcd, only the outermost response says a revision.
    Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
}

/// Whether a compare holds for every key of its range. No key at all counts as one that was never written, but compares
/// of values never hold then.
fn holds(view: &View<'_>, compare: &Compare) -> Result<bool, Error> {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let target = CompareTarget::try_from(compare.target).ok();
    let needs_rows = matches!(target, Some(CompareTarget::Value | CompareTarget::Lease));
    let (mut any, mut all) = (false, true);
    let mut batch = Vec::new();
    let mut result = Ok(());
    view.visit(range, view.current, &mut |_, version| {
        any = true;
        if needs_rows {
            batch.push(version.revision);
            if batch.len() == COMPARE_ROWS {
                let held = rows_hold(view, compare, target, &batch);
                batch.clear();
                match held {
                    Ok(held) => all = held,
                    Err(error) => result = Err(error),
                }
            }
        } else {
            all = accepts(compare, number(target, &version, 0).cmp(&expected(compare, target)));
        }
        if all && result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    if !any {
        let missing = KeyVersion { revision: crate::revision::Revision::default(), created: 0, version: 0 };
        let is_value = target == Some(CompareTarget::Value);
        return Ok(!is_value && accepts(compare, number(target, &missing, 0).cmp(&expected(compare, target))));
    }
    Ok(all && rows_hold(view, compare, target, &batch)?)
}

fn rows_hold(
    view: &View<'_>,
    compare: &Compare,
    target: Option<CompareTarget>,
    revisions: &[crate::revision::Revision],
) -> Result<bool, Error> {
    for row in view.rows(revisions)? {
        let row = RowView::parse(&row)?;
        let order = if target == Some(CompareTarget::Value) {
            let expected = match &compare.target_union {
                Some(TargetUnion::Value(value)) => &value[..],
                _ => &[],
            };
            row.value.cmp(expected)
        } else {
            row.lease.cmp(&expected(compare, target))
        };
        if !accepts(compare, order) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn number(target: Option<CompareTarget>, version: &KeyVersion, lease: i64) -> i64 {
    match target {
        Some(CompareTarget::Version) => version.version,
        Some(CompareTarget::Create) => version.created,
        Some(CompareTarget::Mod) => version.revision.main,
        Some(CompareTarget::Lease) => lease,
        Some(CompareTarget::Value) | None => 0,
    }
}

/// The number to compare with; 0 if the request carries another target's.
fn expected(compare: &Compare, target: Option<CompareTarget>) -> i64 {
    match (target, &compare.target_union) {
        (Some(CompareTarget::Version), Some(TargetUnion::Version(number)))
        | (Some(CompareTarget::Create), Some(TargetUnion::CreateRevision(number)))
        | (Some(CompareTarget::Mod), Some(TargetUnion::ModRevision(number)))
        | (Some(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

fn accepts(compare: &Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        // etcd lets results that it does not know pass.
        Err(_) => true,
    }
}
