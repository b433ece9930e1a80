//! A schedule that has a backup made every minute, and each restored, while the members of its cluster come, go, restart and lead.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use garboard_lab::Families;
use garboard_lab::Lab as Kubernetes;
use serde_json::Value;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::archive;
use super::archive::Backup;
use super::archive::CLAIM;
use super::archive::condition;
use super::archive::files;
use super::matrix::meanwhile;
use super::store;
use super::store::EXAMPLE as CLUSTER;
use super::store::LIMIT;
use super::store::Store;
use super::store::volume_folder;
use super::traffic::Traffic;
use crate::process::run;
use crate::scenario::Lab;
use crate::wait::until;

pub const EXAMPLE: &str = include_str!("../../../../../docs/examples/backup-schedule.yaml");
/// What the example asks for.
const NIGHTLY: &str = "0 3 * * *";
const KEPT: usize = 2;
/// So many minutes are watched,
const MINUTES: u64 = 3;
/// and so many where everything is taken.
const MINUTES_FULL: u64 = 10;
/// Between two looks at the backups: one stays much longer after it has ended.
const LOOK: Duration = Duration::from_millis(500);
/// After a minute has begun, for an operator to make a backup that it should not.
const GRACE_S: u64 = 20;

pub fn operator_schedule(lab: &Lab) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    let cluster = bring_up(lab, 3, Families::Ipv4, &mut steps)?;
    store::install(lab, &cluster)?;
    cluster.apply(CLUSTER)?;
    let mut store = Store::new(&cluster, "store");
    store.wait(3)?;
    store.start_client()?;
    archive::make_claim(&cluster, CLAIM)?;
    let traffic = Traffic::start(&cluster, lab.seed)?;
    steps.held("three members, and clients");

    accepted_and_refused(&cluster, &mut steps)?;
    let every = Schedule::ask(&cluster, "every", CLAIM, "")?;
    let stuck = Schedule::ask(&cluster, "stuck", "missing", "startingDeadlineSeconds: 10")?;
    let first = every.first()?;
    let last = first + if lab.full { MINUTES_FULL } else { MINUTES } - 1;
    let seen = Mutex::new(BTreeMap::new());
    meanwhile(LOOK, || every.note(&seen), || change(&mut store, last))?;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let minutes = every.judge(first..=last, &seen)?;
    steps.held(&format!("members came, went, restarted and led: {minutes}"));

    every.retains(&seen, &mut steps)?;
    every.suspend()?;
    let (suspended, left) = (now_s()?, every.rests(&mut steps)?);
    stuck.forbids(&mut steps)?;
    traffic.judged(&store, &mut steps)?;
    // In the minute that comes nothing is to happen: there is nothing else to wait for.
    let over = (suspended / 60 + 1) * 60 + GRACE_S;
    until("end of a minute", Duration::from_secs(60 + GRACE_S), || Ok((now_s()? >= over).then_some(())))?;
    ensure!(every.names()? == left, "suspended with {left:?}, then {:?}", every.names()?);
    steps.held("suspended: a minute later there is no other backup");
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}

/// The example as it is, and one that means no time.
fn accepted_and_refused(cluster: &Kubernetes, steps: &mut Steps) -> anyhow::Result<()> {
    cluster.apply(EXAMPLE)?;
    let nightly = Schedule { cluster, name: "nightly" };
    let next = nightly.until("its next time", |status| {
        let ready = condition(status, "Ready")["status"] == "True";
        status["nextScheduleTime"].as_str().filter(|_| ready).map(str::to_owned)
    })?;
    ensure!(next.ends_with("T03:00:00Z"), "{NIGHTLY} comes next at {next}");
    cluster.apply(&EXAMPLE.replace(NIGHTLY, "61 3 * * *"))?;
    nightly.until("word on what is wrong", |status| {
        let ready = condition(status, "Ready");
        (ready["status"] == "False" && ready["message"].as_str()?.contains("61")).then_some(())
    })?;
    cluster.kubectl_ok(&["delete", "etcdbackupschedule", "nightly", "--timeout=60s"])?;
    steps.held("the example knows its next time; one of a minute that there is not is refused");
    Ok(())
}

