//! What a member makes known after its start: its name, its client URLs, which data directory it has and what it was built as, when that
//! has changed. etcd does the same at each start.

use std::time::Duration;

use garboard_proto::peers::member_change::Change;
use garboard_runtime::clock;

use crate::consensus::node_to_proto;
use crate::node::Node;

/// Pause before publishing is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the membership says what the configuration says.
pub(crate) async fn run(node: Node) {
    while node.ready().await.is_ok() {
        if publish_member(&node).await {
            return;
        }
        clock::sleep(RETRY_PAUSE).await;
    }
}

async fn publish_member(node: &Node) -> bool {
    let Some(known) = node.roster().member(node.member_id()) else { return true };
    let mut wanted = known.clone();
    wanted.name.clone_from(&node.0.config.name);
    wanted.client_urls.clone_from(&node.0.config.advertise_client_urls);
    wanted.incarnation = node.roster().own().incarnation;
    wanted.etcd_version = node.etcd_version().to_owned();
    wanted.format = node.0.config.release.writes;
    if known == wanted {
        return true;
    }
    match node.change_members(Change::Publish(node_to_proto(node.member_id(), &wanted))).await {
        Ok(_) => {
            tracing::info!("published local member to cluster through raft");
            true
        }
        Err(error) => {
            tracing::warn!(error = %error, "failed to publish local member to cluster through raft");
            false
        }
    }
}
