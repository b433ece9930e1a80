//! The rotation of a CA, turn by turn: from what was seen, exactly one turn, or none and why. Pure.
//!
//! Trust both, reissue, retire: a turn is taken when every Secret is as the one before has it, and every member reports that it has loaded its
//! own. Clients report nothing: they are given time instead.
//!
//! Invariants, held by the tests on rotations that are disturbed at random:
//! - nobody shows a certificate that one of the others does not trust;
//! - in the end nobody trusts the CA before;
//! - turns come to an end.
//!
//! A CA that has expired ends the care that is taken: nobody takes what it has signed any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::crd::status::RotationPhase;

/// One CA and those who use it, as they were seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub phase: RotationPhase,
    /// The end of the CA that signs in this phase.
    pub signer_ends: Timestamp,
    /// That of the one which is to sign next, if there is one.
    pub next_ends: Option<Timestamp>,
    /// Somebody asks for another CA, and has not got it.
    pub demanded: bool,
    /// How long before its end another CA is made.
    pub renew_before: SignedDuration,
    /// Why a Secret is not as the phase has it.
    pub unwritten: Option<String>,
    /// By name: all that have anything here, whether or not they run.
    pub members: BTreeMap<String, Held>,
    /// Since when all Secrets are as the phase has them.
    pub settled_at: Option<Timestamp>,
    /// How long clients have to read theirs.
    pub grace: SignedDuration,
    pub now: Timestamp,
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
    /// Makes the next CA, which is to be trusted beside the one that signs.
    TrustBoth,
    /// Records that all Secrets are as the phase has them: from now on clients have their time.
    Settle,
    /// The next CA is to sign.
    Reissue,
    /// The CA before is to be trusted no more, and its key is deleted.
    Retire,
    /// All is over.
    Conclude,
    /// Makes another CA in the place of one that has expired, and signs with it at once.
    Renew,
}

/// The next turn.
pub fn plan(seen: &Seen) -> Turn {
    if seen.signer_ends <= seen.now {
        let can_sign = seen.next_ends.is_some_and(|ends| ends > seen.now);
        return if can_sign { Turn::Reissue } else { Turn::Renew };
    }
    let next = match seen.phase {
        RotationPhase::Stable if seen.demanded || seen.signer_ends.duration_since(seen.now) < seen.renew_before => {
            return Turn::TrustBoth;
        }
        RotationPhase::Stable => return Turn::Rest,
        RotationPhase::TrustBoth => Turn::Reissue,
        RotationPhase::Reissue => Turn::Retire,
        RotationPhase::Retire => Turn::Conclude,
    };
    if let Some(why) = &seen.unwritten {
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
    match seen.settled_at.filter(|_| for_clients) {
        Some(since) if seen.now.duration_since(since) < seen.grace => {
            let until = since.checked_add(seen.grace).map_or_else(|error| error.to_string(), |until| until.to_string());
            Turn::Wait(format!("clients have until {until} to read their Secrets"))
        }
        _ => next,
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
