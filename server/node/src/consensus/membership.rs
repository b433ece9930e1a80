//! The membership between openraft's form and the one that the log and the checkpoint carry.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use garboard_mvcc::Position;
use garboard_proto::raft as pb;
use prost::Message as _;

use super::types::LogId;
use super::types::MemberNode;
use super::types::Membership;
use super::types::StoredMembership;
use super::types::log_id;
use super::types::position;
use super::wire;

/// The bytes of a membership entry.
pub(crate) fn encode(membership: &Membership) -> Bytes {
    Bytes::from(to_proto(membership).encode_to_vec())
}

/// The membership of an entry's bytes.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<Membership> {
    from_proto(pb::Membership::decode(bytes).map_err(|e| invalid(&e))?)
}

/// A membership, the id of the entry that set it, and whom all the memberships so far have removed: as the checkpoint carries them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) membership: StoredMembership,
    pub(crate) removed: BTreeSet<u64>,
}

impl Stored {
    /// What an entry makes of it.
    pub(crate) fn replace(&mut self, at: LogId, membership: Membership) {
        let stays: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
        let before: BTreeSet<u64> = self.membership.membership().nodes().map(|(id, _)| *id).collect();
        self.removed.extend(before.difference(&stays));
        self.membership = StoredMembership::new(Some(at), membership);
    }

    /// Whose quorums decide: one set of voters, or two amid a change of them.
    pub(crate) fn configs(&self) -> &Vec<BTreeSet<u64>> {
        self.membership.membership().get_joint_config()
    }

    /// Where in the log it was set.
    pub(crate) fn at(&self) -> Position {
        self.membership.log_id().as_ref().map(position).unwrap_or_default()
    }

    /// The members.
    pub(crate) fn nodes(&self) -> BTreeMap<u64, MemberNode> {
        self.membership.membership().nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(self.to_proto().encode_to_vec())
    }

    pub(crate) fn to_proto(&self) -> pb::StoredMembership {
        pb::StoredMembership {
            at: self.membership.log_id().as_ref().map(wire::position),
            membership: Some(to_proto(self.membership.membership())),
            removed: self.removed.iter().copied().collect(),
        }
    }

    /// # Errors
    /// The bytes are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        Self::from_proto(pb::StoredMembership::decode(bytes).map_err(|e| invalid(&e))?)
    }

    pub(crate) fn from_proto(stored: pb::StoredMembership) -> io::Result<Self> {
        let at: Option<LogId> = stored.at.map(|at| log_id(at.term, at.index));
        let membership = from_proto(stored.membership.unwrap_or_default())?;
        Ok(Self { membership: StoredMembership::new(at, membership), removed: stored.removed.into_iter().collect() })
    }
}

/// What the membership says of a member, as members tell it each other.
pub(crate) fn node_to_proto(id: u64, node: &MemberNode) -> pb::Node {
    pb::Node {
        id,
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        is_learner: node.is_learner,
        incarnation: node.incarnation,
        promote: node.promote,
        etcd_version: node.etcd_version.clone(),
        format: node.format,
    }
}

/// The reverse of [`node_to_proto`].
pub(crate) fn node_from_proto(node: pb::Node) -> (u64, MemberNode) {
    let member = MemberNode {
        name: node.name,
        peer_urls: node.peer_urls,
        client_urls: node.client_urls,
        is_learner: node.is_learner,
        incarnation: node.incarnation,
        promote: node.promote,
        etcd_version: node.etcd_version,
        format: node.format,
    };
    (node.id, member)
}

fn to_proto(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| pb::VoterSet { ids: voters.iter().copied().collect() })
            .collect(),
        nodes: membership.nodes().map(|(id, node)| node_to_proto(*id, node)).collect(),
    }
}

fn from_proto(membership: pb::Membership) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> = membership.configs.into_iter().map(|c| c.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, MemberNode> = membership.nodes.into_iter().map(node_from_proto).collect();
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

    fn node(name: &str) -> MemberNode {
        MemberNode {
            name: name.into(),
            peer_urls: vec!["http://localhost:2380".into()],
            client_urls: vec!["http://localhost:2379".into()],
            is_learner: false,
            incarnation: 8,
            promote: true,
            etcd_version: "3.6.16".into(),
            format: 1,
        }
    }

    #[test]
    fn a_stored_membership_survives_the_round_trip() {
        let membership = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, node("a"))])).unwrap();
        let membership = StoredMembership::new(Some(log_id(3, 9)), membership);
        let stored = Stored { membership, removed: BTreeSet::from([5, 6]) };
        assert_eq!(Stored::decode(&stored.encode()).unwrap(), stored);
        assert_eq!(Stored::decode(&Stored::default().encode()).unwrap(), Stored::default());
    }

    #[test]
    fn who_is_gone_stays_removed() {
        let of = |ids: &[u64]| {
            let nodes = ids.iter().map(|id| (*id, node("n"))).collect::<BTreeMap<_, _>>();
            Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
        };
        let mut stored = Stored::default();
        stored.replace(log_id(1, 1), of(&[1, 2, 3]));
        stored.replace(log_id(1, 2), of(&[1, 3]));
        stored.replace(log_id(1, 3), of(&[1, 3, 4]));
        assert_eq!(stored.removed, BTreeSet::from([2]));
    }

    #[test]
    fn damaged_bytes_are_an_error_not_a_panic() {
        assert!(decode(&[0xff, 0xff, 0xff]).is_err());
    }
}
