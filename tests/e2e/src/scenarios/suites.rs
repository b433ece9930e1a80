//! The suites written in Go, which use etcd's own client.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::certs::Authority;
use crate::output;
use crate::process::Process;
use crate::process::tail;
use crate::scenario::Lab;
use crate::server::Member;

/// The progress tests wait for notifications; etcd's own default is ten minutes.
const PROGRESS: &str = "--watch-progress-notify-interval=500ms";

pub fn plain(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.with(PROGRESS).start()?;
    suite(lab, "clientv3", &[("E2E_ENDPOINT", server.url())])
}

pub fn tls(lab: &Lab) -> anyhow::Result<u32> {
    let authority = Authority::new(&lab.dir, "ca")?;
    let server_id = authority.issue(&lab.dir, "server", "server", None)?;
    let client_id = authority.issue(&lab.dir, "client", "client", None)?;
    let server = Member::new(lab, "server")?.with(PROGRESS).with_tls(&server_id, &authority).start()?;
    let path = |p: &std::path::Path| p.display().to_string();
    suite(
        lab,
        "clientv3",
        &[
            ("E2E_ENDPOINT", server.url()),
            ("E2E_CACERT", &path(&authority.cert)),
            ("E2E_CERT", &path(&client_id.cert)),
            ("E2E_KEY", &path(&client_id.key)),
        ],
    )
}

pub fn unix(lab: &Lab) -> anyhow::Result<u32> {
    let url = format!("unix://{}", lab.path("etcd.sock").display());
    let server = Member::new(lab, "server")?.with(PROGRESS).at(url).start()?;
    suite(lab, "clientv3", &[("E2E_ENDPOINT", server.url())])
}

pub fn wire(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.start()?;
    suite(lab, "wire", &[("E2E_ENDPOINT", server.url())])
}

pub fn quota(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.with("--quota-backend-bytes=16777216").start()?;
    suite(lab, "quota", &[("E2E_ENDPOINT", server.url())])
}

pub fn differential(lab: &Lab) -> anyhow::Result<u32> {
    Ok(requests_differential(lab)? + streams_differential(lab)?)
}

/// The suite starts the servers itself: a sequence that fails is tried again on fresh ones.
fn requests_differential(lab: &Lab) -> anyhow::Result<u32> {
    let (server, reference) = (lab.server.display().to_string(), lab.tool("etcd").display().to_string());
    let (dir, seed) = (lab.dir.display().to_string(), lab.seed.to_string());
    suite(
        lab,
        "differential",
        &[("E2E_SERVER", &server), ("E2E_REFERENCE", &reference), ("E2E_DIR", &dir), ("E2E_SEED", &seed)],
    )
}

/// RangeStream, which etcd has since 3.7.
fn streams_differential(lab: &Lab) -> anyhow::Result<u32> {
    let mut server = Member::new(lab, "server")?;
    let mut reference = Member::reference(lab, "reference")?;
    reference.program = lab.tool("etcd37");
    if lab.control {
        server.program = lab.tool("etcd37");
    }
    let (server, reference) = (server.start()?, reference.start()?);
    let seed = lab.seed.to_string();
    let environment =
        [("E2E_ENDPOINT", server.url()), ("E2E_REFERENCE_ENDPOINT", reference.url()), ("E2E_SEED", &seed)];
    suite(lab, "differential37", &environment)
}

pub fn rangestream(lab: &Lab) -> anyhow::Result<u32> {
    let mut member = Member::new(lab, "server")?;
    if lab.control {
        member.program = lab.tool("etcd37");
    }
    let server = member.start()?;
    suite(lab, "rangestream", &[("E2E_ENDPOINT", server.url())])
}

pub fn kill(lab: &Lab) -> anyhow::Result<u32> {
    let (server, dir) = (lab.server.display().to_string(), lab.dir.display().to_string());
    let (seed, seconds) = (lab.seed.to_string(), lab.kill_seconds.to_string());
    suite(lab, "crash", &[("E2E_SERVER", &server), ("E2E_DIR", &dir), ("E2E_SEED", &seed), ("E2E_SECONDS", &seconds)])
}

