//! What may happen to an EtcdCluster, each with what may go wrong meanwhile, in two scenarios. A run takes some of the pairs, by its seed, for as long as it
//! may; a full one takes all of them.

mod copies;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::outside::Dies;
use super::outside::Outside;
use super::rotation::GRACE;
use super::rotation::rotate;
use super::store;
use super::store::EXAMPLE;
use super::store::LIMIT;
use super::store::SHORTEST;
use super::store::Store;
use super::traffic::Traffic;
use crate::output;
use crate::random::Random;
use crate::scenario::Lab;
use crate::wait::until;

/// Unless all are taken, no pair is begun after this.
const ENOUGH: Duration = Duration::from_secs(300);
/// Between two kills of what is killed again and again. An API server serves for so long.
const KILLS: Duration = Duration::from_secs(15);

/// What is done to a cluster of three; it is one of three again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Another one, beside it.
    Founded,
    FoundedAgain,
    Grown,
    Single,
    Rolled,
    PodLost,
    PodsLost,
    VolumeLost,
    DiskWiped,
    MembersForgotten,
    StatusWiped,
    /// Both of its CAs are others.
    Rotated,
    BackedUp,
    /// In place.
    Restored,
}

/// What goes wrong meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The operator dies between each record and its deed.
    DiesRecorded,
    /// The operator dies after each deed.
    DiesActed,
    TwoOperators,
    ApiServerKilled,
    PodsKilled,
}

/// What is done in one scenario.
struct Part {
    changes: &'static [Change],
    /// Every step and every turn that the operator makes of them, besides waiting (the default class of volumes does not let them grow, and no
    /// quota is full): with a full run, it has died at each of them.
    steps: &'static [&'static str],
}

/// Members, their Pods, volumes and data.
const MEMBERS: Part = Part {
    changes: &[
        Change::Founded,
        Change::FoundedAgain,
        Change::Grown,
        Change::Single,
        Change::Rolled,
        Change::PodLost,
        Change::PodsLost,
        Change::VolumeLost,
        Change::DiskWiped,
        Change::MembersForgotten,
        Change::StatusWiped,
    ],
    steps: &[
        "GrantBootstrap",
        "Latch",
        "Begin",
        "End",
        "CreateMember",
        "Identify",
        "CreateVolume",
        "CreatePod",
        "DeletePod",
        "AddLearner",
        "Promote",
        "Remove",
        "MoveLeader",
        "RetireVolume",
        "DeleteMember",
    ],
};

/// Certificates, backups, restores.
const UPKEEP: Part = Part {
    changes: &[Change::Rotated, Change::BackedUp, Change::Restored],
    steps: &[
        "TrustBoth",
        "Settle",
        "Reissue",
        "Retire",
        "Conclude",
        // Of backups,
        "Hold",
        "CreateClaim",
        "Start",
        "Taken",
        "Verified",
        "DeleteJob",
        "DeleteClaim",
        "LetGo",
        // of their schedules,
        "Create",
        "Delete",
        // and of restores.
        "Propose",
        "Confirm",
        "TakeSafetyBackup",
        "Advance",
        "BeginRestore",
        "PutAside",
        "Forget",
        "Founded",
    ],
};

const TROUBLES: [Trouble; 5] =
    [Trouble::DiesRecorded, Trouble::DiesActed, Trouble::TwoOperators, Trouble::ApiServerKilled, Trouble::PodsKilled];

/// Nothing is to be left of it.
const FRESH: &str = "size: 3, storage: {retention: {whenClusterDeleted: Delete}}";
/// All pairs, in an order of the seed's.
fn pairs(changes: &[Change], seed: u64) -> Vec<(Change, Trouble)> {
    let mut pairs: Vec<_> = changes.iter().flat_map(|change| TROUBLES.map(|trouble| (*change, trouble))).collect();
    let mut random = Random::new(seed);
    for i in (1..pairs.len()).rev() {
        pairs.swap(i, random.below(i + 1));
    }
    pairs
}

pub fn operator_matrix(lab: &Lab) -> anyhow::Result<u32> {
    part(lab, &MEMBERS)
}

pub fn operator_upkeep(lab: &Lab) -> anyhow::Result<u32> {
    part(lab, &UPKEEP)
}

