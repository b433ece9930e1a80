//! What one pass has seen: the input of [`plan`](super::plan). Plain data, so that any can be made up in a test.

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::ResourceExt as _;

use super::cron::Cron;
use super::retention::Limits;
use crate::crd::EtcdBackup;
use crate::crd::backup::Phase;
use crate::crd::backup::VerificationResult;
use crate::crd::schedule::ConcurrencyPolicy;

/// One schedule, as it was seen.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub name: &'a str,
    pub wanted: &'a Wanted,
    /// `status.nextScheduleTime`.
    pub recorded: Option<Timestamp>,
    /// When it was made, if no pass has looked at it yet: later times count.
    pub fresh_since: Option<Timestamp>,
    pub backups: &'a [Backup],
    pub now: Timestamp,
}

/// What the plan needs of the spec.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub cron: Cron,
    pub zone: TimeZone,
    pub suspend: bool,
    pub starting_deadline: SignedDuration,
    pub concurrency: ConcurrencyPolicy,
    /// Each run begins so much after its time.
    pub offset: SignedDuration,
    pub limits: Limits,
}

/// A backup that the schedule has made.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    pub name: String,
    pub uid: String,
    pub state: State,
    /// On the volume.
    pub bytes: u64,
    pub verified: bool,
    /// A restore needs it.
    pub in_use: bool,
    /// It is being deleted: it counts as gone, though what it does may still go on.
    pub deleting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Active,
    /// Since when.
    Succeeded(Timestamp),
    Failed(Timestamp),
}

// === impl Wanted ===

impl Wanted {
    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.next(after, &self.zone)
    }

    /// Whether `at` is one of the times.
    pub fn has(&self, at: Timestamp) -> bool {
        let before = at.checked_sub(SignedDuration::from_secs(1)).ok();
        before.and_then(|before| self.next(before)) == Some(at)
    }
}

// === impl Backup ===

impl Backup {
    pub fn read(backup: &EtcdBackup, in_use: bool, now: Timestamp) -> Self {
        let status = backup.status.clone().unwrap_or_default();
        let ended = status.completed_at.or_else(|| backup.creation_timestamp()).map_or(now, |at| at.0);
        Self {
            name: backup.name_any(),
            uid: backup.uid().unwrap_or_default(),
            state: match status.phase {
                Phase::Pending | Phase::Running | Phase::Verifying => State::Active,
                Phase::Succeeded => State::Succeeded(ended),
                Phase::Failed => State::Failed(ended),
            },
            bytes: status.size_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            verified: status.verification.is_some_and(|said| said.result == VerificationResult::Passed),
            in_use,
            deleting: backup.metadata.deletion_timestamp.is_some(),
        }
    }

    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// When it has succeeded.
    pub fn succeeded(&self) -> Option<Timestamp> {
        match self.state {
            State::Succeeded(at) => Some(at),
            _ => None,
        }
    }

    /// When it has failed.
    pub fn failed(&self) -> Option<Timestamp> {
        match self.state {
            State::Failed(at) => Some(at),
            _ => None,
        }
    }
}
