//! etcd's own command line client, with the certificates of the run.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;
use garboard_e2e::certs::Identity;
use garboard_e2e::process::Output;
use garboard_e2e::process::Process;
use garboard_e2e::process::run;
use serde_json::Value;

#[derive(Clone)]
pub struct Ctl {
    program: PathBuf,
    authority: PathBuf,
    identity: Identity,
}

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub cluster_id: u64,
    pub member_id: u64,
    /// 0 without a leader.
    pub leader: u64,
    pub term: u64,
    pub revision: u64,
    pub raft_index: u64,
}

/// What a member list says of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: u64,
    /// Empty until it has started.
    pub name: String,
    pub peer_url: String,
    pub learner: bool,
}

// === impl Ctl ===

impl Ctl {
    pub fn new(program: PathBuf, authority: PathBuf, identity: Identity) -> Self {
        Self { program, authority, identity }
    }

    pub fn authority(&self) -> &Path {
        &self.authority
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Runs one command against `url` and waits at most `seconds` for its answer.
    pub fn run(&self, url: &str, seconds: u32, args: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.command(url, seconds, args))
    }

    /// Starts what runs on.
    pub fn spawn(&self, url: &str, seconds: u32, args: &[&str], log: &Path) -> anyhow::Result<Process> {
        Process::spawn(self.command(url, seconds, args), log)
    }

    fn command(&self, url: &str, seconds: u32, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // The environment of whoever runs this must not change what etcdctl does.
        command
            .env_clear()
            .env("HOME", "/")
            .env("PATH", "/usr/bin:/bin")
            .arg(format!("--endpoints={url}"))
            .arg(format!("--command-timeout={seconds}s"))
            .arg(format!("--dial-timeout={seconds}s"))
            .arg(format!("--cacert={}", self.authority.display()))
            .arg(format!("--cert={}", self.identity.cert.display()))
            .arg(format!("--key={}", self.identity.key.display()))
            .args(args);
        command
    }

    /// Runs what must succeed and returns what it printed.
    pub fn ok(&self, url: &str, seconds: u32, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.run(url, seconds, args)?.success(&format!("etcdctl {}", args.join(" ")))?.stdout)
    }

    pub fn json(&self, url: &str, seconds: u32, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.ok(url, seconds, &[args, &["-w", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("etcdctl {}: {text}", args.join(" ")))
    }

    pub fn status(&self, url: &str, seconds: u32) -> anyhow::Result<Status> {
        status(&self.json(url, seconds, &["endpoint", "status"])?)
    }

    pub fn members(&self, url: &str, seconds: u32) -> anyhow::Result<Vec<Listed>> {
        members(&self.json(url, seconds, &["member", "list"])?)
    }

    /// The alarms that are raised, by their names.
    pub fn alarms(&self, url: &str, seconds: u32) -> anyhow::Result<Vec<String>> {
        let text = self.ok(url, seconds, &["alarm", "list"])?;
        Ok(text.lines().filter_map(|line| line.split("alarm:").nth(1)).map(|name| name.trim().to_owned()).collect())
    }

    /// The hash of all keys up to `revision`, with the revision at which the member has compacted.
    pub fn hash(&self, url: &str, seconds: u32, revision: u64) -> anyhow::Result<(u64, i64)> {
        let answer = self.json(url, seconds, &["endpoint", "hashkv", "--rev", &revision.to_string()])?;
        let hash = &answer[0]["HashKV"];
        let compacted = hash["compact_revision"].as_i64().unwrap_or_default();
        Ok((hash["hash"].as_u64().with_context(|| format!("no hash in {answer}"))?, compacted))
    }
}

fn status(answer: &Value) -> anyhow::Result<Status> {
    let status = &answer[0]["Status"];
    let header = &status["header"];
    ensure!(header.is_object(), "no status in {answer}");
    // What is zero is left out.
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    Ok(Status {
        cluster_id: number(&header["cluster_id"]),
        member_id: number(&header["member_id"]),
        leader: number(&status["leader"]),
        term: number(&status["raftTerm"]),
        revision: number(&header["revision"]),
        raft_index: number(&status["raftIndex"]),
    })
}

fn members(answer: &Value) -> anyhow::Result<Vec<Listed>> {
    let members = answer["members"].as_array().with_context(|| format!("no members in {answer}"))?;
    members
        .iter()
        .map(|member| {
            Ok(Listed {
                id: member["ID"].as_u64().with_context(|| format!("no id in {member}"))?,
                name: member["name"].as_str().unwrap_or_default().to_owned(),
                peer_url: member["peerURLs"][0].as_str().unwrap_or_default().to_owned(),
                learner: member["isLearner"].as_bool().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_read_and_zeros_are_left_out() {
        let answer = json!([{"Endpoint": "https://10.0.0.1:2379", "Status": {
            "header": {"cluster_id": 17_237_436_991_929_493_444_u64, "member_id": 9_372_538_179_322_589_801_u64,
                       "revision": 7, "raft_term": 3},
            "version": "3.6.16", "dbSize": 20480, "raftIndex": 12, "raftTerm": 3, "raftAppliedIndex": 11}}]);
        let status = status(&answer).unwrap();
        assert_eq!((status.cluster_id, status.member_id), (17_237_436_991_929_493_444, 9_372_538_179_322_589_801));
        assert_eq!((status.leader, status.term, status.revision), (0, 3, 7));
        assert_eq!(status.raft_index, 12);
        assert!(super::status(&json!([])).is_err());
    }

    #[test]
    fn a_member_list_is_read() {
        let answer = json!({"header": {}, "members": [
            {"ID": 18_249_187_646_912_138_824_u64, "name": "m0", "peerURLs": ["https://10.0.0.10:2380"], "clientURLs": ["x"]},
            {"ID": 5, "peerURLs": ["https://10.0.0.11:2380"], "isLearner": true}]});
        let read = members(&answer).unwrap();
        assert_eq!(read[0].id, 18_249_187_646_912_138_824);
        let joining =
            Listed { id: 5, name: String::new(), peer_url: "https://10.0.0.11:2380".to_owned(), learner: true };
        assert_eq!(read[1], joining);
        assert!(members(&json!({})).is_err());
    }
}
