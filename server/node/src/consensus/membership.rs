//! The membership between openraft's form and the one that the log and the checkpoint carry.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use garboard_proto::raft as pb;
use prost::Message as _;

use super::types::LogId;
use super::types::MemberNode;
use super::types::Membership;
use super::types::StoredMembership;
use super::types::log_id;

/// The bytes of a membership entry.
pub(crate) fn encode(membership: &Membership) -> Bytes {
    Bytes::from(to_proto(membership).encode_to_vec())
}

/// The membership of an entry's bytes.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<Membership> {
    from_proto(pb::Membership::decode(bytes).map_err(|e| invalid(&e))?)
}

/// The bytes of a membership together with the id of the entry that set it, as the checkpoint carries them.
pub(crate) fn encode_stored(stored: &StoredMembership) -> Bytes {
    let at = stored.log_id().as_ref().map(|id| pb::LogPosition { term: id.leader_id.term, index: id.index });
    Bytes::from(pb::StoredMembership { at, membership: Some(to_proto(stored.membership())) }.encode_to_vec())
}

/// The reverse of [`encode_stored`].
pub(crate) fn decode_stored(bytes: &[u8]) -> io::Result<StoredMembership> {
    let stored = pb::StoredMembership::decode(bytes).map_err(|e| invalid(&e))?;
    let at: Option<LogId> = stored.at.map(|at| log_id(at.term, at.index));
    let membership = from_proto(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(at, membership))
}

fn to_proto(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| pb::VoterSet { ids: voters.iter().copied().collect() })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::Node {
                id: *id,
                name: node.name.clone(),
                peer_urls: node.peer_urls.clone(),
                client_urls: node.client_urls.clone(),
                is_learner: node.is_learner,
            })
            .collect(),
    }
}

fn from_proto(membership: pb::Membership) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> = membership.configs.into_iter().map(|c| c.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, MemberNode> = membership
        .nodes
        .into_iter()
        .map(|n| {
            let node = MemberNode {
                name: n.name,
                peer_urls: n.peer_urls,
                client_urls: n.client_urls,
                is_learner: n.is_learner,
            };
            (n.id, node)
        })
        .collect();
    if configs.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| invalid(&e))
}

fn invalid(error: &dyn std::error::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("membership in the log cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_membership_survives_the_round_trip() {
        let node = MemberNode {
            name: "a".into(),
            peer_urls: vec!["http://localhost:2380".into()],
            client_urls: vec!["http://localhost:2379".into()],
            is_learner: false,
        };
        let membership = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, node)])).unwrap();
        let stored = StoredMembership::new(Some(log_id(3, 9)), membership);
        assert_eq!(decode_stored(&encode_stored(&stored)).unwrap(), stored);
        assert_eq!(decode_stored(&encode_stored(&StoredMembership::default())).unwrap(), StoredMembership::default());
    }

    #[test]
    fn damaged_bytes_are_an_error_not_a_panic() {
        assert!(decode(&[0xff, 0xff, 0xff]).is_err());
    }
}
