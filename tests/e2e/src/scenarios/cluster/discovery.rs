//! The initial cluster from SRV records. The members have an `/etc/resolv.conf` of their own, in a mount namespace, which names a DNS server on
//! an address of loopback; everything else is the machine's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::ensure;

use super::Cluster;
use super::PATIENCE;
use crate::certs::Authority;
use crate::process::Process;
use crate::scenario::Lab;
use crate::server::Member;

/// Runs a program where `/etc/resolv.conf` is another file: the first argument, before the program.
const WITH_RESOLV_CONF: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// A DNS server that serves what stands in a file.
struct Dns<'a> {
    lab: &'a Lab,
    records: PathBuf,
    resolv_conf: PathBuf,
    server: Process,
}

// === impl Dns ===

impl<'a> Dns<'a> {
    fn start(lab: &'a Lab) -> anyhow::Result<Self> {
        // All of 127.0.0.0/8 is loopback: port 53 of an address that no other run has.
        let id = std::process::id();
        let address = format!("127.{}.{}.{}", 100 + (id >> 16) % 100, (id >> 8) % 256, id % 256);
        let (records, resolv_conf) = (lab.path("records"), lab.path("resolv.conf"));
        std::fs::write(&records, "")?;
        std::fs::write(&resolv_conf, format!("nameserver {address}\noptions timeout:5 attempts:2\n"))?;
        let mut command = Command::new(lab.tool("dns"));
        command.arg(format!("{address}:53")).arg(&records);
        let mut server = Process::spawn(command, &lab.path("dns.log"))?;
        server.wait_output("readiness", PATIENCE, |text| text.contains("serving"))?;
        Ok(Self { lab, records, resolv_conf, server })
    }

    fn serve(&self, records: &[String]) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.records, records.join("\n"))?)
    }

    /// A member that finds its cluster by `domain`, and says that it is reached at `host`.
    fn member(&self, name: &str, host: &str, domain: &str) -> anyhow::Result<Member> {
        let mut member = Member::new(self.lab, &format!("{name}.{domain}"))?.with(format!("--discovery-srv={domain}"));
        member.name = name.to_owned();
        let shell = ["unshare", "--mount", "--propagation=private", "sh", "-c", WITH_RESOLV_CONF];
        member.prefix = shell.iter().map(|word| (*word).to_owned()).collect();
        member.prefix.push(self.resolv_conf.display().to_string());
        // Nothing beside the records.
        member.initial_cluster = Some(String::new());
        let advertised = format!("http://{host}:{}", port(&member)?);
        Ok(member.with(format!("--initial-advertise-peer-urls={advertised}")))
    }
}

fn port(member: &Member) -> anyhow::Result<&str> {
    member.peer_url.rsplit(':').next().context("no port")
}

fn host_record(name: &str) -> String {
    format!("A {name} 127.0.0.1")
}

fn service_record(service: &str, target: &str, port: &str) -> String {
    format!("SRV {service} 0 0 {port} {target}")
}

/// Three members found a cluster by what DNS says, without TLS and with it; what is wrong is told.
pub fn discovery_srv(lab: &Lab) -> anyhow::Result<u32> {
    let dns = Dns::start(lab)?;
    let checks = plain(lab, &dns)? + named_tls(lab, &dns)? + refusals(&dns)?;
    drop(dns);
    Ok(checks)
}

