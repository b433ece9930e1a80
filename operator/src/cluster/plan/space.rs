//! Room for writes, after a member has raised NOSPACE and if the spec asks for it: what takes too much is compacted, members are defragmented
//! one after the other, the leader last, and the alarm is taken back.
//!
//! How far it has come is what the members say of their databases. What they are asked for takes them long and is not waited for; it does no
//! harm to ask twice. A CORRUPT alarm is never touched, and nothing is done while there is one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;

use super::super::world::Entry;
use super::super::world::Known;
use super::super::world::Size;
use super::super::world::World;
use super::super::world::parse_id;
use super::Step;
use super::begin;
use super::is_lost_for_good;
use crate::crd::status::Operation;
use crate::crd::status::OperationType;
use crate::crd::status::Reclaim;

/// So long a compaction may take to free enough. One that takes longer is gone on with, since less is in use with each look.
const COMPACTION_LIMIT: SignedDuration = SignedDuration::from_mins(2);
/// So long a member may take to defragment.
const DEFRAGMENTATION_LIMIT: SignedDuration = SignedDuration::from_mins(30);
/// Until it is asked again: an operator may have died before it asked.
const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// Until all is tried again where it was not enough.
const PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// What an alarm asks for when nothing is under way.
pub(super) fn reclaim(world: &World, known: &Known) -> Option<Step> {
    let alarm = alarm(world, known)?;
    let databases = databases(known).filter(|_| known.entries.iter().all(|entry| !entry.learner))?;
    if !databases.iter().any(|(_, size)| size.is_full()) {
        return Some(Step::Disarm { id: alarm });
    }
    let in_vain = world.recorded.reclaim.as_ref().is_some_and(|last| {
        let now = outcome(world, &databases, "");
        now.db_size_in_use_bytes >= last.db_size_in_use_bytes
            && now.quota_bytes <= last.quota_bytes
            && world.now.duration_since(last.ended_at.0) < PAUSE
    });
    (!in_vain).then(|| begin(world, OperationType::ReclaimSpace, "", None, "NOSPACE is raised"))
}

/// The next step of what was begun.
pub(super) fn carry_on(world: &World, known: &Known, operation: &Operation) -> Step {
    if known.alarms.is_none() {
        return Step::Wait("the alarms cannot be read".to_owned());
    }
    let is_lost = |id| world.member_of(known, id).is_some_and(|(_, member)| is_lost_for_good(world, member).is_some());
    let lost = known.voters().any(|entry| is_lost(entry.id));
    // Who is lost is replaced first: all of this can be begun again.
    let Some(alarm) = alarm(world, known).filter(|_| !lost) else { return Step::End };
    let running = world.now.duration_since(operation.started_at.0);
    let Some(databases) = databases(known) else {
        return match running < COMPACTION_LIMIT {
            true => Step::Wait("space is reclaimed once all members are well".to_owned()),
            false => Step::End,
        };
    };
    if !databases.iter().any(|(_, size)| size.is_full()) {
        return Step::Disarm { id: alarm };
    }
    let defragments = operation.member_id.as_deref().and_then(parse_id);
    let current = databases.iter().find(|(entry, size)| defragments == Some(entry.id) && would_help(*size));
    let (limit, step, what) = match current {
        Some(_) => {
            let step = Step::Defragment { name: operation.member.clone() };
            (DEFRAGMENTATION_LIMIT, step, format!("the defragmentation of {}", operation.member))
        }
        None if defragments.is_none() && databases.iter().any(|(_, size)| size.stays_full()) => {
            (COMPACTION_LIMIT, Step::Compact { revision: known.revision }, "what a compaction frees".to_owned())
        }
        None => return next(world, known, &databases),
    };
    let asked = operation.asked_at.as_ref().map(|asked| world.now.duration_since(asked.0));
    match asked {
        _ if running >= limit => {
            let minutes = limit.as_mins();
            Step::FallShort(outcome(world, &databases, &format!("{what} did not come in {minutes} minutes")))
        }
        Some(asked) if asked < ASK_AGAIN => Step::Wait(format!("{what} is waited for")),
        _ => step,
    }
}

/// The alarm that is to be taken back in the end.
fn alarm(world: &World, known: &Known) -> Option<u64> {
    let alarms = known.alarms.as_ref().filter(|alarms| world.wanted.reclaim && alarms.corrupt.is_empty())?;
    alarms.no_space.first().copied()
}

/// What each voter says of its database; `None`: one of them is not well.
fn databases(known: &Known) -> Option<Vec<(&Entry, Size)>> {
    known.voters().map(|entry| Some((entry, entry.size.filter(|_| entry.healthy)?))).collect()
}

fn would_help(size: Size) -> bool {
    size.is_full() && !size.stays_full()
}

/// Who is defragmented next.
fn next(world: &World, known: &Known, databases: &[(&Entry, Size)]) -> Step {
    let left = databases.iter().filter(|(_, size)| would_help(*size)).map(|(entry, _)| entry.id);
    let first = left.min_by_key(|id| (*id == known.leader, *id));
    match first.and_then(|id| Some((id, world.member_of(known, id)?))) {
        Some((id, (name, _))) => begin(world, OperationType::ReclaimSpace, name, Some(id), "NOSPACE is raised"),
        None => Step::FallShort(outcome(world, databases, "nothing more can be freed")),
    }
}

fn outcome(world: &World, databases: &[(&Entry, Size)], why: &str) -> Reclaim {
    let in_use = databases.iter().map(|(_, size)| size.in_use).max().unwrap_or(0);
    let quota = databases.iter().map(|(_, size)| size.quota).filter(|quota| *quota > 0).min().unwrap_or(0);
    let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    Reclaim {
        ended_at: Time(world.now),
        db_size_in_use_bytes: bytes(in_use),
        quota_bytes: bytes(quota),
        message: format!("{why}: {in_use} bytes are in use, of a quota of {quota}"),
    }
}
