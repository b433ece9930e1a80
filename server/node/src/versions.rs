//! What the members agree on of versions: etcd's cluster version, which clients see, and the format of our own, which nobody does.
//!
//! Each member says in the membership what it was built as (`publish`). The leader looks at all of it and proposes what all of them can.

use std::time::Duration;

use garboard_proto::etcdserverpb::downgrade_request::DowngradeAction;
use garboard_proto::raft::ClusterVersion;
use garboard_proto::raft::Downgrade;
use garboard_proto::raft::FormatVersion;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;

use crate::consensus::MemberNode;
use crate::error::Error;
use crate::node::Node;
use crate::node::command;
use crate::release::Version;

/// Time between two looks, in etcd too.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while the cluster has no version yet.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);

/// Runs for as long as the member does; only a leader does anything.
pub(crate) async fn run(node: Node) {
    let mut leadership = node.leadership();
    let looks_for_end =
        Some(node.0.config.downgrade_check_time).filter(|time| !time.is_zero()).unwrap_or(Duration::MAX);
    while node.ready().await.is_ok() {
        if node.is_leader()
            && let Err(error) = agree(&node).await
        {
            tracing::warn!(%error, "the members' versions were not agreed on; trying again");
        }
        let pause = if node.store().cluster_version().is_none() { FIRST_INTERVAL } else { INTERVAL.min(looks_for_end) };
        tokio::select! {
            () = clock::sleep(pause) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

async fn agree(node: &Node) -> Result<(), Error> {
    let members: Vec<MemberNode> = node.roster().members().into_values().collect();
    let store = node.store();
    let target = store.downgrade_target();
    let now = store.cluster_version();
    let own = node.0.config.release.version();
    let next = cluster_version(now.as_deref().and_then(Version::parse), &members, own, target.as_deref());
    if let Some(version) = next {
        node.propose(command(Op::ClusterVersion(ClusterVersion { version: version.to_string() }))).await?;
        let message = if now.is_none() { "set initial cluster version" } else { "updated cluster version" };
        tracing::info!("cluster-version" = %version, from = now, "{message}");
    }
    let format = format(&members);
    if format > store.format_version() {
        node.propose(command(Op::FormatVersion(FormatVersion { version: format }))).await?;
        tracing::info!(format, "all members write a later format: the cluster does so from now on");
    }
    let ends = !node.0.config.downgrade_check_time.is_zero();
    if let Some(target) = target.filter(|target| ends && is_reached(target, &members)) {
        node.propose(command(Op::Downgrade(Downgrade::default()))).await?;
        tracing::info!("cluster-version" = target, "the cluster has been downgraded");
    }
    Ok(())
}

/// The version that the cluster is to have next, by etcd's rules; `None`: the one that it has.
fn cluster_version(
    now: Option<Version>,
    members: &[MemberNode],
    own: Option<Version>,
    target: Option<&str>,
) -> Option<Version> {
    let versions: Vec<Option<Version>> = members.iter().map(|member| Version::parse(&member.etcd_version)).collect();
    let Some(now) = now else {
        // Who has never been started may be of any.
        return versions.into_iter().flatten().chain(own).min();
    };
    let least = versions.into_iter().collect::<Option<Vec<_>>>()?.into_iter().min()?;
    match target.map(Version::parse) {
        Some(target) => target.filter(|_| now.before() == target && least.before() == target),
        None => (least > now).then_some(least),
    }
}

/// The format that all members would write; 0: of one that is not known.
fn format(members: &[MemberNode]) -> u32 {
    members.iter().map(|member| member.format).min().unwrap_or(0)
}

/// Whether every member is of the version that the downgrade goes to.
fn is_reached(target: &str, members: &[MemberNode]) -> bool {
    let target = Version::parse(target);
    target.is_some() && members.iter().all(|member| Version::parse(&member.etcd_version) == target)
}

impl Node {
    /// Maintenance.Downgrade: answers the cluster version, as `major.minor`. The cluster version follows within some seconds.
    ///
    /// # Errors
    /// As etcd's: the target is no version, or not the minor one before; a downgrade is under way; no leader.
    pub async fn downgrade(&self, action: DowngradeAction, target: &str) -> Result<String, Error> {
        let target = match action {
            DowngradeAction::Cancel => None,
            _ => Some(Version::parse(target).ok_or(Error::WrongDowngradeVersionFormat)?),
        };
        let version = || self.store().cluster_version().as_deref().and_then(Version::parse);
        version().ok_or(Error::ClusterVersionUnavailable)?;
        self.linearizable_read().await?;
        let now = version().ok_or(Error::ClusterVersionUnavailable)?;
        let under_way = self.store().downgrade_target().is_some();
        match target {
            Some(target) => {
                if now.before() != Some(target) {
                    return Err(Error::InvalidDowngradeTarget);
                }
                if under_way {
                    return Err(Error::DowngradeInProcess);
                }
                if action == DowngradeAction::Enable {
                    self.propose(command(Op::Downgrade(Downgrade { target: target.to_string() }))).await?;
                }
            }
            // That there is none to cancel is no error in etcd either.
            None if under_way => {
                self.propose(command(Op::Downgrade(Downgrade::default()))).await?;
            }
            None => {}
        }
        Ok(format!("{}.{}", now.major, now.minor))
    }

    /// The etcd version of what snapshots of this member are: that of the cluster.
    pub fn storage_version(&self) -> String {
        let own = || self.0.config.release.version().map(|version| version.to_string());
        self.store().cluster_version().or_else(own).unwrap_or_default()
    }

    /// The etcd release that this member stands for.
    pub fn etcd_version(&self) -> &str {
        &self.0.config.release.etcd_version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(etcd_version: &str, format: u32) -> MemberNode {
        MemberNode { etcd_version: etcd_version.into(), format, ..MemberNode::default() }
    }

    fn version(text: &str) -> Option<Version> {
        let version = Version::parse(text);
        assert!(version.is_some(), "{text}");
        version
    }

    #[test]
    fn a_cluster_has_the_version_of_its_earliest_member() {
        let next = |now, members: &[MemberNode]| cluster_version(now, members, version("3.7.1"), None);
        let mixed = [member("3.7.1", 1), member("3.6.16", 1), member("3.7.1", 1)];
        assert_eq!(next(None, &mixed), version("3.6"));
        assert_eq!(next(None, &[member("", 0), member("", 0)]), version("3.7"));
        assert_eq!(next(version("3.6"), &mixed), None);
        let all = [member("3.7.1", 1), member("3.7.0", 1)];
        assert_eq!(next(version("3.6"), &all), version("3.7"));
        assert_eq!(next(version("3.7"), &all), None);
        // Who has never been started may be earlier.
        assert_eq!(next(version("3.6"), &[member("3.7.1", 1), member("", 0)]), None);
        // An earlier member does not take the cluster back by itself.
        assert_eq!(next(version("3.7"), &mixed), None);
    }

    #[test]
    fn a_downgrade_goes_one_version_back_and_stays_there() {
        let next = |now, members: &[MemberNode], target| cluster_version(now, members, version("3.7.1"), target);
        let all = [member("3.7.1", 1), member("3.7.1", 1)];
        assert_eq!(next(version("3.7"), &all, Some("3.6.0")), version("3.6"));
        assert_eq!(next(version("3.6"), &all, Some("3.6.0")), None);
        assert_eq!(next(version("3.7"), &all, Some("3.5.0")), None);
        assert!(!is_reached("3.6.0", &all));
        assert!(!is_reached("3.6.0", &[member("3.7.1", 1), member("3.6.16", 1)]));
        assert!(is_reached("3.6.0", &[member("3.6.1", 1), member("3.6.16", 1)]));
    }

    #[test]
    fn a_format_is_agreed_on_by_all_or_not_at_all() {
        assert_eq!(format(&[member("3.7.1", 2), member("3.7.1", 3)]), 2);
        assert_eq!(format(&[member("3.7.1", 2), member("", 0)]), 0);
    }
}
