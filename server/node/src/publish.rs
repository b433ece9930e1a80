//! Tells the membership this member's name and client URLs when they have changed, as etcd publishes its attributes at each start.

use std::time::Duration;

use garboard_runtime::clock;

use crate::node::Node;

/// Pause before publishing is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the membership says what the configuration says, and the cluster version is set.
pub(crate) async fn run(node: Node) {
    while node.ready().await.is_ok() {
        if publish(&node).await {
            return;
        }
        clock::sleep(RETRY_PAUSE).await;
    }
}

async fn publish(node: &Node) -> bool {
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
