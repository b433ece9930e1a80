//! Who the members are: what raft committed of them, and by which data directory each is known.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use garboard_mvcc::FIRST_FORMAT;
use garboard_mvcc::Position;
use garboard_runtime::spawn;
use parking_lot::Mutex;
use parking_lot::RwLock;

use super::Refusal;
use crate::consensus::MemberNode;
use crate::identity::Identity;
use crate::release::Release;

/// Writes down by which incarnation members are known; durable when it returns.
pub(crate) type SavePins = Box<dyn Fn(&BTreeMap<u64, u64>) -> io::Result<()> + Send + Sync>;

/// The members as this one knows them.
pub(crate) struct Roster {
    own: Identity,
    state: RwLock<State>,
    /// Incarnations met and not yet in the membership, on disk before anything is said to or taken from who has them.
    pins: Mutex<BTreeMap<u64, u64>>,
    save: SavePins,
    release: Release,
    /// The format that the members agreed to write, as far as this one has applied.
    format: AtomicU32,
}

#[derive(Default)]
struct State {
    /// Committed and applied, by the entry at `at`.
    members: BTreeMap<u64, MemberNode>,
    at: Position,
    removed: BTreeSet<u64>,
    /// Where to dial, also for members whose addition is not committed yet.
    urls: BTreeMap<u64, Vec<String>>,
}

impl Roster {
    /// `pins` is what was saved before.
    pub(crate) fn new(own: Identity, release: Release, pins: BTreeMap<u64, u64>, save: SavePins) -> Self {
        let format = AtomicU32::new(FIRST_FORMAT);
        Self { own, state: RwLock::default(), pins: Mutex::new(pins), save, release, format }
    }

    /// What this member was built as.
    pub(crate) fn release(&self) -> &Release {
        &self.release
    }

    /// The format that the members agreed to write, as far as this one has applied.
    pub(crate) fn format(&self) -> u32 {
        self.format.load(Ordering::Acquire)
    }

    /// The members have agreed to write this format.
    pub(crate) fn agreed(&self, format: u32) {
        self.format.fetch_max(format, Ordering::AcqRel);
    }

    pub(crate) fn own(&self) -> Identity {
        self.own
    }

    /// The membership that an entry or a snapshot brought, and where in the log it is.
    pub(crate) fn applied(&self, at: Position, members: BTreeMap<u64, MemberNode>, removed: BTreeSet<u64>) {
        let mut state = self.state.write();
        state.urls = members.iter().map(|(id, node)| (*id, node.peer_urls.clone())).collect();
        state.members = members;
        state.at = at;
        state.removed = removed;
    }

    /// Where `id` is dialled from now on.
    pub(crate) fn dialled_at(&self, id: u64, node: &MemberNode) {
        let mut state = self.state.write();
        if !state.members.contains_key(&id) {
            state.urls.insert(id, node.peer_urls.clone());
        }
    }

    /// The members as committed.
    pub(crate) fn members(&self) -> BTreeMap<u64, MemberNode> {
        self.state.read().members.clone()
    }

    /// The members, and where in the log they were set.
    pub(crate) fn membership(&self) -> (Position, BTreeMap<u64, MemberNode>) {
        let state = self.state.read();
        (state.at, state.members.clone())
    }

    pub(crate) fn member(&self, id: u64) -> Option<MemberNode> {
        self.state.read().members.get(&id).cloned()
    }

    /// Whether there is no other member.
    pub(crate) fn is_alone(&self) -> bool {
        let state = self.state.read();
        state.members.len() == 1 && state.members.contains_key(&self.own.member_id)
    }

    pub(crate) fn is_removed(&self, id: u64) -> bool {
        self.state.read().removed.contains(&id)
    }

    pub(crate) fn urls(&self, id: u64) -> Vec<String> {
        self.state.read().urls.get(&id).cloned().unwrap_or_default()
    }

    /// The incarnation that `id` is known by; 0 while it is not.
    pub(crate) fn incarnation(&self, id: u64) -> u64 {
        if id == self.own.member_id {
            return self.own.incarnation;
        }
        let committed = self.state.read().members.get(&id).map_or(0, |node| node.incarnation);
        if committed != 0 { committed } else { self.pins.lock().get(&id).copied().unwrap_or(0) }
    }

