//! `--force-new-cluster`: a member whose cluster has lost its quorum for good goes on as a cluster of its own.
//!
//! Behind the log's last entry goes a membership in which this member alone votes, as if the leader of a new term had proposed it. So every
//! entry stays that any of the lost members may have acknowledged; etcd drops what this member did not know to be committed. The member
//! then elects itself, which commits all of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc;

use garboard_storage::wal;
use garboard_storage::wal::Wal;
use garboard_storage::wal::WalEntry;
use garboard_storage::wal::WalError;

use super::log_store::EntryKind;
use super::membership;
use super::offline::membership_of;
use super::state_machine::Checkpointed;
use super::types::Membership;
use crate::identity::Identity;

/// Bytes of entries that are looked through at a time.
const READ_BYTES: usize = 4 << 20;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForceError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("which members there are is not known: {0}")]
    Membership(io::Error),
    #[error("the log cannot be written: {0}")]
    Write(io::Error),
    #[error("neither its log nor its database tells of a cluster")]
    NoCluster,
    #[error("by its own log it was removed from its cluster")]
    NotMember,
    #[error(
        "this member was made a cluster of its own before, and that has grown since: take the flag away. If that one has lost its quorum too, \
         start once without the flag first"
    )]
    Again,
}

/// What is to be written.
pub(crate) struct Force {
    term: u64,
    entry: WalEntry,
    member_id: u64,
}

// === impl Force ===

impl Force {
    /// What makes `own` the only member; `None`: it is that already.
    ///
    /// # Errors
    /// There is no cluster to go on with, or the log cannot be read.
    pub(crate) fn plan(wal: &Wal, checkpointed: &Checkpointed, own: Identity) -> Result<Option<Self>, ForceError> {
        let state = wal.state();
        let newest = newest_membership(wal, checkpointed)?;
        let (Some(last), true) = (state.last, newest.nodes().next().is_some()) else {
            return Err(ForceError::NoCluster);
        };
        let mut node = newest.get_node(&own.member_id).cloned().ok_or(ForceError::NotMember)?;
        let alone = BTreeSet::from([own.member_id]);
        if newest.get_joint_config() == std::slice::from_ref(&alone) && newest.nodes().count() == 1 {
            return Ok(None);
        }
        (node.is_learner, node.promote, node.incarnation) = (false, false, own.incarnation);
        let members = BTreeMap::from([(own.member_id, node)]);
        let forced = Membership::new(vec![alone], members).map_err(|_| ForceError::NotMember)?;
        let term = state.vote.map_or(0, |vote| vote.term).max(last.term) + 1;
        let log_id = wal::LogId { term, index: last.index + 1 };
        let entry = WalEntry { log_id, kind: EntryKind::Membership as u8, payload: membership::encode(&forced) };
        Ok(Some(Self { term, entry, member_id: own.member_id }))
    }

    /// Durable when it returns; where it stands. Safe to be cut short and done again: a vote for oneself in a new term promises nothing, and
    /// the entry is there or not.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn write(self, wal: &Wal) -> Result<wal::LogId, ForceError> {
        let at = self.entry.log_id;
        let (tell, told) = mpsc::sync_channel(2);
        let done = || -> wal::Done {
            let tell = tell.clone();
            Box::new(move |written| drop(tell.send(written)))
        };
        wal.save_vote(wal::Vote { term: self.term, node_id: self.member_id, committed: false }, done());
        wal.append(vec![self.entry], done());
        for _ in 0..2 {
            told.recv().unwrap_or_else(|_| Err(io::Error::other("the log has stopped"))).map_err(ForceError::Write)?;
        }
        Ok(at)
    }
}

/// The last membership of log or database, committed or not: the one that is in effect (Raft paper, section 6).
fn newest_membership(wal: &Wal, checkpointed: &Checkpointed) -> Result<Membership, ForceError> {
    let mut newest = checkpointed.membership.membership.membership().clone();
    let state = wal.state();
    let mut next = checkpointed.position.map_or(0, |position| position.index + 1);
    while let Some(last) = state.last.filter(|last| next <= last.index) {
        let entries = wal.read(next..last.index + 1, READ_BYTES)?;
        for entry in &entries {
            if let Some(stored) = membership_of(entry).map_err(ForceError::Membership)? {
                newest = stored.membership.membership().clone();
            }
        }
        next += entries.len() as u64;
        if entries.is_empty() {
            break;
        }
    }
    Ok(newest)
}
