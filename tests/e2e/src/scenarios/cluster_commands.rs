//! etcdctl on three members, each answer compared with that of three members of real etcd.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::etcdctl::Etcdctl;
use crate::output;
use crate::process::Output;
use crate::process::Process;
use crate::process::run;
use crate::process::tail;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::Server;
use crate::wait::PATIENCE;
use crate::wait::until;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// What may differ between two sound clusters: sizes, and the log's positions.
const VARIES: [&str; 7] = ["dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "raftTerm", "raft_term", "took"];
/// What `check perf` judges.
const VERDICTS: [&str; 3] = ["Throughput ", "lowest request ", "tddev "];
const PERF_WRITES_MIN: u64 = 1000;
const PERF_LIMIT: Duration = Duration::from_secs(180);

/// One of two clusters that get the same commands.
struct Side<'a> {
    cluster: Cluster<'a>,
    /// Ids and URLs, by what stands for them in a comparison.
    known: BTreeMap<String, String>,
    /// Added later.
    joining: Member,
}

struct Twins<'a> {
    lab: &'a Lab,
    ours: Side<'a>,
    reference: Side<'a>,
    checks: u32,
}

/// Whom a command asks.
#[derive(Clone, Copy)]
enum At {
    One(usize),
    All,
}

pub fn etcdctl_cluster(lab: &Lab) -> anyhow::Result<u32> {
    let measured = Cluster::start(lab, &["perf-a", "perf-b", "perf-c"], &[])?;
    // It goes on for a minute whatever it finds: the comparisons are made meanwhile.
    let perf = measured.all().spawn(lab, "check-perf.out", &["check", "perf", "--load=s"])?;

    let ours = side(lab, |name| Member::new(lab, name))?;
    let reference = side(lab, |name| Member::reference(lab, &format!("reference-{name}")))?;
    let mut twins = Twins { lab, ours, reference, checks: 0 };
    twins.both(|side| side.lead("a"))?;
    endpoints(&mut twins)?;
    leader(&mut twins)?;
    upkeep(&mut twins)?;
    members(&mut twins)?;
    Ok(twins.checks + check_perf(perf, &measured)? + check_datascale(&measured)?)
}

fn side<'a>(lab: &'a Lab, member: impl Fn(&str) -> anyhow::Result<Member>) -> anyhow::Result<Side<'a>> {
    let named = |name: &str| member(name).map(|member| member.named(name));
    let members = NAMES.map(named).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let joining = named("d")?.with("--initial-cluster-state=existing");
    let known = members.iter().chain([&joining]).flat_map(addresses).collect();
    let mut side = Side { cluster: Cluster::found(lab, members)?, known, joining };
    // A member is listed with its client URLs once it has published them.
    until("client URLs of all", PATIENCE, || {
        Ok(side.cluster.member_list()?.iter().all(|member| member["clientURLs"].is_array()).then_some(()))
    })?;
    side.learn_ids()?;
    Ok(side)
}

/// Its URLs, by the names that stand for them.
fn addresses(member: &Member) -> Vec<(String, String)> {
    let both = [("client", &member.client_url), ("peer", &member.peer_url)];
    both.map(|(what, url)| (url.clone(), format!("<{what} URL of {}>", member.name))).to_vec()
}

// === impl Side ===

