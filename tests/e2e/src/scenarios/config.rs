//! How a member is told what to do: flags, environment, config file, URLs.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use serde_json::Value;

use crate::etcdctl::Etcdctl;
use crate::process::Process;
use crate::process::run;
use crate::scenario::Lab;
use crate::server::Member;
use crate::server::free_port;
use crate::server::wait_ready;

pub fn flags(lab: &Lab) -> anyhow::Result<u32> {
    let version = run(Command::new(&lab.server).arg("--version"))?.success("--version")?.stdout;
    let first = version.lines().next().unwrap_or_default();
    ensure!(first.starts_with("etcd Version: 3."), "--version prints {first:?}");
    ensure!(run(Command::new(&lab.server).arg("-h"))?.status.success(), "-h fails");

    let (status, text) = Member::new(lab, "unknown")?.with("--no-such-flag=1").refusal()?;
    ensure!(
        status.code() == Some(2) && text.contains("flag provided but not defined"),
        "unknown flag: {status}, {text}"
    );
    let (status, _) = Member::new(lab, "number")?.with("--quota-backend-bytes=many").refusal()?;
    ensure!(status.code() == Some(2), "a number that is none: {status}");
    let (status, _) = Member::new(lab, "election")?.with("--heartbeat-interval=500").refusal()?;
    ensure!(status.code() == Some(1), "an election timeout below five heartbeats: {status}");
    let (status, text) = Member::new(lab, "cluster")?.with("--initial-cluster=other=http://127.0.0.1:1").refusal()?;
    ensure!(status.code() == Some(1), "an initial cluster without the own name: {status}, {text}");

    environment(lab)?;
    config_file(lab)?;

    let server = Member::new(lab, "signals")?.start()?;
    Etcdctl::new(lab, server.url()).ok(&["put", "k", "v"])?;
    let member = server.member.clone();
    let status = server.terminate()?;
    ensure!(status.signal() == Some(15), "SIGTERM ends the member with {status}, not by the signal");
    let again = member.start()?;
    ensure!(Etcdctl::new(lab, again.url()).ok(&["get", "k"])? == "k\nv\n", "the value is gone after a clean stop");
    Ok(12)
}

/// The lines that people and tools look for, each a JSON object.
pub fn logs(lab: &Lab) -> anyhow::Result<u32> {
    let member =
        Member::new(lab, "server")?.with("--warning-unary-request-duration=1ns").with("--warning-apply-duration=1ns");
    let server = member.start()?;
    let ctl = Etcdctl::new(lab, server.url());
    ctl.ok(&["put", "k", "v"])?;
    ctl.ok(&["compact", "2", "--physical"])?;
    ctl.ok(&["defrag"])?;
    ctl.ok(&["snapshot", "save", &lab.path("saved.db").display().to_string()])?;
    let log = server.member.log().to_owned();
    server.terminate()?;
    let lines: Vec<Value> = std::fs::read_to_string(log)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
        .collect::<anyhow::Result<_>>()?;
    for line in &lines {
        let whole = ["level", "ts", "caller", "msg"].iter().all(|key| line[key].is_string());
        ensure!(whole, "level, ts, caller or msg is missing: {line}");
    }
    let wanted = [
        ("info", "elected leader"),
        ("info", "ready to serve client requests"),
        ("info", "serving client traffic insecurely; this is strongly discouraged!"),
        ("warn", "request stats"),
        ("warn", "apply request took too long"),
        ("info", "finished scheduled compaction"),
        ("info", "starting defragment"),
        ("info", "finished defragment"),
        ("info", "sending database snapshot to client"),
        ("info", "successfully sent database snapshot to client"),
        ("info", "received signal; shutting down"),
        ("info", "closing etcd server"),
        ("info", "closed etcd server"),
    ];
    for (level, text) in wanted {
        let said = |line: &Value| line["level"] == level && line["msg"].as_str().is_some_and(|msg| msg.contains(text));
        ensure!(lines.iter().any(said), "no line of level {level} says {text:?}");
    }
    Ok(u32::try_from(wanted.len())?)
}

