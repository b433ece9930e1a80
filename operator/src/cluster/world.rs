//! What one pass has seen: the input of [`plan`](super::plan). Plain data, so that any world can be made up in a test.

use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;

use crate::backup::Obstacle;
use crate::crd::status::FinalBackupStatus;
use crate::crd::status::Operation;
use crate::crd::status::Reclaim;
use crate::crd::status::RestoreInPlace;
use crate::crd::status::RestoreStage;

/// A database below this share of its quota has room for writes.
const ROOM_PERCENT: u64 = 80;

/// One cluster, as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub wanted: Wanted,
    pub recorded: Recorded,
    /// By name: whatever has an EtcdMember, a Pod or a volume.
    pub members: BTreeMap<String, Member>,
    /// Why no member can start: what is wrong with certificates that all need.
    pub uncertified: Option<String>,
    /// That was asked for; `None` also once the cluster is founded.
    pub restore: Option<Restore>,
    pub leaving: Leaving,
    /// The EtcdRestore that may replace the cluster by another: it was confirmed.
    pub asked: Option<RestoreInPlace>,
    /// Volumes that restores in place have put aside.
    pub aside: Vec<Aside>,
    pub store: Store,
    pub now: Timestamp,
    /// A name that nobody has had.
    pub fresh_name: String,
}

/// What the plan needs of the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub size: usize,
    pub paused: bool,
    /// Whether members have volumes that outlive their Pods.
    pub volumes: bool,
    /// Bytes of each volume.
    pub volume_size: u64,
    pub healing: bool,
    pub node_lost_for: SignedDuration,
    pub stabilization: SignedDuration,
    /// Whether room is made after a NOSPACE alarm.
    pub reclaim: bool,
    /// Whether there has to be a backup before it goes.
    pub final_backup: bool,
}

/// What earlier passes have written into the status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recorded {
    pub cluster_id: Option<u64>,
    pub bootstrap: Option<String>,
    pub operation: Option<Operation>,
    pub reclaim: Option<Reclaim>,
    pub restore: Option<RestoreInPlace>,
}

/// A volume that belongs to no member now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aside {
    /// The claim, which has the member's name.
    pub name: String,
    pub uid: String,
    /// The EtcdRestore that has put it aside.
    pub restore: String,
    pub deleting: bool,
    pub cluster_id: Option<u64>,
}

/// What the cluster is to be founded from.
#[derive(Debug, Clone, PartialEq)]
pub struct Restore {
    /// Or why there is none now.
    pub backup: Result<Backup, Obstacle>,
    /// What keeps the founder's Pod from it.
    pub trouble: Option<Trouble>,
}

/// A backup on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub claim: String,
    pub file: File,
    pub revision_bump: i64,
}

/// In the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// The archive of this name, with its manifest.
    Archive { folder: String, name: String },
    /// Whatever somebody has named: an archive that has its manifest beside it, or a snapshot.
    Path(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It does not begin.
    HeldUp(String),
    /// It cannot restore the backup. It is tried again, and comes to the same end until somebody has changed the file.
    Refused(Obstacle),
}

/// Whether the cluster goes, and what the operator has to do with that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Leaving {
    /// Somebody has deleted it.
    pub deleted: bool,
    /// It cannot go before the operator lets it.
    pub held: bool,
    /// The last try of a final backup.
    pub tried: Option<Tried>,
    /// Of an EtcdBackup: one that there has never been.
    pub fresh_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub record: FinalBackupStatus,
    pub seen: Seen,
    /// It is put where the spec says, and as it says.
    pub as_wanted: bool,
}

/// What has become of an EtcdBackup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It has not been made yet, or somebody has deleted it.
    Absent,
    /// What it waits for.
    Pending(String),
    /// It is there, and is known to be as good as was asked for.
    Taken,
    Failed {
        why: String,
        at: Timestamp,
    },
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Member {
    pub peer_url: String,
    /// Whether there is an EtcdMember.
    pub object: bool,
    /// The id that the EtcdMember names.
    pub id: Option<u64>,
    pub pod: Option<Pod>,
    pub volume: Option<Volume>,
    /// Why it cannot start: what is wrong with its certificates.
    pub uncertified: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pod {
    pub uid: String,
    pub ready: bool,
    /// Since when it is ready.
    pub ready_since: Option<Timestamp>,
    pub deleting: bool,
    /// Failed or Succeeded: it does not start again by itself.
    pub finished: bool,
    /// It is not as the spec asks for.
    pub outdated: bool,
    /// It may found a cluster.
    pub founds: bool,
    /// What the server said when it last ended.
    pub exit: Option<Exit>,
    /// Since when its node is gone or does not answer; or since when no node can be found for it.
    pub node_lost_since: Option<Timestamp>,
    /// Its node takes no more Pods: it is about to be emptied.
    pub cordoned: bool,
    /// Its node is Ready.
    pub node_ready: bool,
}

/// Ends of the server that a restart does not mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The data directory is not the one that the cluster knows (exit code 3).
    Wiped,
    /// The cluster has removed the member (exit code 4).
    Removed,
    /// The cluster writes a format that the release cannot read (exit code 5).
    Outdated,
    /// What is on its disk is not what was written (exit code 6).
    Damaged,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    pub uid: String,
    pub deleting: bool,
    /// The claim's volume is gone.
    pub lost: bool,
    /// Bytes that are asked for.
    pub requested: u64,
    /// Bytes that it has; `None` until it is bound.
    pub capacity: Option<u64>,
    /// Whether its class lets it grow.
    pub expandable: bool,
    pub cluster_id: Option<u64>,
    pub member_id: Option<u64>,
}

