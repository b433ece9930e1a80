//! From files to what a handshake needs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version;

use crate::ReadFile;
use crate::TlsError;
use crate::TlsOptions;
use crate::TlsVersion;
use crate::ciphers;
use crate::common_name;
use crate::loaded::Loaded;
use crate::loaded::Shown;

/// What the files held at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
    dial_with: Option<(Vec<u8>, Vec<u8>)>,
}

/// What a verified certificate says of who shows it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The subject's common name: the user, where certificates name users.
    pub common_name: Option<String>,
    /// The chain as sent, its owner's certificate first.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Identity {
    fn of(certificates: &[CertificateDer<'_>]) -> Identity {
        Identity {
            common_name: certificates.first().and_then(|own| common_name::common_name(own)),
            certificates: certificates.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        }
    }
}

impl Files {
    /// Reads all of them.
    pub fn read(options: &TlsOptions, read: &ReadFile) -> Result<Files, TlsError> {
        let read = |path: &Path| read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Files {
            cert: read(&options.cert_file)?,
            key: read(&options.key_file)?,
            ca: options.trusted_ca_file.as_deref().map(read).transpose()?,
            crl: options.crl_file.as_deref().map(read).transpose()?,
            dial_with: match &options.dial_with {
                Some((cert, key)) => Some((read(cert)?, read(key)?)),
                None => None,
            },
        })
    }
}

/// The settings of a handshake.
pub struct Settings {
    /// For those who connect.
    pub config: Arc<ServerConfig>,
    /// For connections made, where the options say that some are.
    pub dial: Option<Arc<ClientConfig>>,
    /// What these settings are made of.
    pub loaded: Loaded,
    allowed_cns: Vec<String>,
    allowed_hostnames: Vec<ServerName<'static>>,
}

impl Settings {
    /// Builds them.
    pub fn build(options: &TlsOptions, files: &Files) -> Result<Settings, TlsError> {
        if !options.allowed_cns.is_empty() && !options.allowed_hostnames.is_empty() {
            return Err(TlsError::AllowedBoth);
        }
        let mut provider = ring::default_provider();
        provider.cipher_suites = ciphers::select(&options.cipher_suites)?;
        let provider = Arc::new(provider);
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions(options)?)?;
        let dial = if options.dials { Some(Arc::new(dial_config(options, files, &provider)?)) } else { None };
        let builder = match verifier(options, files, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let chain: Vec<CertificateDer<'static>> = all(&files.cert, &options.cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|error| broken(&options.key_file, &error))?;
        let loaded = loaded(options, files, &chain)?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would outlive a certificate that was revoked or replaced since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let hostname = |name: &String| ServerName::try_from(name.clone()).map_err(|_| TlsError::Hostname(name.clone()));
        Ok(Settings {
            config: Arc::new(config),
            dial,
            loaded,
            allowed_cns: options.allowed_cns.clone(),
            allowed_hostnames: options.allowed_hostnames.iter().map(hostname).collect::<Result<_, _>>()?,
        })
    }

    /// The identity in a chain that was verified, if it is one of those allowed.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> io::Result<Identity> {
        let identity = Identity::of(chain);
        if !self.allowed_cns.is_empty() {
            let allowed = identity.common_name.as_ref().is_some_and(|name| self.allowed_cns.contains(name));
            if !allowed {
                return Err(refused("the client certificate's common name is not allowed"));
            }
        }
        if !self.allowed_hostnames.is_empty() {
            let own = chain.first().ok_or_else(|| refused("no client certificate"))?;
            let parsed = ParsedCertificate::try_from(own).map_err(io::Error::other)?;
            if !self.allowed_hostnames.iter().any(|name| verify_server_name(&parsed, name).is_ok()) {
                return Err(refused("the client certificate's host names are not allowed"));
            }
        }
        Ok(identity)
    }
}

fn loaded(options: &TlsOptions, files: &Files, chain: &[CertificateDer<'_>]) -> Result<Loaded, TlsError> {
    let trusted: Vec<CertificateDer<'_>> = match (&files.ca, &options.trusted_ca_file) {
        (Some(ca), Some(path)) => all(ca, path)?,
        _ => Vec::new(),
    };
    let dial: Vec<CertificateDer<'_>> = match (&files.dial_with, &options.dial_with) {
        (Some((cert, _)), Some((path, _))) if options.dials => all(cert, path)?,
        _ => Vec::new(),
    };
    Ok(Loaded::of(Shown::first_of(chain), Shown::first_of(&dial), &trusted))
}

/// As the one who connects.
fn dial_config(options: &TlsOptions, files: &Files, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, TlsError> {
    let (Some(ca), Some(path)) = (&files.ca, &options.trusted_ca_file) else { return Err(TlsError::NoPeerCa) };
    let ((cert, key), (cert_path, key_path)) = match (&files.dial_with, &options.dial_with) {
        (Some((cert, key)), Some((cert_path, key_path))) => ((cert, key), (cert_path, key_path)),
        _ => ((&files.cert, &files.key), (&options.cert_file, &options.key_file)),
    };
    let chain: Vec<CertificateDer<'static>> = all(cert, cert_path)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| broken(key_path, &error))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(options)?)?
        .with_root_certificates(roots(ca, path)?)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // As towards clients: a resumed session would outlive what it was opened with.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(ca: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in all::<CertificateDer<'static>>(ca, path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

fn versions(options: &TlsOptions) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
    const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
    const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
    const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    let min = options.min_version.unwrap_or(TlsVersion::Tls12);
    let max = options.max_version.unwrap_or(TlsVersion::Tls13);
    if min == TlsVersion::Tls13 && !options.cipher_suites.is_empty() {
        return Err(TlsError::CipherSuitesWithTls13);
    }
    match (min, max) {
        (TlsVersion::Tls12, TlsVersion::Tls12) => Ok(TLS12),
        (TlsVersion::Tls13, TlsVersion::Tls13) => Ok(TLS13),
        (TlsVersion::Tls12, TlsVersion::Tls13) => Ok(BOTH),
        (TlsVersion::Tls13, TlsVersion::Tls12) => Err(TlsError::VersionRange),
    }
}

fn verifier(
    options: &TlsOptions,
    files: &Files,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (Some(ca), Some(path)) = (&files.ca, &options.trusted_ca_file) else {
        return if options.client_cert_auth { Err(TlsError::NoTrustedCa) } else { Ok(None) };
    };
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca, path)?), provider);
    if let (Some(crl), Some(path)) = (&files.crl, &options.crl_file) {
        // The list names the certificates that are refused, as for etcd; it need not cover every issuer of a chain.
        builder = builder
            .with_crls(revocations(crl, path)?)
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status();
    }
    Ok(Some(builder.build()?))
}

/// A list in PEM or, as etcd also reads it, in DER.
fn revocations(bytes: &[u8], path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    all(bytes, path)
}

fn all<T: PemObject>(bytes: &[u8], path: &Path) -> Result<Vec<T>, TlsError> {
    let items = T::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(|error| broken(path, &error))?;
    if items.is_empty() { Err(broken(path, &pem::Error::NoItemsFound)) } else { Ok(items) }
}

fn broken(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), reason: error.to_string() }
}
