//! TLS by etcd's options: rustls with ring, for those who connect and towards peers. A connection takes the settings that the files held
//! when it shook hands.
#![forbid(unsafe_code)]

mod ciphers;
mod common_name;
mod der;
mod loaded;
mod reload;
mod settings;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

pub use loaded::End;
pub use loaded::Loaded;
pub use loaded::Shown;
pub use reload::Reloader;
pub use settings::Identity;
pub use settings::Settings;

/// Reads a whole file. Handed in, since files are opened elsewhere.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

/// A protocol version, for `--tls-min-version` and `--tls-max-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl std::str::FromStr for TlsVersion {
    type Err = TlsError;

    /// Understands etcd's names; TLS 1.0 and 1.1 are not spoken here.
    fn from_str(name: &str) -> Result<TlsVersion, TlsError> {
        match name {
            "TLS1.2" => Ok(TlsVersion::Tls12),
            "TLS1.3" => Ok(TlsVersion::Tls13),
            _ => Err(TlsError::Version(name.to_owned())),
        }
    }
}

/// etcd's transport security options, for clients or for peers.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Certificate and key to show when connecting, where they are others.
    pub dial_with: Option<(PathBuf, PathBuf)>,
    /// Whether connections are also made, as between peers: needs `trusted_ca_file`, to which those answering are held.
    pub dials: bool,
    /// With a CA, clients must show a certificate of it (as in etcd, also without `client_cert_auth`).
    pub trusted_ca_file: Option<PathBuf>,
    pub client_cert_auth: bool,
    pub crl_file: Option<PathBuf>,
    /// Common names, one of which a client's certificate must bear; none: any.
    pub allowed_cns: Vec<String>,
    /// Host names or addresses, one of which a client's certificate must be valid for; none: any.
    pub allowed_hostnames: Vec<String>,
    /// None: TLS 1.2.
    pub min_version: Option<TlsVersion>,
    /// None: the newest.
    pub max_version: Option<TlsVersion>,
    /// Go's names; empty: all that are good.
    pub cipher_suites: Vec<String>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Pem { path: PathBuf, reason: String },
    #[error("unexpected TLS version {0:?}")]
    Version(String),
    #[error("unexpected TLS cipher suite {0:?}")]
    CipherSuite(String),
    #[error("none of the TLS cipher suites given can be offered")]
    NoCipherSuite,
    #[error("the minimum TLS version is above the maximum")]
    VersionRange,
    #[error("cipher suites may not be configured when the minimum TLS version is TLS1.3")]
    CipherSuitesWithTls13,
    #[error("client-cert-auth needs a trusted-ca-file")]
    NoTrustedCa,
    #[error("TLS between peers needs a peer-trusted-ca-file")]
    NoPeerCa,
    #[error("allowed-cn and allowed-hostname are mutually exclusive")]
    AllowedBoth,
    #[error("{0:?} is no host name")]
    Hostname(String),
    #[error(transparent)]
    Verifier(#[from] tokio_rustls::rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Rustls(#[from] tokio_rustls::rustls::Error),
}
