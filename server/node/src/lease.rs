//! The leader's clock over leases: renewing is local to the leader and never goes through raft; expiry is a proposal.
//!
//! A new leader knows no deadlines: it gives every lease its checkpointed remaining time, or its whole TTL, anew. So a lease
//! may live longer than promised, never shorter. What a leader decides by this clock holds in its term only: the next one may have renewed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::clock::Instant;
use parking_lot::Mutex;

use crate::error::Error;

/// How often the leader looks for expired leases.
pub(crate) const EXPIRY_SCAN_INTERVAL: Duration = Duration::from_millis(500);
/// Leases revoked per scan at most: etcd's 1,000 a second.
pub(crate) const REVOKES_PER_SCAN: usize = 500;
/// How often remaining TTLs are written down.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    ttl_s: i64,
    /// A revoke has been proposed: the lease can no longer be renewed.
    expiring: bool,
}

#[derive(Default)]
struct Clock {
    /// The term in which this member leads; `None`: it does not.
    leading: Option<u64>,
    deadlines: BTreeMap<i64, Deadline>,
    /// One entry a lease, perhaps earlier than its deadline: a renewal moves the deadline alone, the heap follows when it is popped.
    heap: BinaryHeap<Reverse<(Instant, i64)>>,
}

/// Deadlines of all leases; empty unless this member leads.
#[derive(Default)]
pub(crate) struct LeaseClock(Mutex<Clock>);

fn after(now: Instant, ttl_s: i64) -> Instant {
    now + Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0))
}

impl LeaseClock {
    /// This member leads from now on, in `term`; `leases` yields (id, granted TTL, remaining TTL or 0) and is read after grants have begun to
    /// count here, so that none falls between.
    pub(crate) fn promote<I>(&self, term: u64, leases: impl FnOnce() -> I, extend: Duration)
    where
        I: IntoIterator<Item = (i64, i64, i64)>,
    {
        *self.0.lock() = Clock { leading: Some(term), ..Clock::default() };
        let leases = leases();
        let now = clock::now() + extend;
        let mut clock = self.0.lock();
        for (id, ttl_s, remaining_s) in leases {
            let lifetime_s = if remaining_s > 0 { remaining_s } else { ttl_s };
            if !clock.deadlines.contains_key(&id) {
                clock.set(id, ttl_s, after(now, lifetime_s));
            }
        }
    }

    /// Another member leads.
    pub(crate) fn demote(&self) {
        *self.0.lock() = Clock::default();
    }

    /// A lease was granted.
    pub(crate) fn granted(&self, id: i64, ttl_s: i64) {
        let now = clock::now();
        let mut clock = self.0.lock();
        if clock.leading.is_some() {
            clock.set(id, ttl_s, after(now, ttl_s));
        }
    }

    /// A lease is gone.
    pub(crate) fn revoked(&self, id: i64) {
        self.0.lock().deadlines.remove(&id);
    }

    /// Starts the lease's lifetime anew and returns its TTL in seconds; `None` if it is unknown or has expired.
    ///
    /// # Errors
    /// The clock is not that of `term`: it may not have been told yet that this member leads.
    pub(crate) fn renew(&self, term: u64, id: i64) -> Result<Option<i64>, Error> {
        let now = clock::now();
        let mut clock = self.0.lock();
        clock.must_be_of(term)?;
        let live = clock.deadlines.get_mut(&id).filter(|deadline| !deadline.expiring && deadline.at > now);
        Ok(live.map(|deadline| {
            deadline.at = after(now, deadline.ttl_s);
            deadline.ttl_s
        }))
    }

    /// What is left of the lease's lifetime; zero when it has expired and is about to be revoked.
    ///
    /// # Errors
    /// As for [`Self::renew`].
    pub(crate) fn remaining(&self, term: u64, id: i64) -> Result<Option<Duration>, Error> {
        let now = clock::now();
        let clock = self.0.lock();
        clock.must_be_of(term)?;
        Ok(clock.deadlines.get(&id).map(|d| d.at.saturating_duration_since(now)))
    }