/// What the members say.
#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    /// None answers, or not with a quorum behind it.
    Unknown,
    Known(Known),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub cluster_id: u64,
    pub leader: u64,
    pub entries: Vec<Entry>,
    /// The newest that any of them has.
    pub revision: i64,
    /// `None`: they could not be read.
    pub alarms: Option<Alarms>,
}

/// Alarms that are raised, by the ids of those who have raised them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alarms {
    pub no_space: Vec<u64>,
    pub corrupt: Vec<u64>,
}

/// A line of the member list, with what the member itself says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    pub id: u64,
    /// Empty until the member has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub learner: bool,
    /// Its peer URL is one that the operator gives.
    pub ours: bool,
    /// It answers, follows the leader and is not far behind it.
    pub healthy: bool,
    /// `None` of one that does not answer.
    pub size: Option<Size>,
}

/// A member's database, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// With what a defragmentation gives back.
    pub total: u64,
    pub in_use: u64,
    /// 0: there is none.
    pub quota: u64,
}

// === impl World ===

impl World {
    /// Who is the member `id` of the store here.
    pub fn member_of(&self, known: &Known, id: u64) -> Option<(&String, &Member)> {
        self.members.iter().find(|(_, member)| known.of(member).is_some_and(|entry| entry.id == id))
    }

    /// Why a Pod of `member` could not start.
    pub fn uncertified<'a>(&'a self, member: &'a Member) -> Option<&'a String> {
        member.uncertified.as_ref().or(self.uncertified.as_ref())
    }
}

// === impl RestoreInPlace ===

impl RestoreInPlace {
    pub fn is_under_way(&self) -> bool {
        self.stage != RestoreStage::Done
    }

    /// Whether both want the same, for whatever EtcdRestore.
    pub fn wants_as(&self, other: &Self) -> bool {
        let source = |of: &Self| of.from.as_ref().map(|from| from.source.clone());
        self.rollback == other.rollback && source(self) == source(other)
    }

    /// Whether these are the data of the cluster that makes way, or that is gone back to.
    pub fn is_of_old(&self, cluster_id: u64) -> bool {
        parse_id(&self.cluster_id) == Some(cluster_id)
    }

    /// Whether a volume is to be taken back.
    pub fn takes_back(&self, volume: &Aside) -> bool {
        let of_old = volume.cluster_id.is_some_and(|id| self.is_of_old(id));
        self.rollback && of_old && !volume.deleting
    }
}

// === impl Volume ===

impl Volume {
    /// More is asked for than it has.
    pub fn is_growing(&self) -> bool {
        self.capacity.is_some_and(|capacity| capacity < self.requested)
    }

    /// It stays, and less is asked for than is wanted.
    pub fn is_small(&self, wanted: &Wanted) -> bool {
        wanted.volumes && !self.deleting && !self.lost && self.capacity.is_some() && self.requested < wanted.volume_size
    }
}

// === impl Size ===

impl Size {
    /// A member that had raised NOSPACE would soon raise it again.
    pub fn is_full(self) -> bool {
        self.leaves_no_room(self.total)
    }

    /// It would be full right after a defragmentation.
    pub fn stays_full(self) -> bool {
        self.leaves_no_room(self.in_use)
    }

    fn leaves_no_room(self, bytes: u64) -> bool {
        self.quota > 0 && bytes.saturating_mul(100) >= self.quota.saturating_mul(ROOM_PERCENT)
    }
}

// === impl Known ===

impl Known {
    pub fn by_id(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    pub fn of(&self, member: &Member) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| member.id == Some(entry.id))
            .or_else(|| self.entries.iter().find(|entry| entry.peer_urls.contains(&member.peer_url)))
    }

    pub fn voters(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.learner)
    }

    pub fn healthy_voters(&self) -> usize {
        self.voters().filter(|entry| entry.healthy).count()
    }
}

/// An id as labels and the status have it.
pub fn parse_id(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The smallest majority.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}
