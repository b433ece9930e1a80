//! After the healing every member must serve linearizable writes again, soon.

use std::time::Duration;
use std::time::Instant;

use crate::cluster::Cluster;

/// From the end of the healing to a write acknowledged by each member.
const LIMIT: Duration = Duration::from_secs(10);
/// etcd keeps connections whose packets were lost one way, and waits until TCP sends again: up to as long as the cut lasted.
const LIMIT_OF_CONTROL: Duration = Duration::from_secs(40);

pub fn limit(control: bool) -> Duration {
    if control { LIMIT_OF_CONTROL } else { LIMIT }
}

/// How long each member took; an error names those that do not serve.
pub fn check(cluster: &Cluster) -> anyhow::Result<Vec<(usize, Duration)>> {
    let healed = Instant::now();
    let members = cluster.active();
    let answers: Vec<(usize, Result<Duration, String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            members.iter().map(|slot| (*slot, scope.spawn(move || write(cluster, *slot, healed)))).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("the writer panicked".to_owned()))
        };
        threads.into_iter().map(|(slot, thread)| (slot, joined(thread))).collect()
    });
    let failed: Vec<String> = answers
        .iter()
        .filter_map(|(slot, answer)| answer.as_ref().err().map(|error| format!("member {slot}: {error}")))
        .collect();
    if !failed.is_empty() {
        let limit = limit(cluster.control);
        anyhow::bail!("no linearizable write within {limit:?} of healing: {}", failed.join("; "));
    }
    Ok(answers.into_iter().filter_map(|(slot, answer)| answer.ok().map(|time| (slot, time))).collect())
}

/// Writes until one is acknowledged in time.
fn write(cluster: &Cluster, slot: usize, healed: Instant) -> Result<Duration, String> {
    let (url, key) = (cluster.slots[slot].client_url(), format!("chaos/alive/{slot}"));
    let mut last = "not asked".to_owned();
    let limit = limit(cluster.control);
    while healed.elapsed() < limit {
        match cluster.ctl.run(&url, 2, &["put", &key, "serves"]) {
            Ok(output) if output.status.success() && healed.elapsed() <= limit => return Ok(healed.elapsed()),
            Ok(output) => last = output.stderr.lines().last().unwrap_or_default().to_owned(),
            Err(error) => last = format!("{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(last)
}