fn part(lab: &Lab, part: &Part) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    let outside = Outside::instead(lab, &cluster)?;
    steps.held("operators that can be made to die");
    let mut store = Store::new(&cluster, "store");
    outside.during(1, None, || {
        cluster.apply(EXAMPLE)?;
        store.wait(3)?;
        store.start_client()?;
        store.check()
    })?;
    let begin = Instant::now();
    let mut places = BTreeSet::new();
    for (n, (change, trouble)) in pairs(part.changes, lab.seed).into_iter().enumerate() {
        if !lab.full && begin.elapsed() > ENOUGH {
            break;
        }
        let seed = lab.seed.wrapping_add(n as u64);
        let (word, died) = pair(&cluster, &outside, &mut store, (change, trouble), seed)
            .with_context(|| format!("{change:?} with {trouble:?}, seed {}", lab.seed))?;
        places.extend(died);
        steps.held(&format!("{change:?} with {trouble:?}: {word}"));
    }
    output::line(format_args!("    operators died: {}", places.iter().cloned().collect::<Vec<_>>().join(", ")));
    if lab.full {
        let all = part.steps.iter().flat_map(|step| [format!("recorded {step}"), format!("acted {step}")]);
        let never: Vec<_> = all.filter(|place| !places.contains(place)).collect();
        ensure!(never.is_empty(), "no operator has died at {}", never.join(", "));
        steps.held("operators have died before and after each of their steps");
    }
    let held = steps.count();
    cluster.down()?;
    Ok(held + 1)
}

fn pair(
    cluster: &Kubernetes,
    outside: &Outside<'_>,
    store: &mut Store<'_>,
    (change, trouble): (Change, Trouble),
    seed: u64,
) -> anyhow::Result<(String, BTreeSet<String>)> {
    // A cluster that is deleted takes the certificates of its clients with it, and one that is restored what they have written.
    let traffic = match change {
        Change::FoundedAgain | Change::Restored => None,
        _ => Some(Traffic::start(cluster, seed)?),
    };
    let (count, dies) = match trouble {
        Trouble::DiesRecorded => (1, Some(Dies::Recorded)),
        Trouble::DiesActed => (1, Some(Dies::Acted)),
        Trouble::TwoOperators => (2, None),
        Trouble::ApiServerKilled | Trouble::PodsKilled => (1, None),
    };
    let ((), places) = outside.during(count, dies, || match trouble {
        Trouble::ApiServerKilled => {
            // On a slow machine it would never serve otherwise, and nothing go on.
            let kill = || cluster.control().kill_service("kube-apiserver").and_then(|()| cluster.wait_api());
            meanwhile(KILLS, kill, || make(store, change))
        }
        Trouble::PodsKilled => meanwhile(KILLS, || kill_pod(store), || make(store, change)),
        _ => make(store, change),
    })?;
    ensure!(dies.is_none() || !places.is_empty(), "no operator has died");
    // What the trouble has left is mended without it.
    let (word, _) = outside.during(1, None, || {
        store.wait(3)?;
        if change == Change::FoundedAgain {
            store.start_client()?;
        }
        store.check()?;
        store.agree()?;
        let claims = store.list("persistentvolumeclaims")?.len();
        ensure!(claims == 3, "{claims} volumes of three members");
        match traffic {
            Some(traffic) => traffic.finish(),
            None => Ok("the same cluster".to_owned()),
        }
    })?;
    Ok((word, places))
}