fn environment(lab: &Lab) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}", free_port()?);
    let command = |peer: &str| {
        let mut command = Command::new(&lab.server);
        command
            .env("ETCD_NAME", "from-env")
            .env("ETCD_DATA_DIR", lab.path("env.data"))
            .env("ETCD_LISTEN_CLIENT_URLS", &url)
            .env("ETCD_ADVERTISE_CLIENT_URLS", &url)
            .env("ETCD_LISTEN_PEER_URLS", peer)
            .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer)
            .env("ETCD_INITIAL_CLUSTER", format!("from-env={peer}"))
            .env("ETCD_QUOTA_BACKEND_BYTES", "123456789")
            .env("ETCD_LOG_LEVEL", "");
        command
    };
    let peer = format!("http://127.0.0.1:{}", free_port()?);
    let mut process = Process::spawn(command(&peer), &lab.path("env.log"))?;
    wait_ready(&mut process)?;
    let ctl = Etcdctl::new(lab, &url);
    let members = ctl.json(&["member", "list"])?;
    ensure!(members["members"][0]["name"] == "from-env", "the name in the environment is not used: {members}");
    let status = ctl.json(&["endpoint", "status"])?;
    ensure!(status[0]["Status"]["dbSizeQuota"] == 123_456_789, "the quota in the environment is not used: {status}");
    process.kill()?;

    let mut both = command(&peer);
    both.arg("--name=from-flag");
    let mut process = Process::spawn(both, &lab.path("env-and-flag.log"))?;
    let status = process.wait(Duration::from_secs(30))?;
    ensure!(status.code() == Some(1), "a flag that is also in the environment: {status}");
    ensure!(
        process.output().contains("conflicting environment variable"),
        "and it does not say why: {}",
        process.output()
    );
    Ok(())
}

fn config_file(lab: &Lab) -> anyhow::Result<()> {
    let (url, peer) = (format!("http://127.0.0.1:{}", free_port()?), format!("http://127.0.0.1:{}", free_port()?));
    let file = lab.path("config.yaml");
    let yaml = format!(
        "# as etcd.conf.yml\nname: 'from-file'\ndata-dir: {}\nlisten-client-urls: {url}\nadvertise-client-urls: {url}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: from-file={peer}\n\
         quota-backend-bytes: 987654321\nwatch-progress-notify-interval: 500000000\nclient-transport-security:\n  client-cert-auth: false\n",
        lab.path("file.data").display()
    );
    std::fs::write(&file, yaml)?;
    let mut command = Command::new(&lab.server);
    command.arg("--config-file").arg(&file).arg("--name=ignored").env("ETCD_QUOTA_BACKEND_BYTES", "1");
    let mut process = Process::spawn(command, &lab.path("file.log"))?;
    wait_ready(&mut process)?;
    let ctl = Etcdctl::new(lab, &url);
    let members = ctl.json(&["member", "list"])?;
    ensure!(members["members"][0]["name"] == "from-file", "flags beside a config file must be ignored: {members}");
    let status = ctl.json(&["endpoint", "status"])?;
    ensure!(status[0]["Status"]["dbSizeQuota"] == 987_654_321, "the quota in the file is not used: {status}");
    process.kill()
}