    /// As [`Self::admit`], and the disk is waited for where waiting is allowed.
    ///
    /// # Errors
    /// Those of [`Self::admit`].
    pub(crate) async fn meet(self: &Arc<Self>, id: u64, incarnation: u64) -> Result<(), Refusal> {
        if self.is_known(id) {
            return self.admit(id, incarnation);
        }
        let roster = Arc::clone(self);
        spawn::blocking(move || roster.admit(id, incarnation)).await.unwrap_or(Err(Refusal::Unsaved))
    }

    /// Whether who says to be `id` with this incarnation is. Blocks on the disk when it is met for the first time.
    ///
    /// # Errors
    /// It is not, or that cannot be written down.
    pub(super) fn admit(&self, id: u64, incarnation: u64) -> Result<(), Refusal> {
        if self.is_removed(id) {
            return Err(Refusal::Removed);
        }
        match self.incarnation(id) {
            known if known == incarnation => return Ok(()),
            0 => {}
            _ => return Err(Refusal::Wiped),
        }
        let mut pins = self.pins.lock();
        // Somebody else may have met it meanwhile.
        match pins.get(&id) {
            Some(known) if *known == incarnation => return Ok(()),
            Some(_) => return Err(Refusal::Wiped),
            None => {}
        }
        let mut with = pins.clone();
        with.insert(id, incarnation);
        if let Err(error) = (self.save)(&with) {
            tracing::error!(%error, "cannot write down which data directory a member has");
            return Err(Refusal::Unsaved);
        }
        *pins = with;
        Ok(())
    }

    /// Whether [`Self::admit`] would have to write.
    fn is_known(&self, id: u64) -> bool {
        self.is_removed(id) || self.incarnation(id) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const OWN: Identity = Identity { cluster_id: 1, member_id: 10, incarnation: 100 };

    fn roster() -> (Roster, Arc<Mutex<BTreeMap<u64, u64>>>) {
        let saved = Arc::new(Mutex::new(BTreeMap::new()));
        let to = Arc::clone(&saved);
        let save = move |pins: &BTreeMap<u64, u64>| {
            *to.lock() = pins.clone();
            Ok(())
        };
        (Roster::new(OWN, Release::default(), BTreeMap::new(), Box::new(save)), saved)
    }

    #[test]
    fn the_first_incarnation_met_is_written_down_and_another_is_refused() {
        let (roster, saved) = roster();
        assert_eq!(roster.admit(20, 200), Ok(()));
        assert_eq!(*saved.lock(), BTreeMap::from([(20, 200)]));
        assert_eq!(roster.admit(20, 200), Ok(()));
        assert_eq!(roster.admit(20, 201), Err(Refusal::Wiped));
        let again = Roster::new(OWN, Release::default(), saved.lock().clone(), Box::new(|_| panic!("nothing new")));
        assert_eq!(again.admit(20, 201), Err(Refusal::Wiped));
        assert_eq!(again.admit(20, 200), Ok(()));
    }

    #[test]
    fn the_membership_knows_better_than_what_was_met() {
        let (roster, _) = roster();
        assert_eq!(roster.admit(20, 200), Ok(()));
        let node = MemberNode { incarnation: 222, ..MemberNode::default() };
        roster.applied(Position::default(), BTreeMap::from([(20, node)]), BTreeSet::from([30]));
        assert_eq!(roster.admit(20, 200), Err(Refusal::Wiped));
        assert_eq!(roster.admit(20, 222), Ok(()));
        assert_eq!(roster.admit(30, 300), Err(Refusal::Removed));
    }

    #[test]
    fn nobody_is_admitted_whose_incarnation_cannot_be_written_down() {
        let roster = Roster::new(OWN, Release::default(), BTreeMap::new(), Box::new(|_| Err(io::Error::other("full"))));
        assert_eq!(roster.admit(20, 200), Err(Refusal::Unsaved));
        assert_eq!(roster.incarnation(20), 0);
    }
}
