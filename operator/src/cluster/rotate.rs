//! The rotation of a plane's authority, turn by turn: from what was seen, exactly one turn, or none and why. Pure.
//!
//! From one CA of the operator's to the next, or from whoever signs to another. Trust both, reissue, retire: a turn is taken when every Secret
//! is as the one before has it, and every member that runs reports that it has loaded its own. Clients report nothing: they are given time
//! instead.
//!
//! Invariants, held by the tests on rotations that are disturbed at random:
//! - nobody shows a certificate that one of the others does not trust;
//! - in the end nobody trusts the CA before;
//! - turns come to an end.
//!
//! A CA that has expired ends the care that is taken: nobody takes what it has signed any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::STEADY;
use super::WAITING;
use crate::crd::status::RotationPhase;

/// One authority and those who use it, as they were seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub phase: RotationPhase,
    /// When what the signer of this phase has signed is taken no more.
    pub signer_ends: Timestamp,
    /// The end of the one which is to sign next, if there is one.
    pub next_ends: Option<Timestamp>,
    /// Whether another one than the newest is to sign.
    pub asked: Asked,
    /// The signer is a CA of the operator's.
    pub is_kept: bool,
    /// Somebody asks for another CA of the operator's, and has not got it.
    pub demanded: bool,
    /// How long before its end the operator's CA is followed by another.
    pub renew_before: SignedDuration,
    /// Why a Secret is not as the phase has it.
    pub lags: Option<String>,
    /// By name: all that run.
    pub members: BTreeMap<String, Held>,
    /// Since when all Secrets are as the phase has them.
    pub settled_at: Option<Timestamp>,
    /// How long clients have to read theirs.
    pub grace: SignedDuration,
    pub now: Timestamp,
}

/// Whom the spec lets sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    TheNewest,
    Another,
    /// Another, who has not signed all that is needed.
    Later(String),
}

/// What a member has been given, and what it says that it has loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub given: Option<Loaded>,
    /// Or why it says nothing.
    pub said: Result<Loaded, String>,
}

/// A certificate that is shown, and those that are trusted: SHA-256 of their DER, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Loaded {
    pub certificate: String,
    pub trust: BTreeSet<String>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is under way.
    Rest,
    /// Nothing can be done now.
    Wait(String),
    /// Clients have until then to read their Secrets.
    Grace(Timestamp),
    /// Takes the next signer, who is to be trusted beside the one that signs.
    TrustBoth,
    /// The next signer is not wanted any more, and has signed nothing that is shown.
    Withdraw,
    /// Records that all Secrets are as the phase has them: from now on clients have their time.
    Settle,
    /// What the next signer has signed is to be shown.
    Reissue,
    /// The one before is to be trusted no more, and its key is deleted.
    Retire,
    /// All is over.
    Conclude,
    /// Makes another CA in the place of one that has expired, and signs with it at once.
    Renew,
}

/// The next turn.
pub fn plan(seen: &Seen) -> Turn {
    let is_expired = seen.signer_ends <= seen.now;
    if is_expired {
        match seen.asked {
            Asked::Another => return Turn::TrustBoth,
            Asked::TheNewest if seen.next_ends.is_some_and(|ends| ends > seen.now) => return Turn::Reissue,
            _ if seen.is_kept => return Turn::Renew,
            // Others have to sign again.
            _ => {}
        }
    }
    let is_due = seen.is_kept && (seen.demanded || seen.signer_ends.duration_since(seen.now) < seen.renew_before);
    let next = match (seen.phase, &seen.asked) {
        (RotationPhase::Stable, Asked::Another) => return Turn::TrustBoth,
        (RotationPhase::TrustBoth, Asked::Another) => return Turn::Withdraw,
        (RotationPhase::Stable | RotationPhase::TrustBoth, Asked::Later(why)) => return Turn::Wait(why.clone()),
        (RotationPhase::Stable, Asked::TheNewest) if is_due => return Turn::TrustBoth,
        (RotationPhase::Stable, Asked::TheNewest) => return Turn::Rest,
        (RotationPhase::TrustBoth, Asked::TheNewest) => Turn::Reissue,
        // What is shown stays, since what was to be shown cannot be had any more.
        (RotationPhase::Reissue, Asked::Another) if !seen.is_kept && seen.lags.is_some() => return Turn::TrustBoth,
        (RotationPhase::Reissue, _) => Turn::Retire,
        (RotationPhase::Retire, _) => Turn::Conclude,
    };
    if let Some(why) = &seen.lags {
        return Turn::Wait(why.clone());
    }
    // Nothing that clients have to know comes after the last phase.
    let for_clients = seen.phase != RotationPhase::Retire && !seen.grace.is_zero();
    if for_clients && seen.settled_at.is_none() {
        return Turn::Settle;
    }
    if let Some(why) = seen.members.iter().find_map(|(name, held)| held.unloaded(name)) {
        return Turn::Wait(why);
    }
    let until = seen.settled_at.filter(|_| for_clients).and_then(|since| since.checked_add(seen.grace).ok());
    until.filter(|until| seen.now < *until).map_or(next, Turn::Grace)
}

// === impl Turn ===

impl Turn {
    /// When to look again, at the latest.
    pub fn again(&self, now: Timestamp) -> Duration {
        match self {
            Self::Wait(_) => WAITING,
            Self::Grace(until) => {
                Duration::try_from(until.duration_since(now)).map_or(WAITING, |left| left.clamp(WAITING, STEADY))
            }
            _ => STEADY,
        }
    }
}

// === impl Held ===

impl Held {
    /// Why the member `name` cannot be said to have loaded what it was given.
    fn unloaded(&self, name: &str) -> Option<String> {
        match &self.said {
            Err(why) => Some(format!("{name} does not say what it has loaded: {why}")),
            Ok(said) if Some(said) != self.given.as_ref() => Some(format!("{name} has not loaded its Secret yet")),
            Ok(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
