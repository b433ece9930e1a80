//! Members compared with each other: equal revisions have equal hashes, or one of them is corrupt.
//!
//! The leader asks, and raises CORRUPT for the odd one out; when two differ and there is no third, for the other one, as in etcd. A member
//! whose store cannot be hashed is corrupt as well: a check that fails is no check that passed. One that does not answer is left for the next
//! time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use garboard_mvcc::Error as MvccError;
use garboard_mvcc::HashKv;
use garboard_proto::etcdserverpb as etcd;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;

use crate::error::Error;
use crate::error::StartError;
use crate::members::from_link;
use crate::node::Node;
use crate::node::command;
use crate::peers::Line;

/// A hash walks the whole store.
const HASH_TIMEOUT: Duration = Duration::from_secs(120);
/// A member that has not come as far as was asked is asked again.
const BEHIND_PAUSE: Duration = Duration::from_millis(200);
const BEHIND_TRIES: u32 = 25;

/// What is compared: revisions count when they were hashed under the same compaction.
type Sum = (u32, i64);

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Sum(Sum),
    /// It cannot tell.
    Failed,
}

/// What came of one comparison.
struct Compared {
    /// The others that answered.
    peers: usize,
    /// Whether every member did.
    all: bool,
    odd: Vec<u64>,
}

/// What members have said at one revision: who has said it need not walk its store again.
#[derive(Default)]
struct Heard {
    revision: i64,
    said: BTreeMap<u64, Said>,
}

/// Compares all the time, while this member leads. An interval of zero is none.
pub(crate) async fn run_periodic(node: Node) {
    let interval = node.0.config.corrupt_check_time;
    if interval.is_zero() {
        return;
    }
    let mut ticks = clock::interval(interval);
    loop {
        ticks.tick().await;
        if let Some(compared) = check(&node, &mut Heard::default()).await {
            tracing::info!("number-of-peers-checked" = compared.peers, "finished peer corruption check");
        }
    }
}

/// Compares what compactions have left, while this member leads.
pub(crate) async fn run_compacted(node: Node) {
    if !node.0.config.compact_hash_check {
        return;
    }
    let mut ticks = clock::interval(node.0.config.compact_hash_check_time);
    let (mut checked, mut heard) = (0, Heard::default());
    loop {
        ticks.tick().await;
        let compacted = node.store().compact_revision();
        if compacted > checked {
            if compacted != heard.revision {
                heard = Heard { revision: compacted, ..Heard::default() };
            }
            let Some(compared) = check(&node, &mut heard).await else { continue };
            tracing::info!("number-of-peers-checked" = compared.peers, "finished compaction hash check");
            // Whoever did not answer is asked again.
            if compared.all {
                checked = compacted;
            }
        }
    }
}

/// One comparison at the revision of `heard` (0: the newest), if this member leads and could make it.
async fn check(node: &Node, heard: &mut Heard) -> Option<Compared> {
    if !node.is_leader() {
        return None;
    }
    match compare(node, heard).await {
        Ok(compared) => {
            for member_id in &compared.odd {
                raise(node, *member_id).await;
            }
            Some(compared)
        }
        Err(error) => {
            tracing::warn!(%error, "the members could not be compared");
            None
        }
    }
}

async fn compare(node: &Node, heard: &mut Heard) -> Result<Compared, Error> {
    node.linearizable_read().await?;
    let members = node.roster().members();
    let Heard { revision, said } = heard;
    said.retain(|id, _| members.contains_key(id));
    if let Entry::Vacant(own) = said.entry(node.member_id()) {
        own.insert(match node.hash_kv(*revision).await {
            Ok(hashed) => {
                *revision = hashed.hash_revision;
                Said::Sum(sum(&hashed))
            }
            Err(error) => verdict(&error)?,
        });
    }
    for id in members.keys().copied() {
        if !said.contains_key(&id)
            && let Some(theirs) = ask(node, id, *revision).await
        {
            said.insert(id, theirs);
        }
    }
    let odd = odd_ones(node.member_id(), said);
    let compared = Compared { peers: said.len() - 1, all: said.len() == members.len(), odd };
    // Who is odd may be mended by the next time.
    if !compared.odd.is_empty() {
        said.clear();
    }
    Ok(compared)
}

