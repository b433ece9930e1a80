//! The command line.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::archive;
use crate::archive::Folder;
use crate::archive::take;
use crate::cluster::validate::Defaults;
use crate::smoke;

const USAGE: &str =
    "usage: garboard-operator [run] [--image REPOSITORY] [--operator-image IMAGE] [--watch-namespace NAME]... [--cluster-domain DOMAIN]
                         [--listen ADDRESS] [--leader-elect=true|false] [--namespace NAME]
       garboard-operator crds [DIRECTORY]
       garboard-operator smoke --operator HOST:PORT [--cluster NAME] [--namespace NAME] [--timeout SECONDS]
       garboard-operator backup take --member NAME=HOST [--member NAME=HOST]... [--tls DIRECTORY] --folder DIRECTORY
                         --namespace NAME --cluster NAME --backup NAME --uid UID --compression zstd|none
       garboard-operator backup unpack {--folder DIRECTORY --backup NAME | --file FILE} --to FILE
       garboard-operator backup discard --file FILE
       garboard-operator backup copy --folder DIRECTORY --to DIRECTORY
       garboard-operator backup compare --folder DIRECTORY --backup NAME --host HOST
       garboard-operator backup delete --folder DIRECTORY --backup NAME [--uid UID]

  --image            repository of the server's image, without a tag (GARBOARD_IMAGE)
  --operator-image   of the operator itself, which the Pods of backups run (GARBOARD_OPERATOR_IMAGE)
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
  --timeout          for all of it (default 180)

backup runs in the Pods of backups; each tells what came of it in /dev/termination-log.
  --folder           of the cluster, on the volume: its name is the cluster's
  --member           members that are asked for a snapshot, in this order
  --tls              where tls.crt, tls.key and ca.crt are; absent: plain text
  --to               the file that gets the raw snapshot; copy: the folder that becomes the same
  --file             unpack: an archive with its manifest beside it, or a raw snapshot; discard: what --to was
  --host             of a member that was started from it, in plain text
  --uid              of the EtcdBackup; delete: removes nothing that is another one's";

