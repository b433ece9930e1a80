//! A crash at each call that reaches the disk, a failure of each, a failing read, and a sync that stalls, under writes, checkpoints, compaction, defragmentation and new log segments.
//!
//! One client, so that at most one request is in doubt: what the next start finds must be what a member that never crashed had after
//! all acknowledged requests, or after one more. Compared are all keys with their revisions, the leases, the hash, the revision.

use std::sync::Arc;
use std::time::Duration;

use garboard_node::Node;
use garboard_node::NodeConfig;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::request_op::Request;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_storage::disk::memory::Failure;
use garboard_storage::disk::memory::MemoryDisk;
use garboard_storage::disk::memory::Survives;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Requests of the workload.
const STEPS: i64 = 40;
/// Members under way at a time: they mostly wait.
const AT_ONCE: usize = 12;
/// How long a start or a stop may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

fn config() -> NodeConfig {
    NodeConfig {
        data_dir: "/data".into(),
        // Turnover, checkpoints and the removal of segments within a few dozen requests.
        wal_segment_bytes: 16 << 10,
        snapshot_count: 10,
        snapshot_catchup_entries: 5,
        backend_batch_interval: Duration::from_millis(1),
        compaction_batch_limit: 7,
        compaction_sleep_interval: Duration::from_millis(1),
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        ..NodeConfig::default()
    }
}

/// A member whose end is told instead of ending the process.
struct Member {
    node: Node,
    failed: watch::Receiver<bool>,
}

impl Member {
    /// None: the disk failed on the way.
    async fn start(disk: &MemoryDisk) -> Result<Self, String> {
        let (tell, mut failed) = watch::channel(false);
        let fatal = Arc::new(move |_: &str| {
            tell.send_replace(true);
        });
        let registry = prometheus::Registry::new();
        let started = Node::start_with(config(), Arc::new(disk.clone()), &registry, fatal);
        let node = garboard_runtime::clock::timeout(PATIENCE, started)
            .await
            .expect("the start hangs")
            .map_err(|e| e.to_string())?;
        let ready = node.clone();
        let outcome = tokio::select! {
            _ = failed.wait_for(|failed| *failed) => Err("the disk failed".to_owned()),
            ready = garboard_runtime::clock::timeout(PATIENCE, ready.ready()) => ready.expect("never ready").map_err(|e| e.to_string()),
        };
        let member = Self { node, failed };
        match outcome {
            Ok(()) => Ok(member),
            Err(why) => {
                member.stop().await;
                Err(why)
            }
        }
    }

    /// One request of the workload; false when the member has failed.
    async fn step(&mut self, step: i64) -> bool {
        let node = self.node.clone();
        let work = async move {
            match step % 20 {
                17 => node.defragment().await.is_ok(),
                _ => node.propose(command(step)).await.is_ok(),
            }
        };
        tokio::select! {
            done = garboard_runtime::clock::timeout(PATIENCE, work) => done.expect("a request hangs"),
            _ = self.failed.wait_for(|failed| *failed) => false,
        }
    }

    async fn stop(self) {
        garboard_runtime::clock::timeout(PATIENCE, self.node.shutdown()).await.expect("the stop hangs");
    }

    async fn state(&self) -> State {
        let everything = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let keys = self.node.store().range(&everything).unwrap().kvs;
        let hash = self.node.hash_kv(0).await.unwrap();
        let mut leases: Vec<i64> = self.node.store().leases().iter().map(|lease| lease.id).collect();
        leases.sort_unstable();
        State { revision: hash.revision, hash: (hash.compact_revision, hash.hash), keys, leases }
    }
}

/// What is compared.
#[derive(Debug, PartialEq)]
struct State {
    revision: i64,
    hash: (i64, u32),
    keys: Vec<garboard_proto::mvccpb::KeyValue>,
    leases: Vec<i64>,
}

/// Request number `step`; each succeeds on a member that has done all before it.
fn command(step: i64) -> Command {
    let value = "v".repeat(900 + step as usize);
    let put = |key: String, lease| pb::PutRequest {
        key: key.into(),
        value: value.clone().into(),
        lease,
        ..Default::default()
    };
    let delete = |key: String| pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let op = match step % 20 {
        3 => Op::LeaseGrant(pb::LeaseGrantRequest { id: 1000 + step, ttl: 3600 }),
        4 => Op::Put(put(format!("leased-{step}"), 999 + step)),
        8 => Op::DeleteRange(delete(format!("k{}", (step - 3) % 7))),
        11 => Op::Txn(pb::TxnRequest {
            success: vec![
                op(Request::RequestPut(put("a".into(), 0))),
                op(Request::RequestDeleteRange(delete("a".into()))),
                op(Request::RequestPut(put("b".into(), 0))),
            ],
            ..Default::default()
        }),
        13 => Op::LeaseRevoke(pb::LeaseRevokeRequest { id: 990 + step }),
        15 => Op::Compaction(pb::CompactionRequest { revision: step / 2 + 1, physical: step % 40 == 15 }),
        _ => Op::Put(put(format!("k{}", step % 7), 0)),
    };
    Command { op: Some(op) }
}

