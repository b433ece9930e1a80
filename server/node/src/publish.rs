//! What a member makes known after its start: its name and client URLs, when they have changed, and the cluster version, when none is
//! decided yet. etcd does the same at each start.

use std::time::Duration;

use garboard_proto::raft::ClusterVersion;
use garboard_proto::raft::command::Op;
use garboard_runtime::clock;

use crate::node::Node;
use crate::node::command;

/// The etcd release whose storage and API this cluster offers, as major.minor.0.
const CLUSTER_VERSION: &str = "3.6.0";

/// Pause before publishing is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the membership says what the configuration says, and the cluster version is set.
pub(crate) async fn run(node: Node) {
    while node.ready().await.is_ok() {
        if publish_member(&node).await && decide_version(&node).await {
            return;
        }
        clock::sleep(RETRY_PAUSE).await;
    }
}

async fn publish_member(node: &Node) -> bool {
    let id = node.0.member_id;
    let members = node.0.consensus.members();
    let Some(known) = members.get(&id) else { return true };
    let mut wanted = known.clone();
    wanted.name.clone_from(&node.0.config.name);
    wanted.client_urls.clone_from(&node.0.config.advertise_client_urls);
    if *known == wanted {
        return true;
    }
    match node.0.consensus.set_node(id, wanted).await {
        Ok(()) => {
            tracing::info!("published local member to cluster through raft");
            true
        }
        Err(error) => {
            tracing::warn!(error = %error, "failed to publish local member to cluster through raft");
            false
        }
    }
}

async fn decide_version(node: &Node) -> bool {
    if node.0.store.cluster_version().is_some() {
        return true;
    }
    let version = ClusterVersion { version: CLUSTER_VERSION.to_owned() };
    match node.propose(command(Op::ClusterVersion(version))).await {
        Ok(_) => {
            tracing::info!(version = CLUSTER_VERSION, "set initial cluster version");
            true
        }
        Err(error) => {
            tracing::warn!(error = %error, "failed to set the cluster version");
            false
        }
    }
}
