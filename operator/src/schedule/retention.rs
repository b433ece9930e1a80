//! Which backups need not be kept. Pure.
//!
//! Invariants, held by the tests on lists made up at random:
//! - the newest backup that has succeeded, the newest one that was verified, and one that a restore needs are never given up, nor is one
//!   that has not ended;
//! - the newest `keep_last` are given up for no reason but their age and the size of all;
//! - whatever is beyond a limit is one of those that are never given up;
//! - once the others are gone, nothing more is given up.

use std::cmp::Reverse;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;

use super::seen::Backup;

/// Of backups that have failed, so many stay: for who wants to know why.
const FAILED_KEPT: usize = 3;

/// Backups beyond any of these are given up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub keep_last: Option<usize>,
    pub max_age: Option<SignedDuration>,
    pub max_total_bytes: Option<u64>,
}

/// The names of backups that are to be deleted, the oldest first.
pub fn given_up(backups: &[Backup], limits: &Limits, now: Timestamp) -> Vec<String> {
    let mut names = beyond(backups, limits, now);
    let failed = newest_first(backups, Backup::failed);
    let old = failed.iter().skip(FAILED_KEPT).rev().filter(|(_, backup)| !backup.in_use);
    names.extend(old.map(|(_, backup)| backup.name.clone()));
    names
}

/// Of backups that have succeeded.
fn beyond(backups: &[Backup], limits: &Limits, now: Timestamp) -> Vec<String> {
    let succeeded = newest_first(backups, Backup::succeeded);
    let newest_verified = succeeded.iter().position(|(_, backup)| backup.verified);
    // No sum of sizes is too large for it.
    let mut bytes: u128 = succeeded.iter().map(|(_, backup)| u128::from(backup.bytes)).sum();
    let mut names = Vec::new();
    for (place, (ended, backup)) in succeeded.iter().enumerate().rev() {
        let superfluous = limits.keep_last.is_some_and(|keep| place >= keep);
        let old = limits.max_age.is_some_and(|age| now.duration_since(*ended) > age);
        let large = limits.max_total_bytes.is_some_and(|max| bytes > u128::from(max));
        let kept = place == 0 || Some(place) == newest_verified || backup.in_use;
        if !kept && (superfluous || old || large) {
            bytes -= u128::from(backup.bytes);
            names.push(backup.name.clone());
        }
    }
    names
}

/// Those that have ended as `ended` says, and are not going already.
fn newest_first(backups: &[Backup], ended: impl Fn(&Backup) -> Option<Timestamp>) -> Vec<(Timestamp, &Backup)> {
    let stay = backups.iter().filter(|backup| !backup.deleting);
    let mut found: Vec<_> = stay.filter_map(|backup| Some((ended(backup)?, backup))).collect();
    found.sort_by_key(|(at, backup)| Reverse((*at, &backup.name)));
    found
}

#[cfg(test)]
mod tests;
