//! Lease reads (Raft thesis, 6.4.1), for those who ask for them: a leader that a quorum has acknowledged a moment ago is still the only one,
//! since nobody votes for another within an election timeout of hearing from it. So it need not ask before each read.
//!
//! This counts on clocks that run equally fast, and go on while a machine sleeps: a quarter of the time is left as a margin. Two things that raft
//! allows itself would break the promise, and are looked after here: a member that starts has forgotten whom it has acknowledged, and a
//! leader that hands over lets another be elected at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_runtime::clock;

use super::raft::RaftView;

/// What lease reads are granted by.
pub(crate) struct Lease {
    /// How long an acknowledgement is good for, from the sending of what was acknowledged.
    length: Duration,
    /// Until then this member may have acknowledged a leader in its life before.
    bound_until: clock::Instant,
    /// The last term in which this member, as its leader, has begun to hand over; 0: none.
    handed_over_in: AtomicU64,
}

impl Lease {
    pub(super) fn new(election_timeout: Duration) -> Self {
        let length = election_timeout * 3 / 4;
        Self { length, bound_until: clock::now() + election_timeout, handed_over_in: AtomicU64::new(0) }
    }

    /// When this member, having just started, may vote.
    pub(super) fn bound_until(&self) -> clock::Instant {
        self.bound_until
    }

    /// Whether this member has to refuse its vote.
    pub(super) fn is_bound(&self) -> bool {
        clock::now() < self.bound_until
    }

    /// From here on another may be elected at any time. Called before anybody is told to.
    pub(super) fn hands_over(&self, term: u64) {
        self.handed_over_in.fetch_max(term, Ordering::SeqCst);
    }

    /// Whether nobody else leads, as of the moment of the call at the earliest.
    pub(super) fn holds(&self, view: &RaftView) -> bool {
        view.is_leader
            && view.quorum_ack_age.is_some_and(|age| age < self.length)
            && view.term > self.handed_over_in.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn leader(term: u64, acknowledged: Option<Duration>) -> RaftView {
        RaftView { is_leader: true, term, quorum_ack_age: acknowledged, ..RaftView::default() }
    }

    #[test]
    fn holds_for_three_quarters_of_an_election_timeout() {
        let lease = Lease::new(TIMEOUT);
        assert!(lease.holds(&leader(1, Some(Duration::from_millis(2999)))));
        assert!(!lease.holds(&leader(1, Some(Duration::from_secs(3)))));
        assert!(!lease.holds(&leader(1, None)));
        assert!(!lease.holds(&RaftView { is_leader: false, ..leader(1, Some(Duration::ZERO)) }));
    }

    #[test]
    fn who_hands_over_has_none_until_it_leads_anew() {
        let lease = Lease::new(TIMEOUT);
        lease.hands_over(7);
        assert!(!lease.holds(&leader(7, Some(Duration::ZERO))));
        assert!(lease.holds(&leader(8, Some(Duration::ZERO))));
    }

    #[test]
    fn a_start_binds_for_an_election_timeout() {
        assert!(Lease::new(TIMEOUT).is_bound());
        assert!(!Lease::new(Duration::ZERO).is_bound());
    }
}
