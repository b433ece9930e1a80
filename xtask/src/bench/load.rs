//! One process of the load generator: it prepares, says "ready", waits for a line, measures and prints an object.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;

use super::workload::Load;

/// How often it is seen that the server still runs: rarely enough to cost nothing.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// A load generator that prepares, waits or measures. Dropping it kills it.
pub struct Generator {
    child: Child,
    lines: Receiver<String>,
    deadline: Instant,
}

/// Whom it speaks to.
pub struct Target<'a> {
    /// HOST:PORT of each member.
    pub endpoints: Vec<&'a str>,
    /// With the leader alone.
    pub leader: bool,
}

/// What it has seen.
pub struct Seen {
    pub metrics: BTreeMap<String, f64>,
    /// HOST:PORT of whoever led the members, if there are several.
    pub leader: Option<String>,
    /// How often they changed their leader meanwhile.
    pub elections: u64,
    /// Parts of the workload that the server does not serve.
    pub not_served: Vec<String>,
}

// === impl Generator ===

impl Generator {
    /// Starts it; `ready` says when it has prepared.
    pub fn start(program: &Path, load: &Load, target: &Target<'_>, scale: f64) -> anyhow::Result<Self> {
        let (keys, time) = (load.keys_at(scale), Load::time_at(scale));
        // Four phases at most, and half a millisecond for each key: a server many times slower than any here.
        let limit = Duration::from_secs(60) + time * 4 + Duration::from_micros(500) * keys;
        let mut child = Command::new(program)
            .args(["-workload", load.workload, "-endpoints", &target.endpoints.join(",")])
            .arg(format!("-leader={}", target.leader))
            .args(["-clients", &load.clients.to_string(), "-conns", &load.conns.to_string()])
            .args(["-keys", &keys.to_string(), "-value-size", &load.value_bytes.to_string()])
            .args(["-time", &format!("{}ms", time.as_millis()), "-limit", &format!("{}ms", limit.as_millis())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let output = child.stdout.take().context("no stdout")?;
        let (sender, lines) = mpsc::sync_channel(8);
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        // It ends by itself at its limit; a little later it is not waited for any more.
        Ok(Self { child, lines, deadline: Instant::now() + limit + Duration::from_secs(5) })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready. `alive` fails once there is nothing to wait for any more.
    pub fn ready(&mut self, alive: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let line = self.line(alive)?;
        ensure!(line == "ready", "the load generator said {line:?} instead of being ready");
        Ok(())
    }

    pub fn go(&mut self) -> anyhow::Result<()> {
        Ok(self.child.stdin.as_mut().context("no stdin")?.write_all(b"go\n")?)
    }

    /// Waits for the result. The process and its connections stay until `self` goes.
    pub fn result(&mut self, alive: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Seen> {
        parse(&self.line(alive)?)
    }

    fn line(&mut self, mut alive: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<String> {
        loop {
            match self.lines.recv_timeout(ALIVE_INTERVAL) {
                Ok(line) => return Ok(line),
                Err(mpsc::RecvTimeoutError::Timeout) => alive()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the load generator ended with {}; it has said why above", self.child.wait()?)
                }
            }
            ensure!(Instant::now() < self.deadline, "the load generator hangs");
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Fails when the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> anyhow::Result<Seen> {
    let value: serde_json::Value = serde_json::from_str(line).with_context(|| format!("not a result: {line}"))?;
    let metrics = value["metrics"].as_object().with_context(|| format!("no metrics: {line}"))?;
    let number = |(name, value): (&String, &serde_json::Value)| Some((name.clone(), value.as_f64()?));
    let not_served = value["not_served"].as_array().into_iter().flatten();
    Ok(Seen {
        metrics: metrics.iter().filter_map(number).collect(),
        leader: value["leader"].as_str().map(str::to_owned),
        elections: value["elections"].as_u64().with_context(|| format!("no elections: {line}"))?,
        not_served: not_served.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read() {
        let seen =
            parse(r#"{"workload":"x","metrics":{"ops":5,"p99_ms":1.5},"elections":0,"not_served":["snapshot"]}"#)
                .unwrap();
        assert_eq!((seen.metrics["ops"], seen.metrics["p99_ms"]), (5.0, 1.5));
        assert_eq!(seen.not_served, ["snapshot"]);
        assert_eq!(seen.leader, None);
        let seen = parse(r#"{"metrics":{},"leader":"127.0.0.1:1","elections":2,"not_served":null}"#).unwrap();
        assert_eq!((seen.leader.as_deref(), seen.elections), (Some("127.0.0.1:1"), 2));
        assert!(seen.not_served.is_empty());
        assert!(parse("ready").is_err());
        assert!(parse("{}").is_err());
    }

    #[test]
    fn a_generator_that_ends_early_or_says_something_else_is_an_error() {
        let load = super::super::workload::named("count").unwrap().load;
        for program in ["/bin/false", "/bin/echo"] {
            let target = Target { endpoints: vec!["127.0.0.1:1"], leader: false };
            let mut generator = Generator::start(Path::new(program), &load, &target, 0.1).unwrap();
            assert!(generator.ready(|| Ok(())).is_err(), "{program}");
        }
    }

    #[test]
    fn nothing_is_waited_for_when_the_server_has_ended() {
        let (_sender, lines) = mpsc::sync_channel(1);
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut generator = Generator { child, lines, deadline: Instant::now() + Duration::from_secs(5) };
        let error = generator.ready(|| bail!("the server has ended")).unwrap_err();
        assert_eq!(error.to_string(), "the server has ended");
    }
}
