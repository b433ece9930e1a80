//! Members of one cluster, and what every scenario asks of them.

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::certs::Authority;
use crate::certs::Identity;
use crate::etcdctl::Etcdctl;
use crate::process::Output;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::Server;
use crate::server::wait_ready;
use crate::wait::PATIENCE;
use crate::wait::until;

/// Members that found a cluster together.
pub struct Cluster<'a> {
    lab: &'a Lab,
    pub servers: Vec<Server>,
    /// What clients trust and show.
    tls: Option<(&'a Authority, &'a Identity)>,
}

// === impl Cluster ===

impl<'a> Cluster<'a> {
    pub fn start(lab: &'a Lab, names: &[&str], extra: &[&str]) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for name in names {
            let mut member = Member::new(lab, name)?.named(name);
            member.extra.extend(extra.iter().map(|arg| (*arg).to_owned()));
            members.push(member);
        }
        Self::found(lab, members)
    }

    /// The members' first start.
    pub fn found(lab: &'a Lab, mut members: Vec<Member>) -> anyhow::Result<Self> {
        let all = members.iter().map(Member::entry).collect::<Vec<_>>().join(",");
        members.iter_mut().for_each(|member| member.initial_cluster = Some(all.clone()));
        Self::start_all(lab, members)
    }

    /// Starts members of one cluster together.
    pub fn start_all(lab: &'a Lab, members: Vec<Member>) -> anyhow::Result<Self> {
        let started = members.into_iter().map(|member| Ok((member.spawn()?, member)));
        let started = started.collect::<anyhow::Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for (mut process, member) in started {
            wait_ready(&mut process)?;
            servers.push(Server { process, member });
        }
        Ok(Self { lab, servers, tls: None })
    }

    /// Its clients talk TLS.
    pub fn tls(mut self, authority: &'a Authority, client: &'a Identity) -> Self {
        self.tls = Some((authority, client));
        self
    }

    fn etcdctl(&self, endpoints: &str) -> Etcdctl {
        let ctl = Etcdctl::new(self.lab, endpoints);
        match self.tls {
            Some((authority, client)) => ctl.tls(authority, Some(client)),
            None => ctl,
        }
    }

    /// etcdctl at one member.
    pub fn ctl(&self, at: usize) -> Etcdctl {
        self.etcdctl(self.servers[at].url())
    }

    /// etcdctl that knows all members.
    pub fn all(&self) -> Etcdctl {
        let urls = self.servers.iter().map(Server::url).collect::<Vec<_>>().join(",");
        self.etcdctl(&urls)
    }

    pub fn position(&self, name: &str) -> anyhow::Result<usize> {
        self.servers.iter().position(|server| server.member.name == name).context("no such member")
    }

    /// The place of the leader among those that run, once all of them agree on it.
    pub fn leader(&self) -> anyhow::Result<usize> {
        until("a leader that all agree on", PATIENCE, || {
            let mut leaders = Vec::new();
            let mut ids = Vec::new();
            for at in 0..self.servers.len() {
                let Ok(status) = self.ctl(at).json(&["endpoint", "status"]) else { return Ok(None) };
                let status = &status[0]["Status"];
                leaders.push(status["leader"].as_u64().unwrap_or(0));
                ids.push(status["header"]["member_id"].as_u64().unwrap_or(0));
            }
            let agreed = leaders.windows(2).all(|pair| pair[0] == pair[1]);
            Ok(leaders.first().filter(|_| agreed).and_then(|leader| ids.iter().position(|id| id == leader)))
        })
    }

    pub fn id(&self, at: usize) -> anyhow::Result<u64> {
        let status = self.ctl(at).json(&["endpoint", "status"])?;
        status[0]["Status"]["header"]["member_id"].as_u64().context("no member id")
    }

    /// Kills a member and returns how to start it again.
    pub fn kill(&mut self, at: usize) -> anyhow::Result<Member> {
        self.servers.remove(at).kill()
    }

    pub fn add(&mut self, member: &Member) -> anyhow::Result<()> {
        self.servers.push(member.start()?);
        Ok(())
    }

    /// Asks for a change of the membership; it is refused until the members have seen each other for a while.
    pub fn change(&self, at: usize, args: &[&str]) -> anyhow::Result<Output> {
        until("change of the membership", PATIENCE, || {
            let output = self.ctl(at).run(args)?;
            Ok((!output.stderr.contains("etcdserver: unhealthy cluster")).then_some(output))
        })
    }

    /// Writes at one member and reads at every one, linearizably.
    pub fn check_writes(&self, tag: &str) -> anyhow::Result<u32> {
        for at in 0..self.servers.len() {
            let value = format!("{tag}-{at}");
            self.ctl(at).ok(&["put", "key", &value]).with_context(|| format!("{tag}: put at {}", self.name(at)))?;
            for reader in 0..self.servers.len() {
                let read = self.ctl(reader).ok(&["get", "key", "--print-value-only"])?;
                ensure!(read.trim() == value, "{tag}: {} reads {read:?} after {value}", self.name(reader));
            }
        }
        Ok(1)
    }

    pub fn name(&self, at: usize) -> &str {
        &self.servers[at].member.name
    }

    /// Every member has the same keys and the same history.
    pub fn check_hashes(&self) -> anyhow::Result<u32> {
        until("equal hashes", PATIENCE, || {
            let revision = self.ctl(0).json(&["endpoint", "status"])?[0]["Status"]["header"]["revision"].clone();
            let rev = format!("--rev={revision}");
            let mut hashes = Vec::new();
            for at in 0..self.servers.len() {
                let Ok(hashed) = self.ctl(at).json(&["endpoint", "hashkv", &rev]) else { return Ok(None) };
                hashes.push(hashed[0]["HashKV"]["hash"].clone());
            }
            ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "hashes at {revision} differ: {hashes:?}");
            Ok(Some(()))
        })?;
        Ok(1)
    }

    pub fn member_list(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.ctl(0).json(&["member", "list"])?;
        list["members"].as_array().cloned().context("no members")
    }

    /// The members as an initial cluster names them.
    pub fn entries(&self) -> String {
        self.servers.iter().map(|server| server.member.entry()).collect::<Vec<_>>().join(",")
    }
}
