//! Three members and more: bootstrap, reads and writes on each, the loss of members, and every change of the membership.

mod cutter;
mod discovery;
mod halfway;
mod recovery;

use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use super::metrics::Scrape;
use crate::certs::Authority;
use crate::certs::Identity;
use crate::cluster::Cluster;
use crate::etcdctl::Etcdctl;
use crate::http::Http;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::Server;
use crate::wait::PATIENCE;
use crate::wait::until;
use cutter::Cutter;
pub use discovery::discovery_srv;
pub use halfway::change_halfway;
pub use recovery::old_member;
pub use recovery::quorum_lost;

/// The exit code of a member whose data directory is not the one it is known by.
const EXIT_WIPED: i32 = 3;
/// The exit code of a member that was removed.
const EXIT_REMOVED: i32 = 4;

/// Founding, reading and writing on each, and the loss of one after the other.
pub fn members(lab: &Lab) -> anyhow::Result<u32> {
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let mut checks = cluster.check_writes("founded")?;
    let listed = cluster.member_list()?;
    ensure!(listed.len() == 3, "members: {listed:?}");
    let names = |list: &[Value]| list.iter().map(|m| m["name"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>();
    let mut sorted = names(&listed);
    sorted.sort();
    ensure!(sorted == ["a", "b", "c"], "names: {listed:?}");
    until("client URLs of all", PATIENCE, || {
        let all = cluster.member_list()?.iter().all(|member| member["clientURLs"].is_array());
        Ok(all.then_some(()))
    })?;
    checks += 2;

    for command in [
        &["endpoint", "health", "--cluster"][..],
        &["endpoint", "status", "--cluster"],
        &["endpoint", "hashkv", "--cluster"],
    ] {
        let lines = cluster.ctl(0).ok(command)?;
        ensure!(lines.lines().count() >= 1, "{command:?}: {lines}");
        checks += 1;
    }

    // A lease granted at one member is kept alive at another, and ends everywhere.
    let granted = cluster.ctl(0).json(&["lease", "grant", "60"])?;
    let lease = format!("{:x}", granted["ID"].as_u64().context("no lease")?);
    for at in 0..3 {
        let kept = cluster.ctl(at).ok(&["lease", "keep-alive", "--once", &lease])?;
        ensure!(kept.contains("keepalived with TTL(60)"), "{kept}");
        let told = cluster.ctl(at).ok(&["lease", "timetolive", &lease])?;
        ensure!(told.contains("granted with TTL(60s)"), "{told}");
        checks += 1;
    }
    cluster.ctl(1).ok(&["lease", "revoke", &lease])?;
    checks += 1;

    // Each in its turn is lost and comes back; the leader first.
    let leader = cluster.leader()?;
    let first = cluster.name(leader).to_owned();
    for name in [first.as_str(), "a", "b", "c"] {
        let at = cluster.position(name)?;
        let member = cluster.kill(at)?;
        checks += cluster.check_writes(&format!("without {name}"))?;
        cluster.add(&member)?;
        checks += cluster.check_writes(&format!("with {name} again"))?;
    }
    // All at once.
    let members = (0..3).map(|_| cluster.kill(0)).collect::<anyhow::Result<Vec<_>>>()?;
    let cluster = Cluster::start_all(lab, members)?;
    let read = cluster.ctl(0).ok(&["get", "key", "--print-value-only"])?;
    ensure!(read.trim() == "with c again-2", "after all were killed: {read}");
    checks += 1 + cluster.check_writes("all killed")?;
    Ok(checks + cluster.check_hashes()?)
}

/// The leader moves when asked to, and by itself when it is told to end.
pub fn leadership(lab: &Lab) -> anyhow::Result<u32> {
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let leader = cluster.leader()?;
    let target = (leader + 1) % 3;
    let id = format!("{:x}", cluster.id(target)?);
    let moved = cluster.all().ok(&["move-leader", &id])?;
    ensure!(moved.contains("Leadership transferred"), "{moved}");
    ensure!(cluster.leader()? == target, "another leads than {}", cluster.name(target));
    let refused = cluster.ctl(leader).run(&["move-leader", &id])?;
    ensure!(refused.stderr.contains("no leader endpoint given at"), "{refused:?}");
    let nobody = cluster.all().run(&["move-leader", "1234"])?;
    ensure!(nobody.stderr.contains("bad leader transferee"), "{nobody:?}");
    let mut checks = 3 + cluster.check_writes("moved")?;

    // A write that was given to a leader that is gone is not applied; who waits learns it from the next leader, not from a timeout.
    let leader = cluster.leader()?;
    cluster.servers[leader].process.signal("STOP")?;
    let doubtful = cluster.ctl((leader + 1) % 3).run(&["put", "key", "doubtful"])?;
    ensure!(doubtful.stderr.contains("etcdserver: leader changed"), "{doubtful:?}");
    cluster.servers[leader].process.signal("CONT")?;
    let target = cluster.leader()?;
    checks += 1 + cluster.check_writes("with the stopped leader again")?;

    // SIGTERM: the others have a leader before an election could have begun.
    let ending = cluster.servers.remove(target);
    let term = |cluster: &Cluster<'_>| -> anyhow::Result<u64> {
        cluster.ctl(0).json(&["endpoint", "status"])?[0]["Status"]["raftTerm"].as_u64().context("no term")
    };
    let before = term(&cluster)?;
    let member = ending.member.clone();
    ending.terminate()?;
    cluster.leader()?;
    ensure!(term(&cluster)? == before + 1, "term {} after {before}: it was not handed over", term(&cluster)?);
    checks += 1 + cluster.check_writes("after SIGTERM")?;
    cluster.add(&member)?;
    Ok(checks + cluster.check_writes("with it again")?)
}

/// Members come and go: voters, learners, one that has lost its disk, one that was removed.
pub fn membership(lab: &Lab) -> anyhow::Result<u32> {
    let mut cluster = Cluster::start(lab, &["a", "b", "c"], &[])?;
    let mut checks = cluster.check_writes("three")?;

    // A voter is added: listed at once, and in the quorum once it has caught up.
    let mut member = joining(lab, "d")?;
    let added = cluster.ctl(0).ok(&["member", "add", "d", &format!("--peer-urls={}", member.peer_url)])?;
    ensure!(added.contains("added to cluster"), "{added}");
    let again = cluster.ctl(0).run(&["member", "add", "x", &format!("--peer-urls={}", member.peer_url)])?;
    ensure!(again.stderr.contains("Peer URLs already exists"), "{again:?}");
    let listed = cluster.ctl(0).ok(&["member", "list"])?;
    ensure!(listed.lines().any(|line| line.contains("unstarted") && line.contains(&member.peer_url)), "{listed}");
    // It was never started, and costs no quorum: two of three go on.
    let at = cluster.position("c")?;
    let third = cluster.kill(at)?;
    checks += 3 + cluster.check_writes("two of three, one more added")?;
    cluster.add(&third)?;
    member.initial_cluster = Some(format!("{},{}", cluster.entries(), member.entry()));
    cluster.add(&member)?;
    until("d as a voter", PATIENCE, || Ok(is_caught_up(&cluster, "d")?.then_some(())))?;
    checks += 1 + cluster.check_writes("four")?;

    // A learner, promoted by hand.
    let mut learner = joining(lab, "e")?;
    cluster.ctl(1).ok(&["member", "add", "e", "--learner", &format!("--peer-urls={}", learner.peer_url)])?;
    learner.initial_cluster = Some(format!("{},{}", cluster.entries(), learner.entry()));
    cluster.servers.push(start_learner(&learner)?);
    let at = cluster.position("e")?;
    let refused = cluster.ctl(at).run(&["get", "key"])?;
    ensure!(refused.stderr.contains("rpc not supported for learner"), "{refused:?}");
    let id = format!("{:x}", cluster.id(at)?);
    until("e's promotion", PATIENCE, || {
        let promoted = cluster.ctl(0).run(&["member", "promote", &id])?;
        ensure!(promoted.status.success() || promoted.stderr.contains("in sync with leader"), "{promoted:?}");
        Ok(promoted.status.success().then_some(()))
    })?;
    let twice = cluster.ctl(0).run(&["member", "promote", &id])?;
    ensure!(twice.stderr.contains("can only promote a learner member"), "{twice:?}");
    checks += 3 + cluster.check_writes("five")?;

    // The leader is removed: it hands over, ends with a code of its own, and refuses to start again.
    let leader = cluster.leader()?;
    let gone = cluster.name(leader).to_owned();
    let id = format!("{:x}", cluster.id(leader)?);
    cluster.ctl((leader + 1) % 5).ok(&["member", "remove", &id])?;
    let mut removed = cluster.servers.remove(leader);
    let status = removed.process.wait(PATIENCE).with_context(|| format!("{gone}, which was removed, goes on"))?;
    ensure!(status.code() == Some(EXIT_REMOVED), "{gone} ended with {status}");
    let (status, output) = removed.member.refusal()?;
    ensure!(status.code() == Some(EXIT_REMOVED) && output.contains("permanently removed"), "{status}: {output}");
    checks += 2 + cluster.check_writes("after a removal")?;

    // One loses its disk: it is not who it was, and is replaced by removal and addition.
    let lost = cluster.kill(0)?;
    std::fs::remove_dir_all(&lost.data_dir)?;
    let (status, output) = lost.refusal()?;
    ensure!(status.code() == Some(EXIT_WIPED), "a wiped member ended with {status}: {output}");
    ensure!(output.contains("by another data directory"), "{output}");
    checks += 2 + cluster.check_writes("one wiped")?;
    Ok(checks + cluster.check_hashes()?)
}

/// A member far behind gets a snapshot, over connections that are all cut long before its end, and one that is new gets one at once.
pub fn far_behind(lab: &Lab) -> anyhow::Result<u32> {
    // More than what is lost with a connection, and far less than the store.
    const CUT_AFTER_BYTES: u64 = 8 << 20;
    const LARGE_VALUES: usize = 32;
    const LARGE_BYTES: usize = 1 << 20;
    // Of all others together, for votes, heartbeats and the log.
    const CALLS_PER_S_MAX: f64 = 60.0;
    let few = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];
    let mut members = ["a", "b", "c"]
        .map(|name| Ok(Member::new(lab, name)?.named(name)))
        .into_iter()
        .collect::<anyhow::Result<Vec<_>>>()?;
    members.iter_mut().for_each(|member| member.extra.extend(few.map(str::to_owned)));
    // What the others dial of the last one.
    let listened = members[2].peer_url.clone();
    let cutter =
        Cutter::new(listened.trim_start_matches("http://").parse().context("a peer's address")?, CUT_AFTER_BYTES)?;
    members[2].peer_url = format!("http://{}", cutter.address);
    members[2].extra.push(format!("--listen-peer-urls={listened}"));
    let mut cluster = Cluster::found(lab, members)?;
    if cluster.leader()? == 2 {
        cluster.all().ok(&["move-leader", &format!("{:x}", cluster.id(0)?)])?;
    }
    let member = cluster.kill(2)?;
    let (calls_before, down) = (cutter.calls(), Instant::now());
    let ctl = cluster.ctl(0);
    for i in 0..LARGE_VALUES {
        let value = format!("{i:08}").repeat(LARGE_BYTES / 8);
        ctl.run_with_input(&["put", &format!("large{i}")], &value)?.success("a large put")?;
    }
    // The log is cut off in steps of 256 entries: the large ones are surely gone from it then.
    for i in 0..600 {
        ctl.ok(&["put", &format!("key{}", i % 40), &format!("value{i}")])?;
    }
    let revision = ctl.json(&["endpoint", "status"])?[0]["Status"]["header"]["revision"].clone();
    ctl.ok(&["compact", &(revision.as_u64().context("revision")? - 20).to_string()])?;
    ctl.ok(&["put", "last", "one"])?;
    // Who accepts for a member that is down is called as seldom as one that refuses.
    let calls_per_s = (cutter.calls() - calls_before) as f64 / down.elapsed().as_secs_f64();
    ensure!(calls_per_s < CALLS_PER_S_MAX, "a member that is down is called {calls_per_s:.0} times in a second");
    let cuts_before = cutter.cuts();
    cluster.add(&member)?;
    let read = cluster.ctl(2).ok(&["get", "key39", "--print-value-only"])?;
    ensure!(read.trim() == "value599", "{read}");
    let read = cluster.ctl(2).ok(&["get", "large31", "--print-value-only"])?;
    ensure!(read.trim() == "00000031".repeat(LARGE_BYTES / 8), "another large value than was written");
    let log = cluster.servers[2].process.output();
    ensure!(log.contains("a snapshot has taken the state's place"), "it was not sent a snapshot");
    let (cuts, kept) = (cutter.cuts() - cuts_before, log.matches("what has come is kept").count());
    ensure!(cuts >= 3 && kept >= 3, "{cuts} connections were cut, and {kept} times something was kept");
    ensure!(!member.data_dir.join("member/db.incoming").exists(), "something of it was left");
    check_snapshot_metrics(&cluster, 2, kept)?;
    let mut checks = 7 + cluster.check_writes("with it again")?;
    checks += cluster.check_hashes()?;

    let mut new = joining(lab, "d")?.with(few[0]).with(few[1]);
    cluster.ctl(0).ok(&["member", "add", "d", &format!("--peer-urls={}", new.peer_url)])?;
    new.initial_cluster = Some(format!("{},{}", cluster.entries(), new.entry()));
    cluster.add(&new)?;
    checks += cluster.check_writes("with a new one")?;
    Ok(checks + cluster.check_hashes()?)
}

