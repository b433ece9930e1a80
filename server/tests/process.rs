//! The binary as a process: what it prints, how it exits, how it ends.

use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use garboard_runtime::spawn;
use garboard_storage::disk::RealDisk;
use garboard_storage::disk::write_atomic;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_garboard");
const PATIENCE: Duration = Duration::from_secs(60);
const READY: &str = "ready to serve client requests";

fn command() -> Command {
    let mut command = Command::new(BINARY);
    // The environment of whoever runs the tests must not reach in.
    command.env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A member that is killed when the test is done with it.
struct Member {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Member {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        let read =
            move || BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok());
        spawn::thread("stderr", read).expect("a thread");
        Self { child, lines }
    }

    /// The lines up to the first with this message.
    fn until(&self, message: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error} after {seen:#?}"));
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let found = line["msg"] == message;
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("the signal is sent");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member in `dir` on a socket there, so that tests never meet on a port.
fn member_in(dir: &Path) -> Command {
    let socket = format!("unix://{}", dir.join("client.sock").display());
    let mut command = command();
    command.current_dir(dir).args(["--name=a", "--data-dir=data"]);
    command.arg(format!("--listen-client-urls={socket}")).arg(format!("--advertise-client-urls={socket}"));
    // The tests run beside each other.
    command.arg("--listen-peer-urls=http://127.0.0.1:0");
    command
}

#[test]
fn version_is_four_lines_for_tools() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert!(lines[0].starts_with("etcd Version: 3.6."), "{lines:?}");
    assert_eq!(lines.len(), 4);
    assert!(output.stderr.is_empty());
}

#[test]
fn help_is_a_success_and_names_the_flags() {
    let output = run(&["-h"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("--listen-client-urls"));
    assert!(text(&output.stderr).starts_with("Usage:"));
}

#[test]
fn faults_in_the_command_line_exit_as_etcd_does() {
    let output = run(&["--nope"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("flag provided but not defined: -nope\nUsage:"));
    assert_eq!(run(&["--feature-gates=Nope=true"]).status.code(), Some(2));
    assert_eq!(run(&["serve"]).status.code(), Some(1));
    assert_eq!(run(&["gateway", "start"]).status.code(), Some(1));
    assert_eq!(run(&["wal"]).status.code(), Some(2));
    assert_eq!(run(&["wal", "dump", "/nowhere/at/all"]).status.code(), Some(1));
}

#[test]
fn what_cannot_be_started_with_is_one_line_of_json_and_exit_1() {
    let flag_and_variable = command().arg("--name=a").env("ETCD_NAME", "b").output().expect("the binary runs");
    for (output, expected) in [
        (flag_and_variable, "conflicting environment variable \"ETCD_NAME\" is shadowed"),
        (run(&["--election-timeout=1"]), "--election-timeout[1ms] should be at least"),
        (run(&["--auto-tls"]), "--auto-tls=true is not supported"),
        (run(&["--config-file=/nowhere/at/all"]), "cannot read the config file"),
    ] {
        assert_eq!(output.status.code(), Some(1));
        let line: Value = serde_json::from_slice(&output.stderr).expect("one line of JSON");
        assert_eq!((&line["level"], &line["msg"]), (&"fatal".into(), &"failed to verify flags".into()));
        assert!(line["error"].as_str().expect("an error").contains(expected), "{line}");
    }
}

#[test]
fn a_member_becomes_ready_tells_systemd_and_dies_by_the_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let notify = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
    notify.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for signal in [Signal::TERM, Signal::INT] {
        let mut member = Member::start(member_in(dir.path()).env("NOTIFY_SOCKET", dir.path().join("notify")));
        for line in member.until(READY) {
            for key in ["level", "ts", "caller", "msg"] {
                assert!(line[key].is_string(), "{key} is missing: {line}");
            }
        }
        let mut word = [0; 32];
        let n = notify.recv(&mut word).expect("READY");
        assert_eq!(&word[..n], b"READY=1");
        let mode = std::fs::metadata(dir.path().join("data")).expect("the data directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        member.signal(signal);
        member.until("closed etcd server");
        let status = member.child.wait().expect("the process ends");
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Member::start(&mut member_in(dir.path()));
    first.until(READY);
    let output = member_in(dir.path()).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let last: Value = serde_json::from_str(text(&output.stderr).lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "fatal");
    assert!(last["error"].as_str().expect("an error").contains("lock"), "{last}");
}

#[test]
fn a_config_file_stands_instead_of_flags_and_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("etcd.conf.yml");
    let text = "name: filed\ndata-dir: data\nlisten-client-urls: unix://client.sock\nlisten-peer-urls: http://127.0.0.1:0\nlog-format: json\nproxy: off\n";
    write_atomic(&RealDisk, &path, text.as_bytes()).expect("the file is written");
    let mut command = command();
    command.current_dir(dir.path()).args(["--name=flagged", "--election-timeout=1"]).env("ETCD_NAME", "variable");
    let member = Member::start(command.env("ETCD_CONFIG_FILE", &path));
    let lines = member.until(READY);
    let start = lines.iter().find(|line| line["msg"] == "starting a member").expect("the configuration is logged");
    assert_eq!(start["name"], "filed");
    assert!(lines.iter().any(|line| line["level"] == "warn" && line["key"] == "proxy"), "{lines:#?}");
    assert!(dir.path().join("client.sock").exists());
}

#[test]
fn after_the_first_start_the_initial_cluster_is_not_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = "--initial-cluster=b=http://localhost:1";
    assert_eq!(member_in(dir.path()).arg(other).output().expect("the binary runs").status.code(), Some(1));
    Member::start(&mut member_in(dir.path())).until(READY);
    Member::start(member_in(dir.path()).arg(other)).until(READY);
}

/// The members know better than the records, which need not be there any more.
#[test]
fn who_joins_does_not_ask_dns() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = member_in(dir.path());
    // Nobody listens there, and nobody has that name (RFC 6761).
    command.args(["--join=http://127.0.0.1:1", "--discovery-srv=nobody.invalid"]);
    let member = Member::start(&mut command);
    member.until("could not retrieve cluster information from the given URLs");
}