impl Side<'_> {
    fn ctl(&self, at: At) -> Etcdctl {
        match at {
            At::One(at) => self.cluster.ctl(at),
            At::All => self.cluster.all(),
        }
    }

    fn learn_ids(&mut self) -> anyhow::Result<()> {
        let list = self.cluster.ctl(0).json(&["member", "list"])?;
        let cluster = list["header"]["cluster_id"].as_u64().context("no cluster id")?;
        self.knows_id(cluster, "<id of the cluster>".to_owned());
        for member in list["members"].as_array().context("no members")? {
            let url = member["peerURLs"][0].as_str().context("no peer URL")?;
            let name = self.known.get(url).with_context(|| format!("nobody is at {url}"))?.clone();
            self.knows_id(member["ID"].as_u64().context("no id")?, format!("<id of {name}>"));
        }
        Ok(())
    }

    fn knows_id(&mut self, id: u64, name: String) {
        self.known.insert(format!("{id:x}"), name.clone());
        self.known.insert(id.to_string(), name);
    }

    fn id(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("{:x}", self.cluster.id(self.cluster.position(name)?)?))
    }

    /// As the others list it.
    fn id_of_joining(&self) -> anyhow::Result<String> {
        let known = format!("<id of <peer URL of {}>>", self.joining.name);
        let of = |(text, name): (&String, &String)| {
            (*name == known && u64::from_str_radix(text, 16).is_ok()).then(|| text.clone())
        };
        self.known.iter().find_map(of).context("the joining member has no id yet")
    }

    fn lead(&mut self, name: &str) -> anyhow::Result<()> {
        if self.cluster.leader()? != self.cluster.position(name)? {
            self.cluster.all().ok(&["move-leader", &self.id(name)?])?;
        }
        ensure!(self.cluster.leader()? == self.cluster.position(name)?, "{name} does not lead");
        Ok(())
    }

    /// Exit code and output with names for ids and URLs, without what may differ, and in an order of its own: members are listed by id.
    fn normal(&self, output: &Output) -> String {
        let errors = output.stderr.lines().filter(|line| !line.starts_with('{'));
        let mut lines: Vec<String> = output.stdout.lines().chain(errors).map(|line| self.line(line)).collect();
        lines.sort();
        format!("exit {:?}\n{}", output.status.code(), lines.join("\n"))
    }

    fn line(&self, line: &str) -> String {
        if let Ok(value @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(line) {
            return self.value(value).to_string();
        }
        let line = line.split(" took ").next().unwrap_or(line).split(": took").next().unwrap_or(line);
        // etcdctl fills ids up with spaces, to 16 characters.
        let words = line.split([',', '"', ' ']).filter(|word| !word.is_empty());
        let mut words: Vec<String> = words.map(|word| self.word(word)).collect();
        words.sort();
        words.join(" ")
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.into_iter().filter(|(name, _)| !VARIES.contains(&name.as_str()));
                Value::Object(kept.map(|(name, value)| (name, self.value(value))).collect())
            }
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().map(|item| self.value(item)).collect();
                items.sort_by_key(Value::to_string);
                Value::Array(items)
            }
            Value::String(text) => Value::String(self.word(&text)),
            Value::Number(number) => {
                self.known.get(&number.to_string()).map_or(Value::Number(number), |name| Value::String(name.clone()))
            }
            other => other,
        }
    }

    /// A word, which may be `name=URL` or an id in brackets.
    fn word(&self, word: &str) -> String {
        // Backwards, what begins with another comes before it.
        self.known.iter().rev().fold(word.to_owned(), |word, (text, name)| word.replace(text.as_str(), name))
    }
}

// === impl Twins ===

impl Twins<'_> {
    fn both(&mut self, mut each: impl FnMut(&mut Side) -> anyhow::Result<()>) -> anyhow::Result<()> {
        each(&mut self.reference).context("real etcd")?;
        each(&mut self.ours)
    }

    /// A change of the membership, which is refused until the members have seen each other for a while.
    fn same_once_healthy(&mut self, args: impl Fn(&Side) -> anyhow::Result<Vec<String>>) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        self.both(|side| {
            let args = args(side)?;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = until("learner in sync", PATIENCE, || {
                let output = side.cluster.change(0, &args)?;
                Ok((!output.stderr.contains("in sync with leader")).then_some(output))
            })?;
            side.learn_ids()?;
            answers.push((args.join(" "), side.normal(&output)));
            Ok(())
        })?;
        let [(_, want), (args, got)] = &answers[..] else { unreachable!("two sides") };
        ensure!(got == want, "etcdctl {args}\n--- got\n{got}\n--- real etcd\n{want}");
        self.checks += 1;
        Ok(())
    }

    fn same(&mut self, at: At, args: &[&str]) -> anyhow::Result<String> {
        self.same_each(at, |_| Ok(args.iter().map(|arg| (*arg).to_owned()).collect()))
    }

    /// Runs on both, with arguments that name each one's own members, and returns what ours printed.
    fn same_each(&mut self, at: At, args: impl Fn(&Side) -> anyhow::Result<Vec<String>>) -> anyhow::Result<String> {
        let answers = [&self.ours, &self.reference].map(|side| {
            let args = args(side)?;
            let output = side.ctl(at).run(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
            anyhow::Ok((args, side.normal(&output), output))
        });
        let [ours, reference] = answers;
        let ((args, got, output), (_, want, _)) = (ours?, reference?);
        ensure!(got == want, "etcdctl {}\n--- got\n{got}\n--- real etcd\n{want}", args.join(" "));
        self.checks += 1;
        Ok(output.stdout + &output.stderr)
    }
}

