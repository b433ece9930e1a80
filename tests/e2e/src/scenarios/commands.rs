//! Each etcdctl command, run against the member and against real etcd: same output, same exit.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::certs::Authority;
use crate::etcdctl::Etcdctl;
use crate::process::Output;
use crate::scenario::Lab;
use crate::server::Member;

/// Two fresh servers that get the same commands.
struct Twins<'a> {
    lab: &'a Lab,
    ours: Etcdctl,
    reference: Etcdctl,
    checks: u32,
}

pub fn etcdctl(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.start()?;
    let reference = Member::reference(lab, "reference")?.start()?;
    all(Twins { lab, ours: Etcdctl::new(lab, server.url()), reference: Etcdctl::new(lab, reference.url()), checks: 0 })
}

pub fn etcdctl_tls(lab: &Lab) -> anyhow::Result<u32> {
    let authority = Authority::new(&lab.dir, "ca")?;
    let served = authority.issue(&lab.dir, "server", "server", None)?;
    let client = authority.issue(&lab.dir, "client", "client", None)?;
    let server = Member::new(lab, "server")?.with_tls(&served, &authority).start()?;
    let reference = Member::reference(lab, "reference")?.with_tls(&served, &authority).start()?;
    let ctl = |url| Etcdctl::new(lab, url).tls(&authority, Some(&client));
    all(Twins { lab, ours: ctl(server.url()), reference: ctl(reference.url()), checks: 0 })
}

fn all(mut twins: Twins<'_>) -> anyhow::Result<u32> {
    keys(&mut twins)?;
    transactions(&mut twins)?;
    history(&mut twins)?;
    watches(&mut twins)?;
    leases(&mut twins)?;
    maintenance(&mut twins)?;
    coordination(&mut twins)?;
    Ok(twins.checks)
}

// === impl Twins ===

impl Twins<'_> {
    fn same(&mut self, args: &[&str]) -> anyhow::Result<String> {
        self.same_with_input(args, "")
    }

    /// Runs on both and returns what ours printed.
    fn same_with_input(&mut self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let ours = self.ours.run_with_input(args, input)?;
        let reference = self.reference.run_with_input(args, input)?;
        let (got, want) = (normal(&ours), normal(&reference));
        ensure!(got == want, "etcdctl {}\n--- got\n{got}\n--- real etcd\n{want}", args.join(" "));
        self.checks += 1;
        Ok(ours.stdout)
    }

    /// Watches on both; real etcd says how much there is to see.
    fn same_watch(&mut self, args: &[&str]) -> anyhow::Result<()> {
        let mut process = self.reference.spawn(self.lab, &format!("watch-{}-reference.out", self.checks), args)?;
        let mut want = process.wait_output("events", Duration::from_secs(15), |text| text.contains('\n'))?;
        loop {
            std::thread::sleep(Duration::from_millis(400));
            let more = process.output();
            if more == want {
                break;
            }
            want = more;
        }
        let lines = want.lines().count();
        let mut process = self.ours.spawn(self.lab, &format!("watch-{}-ours.out", self.checks), args)?;
        let got = process
            .wait_output(&format!("{lines} lines"), Duration::from_secs(15), |text| text.lines().count() >= lines)?;
        let (got, want) = (json_normal(&got), json_normal(&want));
        ensure!(got == want, "etcdctl {}\n--- got\n{got}\n--- real etcd\n{want}", args.join(" "));
        self.checks += 1;
        Ok(())
    }

    fn ours_json(&mut self, args: &[&str]) -> anyhow::Result<Value> {
        self.checks += 1;
        self.ours.json(args)
    }
}

/// Exit code and output, without what differs between two sound servers.
fn normal(output: &Output) -> String {
    // Log lines of the client carry times and addresses; the error itself is in the last line.
    let errors: String =
        output.stderr.lines().filter(|line| !line.starts_with('{')).map(|line| format!("{line}\n")).collect();
    format!("exit {:?}\n{}{errors}", output.status.code(), json_normal(&output.stdout))
}