/// What the members have counted of the one snapshot that the member `at` was sent, whose connection broke `breaks` times.
fn check_snapshot_metrics(cluster: &Cluster<'_>, at: usize, breaks: usize) -> anyhow::Result<()> {
    let http = Http::new();
    let counted = |scrapes: &[Scrape], name: &str| scrapes.iter().map(|scrape| scrape.sum(name)).sum::<f64>();
    // The receiver serves before the sender has its answer.
    let (sent, received) = until("end of the sending, as the sender counts it", PATIENCE, || {
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for (number, server) in cluster.servers.iter().enumerate() {
            let scrapes = if number == at { &mut received } else { &mut sent };
            scrapes.push(Scrape::of(&http, server.url())?);
        }
        let is_over = counted(&sent, "etcd_network_snapshot_send_success") > 0.0
            && counted(&sent, "etcd_network_snapshot_send_inflights_total") == 0.0;
        Ok(is_over.then_some((sent, received)))
    })?;
    for (scrapes, verb) in [(&sent, "send"), (&received, "receive")] {
        for (what, value) in [("success", 1.0), ("inflights_total", 0.0), ("total_duration_seconds_count", 1.0)] {
            let found = counted(scrapes, &format!("etcd_network_snapshot_{verb}_{what}"));
            ensure!(found == value, "snapshot_{verb}_{what} is {found}, not {value}");
        }
        // The sender counts also what it tried while the member was down.
        let failures = counted(scrapes, &format!("etcd_network_snapshot_{verb}_failures"));
        ensure!(failures >= breaks as f64, "snapshot_{verb}_failures is {failures} after {breaks} breaks");
    }
    for (sample, value) in [
        ("etcd_snap_db_save_total_duration_seconds_count", 1.0),
        ("etcd_snap_db_fsync_duration_seconds_count", 1.0),
        ("etcd_server_snapshot_apply_in_progress_total", 0.0),
    ] {
        let found = received[0].value(sample)?;
        ensure!(found == value, "{sample} is {found}, not {value}");
    }
    Ok(())
}