pub fn listen(lab: &Lab) -> anyhow::Result<u32> {
    // As Kubernetes' own integration tests start etcd: a unix socket for clients, port 0 for peers, single dashes, JSON on stderr.
    let socket = format!("unix://{}", lab.path("etcd.sock").display());
    let mut command = Command::new(&lab.server);
    command
        .args(["-data-dir", &lab.path("unix.data").display().to_string(), "-listen-client-urls", &socket])
        .args(["-advertise-client-urls", "http://127.0.0.111:0"])
        .args(["-listen-peer-urls", "http://127.0.0.1:0", "-log-level", "info"]);
    let mut process = Process::spawn(command, &lab.path("unix.log"))?;
    wait_ready(&mut process)?;
    for line in process.output().lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("a log line is not JSON: {line}"))?;
        for field in ["level", "ts", "msg"] {
            ensure!(entry[field].is_string(), "a log line has no {field}: {line}");
        }
    }
    ensure!(Etcdctl::new(lab, &socket).ok(&["put", "k", "v"])? == "OK\n");
    process.kill()?;

    let member = Member::new(lab, "zero")?.at("http://127.0.0.1:0");
    let server = member.start()?;
    let ports = listening_ports(server.process.id())?;
    let answers = ports.iter().filter(|port| {
        let endpoint = format!("http://127.0.0.1:{port}");
        Etcdctl::new(lab, &endpoint)
            .run(&["--command-timeout=3s", "get", "k"])
            .is_ok_and(|output| output.status.success())
    });
    ensure!(answers.count() == 1, "one of the ports {ports:?} serves clients");
    drop(server);

    let several = Member::new(lab, "several")?;
    let (first, second) = (several.client_url.clone(), format!("http://127.0.0.1:{}", free_port()?));
    let sock = format!("unix://{}", lab.path("second.sock").display());
    let server = several
        .at(format!("{first},{second}"))
        .with(format!("--listen-client-urls={first},{second},{sock}"))
        .start()?;
    for url in [&first, &second, &sock] {
        Etcdctl::new(lab, url).ok(&["put", "k", url])?;
    }
    drop(server);

    let wal = lab.path("wal-elsewhere");
    let member = Member::new(lab, "wal")?.with(format!("--wal-dir={}", wal.display()));
    let server = member.start()?;
    Etcdctl::new(lab, server.url()).ok(&["put", "k", "elsewhere"])?;
    server.kill()?;
    ensure!(std::fs::read_dir(&wal)?.count() > 0, "{} is empty", wal.display());
    ensure!(!member.data_dir.join("member/wal").exists(), "the log is in the data directory in spite of --wal-dir");
    let server = member.start()?;
    ensure!(Etcdctl::new(lab, server.url()).ok(&["get", "k"])? == "k\nelsewhere\n", "the value is gone");
    Ok(8)
}

/// The TCP ports that a process listens on, from the kernel's tables.
fn listening_ports(id: u32) -> anyhow::Result<Vec<u16>> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{id}/fd"))? {
        let link = std::fs::read_link(entry?.path()).unwrap_or_default();
        if let Some(inode) = link.to_string_lossy().strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            sockets.push(inode.to_owned());
        }
    }
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let listening = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (*fields.get(3)? == "0A" && sockets.iter().any(|inode| Some(&inode.as_str()) == fields.get(9))).then_some(port)
    });
    Ok(listening.collect())
}

pub fn auto_compaction(lab: &Lab) -> anyhow::Result<u32> {
    // By revision: etcd looks every five minutes, which is too long for a test; ours and etcd look at once for short periods.
    let server = Member::new(lab, "periodic")?
        .with("--auto-compaction-mode=periodic")
        .with("--auto-compaction-retention=1s")
        .start()?;
    let ctl = Etcdctl::new(lab, server.url());
    for i in 0..5 {
        ctl.ok(&["put", "k", &i.to_string()])?;
    }
    let start = Instant::now();
    loop {
        let output = ctl.run(&["get", "k", "--rev=2"])?;
        if output.stderr.contains("required revision has been compacted") {
            break;
        }
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "revision 2 is still there after 20 s of a retention of 1 s"
        );
        // Periodic compaction keeps the revision of a moment ago, so that there must be newer ones.
        ctl.ok(&["put", "k", "again"])?;
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(ctl.ok(&["get", "k", "--print-value-only"])?.trim() == "again");
    let (status, _) = Member::new(lab, "nonsense")?.with("--auto-compaction-mode=sometimes").refusal()?;
    ensure!(!status.success(), "an unknown mode is accepted");
    let server = Member::new(lab, "revision")?
        .with("--auto-compaction-mode=revision")
        .with("--auto-compaction-retention=1000")
        .start()?;
    Etcdctl::new(lab, server.url()).ok(&["put", "k", "v"])?;
    Ok(3)
}
