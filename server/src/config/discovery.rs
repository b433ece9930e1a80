//! `--discovery-srv`: the initial cluster from DNS, as etcd finds it.
//!
//! `_etcd-server-ssl._tcp.<domain>` names members with TLS, `_etcd-server._tcp.<domain>` those without; `--discovery-srv-name` comes behind the
//! service, as `-<name>`. The record that leads to where this member says it is reached is its own.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use super::Config;
use super::ConfigError;
use super::validate::join;
use crate::dns::DnsError;
use crate::dns::Srv;
use crate::flags::Url;
use crate::flags::url::Place;
use crate::notice::Notice;

/// How names are looked up.
pub struct Lookups<'a> {
    /// The SRV records of a name.
    pub srv: &'a dyn Fn(&str) -> Result<Vec<Srv>, DnsError>,
    /// The addresses of a host.
    pub host: &'a dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
}

/// Finds the initial cluster; nothing when it is not asked for. The others get numbers for names, as from etcd: their ids do not depend on
/// names, and the members say their own once they run.
///
/// # Errors
/// No records, or none of this member.
pub fn discover(config: &mut Config, lookups: &Lookups<'_>) -> Result<Vec<Notice>, ConfigError> {
    let Some(srv) = config.discovery_srv.clone() else { return Ok(Vec::new()) };
    let own = own_addresses(config, lookups)?;
    let suffix = if srv.name.is_empty() { String::new() } else { format!("-{}", srv.name) };
    let (mut found, mut errors, mut notices) = (Vec::new(), Vec::new(), Vec::new());
    let mut matched = BTreeSet::new();
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        let members = of_service(config, lookups, scheme, &service, &srv.domain, &own, &mut matched);
        let told = Notice::info(format!("get cluster for {service} SRV")).with("service-scheme", scheme);
        let told = told.with("service-name", service.clone()).with("discovery-srv", srv.domain.clone());
        match members {
            Ok(members) => {
                let names: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
                notices.push(told.with("found-cluster", names));
                found.extend(members);
            }
            Err(why) => {
                let why = format!("error querying DNS SRV records for _{service} {why}");
                notices.push(told.with("error", why.clone()));
                errors.push(why);
            }
        }
    }
    if found.is_empty() {
        return Err(ConfigError::Discovery(errors.join("; ")));
    }
    if !found.iter().any(|(name, _)| *name == config.name) {
        let why = format!("cannot find local etcd member {:?} in SRV records", config.name);
        return Err(ConfigError::Discovery(why));
    }
    let unmatched: Vec<Url> =
        own.iter().filter(|(url, _)| !matched.contains(&url.to_string())).map(|(url, _)| url.clone()).collect();
    if !unmatched.is_empty() {
        let names: Vec<String> = found.iter().map(|(name, url)| format!("{name}={url}")).collect();
        return Err(ConfigError::NotInCluster { missing: join(&unmatched), initial: names.join(",") });
    }
    config.cluster.initial = found;
    Ok(notices)
}

/// Where this member says it is reached, with the addresses of that.
fn own_addresses(config: &Config, lookups: &Lookups<'_>) -> Result<Vec<(Url, Vec<SocketAddr>)>, ConfigError> {
    let advertised = config.cluster.initial_advertise_peer_urls.iter();
    advertised
        .map(|url| {
            let addresses = match url.place() {
                Place::Tcp { host, port } => (lookups.host)(host, *port),
                Place::Socket(_) => Ok(Vec::new()),
            };
            let addresses = addresses.map_err(|error| ConfigError::Discovery(format!("lookup {url}: {error}")))?;
            Ok((url.clone(), addresses))
        })
        .collect()
}

