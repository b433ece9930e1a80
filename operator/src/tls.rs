//! Certificates: a CA for each plane of a cluster, and leaves that it signs.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use k8s_openapi::jiff::Timestamp;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;
use sha2::Digest as _;
use sha2::Sha256;
use tokio_rustls::rustls::Error as RustlsError;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use crate::store::Credentials;

/// Clocks may differ by so much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A certificate and its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// What a leaf is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and IP addresses.
    pub sans: Vec<String>,
    pub server: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("certificate: {0}")]
    Time(String),
    #[error("Secret {0}: {1}")]
    Secret(String, String),
    /// What others are to have signed.
    #[error("{0}")]
    Foreign(String),
}

/// A new CA.
///
/// # Errors
/// No key can be made.
pub fn new_ca(name: &str, validity: SignedDuration, now: Timestamp) -> Result<Pair, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    between(&mut params, validity, now)?;
    let key = KeyPair::generate()?;
    Ok(Pair { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A leaf that `ca` signs.
///
/// # Errors
/// The CA or a name cannot be used.
pub fn sign(ca: &Pair, leaf: &Leaf, validity: SignedDuration, now: Timestamp) -> Result<Pair, TlsError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.cert, KeyPair::from_pem(&ca.key)?)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
    for organization in &leaf.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    for name in &leaf.sans {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if leaf.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    between(&mut params, validity, now)?;
    let key = KeyPair::generate()?;
    Ok(Pair { cert: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn between(params: &mut CertificateParams, validity: SignedDuration, now: Timestamp) -> Result<(), TlsError> {
    let time = |at: Result<Timestamp, k8s_openapi::jiff::Error>| {
        let at = at.map_err(|error| TlsError::Time(error.to_string()))?;
        time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|error| TlsError::Time(error.to_string()))
    };
    params.not_before = time(now.checked_sub(SKEW))?;
    params.not_after = time(now.checked_add(validity))?;
    Ok(())
}

/// Whether those who trust its CA take this certificate now: as a server's of the name `host`, and as a client's. Answers its end.
///
/// # Errors
/// Why they do not, or what cannot be read.
pub fn check(shown: &Credentials, host: Option<&str>, as_client: bool, now: Timestamp) -> Result<Timestamp, String> {
    let chain = certificates("tls.crt", &shown.cert)?;
    let leaf = chain.first().ok_or("tls.crt: there is no certificate in it")?;
    let end = end(leaf).map_err(|why| format!("tls.crt: {why}"))?;
    let key = PrivateKeyDer::from_pem_slice(&shown.key).map_err(|error| format!("tls.key: {error}"))?;
    let provider = Arc::new(ring::default_provider());
    CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| format!("tls.key: {error}"))?;
    let mut roots = RootCertStore::empty();
    for ca in certificates("ca.crt", &shown.ca)? {
        roots.add(ca).map_err(|error| format!("ca.crt: {error}"))?;
    }
    let (roots, time) = (Arc::new(roots), unix_time(now)?);
    let refused = |error| match error {
        RustlsError::InvalidCertificate(error) => format!("tls.crt: {error}"),
        error => format!("tls.crt: {error}"),
    };
    let unusable = |error| format!("ca.crt: {error}");
    if let Some(host) = host {
        let name = ServerName::try_from(host).map_err(|error| format!("{host}: {error}"))?;
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let taken = roots.map_err(unusable)?.verify_server_cert(leaf, &chain[1..], &name, &[], time);
        taken.map_err(refused)?;
    }
    if as_client {
        let roots = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        roots.map_err(unusable)?.verify_client_cert(leaf, &chain[1..], time).map_err(refused)?;
    }
    Ok(end)
}

/// Whether certificates can be signed by this CA now.
///
/// # Errors
/// Why not.
pub fn check_authority(ca: &Pair, now: Timestamp) -> Result<(), String> {
    let chain = certificates("tls.crt", ca.cert.as_bytes())?;
    let end = end(chain.first().ok_or("tls.crt: there is no certificate in it")?)?;
    if end <= now {
        return Err(format!("tls.crt: the CA has expired at {end}"));
    }
    let key = PrivateKeyDer::from_pem_slice(ca.key.as_bytes()).map_err(|error| format!("tls.key: {error}"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| format!("tls.key: {error}"))?;
    Ok(())
}

/// SHA-256 of a certificate's DER, in hex.
fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fingerprint and the end of the first certificate in a PEM.
///
/// # Errors
/// There is none, or one that cannot be read.
pub fn first(file: &str, pem: &[u8]) -> Result<(String, Timestamp), String> {
    let read = certificates(file, pem)?;
    let first = read.first().ok_or_else(|| format!("{file}: there is no certificate in it"))?;
    Ok((fingerprint(first), end(first).map_err(|why| format!("{file}: {why}"))?))
}

/// The certificates in a PEM, each as PEM.
///
/// # Errors
/// There is none, or one that cannot be read.
pub fn bundle(file: &str, pem: &[u8]) -> Result<BTreeSet<String>, String> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(pem).map_err(|error| format!("{file}: {error}"))?;
    let each = text.split_inclusive(END).filter_map(|part| Some(&part[part.find("-----BEGIN CERTIFICATE-----")?..]));
    let read = each.map(|part| first(file, part.as_bytes()).map(|_| format!("{part}\n")));
    let read = read.collect::<Result<BTreeSet<_>, String>>()?;
    if read.is_empty() { Err(format!("{file}: there is no certificate in it")) } else { Ok(read) }
}

fn certificates(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| format!("{file}: {error}"))?;
    if read.is_empty() { Err(format!("{file}: there is no certificate in it")) } else { Ok(read) }
}

fn end(certificate: &CertificateDer<'_>) -> Result<Timestamp, String> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|error| error.to_string())
}

fn unix_time(now: Timestamp) -> Result<UnixTime, String> {
    let seconds = u64::try_from(now.as_second()).map_err(|error| error.to_string())?;
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "a-00000.a-peer.n.svc.cluster.local";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn shown(leaf: &Leaf, validity: SignedDuration) -> Credentials {
        let ca = new_ca("ca", SignedDuration::from_hours(24), now()).unwrap();
        let pair = sign(&ca, leaf, validity, now()).unwrap();
        Credentials { ca: ca.cert.into(), cert: pair.cert.into(), key: pair.key.into() }
    }

    fn server(name: &str) -> Leaf {
        Leaf { common_name: "a".to_owned(), sans: vec![name.to_owned()], server: true, ..Leaf::default() }
    }

    #[test]
    fn a_certificate_is_taken_for_what_it_is_made_for_and_until_its_end() {
        let hour = SignedDuration::from_hours(1);
        let good = shown(&server("*.a-peer.n.svc.cluster.local"), hour);
        assert_eq!(check(&good, Some(HOST), true, now()).unwrap(), now().checked_add(hour).unwrap());
        let late = now().checked_add(SignedDuration::from_hours(2)).unwrap();
        assert!(check(&good, Some(HOST), true, late).unwrap_err().contains("expired"));
        let other = shown(&server("*.b-peer.n.svc.cluster.local"), hour);
        let error = check(&other, Some(HOST), true, now()).unwrap_err();
        assert!(error.contains(HOST), "{error}");
        let client = shown(&Leaf { sans: vec![HOST.to_owned()], ..Leaf::default() }, hour);
        assert!(check(&client, None, true, now()).is_ok());
        assert!(check(&client, Some(HOST), false, now()).is_err());
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let hour = SignedDuration::from_hours(1);
        let (one, other) = (shown(&server(HOST), hour), shown(&server(HOST), hour));
        let mixed = |ca: &[u8], key: &[u8]| Credentials { ca: ca.into(), cert: one.cert.clone(), key: key.into() };
        let said = |shown: &Credentials| check(shown, Some(HOST), true, now()).unwrap_err();
        assert!(said(&mixed(&other.ca, &one.key)).starts_with("tls.crt: "));
        assert!(said(&mixed(&one.ca, &other.key)).starts_with("tls.key: "));
        assert!(said(&mixed(b"", &one.key)).starts_with("ca.crt: "));
        assert!(said(&mixed(&one.ca, b"nonsense")).starts_with("tls.key: "));
    }

    #[test]
    fn a_bundle_is_the_same_in_whatever_order_and_with_whatever_around() {
        let [one, other] =
            ["one", "other"].map(|name| new_ca(name, SignedDuration::from_hours(1), now()).unwrap().cert);
        let both = bundle("ca.crt", format!("{one}{other}").as_bytes()).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(bundle("ca.crt", format!("of whom\n{other}{one}\n{one}").as_bytes()).unwrap(), both);
        assert!(both.contains(&one) && both.contains(&other), "{both:?}");
        assert!(bundle("ca.crt", b"nothing").is_err());
        assert!(bundle("ca.crt", one.replace('M', "-").as_bytes()).is_err());
    }

    #[test]
    fn an_authority_signs_until_its_end_and_with_its_own_key() {
        let ca = new_ca("ca", SignedDuration::from_hours(1), now()).unwrap();
        assert_eq!(check_authority(&ca, now()), Ok(()));
        assert!(check_authority(&ca, now().checked_add(SignedDuration::from_hours(2)).unwrap()).is_err());
        let other = new_ca("ca", SignedDuration::from_hours(1), now()).unwrap();
        assert!(check_authority(&Pair { key: other.key, ..ca }, now()).is_err());
    }
}
