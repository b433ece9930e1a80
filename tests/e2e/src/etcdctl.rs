//! etcd's own command line client.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::certs::Authority;
use crate::certs::Identity;
use crate::process::Output;
use crate::process::Process;
use crate::process::run_with_input;
use crate::scenario::Lab;

/// etcdctl with one endpoint.
#[derive(Clone)]
pub struct Etcdctl {
    program: PathBuf,
    globals: Vec<String>,
}

// === impl Etcdctl ===

impl Etcdctl {
    pub fn new(lab: &Lab, endpoint: &str) -> Self {
        let program = lab.tool("etcdctl");
        Self {
            program,
            globals: vec![
                format!("--endpoints={endpoint}"),
                "--command-timeout=10s".into(),
                "--dial-timeout=5s".into(),
            ],
        }
    }

    /// Trusts `authority`, and shows `identity` if there is one.
    pub fn tls(mut self, authority: &Authority, identity: Option<&Identity>) -> Self {
        self.globals.push(format!("--cacert={}", authority.cert.display()));
        if let Some(identity) = identity {
            self.globals.push(format!("--cert={}", identity.cert.display()));
            self.globals.push(format!("--key={}", identity.key.display()));
        }
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // The environment of whoever runs this must not change what etcdctl does.
        command.env_clear().env("HOME", "/").env("PATH", "/usr/bin:/bin").args(&self.globals).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.run_with_input(args, "")
    }

    pub fn run_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        run_with_input(&mut self.command(args), input)
    }

    /// Runs what must succeed and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.run(args)?.success(&format!("etcdctl {}", args.join(" ")))?.stdout)
    }

    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.ok(&[args, &["-w", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("etcdctl {}: {text}", args.join(" ")))
    }

    /// Starts what runs on, such as a watch.
    pub fn spawn(&self, lab: &Lab, log: &str, args: &[&str]) -> anyhow::Result<Process> {
        Process::spawn(self.command(args), &lab.path(log))
    }
}