/// Does `again` at once, and whenever so much time has gone by, while `work` goes on.
pub fn meanwhile(
    every: Duration,
    again: impl Fn() -> anyhow::Result<()> + Sync,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hand = scope.spawn(|| {
            let mut last: Option<Instant> = None;
            while !over.load(Ordering::Relaxed) {
                if last.is_none_or(|last| last.elapsed() >= every) {
                    again()?;
                    last = Some(Instant::now());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            anyhow::Ok(())
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        hand.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        done
    })
}

/// A Pod, taken away without a word.
fn kill_pod(store: &Store<'_>) -> anyhow::Result<()> {
    let pod = store.first("pods")?;
    // It may be gone, or may not run yet.
    store.cluster.kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"])?;
    Ok(())
}

fn make(store: &Store<'_>, change: Change) -> anyhow::Result<()> {
    match change {
        Change::Founded => {
            let fresh = Store::new(store.cluster, "fresh");
            fresh.apply(&SHORTEST.replace("store", fresh.name).replace("size: 3", FRESH))?;
            fresh.wait(3)?;
            fresh.delete()?;
            fresh.wait_none("persistentvolumeclaims")?;
        }
        Change::FoundedAgain => {
            let id = cluster_id(store)?;
            store.delete()?;
            store.apply(EXAMPLE)?;
            store.wait(3)?;
            let now = cluster_id(store)?;
            ensure!(now == id, "cluster {now} instead of {id}");
        }
        Change::Grown => {
            store.scale(5)?;
            store.wait(5)?;
            store.scale(3)?;
        }
        Change::Single => {
            store.scale(1)?;
            store.wait(1)?;
            store.scale(3)?;
        }
        Change::Rolled => {
            let count = store.get("{.spec.config.snapshotCount}")?.parse::<u32>().unwrap_or(10_000) + 1;
            store.patch(&format!(r#"{{"spec":{{"config":{{"snapshotCount":{count}}}}}}}"#))?;
        }
        Change::PodLost => {
            let before = uids(store, "pods")?;
            let pod = some(store, "pods")?;
            store.insist(&["delete", "pod", &pod, "--ignore-not-found"])?;
            until("Pod made again", LIMIT, || {
                let Ok(uid) = store.uid("pods", &pod) else { return Ok(None) };
                Ok((!before.contains(&uid)).then_some(()))
            })?;
        }
        Change::PodsLost => {
            let before = uids(store, "pods")?;
            store.delete_all("pods")?;
            store.wait_others("pods", &before, 3)?;
        }
        Change::VolumeLost => {
            let claim = some(store, "persistentvolumeclaims")?;
            store.insist(&["delete", "pvc", &claim, "--wait=false"])?;
            store.wait_gone("persistentvolumeclaims", &claim)?;
        }
        Change::DiskWiped => {
            let member = some(store, "persistentvolumeclaims")?;
            store.wipe(&member)?;
            store.insist(&["delete", "pod", &member, "--ignore-not-found"])?;
            store.wait_gone("etcdmembers", &member)?;
        }
        Change::MembersForgotten => {
            let before = uids(store, "etcdmembers")?;
            store.delete_all("etcdmembers")?;
            store.wait_others("etcdmembers", &before, 3)?;
        }
        Change::StatusWiped => {
            let id = cluster_id(store)?;
            until("status that is wiped", LIMIT, || Ok(store.wipe_status().is_ok().then_some(())))?;
            until("cluster's id", LIMIT, || {
                Ok((store.get("{.status.clusterID}").unwrap_or_default() == id).then_some(()))
            })?;
        }
        Change::Rotated => {
            store.patch(GRACE)?;
            let demanded = || store.get(r"{.metadata.annotations.garboard\.dev/rotate-ca}").ok();
            let before = until("annotation", LIMIT, || Ok(demanded()))?;
            rotate(store, &format!("{before}x"))?;
        }
        Change::BackedUp => copies::backed_up(store)?,
        Change::Restored => copies::restored(store)?,
    }
    store.wait(3)
}

/// One object's name, as soon as the API server answers.
fn some(store: &Store<'_>, kind: &str) -> anyhow::Result<String> {
    until(&format!("{kind} of the cluster"), LIMIT, || Ok(store.first(kind).ok()))
}

fn cluster_id(store: &Store<'_>) -> anyhow::Result<String> {
    until("cluster's id", LIMIT, || Ok(store.get("{.status.clusterID}").ok().filter(|id| !id.is_empty())))
}

fn uids(store: &Store<'_>, kind: &str) -> anyhow::Result<Vec<String>> {
    until(&format!("{kind} of the cluster"), LIMIT, || Ok(store.uids(kind).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_is_taken_once_in_an_order_of_the_seeds() {
        for changes in [MEMBERS.changes, UPKEEP.changes] {
            let (one, other) = (pairs(changes, 1), pairs(changes, 2));
            assert_eq!(one.len(), changes.len() * TROUBLES.len());
            assert_ne!(one, other);
            for pair in &one {
                assert_eq!(other.iter().filter(|of| *of == pair).count(), 1);
            }
        }
    }
}
