//! What a fault is, and the list of all kinds.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::cluster::Layout;
use crate::faults;
use garboard_e2e::random::Random;

/// One fault: its choices are drawn when it is made, what it hits is found when it strikes.
pub trait Fault: Send {
    /// In words, with all that was drawn.
    fn describe(&self) -> String;

    /// An error is one of the runner, not of the cluster.
    fn inject(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<Outcome>;

    /// Takes the fault back; again and again if need be, and also when it has hit nothing. An error says what is still missing.
    fn heal(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<()>;

    /// Shows while it is in force that it does what it says: an error if the cluster does not feel it.
    fn evidence(&mut self, cluster: &Arc<Cluster>) -> anyhow::Result<String>;

    /// The same for what shows only once it is healed.
    fn aftermath(&mut self, _: &Arc<Cluster>) -> anyhow::Result<String> {
        Ok(String::new())
    }
}

/// What an injection came to.
pub enum Outcome {
    /// It hit these members.
    Hit(Vec<usize>),
    /// There was nothing to hit, such as no leader.
    Missed(String),
}

/// Faults of one lane never overlap, those of different lanes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Processes, disks, membership.
    Member,
    /// Partitions and bad links.
    Network,
    /// What operators do while all this happens.
    Upkeep,
}

/// What a kind needs of the cluster or of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    Proxies,
    SmallDisk,
    Strace,
    /// Members whose unsynced bytes die with them.
    Volatile,
    /// Members that take snapshots often.
    Snapshots,
    /// A server that promises more than etcd does.
    Ours,
}

pub struct Kind {
    pub name: &'static str,
    pub what: &'static str,
    pub lane: Lane,
    pub need: Need,
    /// How long it is in force: short ones are more frequent.
    pub shortest: Duration,
    pub longest: Duration,
    pub make: fn(&mut Random, &Layout) -> Box<dyn Fault>,
}

// === impl Kind ===

impl Kind {
    const fn new(
        name: &'static str,
        what: &'static str,
        lane: Lane,
        need: Need,
        milliseconds: (u64, u64),
        make: fn(&mut Random, &Layout) -> Box<dyn Fault>,
    ) -> Self {
        let (shortest, longest) = (Duration::from_millis(milliseconds.0), Duration::from_millis(milliseconds.1));
        Self { name, what, lane, need, shortest, longest, make }
    }
}

/// All kinds, in the order in which they are listed.
pub static KINDS: &[Kind] = &[
    Kind::new("kill", "SIGKILL of one member", Lane::Member, Need::Nothing, (200, 8_000), faults::kill::one),
    Kind::new("leader-kill", "SIGKILL of the leader", Lane::Member, Need::Nothing, (200, 8_000), faults::kill::leader),
    Kind::new("all-kill", "SIGKILL of all members", Lane::Member, Need::Nothing, (200, 4_000), faults::kill::all),
    Kind::new(
        "power",
        "SIGKILL of one member; what it has not synced is lost",
        Lane::Member,
        Need::Volatile,
        (200, 8_000),
        faults::kill::one_or_leader,
    ),
    Kind::new(
        "all-power",
        "SIGKILL of all members; what they have not synced is lost",
        Lane::Member,
        Need::Volatile,
        (200, 4_000),
        faults::kill::all,
    ),
    Kind::new("restart", "SIGTERM of one member", Lane::Member, Need::Nothing, (200, 5_000), faults::restart::one),
    Kind::new(
        "leader-restart",
        "SIGTERM of the leader",
        Lane::Member,
        Need::Nothing,
        (200, 5_000),
        faults::restart::leader,
    ),
    Kind::new("stop", "SIGSTOP of one member", Lane::Member, Need::Nothing, (100, 60_000), faults::pause::one),
    Kind::new(
        "leader-stop",
        "SIGSTOP of the leader",
        Lane::Member,
        Need::Nothing,
        (100, 60_000),
        faults::pause::leader,
    ),
    Kind::new(
        "slow-sync",
        "syncs of one disk take long",
        Lane::Member,
        Need::Strace,
        (2_000, 12_000),
        faults::sync::slow,
    ),
    Kind::new(
        "failing-sync",
        "syncs of one disk fail",
        Lane::Member,
        Need::Strace,
        (1_500, 6_000),
        faults::sync::failing,
    ),
    Kind::new(
        "full-disk",
        "the disk of one member is full",
        Lane::Member,
        Need::SmallDisk,
        (3_000, 10_000),
        faults::full_disk::make,
    ),
    Kind::new(
        "member-cycle",
        "a member is removed, and a new one takes its place",
        Lane::Member,
        Need::Nothing,
        (6_000, 20_000),
        faults::membership::cycle,
    ),
    Kind::new(
        "member-replace",
        "a killed member is removed, and a new one takes its place",
        Lane::Member,
        Need::Nothing,
        (6_000, 20_000),
        faults::membership::replace,
    ),
    Kind::new(
        "wipe",
        "a member comes back without its data, must be refused, and is replaced",
        Lane::Member,
        Need::Ours,
        (6_000, 20_000),
        faults::wipe::make,
    ),
    Kind::new(
        "member-grow",
        "one member more for a while",
        Lane::Member,
        Need::Nothing,
        (6_000, 20_000),
        faults::membership::grow,
    ),
    Kind::new(
        "lag",
        "a member stays away until it needs a snapshot",
        Lane::Member,
        Need::Snapshots,
        (8_000, 20_000),
        faults::lag::make,
    ),
    Kind::new(
        "isolate",
        "one member reaches no other",
        Lane::Network,
        Need::Nothing,
        (1_000, 12_000),
        faults::partition::isolate,
    ),
    Kind::new(
        "leader-isolate",
        "the leader reaches no other member",
        Lane::Network,
        Need::Nothing,
        (1_000, 12_000),
        faults::partition::isolate_leader,
    ),
    Kind::new(
        "split",
        "a majority and a minority",
        Lane::Network,
        Need::Nothing,
        (1_000, 12_000),
        faults::partition::split,
    ),
    Kind::new(
        "one-way",
        "packets from or to one member are lost, the other way they pass",
        Lane::Network,
        Need::Nothing,
        (1_000, 12_000),
        faults::partition::one_way,
    ),
    Kind::new(
        "flap",
        "a partition that comes and goes",
        Lane::Network,
        Need::Nothing,
        (3_000, 12_000),
        faults::flap::make,
    ),
    Kind::new(
        "delay",
        "links with delay and jitter",
        Lane::Network,
        Need::Proxies,
        (3_000, 15_000),
        faults::link::delay,
    ),
    Kind::new(
        "throttle",
        "links of few bytes per second",
        Lane::Network,
        Need::Proxies,
        (3_000, 15_000),
        faults::link::throttle,
    ),
    Kind::new("corrupt", "links that flip bits", Lane::Network, Need::Proxies, (3_000, 12_000), faults::link::corrupt),
    Kind::new(
        "reset",
        "connections are reset again and again",
        Lane::Network,
        Need::Proxies,
        (3_000, 12_000),
        faults::reset::make,
    ),
    Kind::new("move-leader", "MoveLeader", Lane::Upkeep, Need::Nothing, (1_000, 3_000), faults::move_leader::make),
    Kind::new(
        "compact-defrag",
        "compaction, and defrag of one member after the other",
        Lane::Upkeep,
        Need::Nothing,
        (4_000, 15_000),
        faults::maintenance::make,
    ),
];
