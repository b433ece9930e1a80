//! How a node's first process is talked to: one request and one answer, each a line, on a unix socket.

use std::fmt;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use rustix::net::sockopt::socket_peercred;

/// A service stops within this, or is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// From now on the service runs.
    Start(String),
    /// It ends (SIGTERM; SIGKILL after [`STOP_LIMIT`]) and stays so. Answered when it has.
    Stop(String),
    /// SIGKILL. It comes back, as from any end that nobody asked for.
    Kill(String),
    /// How often a service has been started.
    Starts(String),
    /// The node ends when this connection does,
    Hold,
    /// unless this was said on it.
    Release,
}

// === impl Request ===

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(service) => write!(f, "start {service}"),
            Self::Stop(service) => write!(f, "stop {service}"),
            Self::Kill(service) => write!(f, "kill {service}"),
            Self::Starts(service) => write!(f, "starts {service}"),
            Self::Hold => f.write_str("hold"),
            Self::Release => f.write_str("release"),
        }
    }
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        Ok(match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("start", service) => Self::Start(service.to_owned()),
            ("stop", service) => Self::Stop(service.to_owned()),
            ("kill", service) => Self::Kill(service.to_owned()),
            ("starts", service) => Self::Starts(service.to_owned()),
            ("hold", "") => Self::Hold,
            ("release", "") => Self::Release,
            _ => bail!("unknown request {line:?}"),
        })
    }
}

/// A connection to the first process of a node.
pub struct Control {
    stream: BufReader<UnixStream>,
}

// === impl Control ===

impl Control {
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(STOP_LIMIT * 2))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The process at the other end, by its id out here.
    pub fn peer(&self) -> anyhow::Result<i32> {
        Ok(socket_peercred(self.stream.get_ref()).context("who listens")?.pid.as_raw_nonzero().get())
    }

    /// Returns what is answered, or the error that is.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<String> {
        writeln!(self.stream.get_mut(), "{request}").with_context(|| format!("send {request}"))?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).with_context(|| format!("answer to {request}"))?;
        match answer.trim_end().split_once(' ').unwrap_or((answer.trim_end(), "")) {
            ("ok", text) => Ok(text.to_owned()),
            ("error", text) => bail!("{request}: {text}"),
            _ => bail!("{request}: the node has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let service = || "kube-apiserver".to_owned();
        let all = [
            Request::Start(service()),
            Request::Stop(service()),
            Request::Kill(service()),
            Request::Starts(service()),
            Request::Hold,
            Request::Release,
        ];
        for request in all {
            assert_eq!(format!("{request}\n").parse::<Request>().unwrap(), request);
        }
        assert!("hold me".parse::<Request>().is_err());
        assert!("".parse::<Request>().is_err());
    }
}
