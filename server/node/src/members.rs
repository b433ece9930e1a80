//! Changes of the membership, by etcd's rules. They are made by the leader, one at a time; other members ask it.
//!
//! A voter that is added is listed as one at once, as in etcd, but begins as a raft learner with a mark: the leader makes it a voter once it
//! has caught up ([`run_promotions`]). Until then it cannot cost the quorum.

use std::collections::BTreeMap;
use std::time::Duration;

use garboard_mvcc::Position;
use garboard_proto::etcdserverpb as etcd;
use garboard_proto::peers as pb;
use garboard_proto::peers::member_change::Change as Wanted;
use garboard_runtime::clock;
use tonic::Code;

use crate::config::NodeConfig;
use crate::consensus::Change;
use crate::consensus::ConsensusError;
use crate::consensus::MemberNode;
use crate::consensus::node_from_proto;
use crate::consensus::node_to_proto;
use crate::error::Error;
use crate::identity;
use crate::node::Node;
use crate::peers::Line;
use crate::peers::LinkError;

/// Pause before what a leader could not do is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How often the leader looks whether a learner has caught up.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(100);
/// Entries that a voter to be may be behind when it becomes one.
const PROMOTION_LAG: u64 = 100;
/// What etcd asks of a learner before MemberPromote: this part of the leader's log, in percent.
const LEARNER_READY_PERCENT: u64 = 90;

impl Node {
    /// Adds a member, as a voter (once it has caught up) or as a learner. Returns it and all members.
    ///
    /// # Errors
    /// etcd's: the URL is taken, too many learners, the cluster is not well enough.
    pub async fn member_add(
        &self,
        request: etcd::MemberAddRequest,
    ) -> Result<(etcd::Member, Vec<etcd::Member>), Error> {
        let changed = self.change_members(Wanted::Add(request)).await?;
        let members = listed(changed.members);
        let added = members.iter().find(|member| member.id == changed.added).cloned();
        Ok((added.ok_or_else(|| Error::Internal("the member that was added is not a member".into()))?, members))
    }

    /// Removes a member, for good.
    ///
    /// # Errors
    /// There is no such member, or the cluster is not well enough.
    pub async fn member_remove(&self, request: etcd::MemberRemoveRequest) -> Result<Vec<etcd::Member>, Error> {
        self.change_members(Wanted::Remove(request)).await.map(|changed| listed(changed.members))
    }