fn sum(hashed: &HashKv) -> Sum {
    (hashed.hash, hashed.compact_revision)
}

/// What an error says of who made it: that it cannot hash, or that this is not the moment.
fn verdict(error: &Error) -> Result<Said, Error> {
    match error {
        Error::Mvcc(MvccError::Compacted | MvccError::FutureRevision | MvccError::Replaced) => Err(error.clone()),
        Error::Mvcc(_) | Error::Internal(_) => Ok(Said::Failed),
        _ => Err(error.clone()),
    }
}

/// `None`: it says nothing, or nothing that could be compared.
async fn ask(node: &Node, id: u64, revision: i64) -> Option<Said> {
    for _ in 0..BEHIND_TRIES {
        let mut client = node.links().client(id, Line::Log);
        let request = node.links().request(id, etcd::HashKvRequest { revision });
        let result = clock::timeout(HASH_TIMEOUT, client.hash_kv(request)).await.ok()?;
        let error = match node.links().answer(id, result).await {
            Ok(answer) => return Some(Said::Sum((answer.hash, answer.compact_revision))),
            Err(error) => from_link(error),
        };
        match verdict(&error) {
            Ok(said) => return Some(said),
            Err(Error::Mvcc(MvccError::FutureRevision)) => clock::sleep(BEHIND_PAUSE).await,
            Err(error) => {
                tracing::warn!(member = %format!("{id:x}"), %error, "a member could not be compared");
                return None;
            }
        }
    }
    None
}

/// Those whose word is not that of the most; of two, the leader's counts.
fn odd_ones(leader: u64, said: &BTreeMap<u64, Said>) -> Vec<u64> {
    let failed = said.iter().filter(|(_, said)| **said == Said::Failed).map(|(id, _)| *id);
    let mut odd: Vec<u64> = failed.collect();
    let sums = || said.iter().filter_map(|(id, said)| if let Said::Sum(sum) = said { Some((*id, *sum)) } else { None });
    // Under another compaction the same store has another hash: nothing to compare.
    let mut by_compaction: BTreeMap<i64, Vec<(u64, u32)>> = BTreeMap::new();
    for (id, (hash, compacted)) in sums() {
        by_compaction.entry(compacted).or_default().push((id, hash));
    }
    for same in by_compaction.values() {
        let votes = |hash: u32| same.iter().filter(|(_, other)| *other == hash).count();
        let leads = |hash: u32| same.contains(&(leader, hash));
        let most = same.iter().map(|(_, hash)| *hash).max_by_key(|hash| (votes(*hash), leads(*hash)));
        odd.extend(same.iter().filter(|(_, hash)| Some(*hash) != most).map(|(id, _)| *id));
    }
    odd
}

async fn raise(node: &Node, member_id: u64) {
    let alarm = etcd::AlarmMember { member_id, alarm: etcd::AlarmType::Corrupt.into() };
    if node.store().alarms().contains(&alarm) {
        return;
    }
    tracing::error!(member = %format!("{member_id:x}"), "a member's data is not that of the others: CORRUPT alarm raised");
    let request = etcd::AlarmRequest {
        action: etcd::alarm_request::AlarmAction::Activate.into(),
        member_id,
        alarm: etcd::AlarmType::Corrupt.into(),
    };
    if let Err(error) = node.propose(command(Op::Alarm(request))).await {
        tracing::error!(%error, "the CORRUPT alarm could not be raised");
    }
}

