//! Rebuilding the state from the tables of one checkpoint. Bytes come from disk: what does not parse is damage, and
//! refused.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::ClusterState;
use super::FIRST_FORMAT;
use crate::alarm::AlarmTable;
use crate::backend::{Backend, Position, Table};
use crate::error::Error;
use crate::index::Index;
use crate::lease::LeaseTable;
use crate::meta;
use crate::revision::{Revision, RowKey};
use crate::row::RowView;

/// Nobody has written as often; from anything below, it can be counted on without end.
const REVISION_MAX: i64 = 1 << 62;

pub struct Restored {
    pub index: Index,
    pub leases: LeaseTable,
    pub cluster: ClusterState,
    pub applied: Position,
    pub membership: Option<Bytes>,
    pub revision: i64,
    pub scheduled_compaction: i64,
    pub finished_compaction: i64,
}

pub fn restore(backend: &dyn Backend) -> Result<Restored, Error> {
    let names = [
        meta::APPLIED,
        meta::REVISION,
        meta::MEMBERSHIP,
        meta::SCHEDULED_COMPACTION,
        meta::FINISHED_COMPACTION,
        meta::CLUSTER_VERSION,
        meta::FORMAT_VERSION,
        meta::DOWNGRADE,
    ];
    let rows = backend.get_many(Table::Meta, &names.map(str::as_bytes))?;
    let row = |name: &str| names.iter().position(|known| *known == name).and_then(|at| rows.get(at)?.clone());
    let number = |name: &'static str| match row(name) {
        None => Ok(None),
        Some(value) => meta::decode_revision(&value).map(Some).ok_or_else(|| damaged(name)),
    };
    let applied = match row(meta::APPLIED) {
        None => Position::default(),
        Some(value) => meta::decode_position(&value).ok_or_else(|| damaged(meta::APPLIED))?,
    };
    let text = |name: &'static str| {
        row(name).map(|value| String::from_utf8(value.to_vec())).transpose().map_err(|_| damaged(name))
    };
    let format = match row(meta::FORMAT_VERSION) {
        None => FIRST_FORMAT,
        Some(value) => value[..].try_into().map(u32::from_be_bytes).map_err(|_| damaged(meta::FORMAT_VERSION))?,
    };
    let scheduled_compaction = number(meta::SCHEDULED_COMPACTION)?.unwrap_or(-1);
    let finished_compaction = number(meta::FINISHED_COMPACTION)?.unwrap_or(-1);
    let recorded = number(meta::REVISION)?;

    let mut leases = restore_leases(backend)?;
    let (index, newest) = restore_index(backend, &mut leases)?;
    // Compaction can remove the newest rows, so that only the recorded revision is sure; a table that came from an
    // etcd snapshot has none.
    let revision = recorded.unwrap_or(newest.max(scheduled_compaction).max(1));
    let is_sound =
        newest <= revision && scheduled_compaction <= revision && finished_compaction <= scheduled_compaction;
    if !is_sound || !(1..=REVISION_MAX).contains(&revision) {
        return Err(Error::Damaged(format!(
            "revision {revision}, newest row {newest}, compacted {scheduled_compaction} and {finished_compaction}"
        )));
    }
    let mut cluster = ClusterState {
        alarms: AlarmTable::default(),
        version: text(meta::CLUSTER_VERSION)?,
        format,
        downgrade: text(meta::DOWNGRADE)?,
    };
    scan(backend, Table::Alarms, &mut |key, _| cluster.alarms.restore(key))?;
    let membership = row(meta::MEMBERSHIP);
    Ok(Restored { index, leases, cluster, applied, membership, revision, scheduled_compaction, finished_compaction })
}

fn damaged(name: &str) -> Error {
    Error::Damaged(format!("meta row {name}"))
}

fn scan(
    backend: &dyn Backend,
    table: Table,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    backend.scan(table, b"", None, &mut |key, value| match visit(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    })?;
    result
}

fn restore_leases(backend: &dyn Backend) -> Result<LeaseTable, Error> {
    let mut leases = LeaseTable::default();
    scan(backend, Table::Leases, &mut |key, value| leases.restore(key, value))?;
    Ok(leases)
}

fn restore_index(backend: &dyn Backend, leases: &mut LeaseTable) -> Result<(Index, i64), Error> {
    let mut index = Index::default();
    let mut newest = Revision::default();
    scan(backend, Table::Revisions, &mut |key, value| {
        let (revision, tombstone) =
            RowKey::decode(key).ok_or_else(|| Error::Damaged(format!("row key {}", key.escape_ascii())))?;
        let row = RowView::parse(value)?;
        let places = revision > newest && revision.sub <= i64::from(u32::MAX);
        if !places || !(tombstone || is_sound(&row, revision.main)) {
            return Err(Error::Damaged(format!("row of revision {}.{}", revision.main, revision.sub)));
        }
        newest = revision;
        index.restore(row.key, revision, tombstone, row.create_revision, row.version);
        leases.attach(row.key, if tombstone { 0 } else { row.lease });
        Ok(())
    })?;
    Ok((index, newest.main))
}

/// What a put at revision `main` can have written.
fn is_sound(row: &RowView<'_>, main: i64) -> bool {
    row.mod_revision == main && (1..=main).contains(&row.create_revision) && (1..=REVISION_MAX).contains(&row.version)
}