fn endpoints(t: &mut Twins) -> anyhow::Result<()> {
    for key in ["x", "y", "z"] {
        t.same(At::All, &["put", key, "1"])?;
    }
    t.same(At::One(1), &["del", "y"])?;
    t.same(At::One(2), &["member", "list"])?;
    t.same(At::One(2), &["member", "list", "-w", "json"])?;
    t.same(At::One(2), &["member", "list", "--consistency=s"])?;
    for how in [&["--cluster"][..], &[]] {
        let at = if how.is_empty() { At::All } else { At::One(1) };
        let said = t.same(at, &[&["endpoint", "health"], how].concat())?;
        ensure!(said.matches("is healthy").count() == 3, "{said}");
        t.same(at, &[&["endpoint", "health", "-w", "json"], how].concat())?;
        t.same(at, &[&["endpoint", "status", "-w", "json"], how].concat())?;
        // The same store has the same hash, whoever holds it.
        let said = t.same(at, &[&["endpoint", "hashkv"], how].concat())?;
        ensure!(said.lines().count() == 3, "{said}");
        t.same(at, &[&["endpoint", "hashkv", "-w", "json"], how].concat())?;
    }
    t.same(At::One(2), &["endpoint", "hashkv", "--cluster", "--rev=3", "-w", "json"])?;
    t.same(At::One(2), &["endpoint", "hashkv", "--cluster", "--rev=99"])?;
    Ok(())
}

fn leader(t: &mut Twins) -> anyhow::Result<()> {
    let to = |name: &'static str| move |side: &Side| Ok(vec!["move-leader".to_owned(), side.id(name)?]);
    t.same_each(At::All, to("b"))?;
    t.both(|side| {
        ensure!(side.cluster.leader()? == side.cluster.position("b")?, "b does not lead");
        Ok(())
    })?;
    t.same_each(At::One(0), to("c"))?;
    t.same(At::All, &["move-leader", "1234"])?;
    t.same(At::All, &["move-leader", "no-id"])?;
    t.same_each(At::All, to("b"))?;
    t.both(|side| side.lead("a"))
}

fn upkeep(t: &mut Twins) -> anyhow::Result<()> {
    t.same(At::All, &["alarm", "list"])?;
    t.same(At::One(1), &["alarm", "disarm"])?;
    t.same(At::One(1), &["defrag", "--cluster"])?;
    t.same(At::All, &["defrag"])?;
    // Of a follower.
    let file = t.lab.path("follower.snapshot").display().to_string();
    t.same(At::One(1), &["snapshot", "save", &file])?;
    let mut status = Command::new(t.lab.tool("etcdutl"));
    let status = run(status.args(["snapshot", "status", &file, "-w", "json"]))?.success("etcdutl snapshot status")?;
    let status: Value = serde_json::from_str(&status.stdout)?;
    let revision = t.ours.cluster.ctl(0).json(&["get", "x"])?["header"]["revision"].clone();
    ensure!(status["revision"] == revision, "{status} of a store at revision {revision}");
    t.checks += 1;
    // A snapshot has one source.
    t.same(At::All, &["snapshot", "save", &file])?;
    Ok(())
}

