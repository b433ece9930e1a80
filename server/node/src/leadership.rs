//! Follows who leads: for the response headers, the watches that require a leader, the lease clock and the metrics.

use std::sync::Arc;
use std::time::Duration;

use garboard_mvcc::Store;
use garboard_runtime::spawn;
use tokio::sync::watch;

use crate::consensus::Consensus;
use crate::lease::LeaseClock;
use crate::metrics::Metrics;
use crate::node::Leadership;

/// Starts the following task on the current runtime. `extension` is what a new leader adds to every lease's lifetime; `ended` is
/// called when consensus has stopped.
pub(crate) fn follow(
    consensus: &Consensus,
    store: &Arc<Store>,
    leases: &Arc<LeaseClock>,
    metrics: &Arc<Metrics>,
    extension: Duration,
    ended: impl FnOnce() + Send + 'static,
) -> watch::Receiver<Leadership> {
    let (sender, receiver) = watch::channel(Leadership::default());
    let (consensus, store) = (consensus.clone(), Arc::clone(store));
    let (leases, metrics) = (Arc::clone(leases), Arc::clone(metrics));
    spawn::task(async move {
        consensus
            .watch_leadership(|view| {
                let now = Leadership { leader: view.leader, term: view.term, is_leader: view.is_leader };
                let before = *sender.borrow();
                if now == before {
                    return;
                }
                if now.is_leader && !before.is_leader {
                    let all = || store.leases().into_iter().map(|l| (l.id, l.ttl_s, l.remaining_ttl_s));
                    leases.promote(all, extension);
                } else if before.is_leader && !now.is_leader {
                    leases.demote();
                }
                if now.leader != 0 && now.leader != before.leader {
                    metrics.leader_changes.inc();
                    tracing::info!(leader = %format!("{:x}", now.leader), term = now.term, "elected leader");
                }
                sender.send_replace(now);
            })
            .await;
        ended();
    });
    receiver
}