/// The members that one service names. A host that does not resolve is passed over, and the error of all if nothing else is found.
fn of_service(
    config: &Config,
    lookups: &Lookups<'_>,
    scheme: &str,
    service: &str,
    domain: &str,
    own: &[(Url, Vec<SocketAddr>)],
    matched: &mut BTreeSet<String>,
) -> Result<Vec<(String, Url)>, String> {
    let records = (lookups.srv)(&format!("_{service}._tcp.{domain}")).map_err(|error| error.to_string())?;
    let (mut members, mut failed, mut others) = (Vec::new(), None, 0);
    for Srv { target, port, .. } in records {
        let addresses = match (lookups.host)(&target, port) {
            Ok(addresses) => addresses,
            Err(error) => {
                failed = Some(format!("lookup {target}: {error}"));
                continue;
            }
        };
        let text = format!("{scheme}://{target}:{port}");
        let url = Url::parse(&text).map_err(|error| error.to_string())?;
        let is_own = own.iter().find(|(_, known)| known.iter().any(|address| addresses.contains(address)));
        match is_own {
            Some((advertised, _)) if advertised.is_tls() != url.is_tls() => {
                failed = Some(format!(
                    "bootstrap at {text} from DNS for {service} has scheme mismatch with expected peer {advertised}"
                ));
            }
            Some((advertised, _)) => {
                matched.insert(advertised.to_string());
                members.push((config.name.clone(), url));
            }
            None => {
                members.push((others.to_string(), url));
                others += 1;
            }
        }
    }
    match failed {
        Some(why) if members.is_empty() => Err(why),
        _ => Ok(members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse::Request;
    use crate::flags::parse::parse;

    fn config(line: &str) -> Config {
        let Ok(Request::Serve(settings)) = parse(line.split_whitespace().map(str::to_owned)) else { panic!("{line}") };
        Config::new(settings, || None).unwrap().0
    }

    fn host(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let last = match name {
            "a.test" | "10.0.0.1" => 1,
            "b.test" => 2,
            "c.test" => 3,
            _ => return Err(io::Error::other("no such host")),
        };
        Ok(vec![SocketAddr::from(([10, 0, 0, last], port))])
    }

    fn srv(of: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Result<Vec<Srv>, DnsError> {
        move |asked| {
            let record = |target: &str| Srv { priority: 0, weight: 0, port: 2380, target: target.to_owned() };
            let found: Vec<Srv> = of.iter().filter(|(name, _)| *name == asked).map(|(_, to)| record(to)).collect();
            let server = SocketAddr::from(([10, 0, 0, 9], 53));
            if found.is_empty() { Err(DnsError::NoSuchHost { name: asked.to_owned(), server }) } else { Ok(found) }
        }
    }

    fn discovered(line: &str, records: &'static [(&'static str, &'static str)]) -> Result<String, String> {
        let mut config = config(line);
        discover(&mut config, &Lookups { srv: &srv(records), host: &host }).map_err(|error| error.to_string())?;
        config.validate_bootstrap().map_err(|error| error.to_string())?;
        let members = config.cluster.initial.iter().map(|(name, url)| format!("{name}={url}"));
        Ok(members.collect::<Vec<_>>().join(","))
    }

    const PLAIN: &str = "_etcd-server._tcp.x.test";
    const TLS: &str = "_etcd-server-ssl._tcp.x.test";
    const OWN: &str = "--name=me --discovery-srv=x.test --initial-advertise-peer-urls=";

    #[test]
    fn members_are_those_that_the_records_name() {
        let three = &[(PLAIN, "b.test"), (PLAIN, "a.test"), (PLAIN, "c.test")];
        let found = "0=http://b.test:2380,me=http://a.test:2380,1=http://c.test:2380";
        assert_eq!(discovered(&format!("{OWN}http://a.test:2380"), three).as_deref(), Ok(found));
        // By its address: what the records say is what makes the ids, the same for all.
        assert_eq!(discovered(&format!("{OWN}http://10.0.0.1:2380"), three).as_deref(), Ok(found));
        let named = &[("_etcd-server-ssl-east._tcp.x.test", "a.test")];
        let line = format!("{OWN}https://a.test:2380 --discovery-srv-name=east");
        assert_eq!(discovered(&line, named).as_deref(), Ok("me=https://a.test:2380"));
        // One that cannot be resolved is passed over.
        let gone = &[(PLAIN, "gone.test"), (PLAIN, "a.test")];
        assert_eq!(discovered(&format!("{OWN}http://a.test:2380"), gone).as_deref(), Ok("me=http://a.test:2380"));
    }

    #[test]
    fn what_is_wrong_is_said_as_etcd_says_it() {
        let nobody: &[(&str, &str)] = &[];
        for (url, records, expected) in [
            (
                "http://a.test:2380",
                nobody,
                "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup \
                 _etcd-server-ssl._tcp.x.test on 10.0.0.9:53: no such host; error querying DNS SRV records for _etcd-server \
                 lookup _etcd-server._tcp.x.test on 10.0.0.9:53: no such host",
            ),
            (
                "http://a.test:2380",
                &[(PLAIN, "b.test"), (PLAIN, "c.test")],
                "error setting up initial cluster: cannot find local etcd member \"me\" in SRV records",
            ),
            ("http://a.test:2379", &[(PLAIN, "a.test")], "cannot find local etcd member"),
            (
                "http://a.test:2380",
                &[(TLS, "a.test")],
                "bootstrap at https://a.test:2380 from DNS for etcd-server-ssl has scheme mismatch with expected peer \
                 http://a.test:2380",
            ),
            ("http://nowhere.test:2380", &[(PLAIN, "a.test")], "lookup http://nowhere.test:2380: no such host"),
            (
                "http://a.test:2380,http://b.test:1",
                &[(PLAIN, "a.test")],
                "--initial-advertise-peer-urls has http://b.test:1 but missing from --initial-cluster=me=http://a.test:2380",
            ),
        ] {
            let error = discovered(&format!("{OWN}{url}"), records).unwrap_err();
            assert!(error.contains(expected), "{error}\nis not: {expected}");
        }
    }
}
