//! TLS towards clients and towards peers.

use std::path::PathBuf;

use super::Config;
use super::ConfigError;
use crate::flags::Settings;
use crate::notice::Notice;

/// What is shown to clients and asked of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate and key; needed where a URL to listen on has TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What is shown when connecting, if it is another; towards peers only.
    pub dial_with: Option<(PathBuf, PathBuf)>,
    pub client_cert_auth: bool,
    /// Given, clients must show a certificate that it vouches for, `client_cert_auth` or not, as in etcd.
    pub trusted_ca_file: Option<PathBuf>,
    pub crl_file: Option<PathBuf>,
    /// One of these a client's certificate must carry; none: any.
    pub allowed_common_names: Vec<String>,
    pub allowed_hostnames: Vec<String>,
    /// By Go's names; none: all that are good.
    pub cipher_suites: Vec<String>,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// The flags of one of the two, by what their names begin with and how some of them end.
struct Names {
    certificate: [&'static str; 2],
    dial_with: Option<[&'static str; 2]>,
    client_cert_auth: &'static str,
    trusted_ca: &'static str,
    crl: &'static str,
    allowed_cn: &'static str,
    allowed_hostname: &'static str,
}

const CLIENT: Names = Names {
    certificate: ["cert-file", "key-file"],
    dial_with: None,
    client_cert_auth: "client-cert-auth",
    trusted_ca: "trusted-ca-file",
    crl: "client-crl-file",
    allowed_cn: "client-cert-allowed-cn",
    allowed_hostname: "client-cert-allowed-hostname",
};

const PEER: Names = Names {
    certificate: ["peer-cert-file", "peer-key-file"],
    dial_with: Some(["peer-client-cert-file", "peer-client-key-file"]),
    client_cert_auth: "peer-client-cert-auth",
    trusted_ca: "peer-trusted-ca-file",
    crl: "peer-crl-file",
    allowed_cn: "peer-cert-allowed-cn",
    allowed_hostname: "peer-cert-allowed-hostname",
};

pub fn read_client(settings: &Settings) -> Result<Tls, ConfigError> {
    read(settings, &CLIENT)
}

pub fn read_peer(settings: &Settings) -> Result<Tls, ConfigError> {
    read(settings, &PEER)
}

fn read(settings: &Settings, names: &Names) -> Result<Tls, ConfigError> {
    let path = |name| Some(settings.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let (min, max) = (settings.text("tls-min-version"), settings.text("tls-max-version"));
    let min_version = version(&min, TlsVersion::V1_2)?;
    let max_version = version(&max, TlsVersion::V1_3)?;
    if min_version > max_version {
        return Err(ConfigError::TlsVersions { min, max });
    }
    if min_version == TlsVersion::V1_3 && settings.is_given("cipher-suites") {
        return Err(ConfigError::CipherSuites);
    }
    Ok(Tls {
        certificate: path(names.certificate[0]).zip(path(names.certificate[1])),
        dial_with: names.dial_with.and_then(|[cert, key]| path(cert).zip(path(key))),
        client_cert_auth: settings.bool(names.client_cert_auth),
        trusted_ca_file: path(names.trusted_ca),
        crl_file: path(names.crl),
        allowed_common_names: settings.list(names.allowed_cn),
        allowed_hostnames: settings.list(names.allowed_hostname),
        cipher_suites: settings.list("cipher-suites"),
        min_version,
        max_version,
    })
}

fn version(text: &str, default: TlsVersion) -> Result<TlsVersion, ConfigError> {
    match text {
        "" => Ok(default),
        "TLS1.2" => Ok(TlsVersion::V1_2),
        "TLS1.3" => Ok(TlsVersion::V1_3),
        other => Err(ConfigError::TlsVersion(other.to_owned())),
    }
}

/// Whether the URLs to listen on and what there is of TLS go together.
pub fn validate(config: &Config, settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    let tls = &config.client_tls;
    let (cert, key) = (settings.text("cert-file"), settings.text("key-file"));
    let has_a_file = !cert.is_empty() || !key.is_empty();
    let clients = config.listen.client_urls.iter().map(|url| (url, true));
    let metrics = config.listen.metrics_urls.iter().map(|url| (url, false));
    for (url, is_for_clients) in clients.chain(metrics) {
        match (url.is_tls(), &tls.certificate) {
            (true, None) if has_a_file => return Err(ConfigError::HalfCertificate { cert, key }),
            (true, None) => return Err(ConfigError::NoCertificate(url.clone())),
            (true, Some(_)) if tls.client_cert_auth && tls.trusted_ca_file.is_none() => {
                return Err(ConfigError::NoTrustedCa);
            }
            // For clients: what is served at the metrics URLs is often meant to be read without TLS.
            (false, _) if has_a_file && is_for_clients => {
                let text = "scheme is http or unix while key and cert files are present; ignoring key and cert files";
                notices.push(Notice::warn(text).with("client-url", url.to_string()));
            }
            _ => {}
        }
        if !url.is_tls() && tls.client_cert_auth && is_for_clients {
            let text = "scheme is http or unix while --client-cert-auth is enabled; \
                        ignoring client cert auth for this URL";
            notices.push(Notice::warn(text).with("client-url", url.to_string()));
        }
    }
    Ok(())
}

/// What is dialled with TLS is held to authorities, which have to be named.
pub fn validate_peers(config: &Config) -> Result<(), ConfigError> {
    let tls = &config.peer_tls;
    let listened = config.listen.peer_urls.iter();
    let dialled = config.cluster.initial.iter().map(|(_, url)| url).chain(&config.join);
    match listened.chain(dialled).find(|url| url.is_tls()) {
        Some(url) if tls.certificate.is_none() => Err(ConfigError::NoPeerCertificate(url.clone())),
        Some(url) if tls.trusted_ca_file.is_none() => Err(ConfigError::NoPeerCa(url.clone())),
        _ => Ok(()),
    }
}