fn plain(lab: &Lab, dns: &Dns<'_>) -> anyhow::Result<u32> {
    let mut members = Vec::new();
    // One knows itself by its address: its record is known by what it leads to.
    for (name, host) in [("a", "a.plain.test"), ("b", "b.plain.test"), ("c", "127.0.0.1")] {
        members.push(dns.member(name, host, "plain.test")?);
    }
    let mut hosts: Vec<String> =
        ["a", "b", "c"].iter().map(|name| host_record(&format!("{name}.plain.test"))).collect();
    let mut records = hosts.clone();
    for member in &members {
        let target = format!("{}.plain.test", member.name);
        records.push(service_record("_etcd-server._tcp.plain.test", &target, port(member)?));
    }
    // More than fits a datagram, of hosts that are not there.
    for n in 0..20 {
        let target = format!("a-host-that-is-not-there-{n}.plain.test");
        records.push(service_record("_etcd-server._tcp.plain.test", &target, "2380"));
    }
    dns.serve(&records)?;
    let mut cluster = Cluster::start_all(lab, members)?;
    ensure!(dns.server.output().contains("by TCP"), "the answer came by datagram: {}", dns.server.output());
    let mut checks = 1 + cluster.check_writes("found by DNS")?;
    let mut listed: Vec<(String, String)> = cluster
        .member_list()?
        .iter()
        .map(|member| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
            (text(&member["name"]), text(&member["peerURLs"][0]))
        })
        .collect();
    listed.sort();
    let mut expected = Vec::new();
    for server in &cluster.servers {
        let name = &server.member.name;
        expected.push((name.clone(), format!("http://{name}.plain.test:{}", port(&server.member)?)));
    }
    expected.sort();
    ensure!(listed == expected, "members {listed:?}, expected {expected:?}");

    // Who has a log does not ask again.
    hosts.push(String::new());
    dns.serve(&hosts)?;
    let at = cluster.position("b")?;
    let member = cluster.kill(at)?;
    cluster.add(&member)?;
    checks += 2 + cluster.check_writes("started again without the records")?;
    Ok(checks + cluster.check_hashes()?)
}

fn named_tls(lab: &Lab, dns: &Dns<'_>) -> anyhow::Result<u32> {
    let authority = Authority::new(&lab.dir, "discovery-ca")?;
    let (mut members, mut records) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let host = format!("{name}.tls.test");
        let identity = authority.issue_for_host(&lab.dir, &host)?;
        let mut member = dns.member(name, &host, "tls.test")?.with("--discovery-srv-name=east");
        for arg in &mut member.extra {
            *arg = arg.replace("=http:", "=https:");
        }
        let member = member.with_peer_tls(&identity, &authority);
        records.push(host_record(&host));
        records.push(service_record("_etcd-server-ssl-east._tcp.tls.test", &host, port(&member)?));
        // The same service without its name is another cluster's.
        records.push(service_record("_etcd-server-ssl._tcp.tls.test", &host, "1"));
        members.push(member);
    }
    dns.serve(&records)?;
    let cluster = Cluster::start_all(lab, members)?;
    let checks = cluster.check_writes("found by DNS, with TLS")?;
    for member in cluster.member_list()? {
        let url = member["peerURLs"][0].as_str().unwrap_or("");
        ensure!(url.starts_with("https://") && url.contains(".tls.test:"), "{member}");
    }
    Ok(checks + 1 + cluster.check_hashes()?)
}

fn refusals(dns: &Dns<'_>) -> anyhow::Result<u32> {
    let mut checks = 0;
    let nobody = dns.member("nobody", "127.0.0.1", "none.test")?;
    let other = dns.member("other", "127.0.0.1", "wrong.test")?;
    let mut both = dns.member("both", "127.0.0.1", "wrong.test")?;
    both.initial_cluster = None;
    dns.serve(&[host_record("x.wrong.test"), service_record("_etcd-server._tcp.wrong.test", "x.wrong.test", "1")])?;
    for (member, expected) in [
        (nobody, &["error setting up initial cluster", "_etcd-server-ssl._tcp.none.test", "no such host"][..]),
        (other, &["error setting up initial cluster", "cannot find local etcd member", "in SRV records"]),
        (both, &["multiple discovery or bootstrap flags are set", "discovery-srv"]),
    ] {
        let (status, output) = member.refusal()?;
        ensure!(!status.success(), "{} starts", member.name);
        for text in expected {
            ensure!(output.contains(text), "{}: {text:?} is not said:\n{output}", member.name);
        }
        checks += 1;
    }
    Ok(checks)
}