    /// Replaces a member's peer URLs.
    ///
    /// # Errors
    /// There is no such member, or another one has such a URL.
    pub async fn member_update(&self, request: etcd::MemberUpdateRequest) -> Result<Vec<etcd::Member>, Error> {
        self.change_members(Wanted::Update(request)).await.map(|changed| listed(changed.members))
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// It is none, or has not caught up.
    pub async fn member_promote(&self, request: etcd::MemberPromoteRequest) -> Result<Vec<etcd::Member>, Error> {
        self.change_members(Wanted::Promote(request)).await.map(|changed| listed(changed.members))
    }

    /// Has the leader change the membership, whoever that is by the time.
    pub(crate) async fn change_members(&self, wanted: Wanted) -> Result<pb::MemberChanged, Error> {
        let deadline = clock::now() + self.request_timeout();
        let change = pb::MemberChange { change: Some(wanted) };
        loop {
            let view = self.consensus().view();
            let result = if view.is_leader || view.leader == 0 {
                self.change_members_here(change.clone()).await
            } else {
                let mut client = self.links().client(view.leader, Line::Log);
                let call = client.change_members(self.links().request(view.leader, change.clone()));
                let result = clock::timeout_at(deadline, call).await.map_err(|_| Error::Timeout)?;
                self.links().answer(view.leader, result).await.map_err(from_link)
            };
            match result {
                // Nothing has been done yet.
                Err(Error::NotLeader | Error::NoLeader) if clock::now() < deadline => clock::sleep(RETRY_PAUSE).await,
                Err(Error::NotLeader | Error::NoLeader) => return Err(Error::Timeout),
                other => return other,
            }
        }
    }

    /// Changes the membership as the leader.
    pub(crate) async fn change_members_here(&self, change: pb::MemberChange) -> Result<pb::MemberChanged, Error> {
        let deadline = clock::now() + self.request_timeout();
        let wanted =
            change.change.ok_or_else(|| Error::Internal("a change of the membership that says nothing".into()))?;
        let one = clock::timeout_at(deadline, self.0.changing_members.lock()).await;
        let _one = one.map_err(|_| Error::Timeout)?;
        let added = loop {
            // What is decided below is decided on the newest membership.
            self.0.reads.wait_here().await?;
            let (at, members) = self.roster().membership();
            // Another change is under way, whose caller has given up: what it changes must be seen before this one is decided.
            if self.consensus().membership_at() != at && clock::now() < deadline {
                clock::sleep(RETRY_PAUSE).await;
                continue;
            }
            let (change, added) = match wanted.clone() {
                Wanted::Add(request) => self.plan_add(request, &members)?,
                Wanted::Remove(request) => (self.plan_remove(request.id, &members).await?, 0),
                Wanted::Update(request) => (plan_update(request, &members)?, 0),
                Wanted::Promote(request) => (self.plan_promote(request.id, &members)?, 0),
                Wanted::Publish(node) => (plan_publish(node_from_proto(node), &members)?, 0),
            };
            let Some(change) = change else { break added };
            match self.consensus().change(change, at).await {
                Ok(()) => break added,
                Err(ConsensusError::InProgress | ConsensusError::LeaseExpired) if clock::now() < deadline => {
                    clock::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let members = self.roster().members();
        let members = members.iter().map(|(id, node)| node_to_proto(*id, node)).collect();
        Ok(pb::MemberChanged { members, added })
    }

    fn plan_add(
        &self,
        request: etcd::MemberAddRequest,
        members: &BTreeMap<u64, MemberNode>,
    ) -> Result<(Option<Change>, u64), Error> {
        let urls = request.peer_ur_ls;
        if members.values().any(|node| node.peer_urls.iter().any(|url| urls.contains(url))) {
            return Err(Error::PeerUrlExists);
        }
        let config = &self.0.config;
        if request.is_learner && members.values().filter(|node| node.is_learner).count() >= config.max_learners {
            return Err(Error::TooManyLearners);
        }
        if config.strict_reconfig_check {
            if !request.is_learner && !is_ready_to_add(members) {
                return Err(Error::NotEnoughStarted);
            }
            if !self.all_answer(members) {
                return Err(Error::Unhealthy);
            }
        }
        let mut at_s = clock::unix_time().as_secs();
        let mut id = identity::member_id(&urls, "", Some(at_s));
        while members.contains_key(&id) || self.roster().is_removed(id) {
            at_s += 1;
            id = identity::member_id(&urls, "", Some(at_s));
        }
        let node = MemberNode {
            peer_urls: urls,
            is_learner: request.is_learner,
            promote: !request.is_learner,
            ..MemberNode::default()
        };
        Ok((Some(Change::AddLearner(id, node)), id))
    }

    async fn plan_remove(&self, id: u64, members: &BTreeMap<u64, MemberNode>) -> Result<Option<Change>, Error> {
        let node = members.get(&id).ok_or(Error::MemberNotFound)?;
        let voters = self.consensus().voters();
        if !voters.contains(&id) {
            return Ok(Some(Change::RemoveLearner(id)));
        }
        if voters.len() == 1 {
            return Err(Error::NotEnoughStarted);
        }
        if self.0.config.strict_reconfig_check && !node.is_learner {
            if !is_ready_to_remove(members, id) {
                return Err(Error::NotEnoughStarted);
            }
            let active = self.answering(members);
            let count = voters_of(members).count();
            // One that is down is no part of the quorum that there is.
            let is_down = id != self.member_id() && !active.contains(&id);
            if !is_down && active.len().saturating_sub(1) < 1 + (count - 1) / 2 {
                return Err(Error::Unhealthy);
            }
        }
        if id == self.member_id() {
            // Whoever leads then removes it.
            self.hand_over().await?;
            return Err(Error::NotLeader);
        }
        Ok(Some(Change::RemoveVoter(id)))
    }

    fn plan_promote(&self, id: u64, members: &BTreeMap<u64, MemberNode>) -> Result<Option<Change>, Error> {
        let node = members.get(&id).ok_or(Error::MemberNotFound)?;
        if !node.is_learner {
            return Err(Error::MemberNotLearner);
        }
        let progress = self.consensus().progress();
        let matched = progress.matched.get(&id).copied().unwrap_or(0);
        if matched * 100 < progress.last_log_index * LEARNER_READY_PERCENT || node.incarnation == 0 {
            return Err(Error::LearnerNotReady);
        }
        if self.0.config.strict_reconfig_check && !is_ready_to_promote(members) {
            return Err(Error::NotEnoughStarted);
        }
        let node = MemberNode { is_learner: false, promote: false, ..node.clone() };
        Ok(Some(Change::Promote(id, node)))
    }

    /// Ends a change of the voters that a leader before this one has left halfway.
    async fn settle(&self) {
        if !self.consensus().is_joint() {
            return;
        }
        // Whoever makes a change ends it.
        let _one = self.0.changing_members.lock().await;
        if !self.consensus().is_joint() || !self.is_leader() {
            return;
        }
        match self.consensus().settle().await {
            Ok(()) => tracing::info!("ended a change of the voters that was left halfway"),
            // Its first step is not committed yet.
            Err(ConsensusError::InProgress) => {}
            // Tried anew the next time.
            Err(error) => tracing::warn!(%error, "a change of the voters that was left halfway is not ended yet"),
        }
    }

    /// Makes a voter of one that was added as such and has caught up, if there is one and this member leads.
    async fn promote_next(&self) {
        if self.next_promotion().is_none() {
            return;
        }
        let _one = self.0.changing_members.lock().await;
        // As for every change; this one's member may have been removed while it waited for its turn.
        if self.0.reads.wait_here().await.is_err() {
            return;
        }
        let Some((at, id, node)) = self.next_promotion() else { return };
        // What fails is decided anew the next time.
        if let Err(error) = self.consensus().change(Change::Promote(id, node), at).await {
            tracing::warn!(member = %format!("{id:x}"), %error, "a member that has caught up did not become a voter yet");
        }
    }

    /// Who is to become a voter now, what is then said of it, and where the membership is that this was decided on.
    fn next_promotion(&self) -> Option<(Position, u64, MemberNode)> {
        let (at, mut members) = self.roster().membership();
        let voters = self.consensus().voters();
        let id = next_voter(&members, |id| voters.contains(&id), &self.consensus().progress())?;
        let node = members.remove(&id)?;
        Some((at, id, MemberNode { promote: false, ..node }))
    }

    /// Voters that have acknowledged something within an election timeout, this member included.
    fn answering(&self, members: &BTreeMap<u64, MemberNode>) -> Vec<u64> {
        let ages = self.consensus().progress().ack_ages;
        let timeout = self.0.config.election_timeout;
        let answers = |id: &u64| *id == self.member_id() || ages.get(id).is_some_and(|age| *age < timeout);
        voters_of(members).map(|(id, _)| *id).filter(answers).collect()
    }

    fn all_answer(&self, members: &BTreeMap<u64, MemberNode>) -> bool {
        self.answering(members).len() == voters_of(members).count()
    }

    /// What a member that joins is told.
    pub(crate) fn describe_cluster(&self) -> pb::MembersResponse {
        let members = self.roster().members();
        pb::MembersResponse {
            cluster_id: self.cluster_id(),
            member_id: self.member_id(),
            members: members.iter().map(|(id, node)| node_to_proto(*id, node)).collect(),
            cluster_version: self.store().cluster_version().unwrap_or_default(),
            format: self.store().format_version(),
        }
    }
}

/// As clients see members.
pub(crate) fn listed(members: Vec<garboard_proto::raft::Node>) -> Vec<etcd::Member> {
    let member = |node: garboard_proto::raft::Node| etcd::Member {
        id: node.id,
        name: node.name,
        peer_ur_ls: node.peer_urls,
        client_ur_ls: node.client_urls,
        is_learner: node.is_learner,
    };
    members.into_iter().map(member).collect()
}

/// What another member answered, or that nothing is known.
pub(crate) fn from_link(error: LinkError) -> Error {
    match error {
        LinkError::NotSent(_) | LinkError::Refused(_) => Error::NoLeader,
        LinkError::Stranger(_) => Error::LeaderChanged,
        LinkError::Failed(status) => match Error::from_peer(&status) {
            Some(error) => error,
            None if status.code() == Code::Unknown => Error::Internal(status.message().to_owned()),
            None => Error::LeaderChanged,
        },
    }
}

fn voters_of(members: &BTreeMap<u64, MemberNode>) -> impl Iterator<Item = (&u64, &MemberNode)> {
    members.iter().filter(|(_, node)| !node.is_learner)
}

fn is_started(node: &MemberNode) -> bool {
    !node.name.is_empty()
}

fn is_ready_to_add(members: &BTreeMap<u64, MemberNode>) -> bool {
    let started = voters_of(members).filter(|(_, node)| is_started(node)).count();
    let after = voters_of(members).count() + 1;
    // A cluster of one may always grow.
    (started == 1 && after == 2) || started > after / 2
}

fn is_ready_to_remove(members: &BTreeMap<u64, MemberNode>, id: u64) -> bool {
    let left = || voters_of(members).filter(|(other, _)| **other != id);
    let started = left().filter(|(_, node)| is_started(node)).count();
    left().count() > 0 && started > left().count() / 2
}

fn is_ready_to_promote(members: &BTreeMap<u64, MemberNode>) -> bool {
    let started = voters_of(members).filter(|(_, node)| is_started(node)).count() + 1;
    let after = voters_of(members).count() + 1;
    started > after / 2
}

fn plan_update(
    request: etcd::MemberUpdateRequest,
    members: &BTreeMap<u64, MemberNode>,
) -> Result<Option<Change>, Error> {
    let node = members.get(&request.id).ok_or(Error::MemberNotFound)?;
    let taken = |(id, other): (&u64, &MemberNode)| {
        *id != request.id && other.peer_urls.iter().any(|url| request.peer_ur_ls.contains(url))
    };
    if members.iter().any(taken) {
        return Err(Error::PeerUrlExists);
    }
    let node = MemberNode { peer_urls: request.peer_ur_ls, ..node.clone() };
    Ok(Some(Change::Set(request.id, node)))
}

/// A member says its name, its client URLs and its incarnation; what it may become is not its to say.
fn plan_publish((id, said): (u64, MemberNode), members: &BTreeMap<u64, MemberNode>) -> Result<Option<Change>, Error> {
    let known = members.get(&id).ok_or(Error::MemberNotFound)?;
    if known.incarnation != 0 && known.incarnation != said.incarnation {
        return Err(Error::Internal("the member is known by another data directory".into()));
    }
    // Where it is and whether it votes is not its own to say.
    let MemberNode { peer_urls, is_learner, promote, .. } = known.clone();
    let node = MemberNode { peer_urls, is_learner, promote, ..said };
    Ok((node != *known).then_some(Change::Set(id, node)))
}

/// While this member leads: ends what was left halfway, and makes voters of those that were added as such, once they have caught up.
pub(crate) async fn run_promotions(node: Node) {
    let mut ticks = clock::interval(PROMOTION_INTERVAL);
    loop {
        ticks.tick().await;
        if !node.is_leader() {
            continue;
        }
        node.settle().await;
        node.promote_next().await;
    }
}

/// Who is to become a voter now. One that has not said its incarnation could come back with another disk.
fn next_voter(
    members: &BTreeMap<u64, MemberNode>,
    is_voter: impl Fn(u64) -> bool,
    progress: &crate::consensus::Progress,
) -> Option<u64> {
    let is_near =
        |id: u64| progress.matched.get(&id).is_some_and(|matched| matched + PROMOTION_LAG >= progress.last_log_index);
    let ready =
        |(id, node): &(&u64, &MemberNode)| node.promote && node.incarnation != 0 && !is_voter(**id) && is_near(**id);
    members.iter().find(ready).map(|(id, _)| *id)
}

/// The members that a new cluster begins with, by name; what they tell clients of themselves comes when they run.
pub(crate) fn founders(config: &NodeConfig) -> BTreeMap<u64, MemberNode> {
    let mut urls: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, url) in &config.initial_cluster {
        urls.entry(name).or_default().push(url.clone());
    }
    let alone = urls.len() == 1;
    let member = |(name, peer_urls): (&str, Vec<String>)| {
        let id = identity::member_id(&peer_urls, &config.initial_cluster_token, None);
        let client_urls = if alone { config.advertise_client_urls.clone() } else { Vec::new() };
        (id, MemberNode { name: name.to_owned(), peer_urls, client_urls, ..MemberNode::default() })
    };
    urls.into_iter().map(member).collect()
}

#[cfg(test)]
impl Node {
    /// Changes the membership as it is.
    pub(crate) async fn change_now(&self, change: Change) -> Result<(), ConsensusError> {
        self.consensus().change(change, self.roster().membership().0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Release;
    use crate::consensus::Progress;

    fn members(of: &[(u64, &str, bool)]) -> BTreeMap<u64, MemberNode> {
        let node = |name: &str, is_learner| MemberNode { name: name.into(), is_learner, ..MemberNode::default() };
        of.iter().map(|(id, name, is_learner)| (*id, node(name, *is_learner))).collect()
    }

    #[test]
    fn etcds_rules_of_started_members() {
        let one = members(&[(1, "a", false)]);
        assert!(is_ready_to_add(&one));
        assert!(!is_ready_to_remove(&one, 1));
        // The second was never started: a third would leave one of three.
        let unstarted = members(&[(1, "a", false), (2, "", false)]);
        assert!(!is_ready_to_add(&unstarted));
        assert!(is_ready_to_remove(&unstarted, 2));
        assert!(!is_ready_to_remove(&unstarted, 1));
        let three = members(&[(1, "a", false), (2, "b", false), (3, "", false)]);
        assert!(!is_ready_to_add(&three));
        assert!(is_ready_to_remove(&three, 3));
        assert!(!is_ready_to_remove(&three, 1));
        let learner = members(&[(1, "a", false), (2, "", true)]);
        assert!(is_ready_to_promote(&learner));
        assert!(is_ready_to_add(&learner));
    }

    #[test]
    fn who_has_caught_up_and_said_who_it_is_becomes_a_voter() {
        let mut all = members(&[(1, "a", false), (2, "b", false)]);
        let mut progress =
            Progress { last_log_index: 1000, matched: BTreeMap::from([(2, 1000)]), ..Progress::default() };
        let is_voter = |id| id == 1;
        assert_eq!(next_voter(&all, is_voter, &progress), None, "not marked");
        all.get_mut(&2).unwrap().promote = true;
        assert_eq!(next_voter(&all, is_voter, &progress), None, "without an incarnation");
        all.get_mut(&2).unwrap().incarnation = 7;
        assert_eq!(next_voter(&all, is_voter, &progress), Some(2));
        progress.matched.insert(2, 1000 - PROMOTION_LAG - 1);
        assert_eq!(next_voter(&all, is_voter, &progress), None, "too far behind");
    }

    /// One that is removed while its promotion waits for its turn stays removed.
    #[tokio::test]
    async fn a_promotion_is_planned_on_the_membership_that_it_changes() {
        let node = Node::alone(Release::default()).await;
        let turn = node.0.changing_members.lock().await;
        // Nobody is there, but the log is short enough for it to have caught up.
        let added = MemberNode {
            peer_urls: vec!["http://127.0.0.1:1".into()],
            promote: true,
            incarnation: 7,
            ..MemberNode::default()
        };
        node.change_now(Change::AddLearner(2, added)).await.expect("added");
        let planned = async {
            while node.next_promotion().is_none() {
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        clock::timeout(Duration::from_secs(10), planned).await.expect("it is told of when it is added");
        let mut promoting = std::pin::pin!(node.promote_next());
        let begun = clock::timeout(Duration::ZERO, promoting.as_mut()).await;
        assert!(begun.is_err(), "it does not wait for its turn");
        node.change_now(Change::RemoveLearner(2)).await.expect("removed");
        drop(turn);
        let promoted = clock::timeout(Duration::from_secs(10), promoting).await;
        assert!(promoted.is_ok(), "a voter that is gone is waited for");
        assert!(!node.roster().members().contains_key(&2) && !node.consensus().voters().contains(&2));
        node.shutdown().await;
    }

    /// Between the look at the membership and the change of it another change may have come true, whose caller had given up.
    #[tokio::test]
    async fn a_change_decided_on_an_older_membership_is_not_made() {
        let node = Node::alone(Release::default()).await;
        let _one = node.0.changing_members.lock().await;
        let (at, _) = node.roster().membership();
        let added = MemberNode { peer_urls: vec!["http://127.0.0.1:1".into()], ..MemberNode::default() };
        node.consensus().change(Change::AddLearner(2, added.clone()), at).await.expect("added");
        let again = node.consensus().change(Change::AddLearner(3, added), at).await;
        assert_eq!(again, Err(ConsensusError::InProgress));
        assert_eq!(node.roster().members().len(), 2);
        node.shutdown().await;
    }

    #[test]
    fn a_member_says_of_itself_what_is_its_to_say() {
        let all = members(&[(1, "", true)]);
        let said = MemberNode { name: "a".into(), incarnation: 7, ..MemberNode::default() };
        let Ok(Some(Change::Set(1, node))) = plan_publish((1, said.clone()), &all) else { panic!("nothing is set") };
        assert!(node.is_learner && node.name == "a" && node.incarnation == 7);
        let known = BTreeMap::from([(1, node)]);
        assert!(matches!(plan_publish((1, MemberNode { is_learner: true, ..said.clone() }), &known), Ok(None)));
        assert!(plan_publish((1, MemberNode { incarnation: 8, ..said.clone() }), &known).is_err());
        assert!(matches!(plan_publish((2, said), &known), Err(Error::MemberNotFound)));
    }
}