    /// Leases whose time is over, `limit` at most, and the term in which that is so; each is returned once unless [`Self::not_revoked`] gives it
    /// back.
    pub(crate) fn take_expired(&self, limit: usize) -> (u64, Vec<i64>) {
        let now = clock::now();
        let mut clock = self.0.lock();
        let Some(term) = clock.leading else { return (0, Vec::new()) };
        let mut expired = Vec::new();
        while expired.len() < limit {
            match clock.heap.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => break,
            }
            let Some(Reverse((_, id))) = clock.heap.pop() else { break };
            let Some(deadline) = clock.deadlines.get_mut(&id) else { continue };
            if deadline.at > now {
                let again = Reverse((deadline.at, id));
                clock.heap.push(again);
            } else if !deadline.expiring {
                deadline.expiring = true;
                expired.push(id);
            }
        }
        (term, expired)
    }

    /// The proposal of that term to revoke an expired lease failed: it is to be taken again.
    pub(crate) fn not_revoked(&self, term: u64, id: i64) {
        let mut clock = self.0.lock();
        if clock.leading != Some(term) {
            return;
        }
        if let Some(deadline) = clock.deadlines.get_mut(&id) {
            deadline.expiring = false;
            let at = deadline.at;
            clock.heap.push(Reverse((at, id)));
        }
    }

    /// (id, remaining seconds) of the leases that live longer than a checkpoint interval, and the term in which that is so.
    pub(crate) fn long_lived(&self) -> (u64, Vec<(i64, i64)>) {
        let now = clock::now();
        let clock = self.0.lock();
        let Some(term) = clock.leading else { return (0, Vec::new()) };
        let long = clock.deadlines.iter().filter(|(_, d)| d.ttl_s > CHECKPOINT_INTERVAL.as_secs() as i64);
        let left = long.map(|(id, d)| (*id, d.at.saturating_duration_since(now).as_secs() as i64));
        (term, left.filter(|(_, s)| *s > 0).collect())
    }
}

impl Clock {
    /// What it says of leases holds in one term.
    fn must_be_of(&self, term: u64) -> Result<(), Error> {
        if self.leading == Some(term) { Ok(()) } else { Err(Error::NotLeader) }
    }

    fn set(&mut self, id: i64, ttl_s: i64, at: Instant) {
        self.deadlines.insert(id, Deadline { at, ttl_s, expiring: false });
        self.heap.push(Reverse((at, id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading(leases: &[(i64, i64, i64)]) -> LeaseClock {
        let clock = LeaseClock::default();
        clock.promote(3, || leases.to_vec(), Duration::ZERO);
        clock
    }

    fn renew(clock: &LeaseClock, term: u64, id: i64) -> Option<i64> {
        clock.renew(term, id).expect("the term in which it leads")
    }

    #[test]
    fn a_member_that_does_not_lead_knows_no_deadlines() {
        let clock = LeaseClock::default();
        clock.granted(1, 10);
        assert!(matches!(clock.renew(3, 1), Err(Error::NotLeader)));
        assert_eq!(clock.take_expired(9).1, Vec::<i64>::new());
    }

    /// Leadership is proved before the clock is told of it: nothing it says until then is about the leases of that term.
    #[test]
    fn a_clock_that_has_not_been_told_of_a_term_does_not_take_its_leases_for_gone() {
        let clock = leading(&[(1, 60, 0)]);
        clock.revoked(1);
        assert!(matches!(clock.renew(4, 1), Err(Error::NotLeader)));
        assert!(matches!(clock.remaining(4, 1), Err(Error::NotLeader)));
        clock.promote(4, || [(1, 60, 0)], Duration::ZERO);
        assert_eq!(renew(&clock, 4, 1), Some(60));
        assert!(clock.renew(3, 1).is_err(), "a term that is over");
    }

    #[test]
    fn an_expired_lease_is_taken_once_and_cannot_be_renewed() {
        let clock = leading(&[(1, 0, 0), (2, 60, 0)]);
        assert_eq!(clock.take_expired(9), (3, vec![1]));
        assert_eq!(clock.take_expired(9).1, Vec::<i64>::new());
        assert_eq!(renew(&clock, 3, 1), None);
        assert_eq!(renew(&clock, 3, 2), Some(60));
        clock.not_revoked(2, 1);
        assert_eq!(clock.take_expired(9).1, Vec::<i64>::new(), "another term's");
        clock.not_revoked(3, 1);
        assert_eq!(clock.take_expired(9), (3, vec![1]));
    }

    #[test]
    fn a_renewed_lease_is_not_taken_at_its_old_deadline() {
        let clock = leading(&[(1, 3600, 0)]);
        // The heap still holds a deadline that has passed, as after a renewal.
        clock.0.lock().heap.push(Reverse((clock::now(), 1)));
        assert_eq!(clock.take_expired(9).1, Vec::<i64>::new());
        assert!(clock.remaining(3, 1).expect("its term").unwrap() > Duration::from_secs(3590));
    }

    #[test]
    fn a_new_leader_starts_from_the_checkpointed_remainder() {
        let clock = leading(&[(1, 1000, 50), (2, 1000, 0)]);
        assert!(clock.remaining(3, 1).expect("its term").unwrap() <= Duration::from_secs(50));
        assert!(clock.remaining(3, 2).expect("its term").unwrap() > Duration::from_secs(990));
        assert_eq!(renew(&clock, 3, 1), Some(1000), "a renewal restores the whole TTL");
    }

    #[test]
    fn the_revoke_rate_is_bounded() {
        let all: Vec<_> = (1..=100).map(|id| (id, 0, 0)).collect();
        let clock = leading(&all);
        assert_eq!(clock.take_expired(30).1.len(), 30);
        assert_eq!(clock.take_expired(100).1.len(), 70);
    }
}