/// Peers that show each other certificates; one joins by the URLs of two; certificates are replaced; who shows none is refused.
pub fn peer_tls(lab: &Lab) -> anyhow::Result<u32> {
    let authority = Authority::new(&lab.dir, "peer-ca")?;
    let issue = |name: &str| authority.issue(&lab.dir, name, name, None);
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(Member::new(lab, name)?.named(name).with_peer_tls(&issue(name)?, &authority));
    }
    let mut cluster = Cluster::found(lab, members)?;
    let mut checks = cluster.check_writes("with TLS")?;

    // New certificates, and new connections, since the members that made the old ones are gone one after the other.
    for name in ["a", "b", "c"] {
        issue(name)?;
    }
    for name in ["a", "b", "c"] {
        let at = cluster.position(name)?;
        let member = cluster.kill(at)?;
        cluster.add(&member)?;
    }
    checks += cluster.check_writes("with new certificates")?;

    let urls = cluster.servers[..2].iter().map(|server| server.member.peer_url.clone()).collect::<Vec<_>>().join(",");
    let joining = Member::new(lab, "d")?.named("d").with_peer_tls(&issue("d")?, &authority);
    let joining = joining.with(format!("--join={urls}"));
    let mut too_early = joining.clone();
    too_early.data_dir = lab.path("not-added");
    let (status, output) = too_early.refusal()?;
    ensure!(status.code() == Some(1) && output.contains("has no member with the peer URLs"), "{status}: {output}");
    cluster.ctl(0).ok(&["member", "add", "d", &format!("--peer-urls={}", joining.peer_url)])?;
    cluster.add(&joining)?;
    checks += 1 + cluster.check_writes("with one that joined")?;

    // A stranger with a certificate of its own making.
    let other = Authority::new(&lab.dir, "other-ca")?;
    let stranger = other.issue(&lab.dir, "stranger", "stranger", None)?;
    let url = format!("{}/garboardpeers.Peers/Members", cluster.servers[0].member.peer_url);
    let ask = |as_who: &Identity| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http2", "--max-time", "5", "--cacert"]).arg(&authority.cert);
        run(curl.arg("--cert").arg(&as_who.cert).arg("--key").arg(&as_who.key).arg(&url))
    };
    let refused = ask(&stranger)?;
    ensure!(!refused.status.success(), "a stranger is let in: {refused:?}");
    ask(&issue("known")?)?.success("a call with a certificate that the peers know")?;
    Ok(checks + 1 + cluster.check_hashes()?)
}