/// The states after no request, one, two, ... of a member that does not crash.
async fn reference() -> Vec<State> {
    let disk = MemoryDisk::new();
    let mut member = Member::start(&disk).await.unwrap();
    let mut states = vec![member.state().await];
    for step in 1..=STEPS {
        assert!(member.step(step).await, "request {step}");
        states.push(member.state().await);
    }
    member.stop().await;
    states
}

/// Works on a disk whose call number `at` fails, and returns how many requests were acknowledged.
async fn work(disk: &MemoryDisk, at: u64, failure: Failure) -> usize {
    disk.fail_at(at, failure);
    let Ok(mut member) = Member::start(disk).await else { return 0 };
    let mut acknowledged = 0;
    for step in 1..=STEPS {
        if !member.step(step).await {
            break;
        }
        acknowledged += 1;
    }
    member.stop().await;
    acknowledged
}

/// One failing call, a crash, and what the next start finds; true when the disk saw fewer calls than that.
async fn crash_at(at: u64, failure: Failure, states: &[State]) -> bool {
    let disk = MemoryDisk::new();
    let acknowledged = work(&disk, at, failure).await;
    let over = disk.calls() < at;
    let survives = [Survives::Nothing, Survives::Some(at), Survives::Everything][at as usize % 3];
    let what = format!("call {at}, {failure:?}, {survives:?}, {acknowledged} acknowledged");
    let member = Member::start(&disk.crash(survives)).await.map_err(|why| format!("{what}: {why}")).unwrap();
    let state = member.state().await;
    let expected = &states[acknowledged..states.len().min(acknowledged + 2)];
    assert!(expected.contains(&state), "{what}: found {state:?}\nexpected one of {expected:?}");
    member.stop().await;
    over
}

async fn sweep(failure: Failure) {
    let states = Arc::new(reference().await);
    let (mut crashes, mut over, mut running) = (0, false, JoinSet::new());
    while !over || !running.is_empty() {
        while !over && running.len() < AT_ONCE {
            crashes += 1;
            let states = Arc::clone(&states);
            running.spawn(async move { crash_at(crashes, failure, &states).await });
        }
        over |= running.join_next().await.unwrap().unwrap();
    }
    println!("{crashes} crashes");
    assert!(crashes > 300, "{crashes} crashes prove little");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_at_any_call() {
    sweep(Failure::Dead).await;
}

/// The call says that it failed, and what a failing sync covered is lost: the member ends, or does without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_failure_of_any_call() {
    sweep(Failure::Once).await;
}

/// A disk with the whole workload on it, and the state it holds.
async fn worked() -> (MemoryDisk, State) {
    let disk = MemoryDisk::new();
    let mut member = Member::start(&disk).await.unwrap();
    for step in 1..=STEPS {
        assert!(member.step(step).await, "request {step}");
    }
    let state = member.state().await;
    member.stop().await;
    (disk, state)
}

/// What fails is told, by a start that is refused or a member that ends, and the next start finds everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_read_is_told_and_harms_nothing() {
    let (worked, state) = worked().await;
    let (mut failures, mut over) = (0, false);
    while !over {
        failures += 1;
        let disk = worked.duplicate();
        disk.fail_read_at(disk.reads() + failures);
        match Member::start(&disk).await {
            Err(why) => {
                assert!(why.contains("injected failure") || why.contains("the disk failed"), "read {failures}: {why}")
            }
            Ok(mut member) => {
                // No read is left to fail, or one of these.
                let told = member.step(STEPS + 1).await;
                over = disk.reads() < failures;
                assert!(told || !over, "read {failures}");
                member.stop().await;
            }
        }
        if !over {
            let member = Member::start(&disk.crash(Survives::Nothing)).await.unwrap();
            let found = member.state().await;
            assert!(found == state || found.revision == state.revision + 1, "read {failures}: {found:?}");
            member.stop().await;
        }
    }
    assert!(failures > 10, "{failures} failures prove little");
}

/// While a sync does not come back nothing is acknowledged and reads are answered; then it does, or fails at last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_sync_acknowledges_nothing() {
    for healthy in [true, false] {
        let (disk, before) = worked().await;
        let mut member = Member::start(&disk).await.unwrap();
        disk.stall();
        let node = member.node.clone();
        let put = garboard_runtime::spawn::task(async move { node.propose(command(STEPS + 1)).await });
        let stalled = disk.clone();
        garboard_runtime::spawn::blocking(move || stalled.wait_stalled()).await.unwrap();
        let everything = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        assert_eq!(member.node.store().range(&everything).unwrap().kvs, before.keys);
        member.node.linearizable_read().await.unwrap();
        assert!(!put.is_finished());
        disk.release(healthy);
        if healthy {
            garboard_runtime::clock::timeout(PATIENCE, put).await.expect("the put hangs").unwrap().unwrap();
            assert_eq!(member.state().await.revision, before.revision + 1);
        } else {
            garboard_runtime::clock::timeout(PATIENCE, member.failed.wait_for(|failed| *failed))
                .await
                .unwrap()
                .unwrap();
            assert!(!matches!(put.await, Ok(Ok(_))), "acknowledged though its sync failed");
        }
        member.stop().await;
    }
}
