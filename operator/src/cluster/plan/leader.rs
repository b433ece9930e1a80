//! Who leads: a leader on a node that is to be emptied gives its place away, since nodes are cordoned before they are drained.

use super::super::world::Entry;
use super::super::world::Known;
use super::super::world::World;
use super::Step;

/// Moves the leadership away from a node that is cordoned to one that is not, if there is one and nothing is under way.
pub(super) fn shelter(world: &World, known: &Known) -> Option<Step> {
    let (_, leader) = world.member_of(known, known.leader)?;
    if world.recorded.operation.is_some() || !leader.pod.as_ref()?.cordoned {
        return None;
    }
    let to = successor(world, known).filter(|to| is_sheltered(world, known, to))?;
    Some(Step::MoveLeader { to: to.id })
}

/// Who may lead next: one that is well, on a node that stays if there is one.
pub(super) fn successor<'a>(world: &World, known: &'a Known) -> Option<&'a Entry> {
    let others = known.voters().filter(|entry| entry.healthy && entry.id != known.leader);
    others.min_by_key(|entry| !is_sheltered(world, known, entry))
}

fn is_sheltered(world: &World, known: &Known, entry: &Entry) -> bool {
    let pod = world.member_of(known, entry.id).and_then(|(_, member)| member.pod.as_ref());
    pod.is_some_and(|pod| pod.ready && !pod.deleting && pod.node_ready && !pod.cordoned)
}