/// One member's snapshot becomes a cluster of three.
pub fn restored(lab: &Lab) -> anyhow::Result<u32> {
    let old = Member::new(lab, "old")?.start()?;
    let ctl = Etcdctl::new(lab, old.url());
    for i in 0..20 {
        ctl.ok(&["put", &format!("key{i}"), "before"])?;
    }
    let file = lab.path("store.snapshot").display().to_string();
    ctl.ok(&["snapshot", "save", &file])?;
    drop(old);

    let members = ["a", "b", "c"].map(|name| Ok(Member::new(lab, name)?.named(name)));
    let cluster = restore(lab, &file, members.into_iter().collect::<anyhow::Result<_>>()?)?;
    let count = cluster.ctl(1).ok(&["get", "key", "--prefix", "--count-only", "--write-out=fields"])?;
    ensure!(count.contains("\"Count\" : 20"), "{count}");
    ensure!(cluster.member_list()?.len() == 3, "not three members");
    Ok(2 + cluster.check_writes("restored")? + cluster.check_hashes()?)
}

/// Members that have their data from the snapshot in `file` found a cluster of another token than the one it is of.
fn restore<'a>(lab: &'a Lab, file: &str, mut members: Vec<Member>) -> anyhow::Result<Cluster<'a>> {
    const TOKEN: &str = "--initial-cluster-token=again";
    let all = members.iter().map(Member::entry).collect::<Vec<_>>().join(",");
    for member in &mut members {
        member.extra.push(TOKEN.to_owned());
        let mut restore = Command::new(&member.program);
        restore.args(["snapshot", "restore", file, TOKEN]);
        restore.arg(format!("--name={}", member.name)).arg(format!("--data-dir={}", member.data_dir.display()));
        restore.arg(format!("--initial-cluster={all}"));
        restore.arg(format!("--initial-advertise-peer-urls={}", member.peer_url));
        run(&mut restore)?.success("snapshot restore")?;
    }
    Cluster::found(lab, members)
}

fn joining(lab: &Lab, name: &str) -> anyhow::Result<Member> {
    Ok(Member::new(lab, name)?.named(name).with("--initial-cluster-state=existing"))
}

/// A learner never says that it serves clients.
fn start_learner(member: &Member) -> anyhow::Result<Server> {
    let process = member.spawn()?;
    Ok(Server { process, member: member.clone() })
}

/// Whether a member's log is as long as everybody's.
fn is_caught_up(cluster: &Cluster<'_>, name: &str) -> anyhow::Result<bool> {
    let at = cluster.position(name)?;
    let index = |at: usize| -> anyhow::Result<u64> {
        let status = cluster.ctl(at).json(&["endpoint", "status"])?;
        status[0]["Status"]["raftAppliedIndex"].as_u64().context("no index")
    };
    Ok(index(at)? >= index(0)?)
}
