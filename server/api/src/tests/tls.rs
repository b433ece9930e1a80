//! TLS: who is let in, and files that change under a running server.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_proto::etcdserverpb as pb;
use garboard_runtime::clock;
use parking_lot::Mutex;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SerialNumber;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring;

use crate::ApiConfig;
use crate::TlsError;
use crate::TlsOptions;
use crate::TlsVersion;
use crate::tests::client::Client;
use crate::tests::fixture::Member;
use crate::tests::fixture::PATIENCE;
use crate::tests::fixture::address;
use crate::tests::fixture::config;
use crate::tests::pages::http;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

struct Signed {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, common_name: &str, hostname: &str, serial: u64) -> Signed {
        let mut params = CertificateParams::new(vec![hostname.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            cert: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    fn revoke(&self, serial: u64) -> String {
        let now = rcgen::date_time_ymd(2024, 1, 1);
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

#[derive(Clone, Default)]
struct Files(Arc<Mutex<HashMap<PathBuf, Vec<u8>>>>);

impl Files {
    fn put(&self, path: &str, content: &str) {
        self.0.lock().insert(path.into(), content.into());
    }

    fn put_server(&self, server: &Signed) {
        self.put("server.crt", &server.cert);
        self.put("server.key", &server.key);
    }

    fn config(&self, change: impl FnOnce(&mut TlsOptions)) -> ApiConfig {
        let files = self.clone();
        let read = move |path: &Path| files.0.lock().get(path).cloned().ok_or(std::io::ErrorKind::NotFound.into());
        let mut options =
            TlsOptions { cert_file: "server.crt".into(), key_file: "server.key".into(), ..Default::default() };
        change(&mut options);
        let mut config = config();
        config.client_urls = vec!["https://127.0.0.1:0".parse().unwrap()];
        config.read_file = Arc::new(read);
        config.tls = Some(options);
        config.tls_look_interval = Duration::ZERO;
        config
    }
}

/// Shakes hands as a client that trusts `ca`.
async fn connect(
    member: &Member,
    ca: &Authority,
    own: Option<&Signed>,
    alpn: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.key_der.clone()).unwrap();
            builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(member.address()).await.unwrap();
    let name = ServerName::try_from("member.example").unwrap();
    clock::timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

/// Whether such a client is served. In TLS 1.3 the server's refusal comes after the client's end of the handshake.
async fn is_served(member: &Member, ca: &Authority, own: Option<&Signed>) -> bool {
    let Ok(mut stream) = connect(member, ca, own, "http/1.1").await else { return false };
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut page = Vec::new();
    let exchange = async {
        stream.write_all(request).await?;
        stream.read_to_end(&mut page).await
    };
    // The end may come without TLS's own farewell; what was answered counts.
    let _ = clock::timeout(PATIENCE, exchange).await.unwrap();
    page.ends_with(b"ok\n")
}

#[tokio::test]
async fn both_protocols_are_spoken_over_tls() {
    let (ca, files) = (Authority::new(), Files::default());
    files.put_server(&ca.sign("server", "member.example", 1));
    let member = Member::start(files.config(|_| ())).await;
    assert!(is_served(&member, &ca, None).await);
    let stream = connect(&member, &ca, None, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = Client::connect(stream).await;
    let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
    client.unary::<pb::RangeResponse>("/etcdserverpb.KV/Range", &range).await.unwrap();
    assert!(!is_served(&member, &Authority::new(), None).await, "the client does not know the server's authority");
    member.stop().await;
}

#[tokio::test]
async fn with_a_client_ca_only_its_certificates_are_let_in() {
    let (ca, files) = (Authority::new(), Files::default());
    files.put_server(&ca.sign("server", "member.example", 1));
    files.put("ca.crt", &ca.pem);
    let member = Member::start(files.config(|options| {
        options.trusted_ca_file = Some("ca.crt".into());
        options.client_cert_auth = true;
    }))
    .await;
    assert!(is_served(&member, &ca, Some(&ca.sign("root", "client.example", 2))).await);
    assert!(!is_served(&member, &ca, None).await);
    assert!(!is_served(&member, &ca, Some(&Authority::new().sign("root", "client.example", 3))).await);
    member.stop().await;
}

#[tokio::test]
async fn names_that_are_allowed_and_certificates_that_were_revoked() {
    let (ca, files) = (Authority::new(), Files::default());
    files.put_server(&ca.sign("server", "member.example", 1));
    files.put("ca.crt", &ca.pem);
    files.put("ca.crl", &ca.revoke(7));
    let alice = ca.sign("alice", "alice.example", 2);
    let bob = ca.sign("bob", "bob.example", 3);
    let revoked = ca.sign("alice", "alice.example", 7);
    for by_hostname in [false, true] {
        let member = Member::start(files.config(|options| {
            options.trusted_ca_file = Some("ca.crt".into());
            options.crl_file = Some("ca.crl".into());
            if by_hostname {
                options.allowed_hostnames = vec!["carol.example".into(), "alice.example".into()];
            } else {
                options.allowed_cns = vec!["carol".into(), "alice".into()];
            }
        }))
        .await;
        assert!(is_served(&member, &ca, Some(&alice)).await);
        assert!(!is_served(&member, &ca, Some(&bob)).await, "by host name: {by_hostname}");
        assert!(!is_served(&member, &ca, Some(&revoked)).await, "by host name: {by_hostname}");
        member.stop().await;
    }
}

#[tokio::test]
async fn new_files_are_taken_and_broken_ones_are_not() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::default());
    files.put_server(&old.sign("server", "member.example", 1));
    let member = Member::start(files.config(|_| ())).await;
    assert!(is_served(&member, &old, None).await);
    let kept = Client::connect(connect(&member, &old, None, "h2").await.unwrap()).await;

    files.put("server.crt", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    assert!(is_served(&member, &old, None).await, "a broken file keeps the certificate before it");
    let replacement = new.sign("server", "member.example", 1);
    files.put("server.crt", &replacement.cert);
    assert!(is_served(&member, &old, None).await, "the key does not fit yet");
    files.put("server.key", &replacement.key);
    assert!(is_served(&member, &new, None).await, "both are there");
    assert!(!is_served(&member, &old, None).await);
    files.0.lock().remove(Path::new("server.key"));
    assert!(is_served(&member, &new, None).await, "a file that went away changes nothing");

    let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
    kept.unary::<pb::RangeResponse>("/etcdserverpb.KV/Range", &range).await.expect("open connections go on");
    member.stop().await;
}

#[tokio::test]
async fn a_client_ca_is_rotated_and_the_pages_tell_what_is_loaded() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::default());
    files.put_server(&old.sign("server", "member.example", 1));
    files.put("ca.crt", &old.pem);
    let mut config = files.config(|options| {
        options.trusted_ca_file = Some("ca.crt".into());
        options.client_cert_auth = true;
    });
    config.metrics_urls = vec!["http://127.0.0.1:0".parse().unwrap()];
    let member = Member::start(config).await;
    let metrics = address(&member.running.metrics_urls[0]);
    let told = async || -> serde_json::Value {
        let page = http(metrics, "GET", "/tls").await;
        serde_json::from_str(page.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    let (before, after) = (old.sign("root", "client.example", 2), new.sign("root", "client.example", 2));
    let first = told().await;
    assert_eq!(first["client"]["trust"].as_array().unwrap().len(), 1);
    assert_eq!(first["client"]["certificate"].as_str().unwrap().len(), 64);
    assert!(first.get("peer").is_none(), "peers have no TLS here: {first}");
    assert!(!is_served(&member, &old, Some(&after)).await);

    files.put("ca.crt", &format!("{}{}", old.pem, new.pem));
    let both = told().await;
    assert_eq!(both["client"]["trust"].as_array().unwrap().len(), 2);
    assert_eq!(both["client"]["certificate"], first["client"]["certificate"]);
    assert!(is_served(&member, &old, Some(&before)).await && is_served(&member, &old, Some(&after)).await);

    files.put_server(&new.sign("server", "member.example", 1));
    assert_ne!(told().await["client"]["certificate"], first["client"]["certificate"]);
    files.put("ca.crt", &new.pem);
    let last = told().await;
    assert_eq!(last["client"]["trust"].as_array().unwrap().len(), 1);
    assert_ne!(last["client"]["trust"], first["client"]["trust"]);
    assert!(is_served(&member, &new, Some(&after)).await);
    assert!(!is_served(&member, &new, Some(&before)).await, "a client of the CA before");

    let end = last["client"]["notAfter"].as_str().unwrap();
    assert!(end.starts_with("4096-01-01T00:00:00Z"), "{end}");
    let gauge = "garboard_tls_certificate_not_after_seconds{plane=\"client\"} 67090118400\n";
    let page = http(metrics, "GET", "/metrics").await;
    assert!(page.contains(gauge), "{page}");
    assert!(http(metrics, "POST", "/tls").await.starts_with("HTTP/1.1 405 "));
    member.stop().await;
}

#[tokio::test]
async fn options_that_cannot_be_met_are_refused_at_the_start() {
    let (ca, files) = (Authority::new(), Files::default());
    let server = ca.sign("server", "member.example", 1);
    files.put_server(&server);
    let open = |change: fn(&mut TlsOptions)| {
        let config = files.config(change);
        garboard_tls::Reloader::open(config.tls.unwrap(), config.read_file, Duration::ZERO).map(|_| ())
    };
    assert!(open(|_| ()).is_ok());
    assert!(matches!(open(|options| options.client_cert_auth = true), Err(TlsError::NoTrustedCa)));
    assert!(matches!(open(|options| options.cert_file = "nothing".into()), Err(TlsError::Read { .. })));
    assert!(matches!(open(|options| options.cert_file = "server.key".into()), Err(TlsError::Pem { .. })));
    let upside_down = open(|options| {
        options.min_version = Some(TlsVersion::Tls13);
        options.max_version = Some(TlsVersion::Tls12);
    });
    assert!(matches!(upside_down, Err(TlsError::VersionRange)));
    assert!(matches!("TLS1.1".parse::<TlsVersion>(), Err(TlsError::Version(_))));
}
