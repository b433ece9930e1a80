//! The initial cluster: how it is written, what it defaults to, and what a member without data asks of it.

use std::collections::BTreeSet;

use super::Cluster;
use super::Config;
use super::ConfigError;
use super::DEFAULT_NAME;
use super::validate::join;
use crate::flags::Settings;
use crate::flags::Url;
use crate::flags::url::Place;
use crate::notice::Notice;

const ANY_ADDRESS: &str = "0.0.0.0";

/// Reads `name=url,name=url`; empty parts are skipped.
pub fn parse(text: &str) -> Result<Vec<(String, Url)>, ConfigError> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, url) = part.split_once('=').unwrap_or((part, ""));
            let url = Url::parse(url.trim()).map_err(ConfigError::InitialClusterUrl)?;
            Ok((name.to_owned(), url))
        })
        .collect()
}

/// Replaces defaults that others cannot reach by this machine's address, and the default cluster by one of this member.
pub fn replace_defaults(
    config: &mut Config,
    settings: &Settings,
    default_host: impl FnOnce() -> Option<String>,
    notices: &mut Vec<Notice>,
) -> Result<(), ConfigError> {
    let cluster = &mut config.cluster;
    let peer_port = any_address_port(&config.listen.peer_urls).filter(|_| is_default(settings, PEER_URLS));
    let client_port = any_address_port(&config.listen.client_urls).filter(|_| is_default(settings, CLIENT_URLS));
    if peer_port.or(client_port).is_some()
        && let Some(host) = default_host()
    {
        notices.push(Notice::info("detected default host for advertise").with("host", host.clone()));
        let url = |port| Url::parse(&format!("http://{host}:{port}")).map_err(ConfigError::InitialClusterUrl);
        if let Some(port) = peer_port {
            cluster.initial_advertise_peer_urls = vec![url(port)?];
        }
        if let Some(port) = client_port {
            cluster.advertise_client_urls = vec![url(port)?];
        }
    }
    if config.name != DEFAULT_NAME && !is_discovered(settings) && is_default(settings, "initial-cluster") {
        cluster.initial =
            cluster.initial_advertise_peer_urls.iter().map(|url| (config.name.clone(), url.clone())).collect();
    }
    Ok(())
}

const PEER_URLS: &str = "initial-advertise-peer-urls";
const CLIENT_URLS: &str = "advertise-client-urls";

/// Whether the initial cluster comes from elsewhere than `--initial-cluster`.
pub fn is_discovered(settings: &Settings) -> bool {
    ["discovery-srv", "discovery-srv-name"].iter().any(|flag| !settings.text(flag).is_empty())
}

/// Whether the flag has its default, given or not: etcd does not tell these apart here.
fn is_default(settings: &Settings, name: &str) -> bool {
    settings.get(name).is_none_or(|given| given.value == given.flag.default_value())
}

fn any_address_port(urls: &[Url]) -> Option<u16> {
    match urls.first().map(Url::place) {
        Some(Place::Tcp { host, port }) if host == ANY_ADDRESS => Some(*port),
        _ => None,
    }
}

pub fn validate_bootstrap(config: &Config) -> Result<(), ConfigError> {
    // What the cluster says counts, not what this member was told.
    if !config.join.is_empty() {
        return Ok(());
    }
    let Cluster { initial, initial_advertise_peer_urls: advertised, .. } = &config.cluster;
    let own: Vec<Url> =
        initial.iter().filter(|member| member.0 == config.name).map(|member| member.1.clone()).collect();
    if own.is_empty() {
        return Err(ConfigError::NoLocalName(config.name.clone()));
    }
    let distinct: BTreeSet<String> = initial.iter().map(|member| member.1.to_string()).collect();
    if distinct.len() < initial.len() {
        let members: Vec<String> = initial.iter().map(|(name, url)| format!("{name}={url}")).collect();
        return Err(ConfigError::DuplicateUrl(members.join(",")));
    }
    // Compared by addresses when it was found.
    if config.discovery_srv.is_some() {
        return Ok(());
    }
    let pairs = |urls: Vec<&Url>| urls.iter().map(|url| format!("{}={url}", config.name)).collect::<Vec<_>>().join(",");
    let missing: Vec<&Url> = own.iter().filter(|url| !advertised.contains(url)).collect();
    if !missing.is_empty() {
        return Err(ConfigError::NotAdvertised { missing: pairs(missing), advertised: join(advertised) });
    }
    let missing: Vec<Url> = advertised.iter().filter(|url| !own.contains(url)).cloned().collect();
    if !missing.is_empty() {
        return Err(ConfigError::NotInCluster { missing: join(&missing), initial: pairs(own.iter().collect()) });
    }
    Ok(())
}
