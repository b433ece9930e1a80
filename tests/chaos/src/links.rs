//! The state of the links between members as the proxies make them, and what the proxies have done.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::proxy::Connection;

/// What happens to bytes on their way from one member to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub delay: Duration,
    /// Added to the delay, at random up to this; order is kept.
    pub jitter: Duration,
    pub bytes_per_s: Option<u64>,
    /// One byte in so many is flipped.
    pub corrupt_every: Option<u64>,
}

/// What the proxies have done since the run began.
#[derive(Debug, Default)]
pub struct Counters {
    pub delayed: AtomicU64,
    pub throttled: AtomicU64,
    pub corrupted: AtomicU64,
    /// Connections that carried a flipped byte and were then ended by a member.
    pub ended_after_corruption: AtomicU64,
    pub reset: AtomicU64,
    /// Connections that passed a proxy.
    pub connections: AtomicU64,
}

pub struct Links {
    slots: usize,
    /// From the row to the column.
    conditions: Mutex<Vec<Condition>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    pub counters: Counters,
}

// === impl Links ===

impl Links {
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            conditions: Mutex::new(vec![Condition::default(); slots * slots]),
            connections: Mutex::new(Vec::new()),
            counters: Counters::default(),
        }
    }

    pub fn condition(&self, from: usize, to: usize) -> Condition {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)[from * self.slots + to]
    }

    /// Sets both directions between each of `some` and everybody else.
    pub fn set_around(&self, some: &[usize], condition: Condition) {
        let mut conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        for from in 0..self.slots {
            for to in 0..self.slots {
                if some.contains(&from) || some.contains(&to) {
                    conditions[from * self.slots + to] = condition;
                }
            }
        }
    }

    pub fn set_all(&self, condition: Condition) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).fill(condition);
    }

    /// Ends the connections of `some` with a reset.
    pub fn reset(&self, some: &[usize]) {
        for connection in self.connections.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if (some.contains(&connection.from) || some.contains(&connection.to)) && connection.reset() {
                self.counters.reset.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many connections to and from proxies there are.
    pub fn open(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn enter(&self, connection: &Arc<Connection>) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
    }

    pub fn leave(&self, connection: &Arc<Connection>) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, connection));
    }
}