/// The example under another name and on another claim, for every minute. It ends with its spec, and that with `more`.
fn manifest(name: &str, claim: &str, more: &str) -> String {
    let often = EXAMPLE.replace(NIGHTLY, r#""* * * * *""#).replace("keepLast: 7", &format!("keepLast: {KEPT}"));
    format!("{}  {more}\n", often.replace("nightly", name).replace(CLAIM, claim))
}

/// All that a cluster goes through in its ordinary life, again and again until a minute is over.
fn change(store: &mut Store<'_>, last: u64) -> anyhow::Result<()> {
    let mut round = 0;
    while round < 4 || now_s()? / 60 <= last {
        match round % 4 {
            0 => store.scale(5)?,
            1 => store.patch(&format!(r#"{{"spec":{{"config":{{"snapshotCount":{}}}}}}}"#, 20_000 + round))?,
            2 => store.scale(3)?,
            _ => move_leader(store)?,
        }
        store.wait(if round % 4 < 2 { 5 } else { 3 })?;
        store.check()?;
        round += 1;
    }
    store.scale(3)?;
    store.wait(3)
}

/// Who is to give leadership up must be asked itself: the client is told of all members for that.
fn move_leader(store: &Store<'_>) -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(&store.etcdctl_ok(&["member", "list", "--write-out=json"])?)?;
    let members = list["members"].as_array().context("no members")?;
    let urls: Vec<&str> = members.iter().filter_map(|member| member["clientURLs"][0].as_str()).collect();
    store.start_client_of(&urls.join(","))?;
    let all: Value = serde_json::from_str(&store.etcdctl_ok(&["endpoint", "status", "--write-out=json"])?)?;
    let leader = all[0]["Status"]["leader"].as_u64().context("no leader")?;
    let ids = members.iter().filter_map(|member| member["ID"].as_u64());
    let other = ids.into_iter().find(|id| *id != leader).context("nobody else")?;
    store.etcdctl_ok(&["move-leader", &format!("{other:x}")])?;
    store.start_client()
}

/// What was last seen of each backup: its status, by its name.
type Seen = BTreeMap<String, Value>;

/// An EtcdBackupSchedule of the namespace `default`.
struct Schedule<'a> {
    cluster: &'a Kubernetes,
    name: &'static str,
}

// === impl Schedule ===

impl<'a> Schedule<'a> {
    fn ask(cluster: &'a Kubernetes, name: &'static str, claim: &str, more: &str) -> anyhow::Result<Self> {
        cluster.apply(&manifest(name, claim, more))?;
        Ok(Self { cluster, name })
    }

    fn object(&self) -> anyhow::Result<Value> {
        let get = ["get", "etcdbackupschedule", self.name, "--output=json"];
        Ok(serde_json::from_str(&self.cluster.kubectl_ok(&get)?)?)
    }

    fn until<T>(&self, what: &str, told: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        until(&format!("{what} of {}", self.name), LIMIT, || Ok(told(&self.object()?["status"]))).with_context(|| {
            self.cluster.kubectl_ok(&["describe", "etcdbackupschedule", self.name]).unwrap_or_default()
        })
    }

    /// The first minute that it is for.
    fn first(&self) -> anyhow::Result<u64> {
        let made = self.object()?["metadata"]["creationTimestamp"].as_str().context("made at no time")?.to_owned();
        Ok(date(&made, "+%s")?.parse::<u64>()? / 60 + 1)
    }

    /// Its backups, the oldest first.
    fn backups(&self) -> anyhow::Result<Vec<(String, Value)>> {
        let labelled = format!("--selector=garboard.dev/schedule={}", self.name);
        let list: Value =
            serde_json::from_str(&self.cluster.kubectl_ok(&["get", "etcdbackups", "--output=json", &labelled])?)?;
        let items = list["items"].as_array().context("no items")?.iter();
        let named = |item: &Value| Some((item["metadata"]["name"].as_str()?.to_owned(), item["status"].clone()));
        let mut backups: Vec<_> = items.filter_map(named).collect();
        // As many digits in each.
        backups.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(backups)
    }

    fn names(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.backups()?.into_iter().map(|(name, _)| name).collect())
    }

    /// The names of those that have not ended.
    fn active(&self) -> anyhow::Result<Vec<String>> {
        let active = self.object()?["status"]["active"].clone();
        Ok(active.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    fn note(&self, seen: &Mutex<Seen>) -> anyhow::Result<()> {
        let backups = self.backups()?;
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(backups);
        Ok(())
    }

    fn suspend(&self) -> anyhow::Result<()> {
        let patch = r#"--patch={"spec":{"suspend":true}}"#;
        self.cluster.kubectl_ok(&["patch", "etcdbackupschedule", self.name, "--type=merge", patch]).map(drop)
    }

    /// Whether an Event says that there is no backup for a minute.
    fn tells_of(&self, minute: u64) -> anyhow::Result<bool> {
        let time = date(&format!("@{}", minute * 60), "+%Y-%m-%dT%H:%M:%SZ")?;
        let of_it =
            format!("--field-selector=involvedObject.kind=EtcdBackupSchedule,involvedObject.name={}", self.name);
        let said = self.cluster.kubectl_ok(&["get", "events", &of_it, "--output=jsonpath={.items[*].message}"])?;
        Ok(said.contains(&format!("no backup for {time}")))
    }

    /// Each minute has its backup, which was restored, or it is said why it has none; a word on them.
    fn judge(&self, minutes: RangeInclusive<u64>, seen: &Seen) -> anyhow::Result<String> {
        let (mut made, mut skipped) = (0, 0);
        for minute in minutes {
            let name = format!("{}-{minute}", self.name);
            // One before it may have taken longer than its minute.
            let is_made = until(&format!("{name}, or word on why there is none"), LIMIT, || {
                let is_made = seen.contains_key(&name) || self.names()?.contains(&name);
                Ok((is_made || self.tells_of(minute)?).then_some(is_made))
            })?;
            if !is_made {
                skipped += 1;
                continue;
            }
            made += 1;
            let ended = seen.get(&name).filter(|status| status["phase"] == "Succeeded").cloned();
            let status = ended.map_or_else(|| Backup::new(self.cluster, &name).succeeded(), Ok)?;
            ensure!(status["verification"]["result"] == "Passed", "{name}: {status:#}");
        }
        ensure!(made > skipped, "{made} backups, and {skipped} minutes without one");
        Ok(format!("{made} minutes with a backup that was restored, {skipped} with a word on why there is none"))
    }

    /// The newest are kept, and their files; the others have gone with theirs.
    fn retains(&self, seen: &Seen, steps: &mut Steps) -> anyhow::Result<()> {
        let kept = until("backups of which no more than wanted are kept", LIMIT, || {
            let backups = self.backups()?;
            let ended = backups.iter().all(|(_, status)| status["phase"] == "Succeeded");
            let names: Vec<String> = backups.into_iter().map(|(name, _)| name).collect();
            let all: BTreeSet<&String> = seen.keys().chain(&names).collect();
            let are_newest = all.into_iter().rev().take(KEPT).rev().eq(&names);
            Ok((ended && are_newest).then_some(names))
        })
        .with_context(|| format!("{:?}", self.names()))?;
        ensure!(seen.len() > kept.len(), "there were never more than {kept:?}");
        steps.held(&format!("the newest {KEPT} are kept"));
        Ok(())
    }

    /// Waits until none is under way; the names of those that there are.
    fn rests(&self, steps: &mut Steps) -> anyhow::Result<Vec<String>> {
        let backups = until("end of all backups", LIMIT, || {
            let backups = self.backups()?;
            let ended = backups.iter().all(|(_, status)| status["phase"] == "Succeeded");
            Ok((ended && self.active()?.is_empty()).then_some(backups))
        })?;
        let bytes: i64 = backups.iter().filter_map(|(_, status)| status["sizeBytes"].as_i64()).sum();
        let newest = backups.last().context("nothing is kept")?.0.clone();
        self.until("word on what is kept", |status| {
            (status["retainedBytes"] == bytes && status["lastBackup"] == newest).then_some(())
        })?;
        let there = files(&volume_folder(self.cluster, CLAIM)?.join("store"))?;
        let of_them = backups.iter().flat_map(|(name, _)| [format!("{name}.db.zst"), format!("{name}.json")]);
        ensure!(there == of_them.collect::<Vec<_>>(), "of these backups there are {there:?}: {:?}", self.names());
        steps.held("the volume has the files of those that are kept, and no others");
        Ok(backups.into_iter().map(|(name, _)| name).collect())
    }

    /// One that does not end has none beside it and none after it, and that is said; when it can, it ends.
    fn forbids(&self, steps: &mut Steps) -> anyhow::Result<()> {
        let names = self.names()?;
        let [name] = &names[..] else { bail!("not one backup that is stuck, but {names:?}") };
        let minute: u64 = name.rsplit('-').next().unwrap_or_default().parse().with_context(|| name.clone())?;
        until("word on the minute after it", LIMIT, || Ok(self.tells_of(minute + 1)?.then_some(())))?;
        ensure!(self.active()? == [name.as_str()], "active: {:?}, stuck: {name}", self.active());
        self.suspend()?;
        archive::make_claim(self.cluster, "missing")?;
        Backup::new(self.cluster, name).succeeded()?;
        until("end of what was stuck", LIMIT, || Ok(self.active()?.is_empty().then_some(())))?;
        steps.held("while one waits for its claim there is no other, and that is said; with the claim it is taken");
        Ok(())
    }
}

/// Seconds since 1970.
fn now_s() -> anyhow::Result<u64> {
    Ok(UNIX_EPOCH.elapsed()?.as_secs())
}

/// A time as `date` writes it.
fn date(of: &str, format: &str) -> anyhow::Result<String> {
    let output = run(Command::new("date").args(["--utc", &format!("--date={of}"), format]))?.success("date")?;
    Ok(output.stdout.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_becomes_one_for_every_minute() {
        let read = |text: &str| serde_yaml_ng::from_str::<Value>(text).unwrap();
        let example = read(EXAMPLE);
        assert_eq!((&example["metadata"]["name"], &example["spec"]["schedule"]), (&"nightly".into(), &NIGHTLY.into()));
        let other = read(&manifest("other", "elsewhere", "startingDeadlineSeconds: 10"));
        assert_eq!(other["metadata"]["name"], "other");
        let mut spec = example["spec"].clone();
        spec["schedule"] = "* * * * *".into();
        spec["retention"]["keepLast"] = KEPT.into();
        spec["template"]["destination"]["volume"]["claimName"] = "elsewhere".into();
        spec["startingDeadlineSeconds"] = 10.into();
        assert_eq!(other["spec"], spec);
    }
}