fn json_normal(text: &str) -> String {
    text.lines().map(|line| line_normal(line) + "\n").collect()
}

fn line_normal(line: &str) -> String {
    if ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""].iter().any(|field| line.starts_with(field)) {
        return String::new();
    }
    let Ok(mut value) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    strip(&mut value);
    value.to_string()
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["cluster_id", "member_id", "raft_term", "memberID"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn keys(t: &mut Twins) -> anyhow::Result<()> {
    for (key, value) in
        [("a", "1"), ("b", "2"), ("c", "3"), ("dir/x", "x"), ("dir/y", "y"), ("dir/z", "z"), ("empty", "")]
    {
        t.same(&["put", key, value])?;
    }
    t.same_with_input(&["put", "from-stdin"], "read from stdin")?;
    t.same(&["put", "--", "-dash", "-value"])?;
    t.same(&["put", "a", "1b", "--prev-kv"])?;
    t.same(&["put", "a", "--ignore-value"])?;
    t.same(&["put", "a", "1c", "--ignore-lease"])?;
    t.same(&["put", "missing", "--ignore-value"])?;
    t.same(&["put", "k", "v", "--lease=1234"])?;
    t.same(&["put", "a", "v", "-w", "json"])?;
    t.same(&["put", "", "no key"])?;
    for args in [
        &["get", "a"][..],
        &["get", "nothing"],
        &["get", ""],
        &["get", "a", "c"],
        &["get", "b", "--from-key"],
        &["get", "", "--prefix"],
        &["get", "", "--from-key", "--keys-only"],
        &["get", "dir/", "--prefix"],
        &["get", "dir/", "--prefix", "--limit=2"],
        &["get", "dir/", "--prefix", "--keys-only"],
        &["get", "dir/", "--prefix", "--count-only", "-w", "fields"],
        &["get", "dir/", "--prefix", "--count-only", "-w", "json"],
        &["get", "dir/", "--prefix", "--print-value-only"],
        &["get", "dir/", "--prefix", "--order=DESCEND", "--sort-by=KEY"],
        &["get", "", "--prefix", "--order=ASCEND", "--sort-by=MODIFY"],
        &["get", "", "--prefix", "--order=DESCEND", "--sort-by=CREATE"],
        &["get", "dir/", "--prefix", "--order=DESCEND", "--sort-by=VALUE"],
        &["get", "a", "--consistency=s"],
        &["get", "a", "--consistency=l", "-w", "json"],
        &["get", "a", "--hex"],
        &["get", "a", "--rev=2"],
        &["get", "a", "--rev=1"],
        &["get", "a", "--rev=9999"],
        &["get", "", "--prefix", "--min-mod-rev=4", "--max-mod-rev=8"],
        &["get", "", "--prefix", "--min-create-rev=3", "--max-create-rev=5", "-w", "json"],
    ] {
        t.same(args)?;
    }
    for args in [
        &["del", "nothing"][..],
        &["del", "b", "--prev-kv"],
        &["del", "dir/", "--prefix", "-w", "json"],
        &["del", "c", "--from-key", "--prev-kv"],
        &["del", "", "--prefix"],
        &["get", "", "--prefix"],
    ] {
        t.same(args)?;
    }
    Ok(())
}

fn transactions(t: &mut Twins) -> anyhow::Result<()> {
    t.same(&["put", "t", "1"])?;
    for input in [
        "value(\"t\") = \"1\"\n\nput t 2\nget t\n\nput t other\n\n",
        "value(\"t\") = \"1\"\n\nput t 3\n\nget t\ndel t\n\n",
        "mod(\"t\") = \"0\"\ncreate(\"t\") = \"0\"\nver(\"t\") = \"0\"\n\nput t again\n\nget t\n\n",
        "ver(\"t\") > \"0\"\nlease(\"t\") = \"0\"\nvalue(\"t\") != \"x\"\nmod(\"t\") < \"100000\"\n\ndel t --prev-kv\n\n\n",
        "\nput u 1\nput v 2\nget u v --prefix\n\n\n",
        "\nput u 1\nput u 2\n\n\n",
        "\n\n\n",
    ] {
        t.same_with_input(&["txn"], input)?;
        t.same_with_input(&["txn", "-w", "json"], input)?;
    }
    Ok(())
}

fn history(t: &mut Twins) -> anyhow::Result<()> {
    for i in 0..10 {
        t.same(&["put", "h", &i.to_string()])?;
    }
    let revision = t.ours_json(&["get", "h"])?["header"]["revision"].as_i64().context("revision")?;
    t.same(&["compaction", &(revision - 5).to_string()])?;
    t.same(&["compaction", &(revision - 5).to_string()])?;
    t.same(&["compaction", "99999"])?;
    t.same(&["get", "h", &format!("--rev={}", revision - 6)])?;
    t.same(&["get", "h", &format!("--rev={}", revision - 5)])?;
    t.same(&["compaction", "--physical", &revision.to_string()])?;
    t.same(&["get", "h", "-w", "json"])?;
    Ok(())
}

fn watches(t: &mut Twins) -> anyhow::Result<()> {
    let revision = t.ours_json(&["get", "h"])?["header"]["revision"].as_i64().context("revision")?;
    let from = format!("--rev={}", revision + 1);
    t.same(&["put", "w/a", "1"])?;
    t.same(&["put", "w/a", "2"])?;
    t.same_with_input(&["txn"], "\nput w/b 3\nput w/c 4\ndel w/a\n\n\n")?;
    t.same_watch(&["watch", "w/", "--prefix", &from])?;
    t.same_watch(&["watch", "w/a", &from])?;
    t.same_watch(&["watch", "w/a", "w/c", &from])?;
    t.same_watch(&["watch", "w/", "--prefix", "--prev-kv", &from])?;
    t.same_watch(&["watch", "w/", "--prefix", "-w", "json", &from])?;
    t.same_watch(&["watch", "h", "--rev=3"])?;
    // The command of a watch gets the event in its environment.
    let show = [
        "watch",
        "w/b",
        &from,
        "--",
        "sh",
        "-c",
        "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_REVISION",
    ];
    t.same_watch(&show)
}

fn leases(t: &mut Twins) -> anyhow::Result<()> {
    t.same(&["lease", "list"])?;
    t.same(&["lease", "timetolive", "77777"])?;
    t.same(&["lease", "revoke", "77777"])?;
    t.same(&["lease", "keep-alive", "--once", "77777"])?;
    let ours = t.ours.clone();
    let id = lease_id(&ours)?;
    ensure!(ours.ok(&["put", "leased", "v", &format!("--lease={id}")])? == "OK\n");
    ensure!(ours.ok(&["lease", "list"])?.contains(&id), "lease list lacks {id}");
    let ttl = ours.ok(&["lease", "timetolive", &id, "--keys"])?;
    ensure!(
        ttl.contains("granted with TTL(500s)") && ttl.contains("attached keys([leased])"),
        "lease timetolive: {ttl}"
    );
    let alive = ours.ok(&["lease", "keep-alive", "--once", &id])?;
    ensure!(alive == format!("lease {id} keepalived with TTL(500)\n"), "lease keep-alive: {alive}");
    ensure!(ours.ok(&["lease", "revoke", &id])? == format!("lease {id} revoked\n"));
    ensure!(ours.ok(&["get", "leased"])?.is_empty(), "the key outlives its lease");
    ensure!(ours.ok(&["lease", "timetolive", &id])? == format!("lease {id} already expired\n"));
    t.checks += 7;
    // Real etcd gets the same number of revisions, so that the next comparisons hold.
    let reference = t.reference.clone();
    let other = lease_id(&reference)?;
    reference.ok(&["put", "leased", "v", &format!("--lease={other}")])?;
    reference.ok(&["lease", "revoke", &other])?;
    t.same(&["get", "leased", "-w", "json"])?;
    Ok(())
}

/// Grants a lease in the words of a person: `lease 32695410dcc0ca06 granted with TTL(500s)`.
fn lease_id(ctl: &Etcdctl) -> anyhow::Result<String> {
    let text = ctl.ok(&["lease", "grant", "500"])?;
    ensure!(text.ends_with(" granted with TTL(500s)\n"), "lease grant: {text}");
    Ok(text.split(' ').nth(1).with_context(|| format!("lease grant: {text}"))?.to_owned())
}

fn maintenance(t: &mut Twins) -> anyhow::Result<()> {
    // The ids of leases differ; compaction takes the values that carry them out of the hash.
    t.same(&["put", "last", "1"])?;
    let revision = t.ours_json(&["get", "h"])?["header"]["revision"].as_i64().context("revision")?;
    t.same(&["compaction", "--physical", &revision.to_string()])?;
    t.same(&["put", "last", "2"])?;
    let hash = |ctl: &Etcdctl| -> anyhow::Result<Value> { Ok(ctl.json(&["endpoint", "hashkv"])?[0]["HashKV"].clone()) };
    let (ours, reference) = (hash(&t.ours)?, hash(&t.reference)?);
    for field in ["hash", "compact_revision", "hash_revision"] {
        ensure!(
            !ours[field].is_null() && ours[field] == reference[field],
            "hashkv {field}: {} and {}",
            ours[field],
            reference[field]
        );
    }
    let status = t.ours_json(&["endpoint", "status"])?;
    let status = &status[0]["Status"];
    ensure!(status["leader"] == status["header"]["member_id"], "endpoint status: {status}");
    for field in [
        "version",
        "dbSize",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "dbSizeInUse",
        "storageVersion",
        "dbSizeQuota",
    ] {
        ensure!(!status[field].is_null(), "endpoint status has no {field}: {status}");
    }
    ensure!(
        t.ours.ok(&["endpoint", "health"])?.contains("is healthy: successfully committed proposal"),
        "endpoint health"
    );
    ensure!(t.ours.ok(&["endpoint", "health", "--cluster"])?.contains("is healthy"), "endpoint health --cluster");
    let members = t.ours_json(&["member", "list"])?;
    ensure!(members["members"].as_array().is_some_and(|list| list.len() == 1), "member list: {members}");
    ensure!(t.ours.ok(&["member", "list"])?.contains(", started, default, http://127.0.0.1:"), "member list in words");
    t.same(&["alarm", "list"])?;
    t.same(&["alarm", "disarm"])?;
    ensure!(t.ours.ok(&["defrag"])?.starts_with("Finished defragmenting etcd member"), "defrag");
    t.same(&["get", "", "--prefix", "-w", "json"])?;
    let again = hash(&t.ours)?;
    ensure!(again["hash"] == ours["hash"], "defrag changes the hash");
    t.checks += 8;
    Ok(())
}

/// Locks and elections of etcdctl are made of leases, transactions and watches.
fn coordination(t: &mut Twins) -> anyhow::Result<()> {
    t.same(&["lock", "mutex", "echo", "held"])?;
    let mut holder = t.ours.spawn(t.lab, "holder.out", &["lock", "mutex"])?;
    holder.wait_output("the lock", Duration::from_secs(10), |text| text.starts_with("mutex/"))?;
    let mut waiter = t.ours.spawn(t.lab, "waiter.out", &["lock", "mutex", "echo", "mine-now"])?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(waiter.output().is_empty(), "two hold one lock: {}", waiter.output());
    holder.terminate()?;
    waiter.wait_output("the lock to be passed on", Duration::from_secs(15), |text| text == "mine-now\n")?;
    let mut leader = t.ours.spawn(t.lab, "leader.out", &["elect", "office", "candidate"])?;
    leader.wait_output("the election", Duration::from_secs(10), |text| text.contains("candidate"))?;
    let mut observer = t.ours.spawn(t.lab, "observer.out", &["elect", "-l", "office"])?;
    observer.wait_output("the leader", Duration::from_secs(10), |text| text.contains("candidate"))?;
    t.checks += 4;
    Ok(())
}