/// A learner is added, told of, started, promoted and removed.
fn members(t: &mut Twins) -> anyhow::Result<()> {
    let words = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let peer = |side: &Side, name: &str| -> anyhow::Result<String> {
        Ok(side.cluster.servers[side.cluster.position(name)?].member.peer_url.clone())
    };
    t.same(At::One(0), &["member", "add", "d"])?;
    t.same(At::One(0), &["member", "add", "d", "--peer-urls=nonsense"])?;
    t.same_once_healthy(|side| Ok(words(&["member", "add", "d", &format!("--peer-urls={}", peer(side, "b")?)])))?;
    t.same(At::One(1), &["member", "remove", "1234"])?;
    t.same(At::One(1), &["member", "promote", "1234"])?;
    t.same(At::One(1), &["member", "update", "1234", "--peer-urls=http://127.0.0.1:1"])?;
    t.same_each(At::One(2), |side| Ok(words(&["member", "promote", &side.id("b")?])))?;
    t.same_each(At::One(2), |side| {
        Ok(words(&["member", "update", &side.id("b")?, &format!("--peer-urls={}", peer(side, "c")?)]))
    })?;
    t.same_each(At::One(2), |side| {
        Ok(words(&["member", "update", &side.id("b")?, &format!("--peer-urls={}", peer(side, "b")?)]))
    })?;

    t.same_once_healthy(|side| {
        Ok(words(&["member", "add", "d", "--learner", &format!("--peer-urls={}", side.joining.peer_url)]))
    })?;
    let list = ["member", "list", "-w", "json"];
    t.same(At::One(0), &["member", "list"])?;
    t.same(At::One(0), &list)?;
    t.same(At::One(0), &["member", "add", "e", "--learner", "--peer-urls=http://127.0.0.1:1"])?;
    let promote = |side: &Side| Ok(words(&["member", "promote", &side.id_of_joining()?]));
    t.same_each(At::One(0), promote)?;

    t.both(|side| {
        let entries = format!("{},{}", side.cluster.entries(), side.joining.entry());
        side.joining.initial_cluster = Some(entries);
        let (process, member) = (side.joining.spawn()?, side.joining.clone());
        side.cluster.servers.push(Server { process, member });
        until("the key at the learner", PATIENCE, || {
            let read = side.cluster.ctl(3).run(&["get", "x", "--consistency=s"])?;
            Ok(read.stdout.starts_with('x').then_some(()))
        })?;
        // etcd writes its version into a new database after a while.
        until("storage version", PATIENCE, || {
            let status = side.cluster.ctl(3).json(&["endpoint", "status"])?;
            Ok((status[0]["Status"]["storageVersion"] == "3.6.0").then_some(()))
        })
    })?;
    for args in [
        &["get", "x", "--consistency=s"][..],
        &["get", "x"],
        &["put", "x", "2"],
        &["lease", "grant", "10"],
        &["member", "list", "--consistency=s"],
        &["member", "list"],
        &["endpoint", "status", "-w", "json"],
        &["endpoint", "hashkv", "-w", "json"],
        &["defrag"],
        &["alarm", "list"],
    ] {
        t.same(At::One(3), args)?;
    }
    t.same(At::One(0), &["endpoint", "status", "--cluster", "-w", "json"])?;
    t.same_each(At::All, |side| Ok(words(&["move-leader", &side.id("d")?])))?;
    t.same_once_healthy(promote)?;
    t.same_each(At::One(0), promote)?;
    t.same(At::One(3), &["put", "x", "2"])?;
    t.same(At::One(3), &list)?;
    t.same(At::One(3), &["endpoint", "health", "--cluster"])?;
    let remove = |side: &Side| Ok(words(&["member", "remove", &side.id_of_joining()?]));
    t.same_once_healthy(remove)?;
    t.same_each(At::One(0), |_| Ok(words(&list)))?;
    t.both(|side| {
        side.cluster.servers.pop().context("no fourth member")?.process.wait(PATIENCE)?;
        Ok(())
    })?;
    t.same(At::One(0), &["put", "x", "3"])?;
    Ok(())
}

/// Whether a machine is fast enough is not asked here: that every write is acknowledged, and that nothing is left.
fn check_perf(mut perf: Process, cluster: &Cluster<'_>) -> anyhow::Result<u32> {
    let status = perf.wait(PERF_LIMIT)?;
    let output = perf.output();
    let verdict = |of: &&str| output.find(*of).map(|at| output[at..].lines().next().unwrap_or_default());
    let verdicts: Vec<&str> = VERDICTS.iter().filter_map(verdict).collect();
    ensure!(verdicts.len() == VERDICTS.len(), "check perf ended with {status}: {}", tail(&output));
    for failure in ["too many errors", "ERROR(", "Cleanup failed"] {
        ensure!(!output.contains(failure), "check perf: {}", tail(&output));
    }
    output::line(format_args!("    check perf: {}", verdicts.join("; ")));
    let left = cluster.ctl(1).json(&["get", "/etcdctl-check-perf/", "--prefix", "--keys-only"])?;
    ensure!(left["kvs"].is_null(), "check perf leaves keys");
    // One revision for each write.
    let revision = left["header"]["revision"].as_u64().context("no revision")?;
    ensure!(revision > PERF_WRITES_MIN, "check perf wrote {revision} times in a minute");
    Ok(3 + cluster.check_hashes()?)
}

fn check_datascale(cluster: &Cluster<'_>) -> anyhow::Result<u32> {
    let said = cluster.ctl(0).run(&["check", "datascale", "--load=s", "--auto-compact", "--auto-defrag"])?;
    let said = said.success("etcdctl check datascale")?.stdout;
    ensure!(said.contains("PASS: Approximate system memory used"), "{}", tail(&said));
    let left = cluster.ctl(2).json(&["get", "/etcdctl-check-datascale/", "--prefix", "--keys-only"])?;
    ensure!(left["kvs"].is_null(), "check datascale leaves keys");
    Ok(2 + cluster.check_hashes()?)
}
