//! The command line.

use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::validate::Defaults;
use crate::smoke;

const USAGE: &str =
    "usage: garboard-operator [run] [--image REPOSITORY] [--watch-namespace NAME]... [--cluster-domain DOMAIN]
                         [--listen ADDRESS] [--leader-elect=true|false] [--namespace NAME]
       garboard-operator crds [DIRECTORY]
       garboard-operator smoke --operator HOST:PORT [--cluster NAME] [--namespace NAME] [--timeout SECONDS]

  --image            repository of the server's image, without a tag (GARBOARD_IMAGE)
  --watch-namespace  only clusters of this namespace; again for more; none: all namespaces
  --cluster-domain   absent: as resolv.conf has it, or cluster.local
  --listen           for /metrics, /healthz and /readyz (default [::]:8080)
  --leader-elect     whether one of several works at a time (default true)
  --namespace        where the operator itself runs (POD_NAMESPACE)

crds prints the definitions, or writes them into the directory.

smoke makes a cluster of one member, writes to it, reads and deletes it; `helm test` runs it.
  --operator         where the operator's health is
  --cluster          its name (default smoke); one that is left of an earlier try is deleted
  --namespace        where it is made (POD_NAMESPACE)
  --timeout          for all of it (default 180)";

pub enum Command {
    /// Prints the definitions, or writes them into a directory.
    Crds(Option<PathBuf>),
    Run(Options),
    /// Tries what a user does first.
    Smoke(smoke::Options),
}

pub struct Options {
    pub defaults: Defaults,
    pub namespaces: Vec<String>,
    pub listen: SocketAddr,
    pub leader_elect: bool,
    pub namespace: String,
}

pub fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut image = env("GARBOARD_IMAGE").unwrap_or_else(|| "garboard".to_owned());
    let mut namespaces = Vec::new();
    let mut domain = None;
    let mut listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080));
    let mut leader_elect = true;
    let mut namespace = env("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned());
    let mut args = args.flat_map(|arg| match arg.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
        _ => vec![arg],
    });
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "run" => {}
            "crds" => return Ok(Command::Crds(args.next().map(PathBuf::from))),
            "smoke" => return smoke(args, namespace),
            "--image" => image = value()?,
            "--watch-namespace" => namespaces.push(value()?),
            "--cluster-domain" => domain = Some(value()?),
            "--listen" => listen = value()?.parse().map_err(|error| format!("--listen: {error}"))?,
            "--leader-elect" => leader_elect = value()?.parse().map_err(|error| format!("--leader-elect: {error}"))?,
            "--namespace" => namespace = value()?,
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let domain = domain.or_else(|| domain_of(&resolv_conf)).unwrap_or_else(|| "cluster.local".to_owned());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let defaults = Defaults { repository: image, version, domain, namespace: namespace.clone() };
    Ok(Command::Run(Options { defaults, namespaces, listen, leader_elect, namespace }))
}

fn smoke(mut args: impl Iterator<Item = String>, mut namespace: String) -> Result<Command, String> {
    let (mut operator, mut cluster, mut timeout_s) = (None, "smoke".to_owned(), 180);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--operator" => operator = Some(value()?),
            "--cluster" => cluster = value()?,
            "--namespace" => namespace = value()?,
            "--timeout" => timeout_s = value()?.parse().map_err(|error| format!("--timeout: {error}"))?,
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    let operator = operator.ok_or_else(|| format!("smoke needs --operator\n{USAGE}"))?;
    Ok(Command::Smoke(smoke::Options { operator, namespace, cluster, timeout: Duration::from_secs(timeout_s) }))
}

/// The cluster's domain, from what kubelet writes into a Pod: `search <namespace>.svc.<domain> svc.<domain> <domain>`.
fn domain_of(resolv_conf: &str) -> Option<String> {
    let search = resolv_conf.lines().find_map(|line| line.trim().strip_prefix("search "))?;
    let domain = search.split_whitespace().find_map(|name| name.strip_prefix("svc."))?;
    Some(domain.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_the_one_that_pods_search() {
        let pod = "nameserver 10.96.0.10\nsearch a.svc.corp.example svc.corp.example corp.example\noptions ndots:5\n";
        assert_eq!(domain_of(pod).as_deref(), Some("corp.example"));
        assert_eq!(domain_of("search example.org\n"), None);
    }
}