/// Compares this member, before it serves, with those that answer.
///
/// # Errors
/// One of them has other data at the same revision.
pub(crate) async fn check_at_start(node: &Node) -> Result<(), StartError> {
    if !node.0.config.initial_corrupt_check {
        return Ok(());
    }
    tracing::info!("starting initial corruption check");
    let own = node.hash_kv(0).await.map_err(|error| StartError::Corrupt { why: error.to_string() })?;
    for (id, _) in node.roster().members() {
        if id == node.member_id() {
            continue;
        }
        let mut client = node.links().client(id, Line::Log);
        let request = node.links().request(id, etcd::HashKvRequest { revision: own.hash_revision });
        // Who does not answer at once may be starting as well.
        let Ok(result) = clock::timeout(node.request_timeout(), client.hash_kv(request)).await else { continue };
        match node.links().answer(id, result).await {
            Ok(theirs) if theirs.compact_revision == own.compact_revision && theirs.hash != own.hash => {
                let why = format!(
                    "at revision {} this member has hash {}, member {id:x} has {}",
                    own.hash_revision, own.hash, theirs.hash
                );
                return Err(StartError::Corrupt { why });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(member = %format!("{id:x}"), %error, "a member could not be compared at the start");
            }
        }
    }
    tracing::info!("initial corruption checking passed; no corruption");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Release;
    use crate::consensus::Change;
    use crate::consensus::MemberNode;

    #[tokio::test]
    async fn who_has_answered_does_not_walk_its_store_again_for_who_has_not() {
        let node = Node::alone(Release::default()).await;
        // Nobody else changes the membership meanwhile: this member says its own name.
        let _one = node.0.changing_members.lock().await;
        let absent = MemberNode { peer_urls: vec!["http://127.0.0.1:1".into()], ..MemberNode::default() };
        node.change_now(Change::AddLearner(2, absent)).await.expect("added");
        let hashes = || node.0.metrics.hash_rev_duration.get_sample_count();
        let mut heard = Heard { revision: node.store().revision(), ..Heard::default() };
        for _ in 0..3 {
            let compared = compare(&node, &mut heard).await.expect("a leader");
            assert!(!compared.all && compared.peers == 0 && compared.odd.is_empty());
        }
        assert_eq!(hashes(), 1);
        // Whom the membership no longer has is not waited for.
        node.change_now(Change::RemoveLearner(2)).await.expect("removed");
        assert!(compare(&node, &mut heard).await.is_ok_and(|compared| compared.all));
        assert_eq!(hashes(), 1);
        // What was said by one that is odd is not kept: it may be mended.
        heard.said.insert(node.member_id(), Said::Failed);
        assert_eq!(compare(&node, &mut heard).await.map(|compared| compared.odd), Ok(vec![node.member_id()]));
        assert!(compare(&node, &mut heard).await.is_ok_and(|compared| compared.odd.is_empty()));
        assert_eq!(hashes(), 2);
        node.shutdown().await;
    }

    fn said(of: &[(u64, u32, i64)]) -> BTreeMap<u64, Said> {
        of.iter().map(|(id, hash, compacted)| (*id, Said::Sum((*hash, *compacted)))).collect()
    }

    #[test]
    fn the_odd_one_out_is_found_and_of_two_it_is_not_the_leader() {
        assert!(odd_ones(1, &said(&[(1, 7, 0), (2, 7, 0), (3, 7, 0)])).is_empty());
        assert_eq!(odd_ones(1, &said(&[(1, 7, 0), (2, 8, 0), (3, 7, 0)])), [2]);
        assert_eq!(odd_ones(1, &said(&[(1, 7, 0), (2, 8, 0), (3, 8, 0)])), [1], "the leader itself");
        assert_eq!(odd_ones(1, &said(&[(1, 7, 0), (2, 8, 0)])), [2]);
        assert_eq!(odd_ones(2, &said(&[(1, 7, 0), (2, 8, 0)])), [1]);
        assert!(odd_ones(1, &said(&[(1, 7, 0), (2, 8, 5)])).is_empty(), "under another compaction");
    }

    #[test]
    fn who_cannot_hash_is_no_better_than_who_hashes_wrong() {
        let mut all = said(&[(1, 7, 0), (2, 7, 0)]);
        all.insert(3, Said::Failed);
        assert_eq!(odd_ones(1, &all), [3]);
        assert_eq!(verdict(&Error::Internal("the disk".into())), Ok(Said::Failed));
        assert!(verdict(&Error::Mvcc(MvccError::Compacted)).is_err());
        assert!(verdict(&Error::Stopped).is_err());
    }
}
