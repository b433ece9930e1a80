//! What happens around the applying of entries: back-pressure from the flush, the lease clock, compaction, slow-apply warnings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use garboard_mvcc::Position;

use crate::compaction::Compactor;
use crate::consensus::AppliedCommand;
use crate::consensus::ApplyObserver;
use crate::consensus::Checkpointed;
use crate::consensus::Outcome;
use crate::consensus::Pending;
use crate::flush::Flusher;
use crate::lease::LeaseClock;
use crate::metrics::Metrics;

/// The node's [`ApplyObserver`].
pub(crate) struct Observer {
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) compactor: Arc<Compactor>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) warning_apply_duration: Duration,
    pub(crate) fatal: crate::Fatal,
    /// The entry being applied schedules a compaction; it counts once the entry is finished.
    pub(crate) compaction: AtomicBool,
}

impl ApplyObserver for Observer {
    fn admit(&self) -> Option<Pending<'_, ()>> {
        if self.flusher.has_room() {
            return None;
        }
        Some(Box::pin(self.flusher.wait_room()))
    }

    fn applied(&self, command: &AppliedCommand, outcome: &Outcome) {
        if let Err(error) = outcome {
            if error.is_fatal() {
                (self.fatal)(&format!("a committed command cannot be applied: {error}"));
            }
            return;
        }
        match *command {
            AppliedCommand::LeaseGrant { id, ttl_s } => self.leases.granted(id, ttl_s),
            AppliedCommand::LeaseRevoke { id } => self.leases.revoked(id),
            AppliedCommand::Compaction => self.compaction.store(true, Ordering::Release),
            AppliedCommand::Other => {}
        }
    }

    fn finished(&self, position: Position, took: Duration) {
        self.flusher.applied();
        if self.compaction.swap(false, Ordering::AcqRel) {
            self.compactor.scheduled();
        }
        if took > self.warning_apply_duration {
            self.metrics.slow_applies.inc();
            let expected = self.warning_apply_duration;
            tracing::warn!(index = position.index, took = ?took, "expected-duration" = ?expected, "apply request took too long");
        }
    }

    fn flush(&self) -> Pending<'static, io::Result<Checkpointed>> {
        Box::pin(Arc::clone(&self.flusher).barrier())
    }

    fn checkpointed(&self) -> Checkpointed {
        self.flusher.checkpointed()
    }
}