/// The same on a disk whose unsynced bytes die with the process. That it would find a lost write is shown first, by a member that never
/// syncs.
pub fn kill_unsynced(lab: &Lab) -> anyhow::Result<u32> {
    let server = lab.example("volatile")?.display().to_string();
    let (dir, careless) = (lab.path("kept").display().to_string(), lab.path("careless").display().to_string());
    for dir in [&dir, &careless] {
        std::fs::create_dir_all(dir)?;
    }
    let seed = lab.seed.to_string();
    let environment = |dir, seconds| {
        [("E2E_SERVER", server.as_str()), ("E2E_DIR", dir), ("E2E_SEED", &seed), ("E2E_SECONDS", seconds)]
    };
    let never_syncs = [&environment(careless.as_str(), "8")[..], &[("ETCD_UNSAFE_NO_FSYNC", "true")]].concat();
    match suite(lab, "crash", &never_syncs) {
        Err(error) if ["is lost", "was acknowledged"].iter().any(|loss| format!("{error:#}").contains(loss)) => {}
        Err(error) => return Err(error.context("without syncs it must fail by a lost write, not by something else")),
        Ok(_) => bail!("a member that never syncs lost nothing: this test sees nothing"),
    }
    let seconds = (lab.kill_seconds / 6).max(8).to_string();
    Ok(1 + suite(lab, "crash", &environment(dir.as_str(), &seconds))?)
}

/// More than is allowed of everything.
pub fn limits(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.with("--max-concurrent-streams=200").start()?;
    let pid = server.process.id().to_string();
    suite(lab, "limits", &[("E2E_ENDPOINT", server.url()), ("E2E_PID", &pid)])
}

/// A store of 2 GiB and its snapshot.
pub fn large(lab: &Lab) -> anyhow::Result<u32> {
    let server = Member::new(lab, "server")?.with("--quota-backend-bytes=8589934592").start()?;
    let pid = server.process.id().to_string();
    suite(lab, "large", &[("E2E_ENDPOINT", server.url()), ("E2E_PID", &pid), ("E2E_MIB", "2048")])
}

/// Runs one compiled suite and returns how many of its tests passed.
fn suite(lab: &Lab, name: &str, environment: &[(&str, &str)]) -> anyhow::Result<u32> {
    let log = lab.path(&format!("{name}.out"));
    let mut command = Command::new(lab.tool(&format!("{name}.test")));
    command.args(["-test.v", "-test.timeout=15m"]).envs(environment.iter().copied()).current_dir(&lab.dir);
    let mut process = Process::spawn(command, &log)?;
    let status = process.wait(Duration::from_secs(16 * 60))?;
    let output = process.output();
    for line in output.lines().filter(|line| {
        line.contains("E2E_SEED=")
            || line.contains("acknowledged writes")
            || line.contains("events compared")
            || line.contains("MiB of memory")
    }) {
        output::line(format_args!("    {}", line.trim()));
    }
    let count = |mark: &str| output.lines().filter(|line| line.starts_with(mark)).count();
    let failures: Vec<&str> = output.lines().filter(|line| line.trim_start().starts_with("--- FAIL: ")).collect();
    if !status.success() || !failures.is_empty() {
        bail!("{} of {} tests failed, see {}\n{}", count("--- FAIL: "), count("--- "), log.display(), excerpt(&output));
    }
    match u32::try_from(count("--- PASS: "))? {
        0 => bail!("no test ran, see {}", log.display()),
        passed => Ok(passed),
    }
}

/// The failed tests with what they said, without the passed ones.
fn excerpt(output: &str) -> String {
    let mut said = false;
    let keep = |line: &&str| {
        // A message goes on in lines that are indented further than its first one.
        said = line.contains("_test.go:")
            || line.contains("--- FAIL")
            || line.starts_with("panic")
            || line.contains("target.go:")
            || (said && line.starts_with("        "));
        said
    };
    let lines: Vec<&str> = output.lines().filter(keep).collect();
    if lines.is_empty() {
        tail(output)
    } else {
        lines.iter().take(60).map(|line| line.chars().take(500).collect::<String>() + "\n").collect()
    }
}
