//! The faults, one file each.

pub mod flap;
pub mod full_disk;
pub mod kill;
pub mod lag;
pub mod link;
pub mod maintenance;
pub mod membership;
pub mod move_leader;
pub mod partition;
pub mod pause;
pub mod reset;
pub mod restart;
pub mod sync;
pub mod wipe;

use crate::cluster::Layout;
use crate::cluster::Target;
use garboard_e2e::random::Random;

/// Any of the members that the cluster began with.
fn any_member(random: &mut Random, layout: &Layout) -> Target {
    Target::Slot(random.below(layout.members))
}

/// As often the leader as any other.
fn any_or_leader(random: &mut Random, layout: &Layout) -> Target {
    if random.once_in(2) { Target::Leader } else { any_member(random, layout) }
}
