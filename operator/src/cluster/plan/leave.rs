//! How a cluster goes that is to leave a backup behind. It is held before anybody deletes it; when somebody has, an EtcdBackup is made, and another
//! one after each that has failed. It goes when there is one, when nobody asks for one any more, or where nobody can ever have written.

use k8s_openapi::jiff::SignedDuration;

use super::super::world::Member;
use super::super::world::Seen;
use super::super::world::Store;
use super::super::world::Tried;
use super::super::world::World;
use super::Step;
use super::find;
use super::in_place;
use crate::crd::status::FinalBackupStatus;

/// From a backup that has failed until the next one: twice as long after each, up to the latter.
const PAUSE_MIN: SignedDuration = SignedDuration::from_secs(30);
const PAUSE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// `None`: there is nothing to do about it now.
pub(super) fn leave(world: &World) -> Option<Step> {
    let (leaving, wanted) = (&world.leaving, world.wanted.final_backup);
    match (leaving.deleted, leaving.held) {
        (false, false) if wanted => Some(Step::Hold),
        // Nobody can hold it any more.
        (true, false) => Some(Step::Wait("it is being deleted".to_owned())),
        (_, true) if !wanted => Some(Step::LetGo("no final backup is asked for".to_owned())),
        (false, _) => None,
        // What is to be backed up is what it comes to.
        (true, true) if in_place::under_way(world).is_some() => None,
        (true, true) if world.recorded.cluster_id.is_none() => unfounded(world),
        (true, true) => back_up(world),
    }
}

/// A record that was lost is found again first, and one that is about to be written is waited for.
fn unfounded(world: &World) -> Option<Step> {
    let never = Step::LetGo("it was never founded: there is nothing to back up".to_owned());
    if world.recorded.bootstrap.is_some() {
        let identified = |member: &Member| member.volume.as_ref().is_some_and(|volume| volume.cluster_id.is_some());
        let begun = world.store != Store::Unknown || world.members.values().any(identified);
        return (!begun).then_some(never);
    }
    Some(match find(world) {
        Step::GrantBootstrap { .. } | Step::Wait(_) => never,
        step => step,
    })
}

fn back_up(world: &World) -> Option<Step> {
    let fresh = |tries, why: String| {
        let next = FinalBackupStatus { name: world.leaving.fresh_name.clone(), tries };
        Some(Step::BackUp { next, why })
    };
    let Some(Tried { record, seen, as_wanted }) = &world.leaving.tried else {
        return fresh(1, "the cluster is deleted".to_owned());
    };
    let name = &record.name;
    match seen {
        Seen::Taken => Some(Step::LetGo(format!("EtcdBackup {name} is taken"))),
        _ if !as_wanted => fresh(1, format!("EtcdBackup {name} is not what the spec asks for")),
        Seen::Absent => {
            Some(Step::BackUp { next: record.clone(), why: "there is no EtcdBackup of this name".to_owned() })
        }
        Seen::Failed { at, .. } if world.now.duration_since(*at) < pause(record.tries) => None,
        Seen::Failed { why, .. } => {
            fresh(record.tries.saturating_add(1), format!("EtcdBackup {name} has failed: {why}"))
        }
        Seen::Pending(_) => None,
    }
}

fn pause(tries: i32) -> SignedDuration {
    let doubled = 2_i32.saturating_pow(u32::try_from(tries.saturating_sub(1)).unwrap_or(0));
    PAUSE_MIN.checked_mul(doubled).map_or(PAUSE_MAX, |pause| pause.min(PAUSE_MAX))
}
