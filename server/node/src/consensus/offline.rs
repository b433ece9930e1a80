//! Applying the log without a running member: what its entries would make of the state.

use std::io;

use garboard_mvcc::Applier;
use garboard_storage::wal::WalEntry;

use super::log_store::EntryKind;
use super::log_store::decode_payload;
use super::membership;
use super::membership::Stored;
use super::state_machine::apply;
use super::types::log_id;

/// Applies `entry` as a member does that runs, with nobody to answer.
///
/// # Errors
/// What would end the member: the entry cannot be read, or not be applied to this state.
pub(crate) fn apply_entry(applier: &mut Applier, membership: &mut Stored, entry: WalEntry) -> io::Result<()> {
    let WalEntry { log_id: at, kind, payload } = entry;
    let payload = decode_payload(kind, payload, at.index)?;
    let applied = apply(applier, membership, log_id(at.term, at.index), payload, |_, outcome| match outcome {
        Err(error) if error.is_fatal() => Err(io::Error::other(error.clone())),
        _ => Ok(()),
    });
    applied.map(drop)
}

/// The membership that `entry` brings, if it brings one.
///
/// # Errors
/// It brings one that cannot be read: which entry that is, and why.
pub(crate) fn membership_of(entry: &WalEntry) -> io::Result<Option<Stored>> {
    if entry.kind != EntryKind::Membership as u8 {
        return Ok(None);
    }
    let at = entry.log_id;
    let brought = membership::decode(&entry.payload)
        .map_err(|error| io::Error::new(error.kind(), format!("entry {}: {error}", at.index)))?;
    let mut stored = Stored::default();
    stored.replace(log_id(at.term, at.index), brought);
    Ok(Some(stored))
}