pub enum Command {
    /// Makes, checks or removes a backup on a volume.
    Backup(archive::Command),
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
    let mut operator_image = env("GARBOARD_OPERATOR_IMAGE");
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
            "backup" => return backup(args),
            "crds" => return Ok(Command::Crds(args.next().map(PathBuf::from))),
            "smoke" => return smoke(args, namespace),
            "--image" => image = value()?,
            "--operator-image" => operator_image = Some(value()?),
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
    let operator_image = operator_image.unwrap_or_else(|| format!("garboard-operator:{version}"));
    let defaults = Defaults { repository: image, version, domain, namespace: namespace.clone(), operator_image };
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

fn backup(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let what = args.next().unwrap_or_default();
    let known: &[&str] = match what.as_str() {
        "take" => &["--member", "--tls", "--folder", "--namespace", "--cluster", "--backup", "--uid", "--compression"],
        "unpack" => &["--folder", "--backup", "--file", "--to"],
        "discard" => &["--file"],
        "copy" => &["--folder", "--to"],
        "compare" => &["--folder", "--backup", "--host"],
        "delete" => &["--folder", "--backup", "--uid"],
        other => return Err(format!("backup takes no {other:?}\n{USAGE}")),
    };
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(arg) = args.next() {
        if !known.contains(&arg.as_str()) {
            return Err(format!("unknown argument {arg}\n{USAGE}"));
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
        given.entry(arg).or_default().push(value);
    }
    let members = given.remove("--member").unwrap_or_default();
    let mut last = |name: &str| given.remove(name).and_then(|mut values| values.pop());
    let (tls, uid) = (last("--tls").map(PathBuf::from), last("--uid"));
    let unpacked = if what == "unpack" { last("--file") } else { None };
    let mut needed = |name: &str| last(name).ok_or_else(|| format!("backup {what} needs {name}\n{USAGE}"));
    if what == "discard" {
        return Ok(Command::Backup(archive::Command::Discard(needed("--file")?.into())));
    }
    if what == "copy" {
        return Ok(Command::Backup(archive::Command::Copy(needed("--folder")?.into(), needed("--to")?.into())));
    }
    if let Some(file) = unpacked {
        return Ok(Command::Backup(archive::Command::UnpackFile(file.into(), needed("--to")?.into())));
    }
    let folder = Folder::new(needed("--folder")?.into(), needed("--backup")?);
    Ok(Command::Backup(match what.as_str() {
        "unpack" => archive::Command::Unpack(folder, needed("--to")?.into()),
        "compare" => archive::Command::Compare(folder, needed("--host")?),
        "delete" => archive::Command::Delete(folder, uid),
        _ => archive::Command::Take(take::Request {
            members: hosts(&members)?,
            tls,
            folder,
            namespace: needed("--namespace")?,
            cluster: needed("--cluster")?,
            uid: uid.ok_or_else(|| format!("backup take needs --uid\n{USAGE}"))?,
            compression: needed("--compression")?.parse()?,
        }),
    }))
}

/// `NAME=HOST` of each member.
fn hosts(members: &[String]) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("backup take needs --member NAME=HOST\n{USAGE}");
    let host = |member: &String| {
        member.split_once('=').map(|(name, host)| (name.to_owned(), host.to_owned())).ok_or_else(wrong)
    };
    if members.is_empty() { Err(wrong()) } else { members.iter().map(host).collect() }
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

    fn backup(text: &str) -> Result<archive::Command, String> {
        match parse(text.split(' ').map(str::to_owned))? {
            Command::Backup(command) => Ok(command),
            _ => panic!("{text} is no backup"),
        }
    }

    #[test]
    fn a_backup_is_asked_for_in_full() {
        let text = "backup take --member a-1=a-1.host --member=a-2=a-2.host --folder /backup/a --namespace n --cluster a \
                    --backup b --uid u --compression zstd";
        let archive::Command::Take(request) = backup(text).unwrap() else { panic!("it takes none") };
        let members = [("a-1", "a-1.host"), ("a-2", "a-2.host")].map(|(name, host)| (name.to_owned(), host.to_owned()));
        assert_eq!(request.members, members);
        assert_eq!(request.folder, Folder::new("/backup/a".into(), "b".to_owned()));
        assert_eq!((request.uid.as_str(), request.tls), ("u", None));
        for missing in ["--folder /backup/a ", "--uid u ", "--member a-1=a-1.host --member=a-2=a-2.host "] {
            assert!(backup(&text.replace(missing, "")).is_err(), "without {missing}");
        }
        assert!(backup(&text.replace("zstd", "gzip")).is_err());
        assert!(backup(&text.replace("=a-1.host", "")).is_err());
        assert!(backup("backup unpack --folder f --backup b --uid u --to t").is_err(), "unpack takes no uid");
        let unpacked = backup("backup unpack --file f/b.db.zst --to t").unwrap();
        assert!(matches!(unpacked, archive::Command::UnpackFile(file, _) if file.ends_with("f/b.db.zst")));
        assert!(matches!(backup("backup discard --file t").unwrap(), archive::Command::Discard(_)));
        assert!(backup("backup discard").is_err());
        assert!(matches!(backup("backup copy --folder f --to t").unwrap(), archive::Command::Copy(..)));
        assert!(backup("backup copy --folder f").is_err());
        let deleted = backup("backup delete --folder f --backup b").unwrap();
        assert!(matches!(deleted, archive::Command::Delete(_, None)));
    }

    #[test]
    fn the_domain_is_the_one_that_pods_search() {
        let pod = "nameserver 10.96.0.10\nsearch a.svc.corp.example svc.corp.example corp.example\noptions ndots:5\n";
        assert_eq!(domain_of(pod).as_deref(), Some("corp.example"));
        assert_eq!(domain_of("search example.org\n"), None);
    }
}
