//! Joining a cluster that runs: who this member is there, its members say.
//!
//! The member was added before (MemberAdd, by its peer URLs); here it finds its id. A member that was started before is refused: its id
//! belongs to the data directory that it had then.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use garboard_proto::peers::MembersResponse;
use garboard_proto::raft as pb;
use garboard_runtime::clock;

use crate::config::NodeConfig;
use crate::error::StartError;
use crate::identity;
use crate::identity::Identity;
use crate::identity::Record;
use crate::peers::Dialer;
use crate::peers::Links;

/// Pause before the members are asked again, when none of them answers.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Asks the members until one answers.
///
/// # Errors
/// The cluster does not know this member, or knows it by another data directory, or has left this release behind.
pub(crate) async fn find_identity(config: &NodeConfig) -> Result<Record, StartError> {
    let dialer = Dialer { tls: config.peer_tls.0.clone(), timeout: config.election_timeout };
    let urls: Vec<String> = if config.join.is_empty() {
        let own = |url: &String| config.initial_advertise_peer_urls.contains(url);
        config.initial_cluster.iter().map(|(_, url)| url).filter(|url| !own(url)).cloned().collect()
    } else {
        config.join.clone()
    };
    if urls.is_empty() {
        return Err(StartError::Config("there is nobody to join: the initial cluster names no other member".into()));
    }
    loop {
        match Links::ask_members(dialer.clone(), urls.clone()).await {
            Ok(answer) if !answer.members.is_empty() => return identify(config, &answer),
            Ok(_) => tracing::info!("the member that was asked has yet to learn who the members are; asking again"),
            Err(error) => {
                tracing::warn!(error = %error, urls = ?urls, "could not retrieve cluster information from the given URLs");
            }
        }
        clock::sleep(RETRY_PAUSE).await;
    }
}

fn identify(config: &NodeConfig, answer: &MembersResponse) -> Result<Record, StartError> {
    let urls = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<String>>();
    let advertised = urls(&config.initial_advertise_peer_urls);
    let Some(own) = answer.members.iter().find(|member| urls(&member.peer_urls) == advertised) else {
        let known: Vec<&str> = answer.members.iter().flat_map(|m| &m.peer_urls).map(String::as_str).collect();
        return Err(StartError::Config(format!(
            "error validating peerURLs: the cluster {:x} has no member with the peer URLs {}; it has {}: the member is to be added \
             before it is started",
            answer.cluster_id,
            config.initial_advertise_peer_urls.join(","),
            known.join(","),
        )));
    };
    if config.join.is_empty() {
        check_agreement(config, &answer.members)?;
    }
    if own.incarnation != 0 {
        return Err(StartError::Wiped { dir: config.data_dir.display().to_string(), member_id: own.id });
    }
    if answer.format != 0 && !config.release.reads.contains(&answer.format) {
        let reads = config.release.reads.clone();
        return Err(StartError::Outdated { dir: config.data_dir.display().to_string(), reads });
    }
    // What the next start would refuse.
    let refuse = |why| StartError::Inconsistent { dir: config.data_dir.display().to_string(), why };
    config.release.check_cluster_version(&answer.cluster_version).map_err(refuse)?;
    let incarnation =
        identity::draw_incarnation().map_err(|source| StartError::Io { what: "drawing a number".into(), source })?;
    let identity = Identity { cluster_id: answer.cluster_id, member_id: own.id, incarnation };
    Ok(Record { identity, joined: true, removed: false, forced: false })
}

/// etcd holds the initial cluster against the members that there are.
fn check_agreement(config: &NodeConfig, members: &[pb::Node]) -> Result<(), StartError> {
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, url) in &config.initial_cluster {
        named.entry(name).or_default().insert(url);
    }
    let named: BTreeSet<BTreeSet<&str>> = named.into_values().collect();
    let known: BTreeSet<BTreeSet<&str>> =
        members.iter().map(|member| member.peer_urls.iter().map(String::as_str).collect()).collect();
    if named.len() != known.len() {
        return Err(StartError::Config("error validating peerURLs: member count is unequal".into()));
    }
    match named.difference(&known).next() {
        None => Ok(()),
        Some(unmatched) => {
            let urls: Vec<&str> = unmatched.iter().copied().collect();
            let text =
                format!("error validating peerURLs: unmatched member while checking PeerURLs: {}", urls.join(","));
            Err(StartError::Config(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str, incarnation: u64) -> pb::Node {
        pb::Node { id, peer_urls: vec![url.into()], incarnation, ..pb::Node::default() }
    }

    fn config(initial: &[(&str, &str)], own: &str) -> NodeConfig {
        NodeConfig {
            initial_cluster: initial.iter().map(|(name, url)| ((*name).into(), (*url).into())).collect(),
            initial_advertise_peer_urls: vec![own.into()],
            ..NodeConfig::default()
        }
    }

    #[test]
    fn a_member_finds_itself_by_its_peer_urls() {
        let answer = MembersResponse {
            cluster_id: 9,
            members: vec![member(1, "http://a:1", 11), member(2, "http://b:1", 0)],
            ..MembersResponse::default()
        };
        let both = [("a", "http://a:1"), ("b", "http://b:1")];
        let record = identify(&config(&both, "http://b:1"), &answer).expect("it was added");
        assert_eq!((record.identity.cluster_id, record.identity.member_id, record.joined), (9, 2, true));
        let again = identify(&config(&both, "http://a:1"), &answer);
        assert!(matches!(again, Err(StartError::Wiped { member_id: 1, .. })));
        let later = MembersResponse { format: 2, ..answer.clone() };
        let outdated = identify(&config(&both, "http://b:1"), &later);
        assert!(matches!(outdated, Err(StartError::Outdated { .. })));
        for (determined, is_refused) in [("", false), ("3.6.0", false), ("3.7.0", true)] {
            let of = MembersResponse { cluster_version: determined.into(), ..answer.clone() };
            let found = identify(&config(&both, "http://b:1"), &of);
            assert_eq!(found.is_err(), is_refused, "cluster version {determined:?}: {found:?}");
            assert!(found.err().is_none_or(|error| error.to_string().contains("3.6.16 is lower than 3.7.0")));
        }
        assert!(identify(&config(&both, "http://c:1"), &answer).is_err());
        let one_short = identify(&config(&both[1..], "http://b:1"), &answer).expect_err("a is not named");
        assert!(one_short.to_string().contains("member count is unequal"));
        let other = identify(&config(&[("x", "http://x:1"), ("b", "http://b:1")], "http://b:1"), &answer);
        assert!(other.expect_err("x is unknown").to_string().contains("http://x:1"));
    }
}
