//! Which of this leader's messages the others have obeyed, by when each was sent: linearizable reads count on it.
//!
//! openraft credits an answer to all requests under way that end no later than the entry that it acknowledges. One that was sent after the
//! answered one, and has no entries, is among them: it tells how far the log is committed. So a leader that slept between the two, and has been
//! replaced meanwhile, can take what was said before its sleep for the proof that it leads. Here an answer counts for the request that it
//! answers and for no other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use garboard_runtime::clock;
use tokio::sync::watch;

/// What the others have obeyed.
pub(crate) struct Proof {
    own_id: u64,
    obeyed: watch::Sender<BTreeMap<u64, Obeyed>>,
}

/// The newest message that a member has obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Obeyed {
    term: u64,
    sent: clock::Instant,
}

// === impl Proof ===

impl Proof {
    pub(super) fn new(own_id: u64) -> Self {
        Self { own_id, obeyed: watch::Sender::new(BTreeMap::new()) }
    }

    /// `member` has obeyed what this leader of `term` sent it not before `sent`.
    pub(super) fn obeyed(&self, member: u64, term: u64, sent: clock::Instant) {
        let newest = Obeyed { term, sent };
        self.obeyed.send_if_modified(|all| {
            let is_newer = all.get(&member) < Some(&newest);
            if is_newer {
                all.insert(member, newest);
            }
            is_newer
        });
    }

    /// Completes once a quorum of each of `configs` has obeyed what was sent in `term` at or after `since`. Its member is of its own opinion.
    pub(super) async fn wait(&self, term: u64, configs: &[BTreeSet<u64>], since: clock::Instant) {
        let proved = |all: &BTreeMap<u64, Obeyed>| self.quorum(all, term, configs).is_some_and(|sent| sent >= since);
        // The sender is `self`: it cannot be gone.
        let _ = self.obeyed.subscribe().wait_for(proved).await;
    }

    /// How long ago what a quorum has obeyed in `term` was sent; `None`: nothing yet.
    pub(super) fn age(&self, term: u64, configs: &[BTreeSet<u64>]) -> Option<Duration> {
        Some(clock::now().saturating_duration_since(self.quorum(&self.obeyed.borrow(), term, configs)?))
    }

    /// The latest moment such that a quorum of each of `configs` has obeyed what was sent then or later.
    fn quorum(&self, all: &BTreeMap<u64, Obeyed>, term: u64, configs: &[BTreeSet<u64>]) -> Option<clock::Instant> {
        let of = |config: &BTreeSet<u64>| {
            // The leader obeys itself.
            let needed = config.len() / 2 + usize::from(!config.contains(&self.own_id));
            let Some(last) = needed.checked_sub(1) else { return Some(clock::now()) };
            let others = config.iter().filter(|id| **id != self.own_id).filter_map(|id| all.get(id));
            let mut sent: Vec<_> = others.filter(|obeyed| obeyed.term == term).map(|obeyed| obeyed.sent).collect();
            sent.sort_unstable_by(|one, other| other.cmp(one));
            sent.get(last).copied()
        };
        configs.iter().map(of).min().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(begin: clock::Instant, ms: u64) -> clock::Instant {
        begin + Duration::from_millis(ms)
    }

    #[test]
    fn a_quorum_is_as_late_as_the_slowest_of_the_fastest_half() {
        let (proof, begin) = (Proof::new(1), clock::now());
        let five = [BTreeSet::from([1, 2, 3, 4, 5])];
        let quorum = || proof.quorum(&proof.obeyed.borrow(), 7, &five);
        assert_eq!(quorum(), None);
        proof.obeyed(2, 7, after(begin, 10));
        assert_eq!(quorum(), None);
        proof.obeyed(4, 7, after(begin, 5));
        assert_eq!(quorum(), Some(after(begin, 5)));
        // An answer that comes late says nothing new; one of another term says nothing.
        proof.obeyed(4, 7, after(begin, 1));
        proof.obeyed(3, 6, after(begin, 99));
        assert_eq!(quorum(), Some(after(begin, 5)));
        proof.obeyed(5, 7, after(begin, 8));
        assert_eq!(quorum(), Some(after(begin, 8)));
    }

    #[test]
    fn each_of_two_memberships_has_to_agree() {
        let (proof, begin) = (Proof::new(1), clock::now());
        let joint = [BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        proof.obeyed(2, 7, begin);
        assert_eq!(proof.quorum(&proof.obeyed.borrow(), 7, &joint), None);
        proof.obeyed(4, 7, after(begin, 2));
        proof.obeyed(5, 7, after(begin, 3));
        assert_eq!(proof.quorum(&proof.obeyed.borrow(), 7, &joint), Some(begin));
        let alone = [BTreeSet::from([1])];
        assert!(proof.quorum(&proof.obeyed.borrow(), 7, &alone) >= Some(begin));
    }

    #[tokio::test]
    async fn what_was_sent_before_proves_nothing() {
        let (proof, begin) = (Proof::new(1), clock::now());
        let three = [BTreeSet::from([1, 2, 3])];
        proof.obeyed(2, 7, begin);
        let mut waits = std::pin::pin!(proof.wait(7, &three, after(begin, 1)));
        assert!(futures_util::poll!(&mut waits).is_pending());
        proof.obeyed(3, 7, begin);
        assert!(futures_util::poll!(&mut waits).is_pending());
        proof.obeyed(3, 7, after(begin, 1));
        assert!(futures_util::poll!(&mut waits).is_ready());
    }
}
