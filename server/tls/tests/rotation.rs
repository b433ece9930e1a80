//! A CA is rotated under two members: whatever files are written in whichever order, each takes what the other shows, in both directions,
//! and says what it has loaded.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_tls::ReadFile;
use garboard_tls::Reloader;
use garboard_tls::TlsOptions;
use parking_lot::Mutex;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf {
    cert: String,
    key: String,
}

impl Authority {
    /// All have one name: only keys tell them apart.
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "peer-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self) -> Leaf {
        let mut params = CertificateParams::new(vec!["member.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Leaf { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// What a member has on its disk, and what it makes of it.
struct Member {
    files: Arc<Mutex<HashMap<PathBuf, String>>>,
    tls: Arc<Reloader>,
}

impl Member {
    fn new(leaf: &Leaf, ca: &str) -> Member {
        let files = Arc::new(Mutex::new(HashMap::new()));
        write(&files, leaf, ca);
        let read_from = Arc::clone(&files);
        let read: ReadFile = Arc::new(move |path: &Path| {
            let text = read_from.lock().get(path).cloned();
            text.map(String::into_bytes).ok_or(io::ErrorKind::NotFound.into())
        });
        let options = TlsOptions {
            cert_file: "tls.crt".into(),
            key_file: "tls.key".into(),
            dials: true,
            trusted_ca_file: Some("ca.crt".into()),
            client_cert_auth: true,
            ..Default::default()
        };
        Member { files, tls: Arc::new(Reloader::open(options, read, Duration::ZERO).unwrap()) }
    }

    fn write(&self, leaf: &Leaf, ca: &str) {
        write(&self.files, leaf, ca);
    }

    /// That what it says is what its files hold.
    async fn says_what_it_has(&self, leaf: &Leaf, authorities: &[&Authority]) {
        let settings = self.tls.current().await;
        let mut trust: Vec<String> = authorities.iter().map(|authority| fingerprint(&authority.pem)).collect();
        trust.sort_unstable();
        assert_eq!(settings.loaded.trust, trust);
        assert_eq!(settings.loaded.accept.as_ref().unwrap().sha256, fingerprint(&leaf.cert));
        assert_eq!(settings.loaded.dial, None, "it shows the same one when it connects");
    }
}

fn write(files: &Mutex<HashMap<PathBuf, String>>, leaf: &Leaf, ca: &str) {
    let mut files = files.lock();
    for (path, text) in [("tls.crt", leaf.cert.as_str()), ("tls.key", leaf.key.as_str()), ("ca.crt", ca)] {
        files.insert(path.into(), text.to_owned());
    }
}

fn fingerprint(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether one that dials and one that answers take each other, and a byte comes through.
async fn take_each_other(dialling: &Member, answering: &Member) -> bool {
    let (here, there) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(dialling.tls.current().await.dial.clone().unwrap());
    let acceptor = TlsAcceptor::from(Arc::clone(&answering.tls.current().await.config));
    let dial = async {
        let mut stream = connector.connect(ServerName::try_from("member.example").unwrap(), here).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let answer = async {
        let mut stream = acceptor.accept(there).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    };
    // In TLS 1.3 the refusal of a client's certificate comes after the client's end of the handshake: the byte tells.
    let (dialled, answered) = clock::timeout(PATIENCE, async { tokio::join!(dial, answer) }).await.unwrap();
    dialled.is_ok_and(|byte| byte == b'x') && answered.is_ok()
}

async fn know_each_other(one: &Member, other: &Member) -> bool {
    take_each_other(one, other).await && take_each_other(other, one).await
}

#[tokio::test]
async fn members_that_are_a_phase_apart_take_each_other_and_the_old_authority_ends() {
    let (old, new) = (Authority::new(), Authority::new());
    let both = format!("{}{}", old.pem, new.pem);
    let (a, b) = ([old.sign(), new.sign()], [old.sign(), new.sign()]);
    let (one, other) = (Member::new(&a[0], &old.pem), Member::new(&b[0], &old.pem));
    assert!(know_each_other(&one, &other).await);
    // What each phase writes: whose certificate, and which are trusted.
    let phases = [(0, both.as_str(), &[&old, &new][..]), (1, &both, &[&old, &new]), (1, &new.pem, &[&new])];
    for (n, (signer, ca, trusted)) in phases.into_iter().enumerate() {
        one.write(&a[signer], ca);
        assert!(know_each_other(&one, &other).await, "phase {n}, of one of them");
        one.says_what_it_has(&a[signer], trusted).await;
        other.write(&b[signer], ca);
        assert!(know_each_other(&one, &other).await, "phase {n}");
    }
    let left_behind = Member::new(&a[0], &both);
    assert!(!take_each_other(&left_behind, &other).await, "one who connects with a certificate of the old authority");
    assert!(!take_each_other(&other, &left_behind).await, "one who answers with it");
}

#[tokio::test]
async fn another_certificate_for_dialling_is_told_beside() {
    let authority = Authority::new();
    let (leaf, dialling) = (authority.sign(), authority.sign());
    let member = Member::new(&leaf, &authority.pem);
    let files = Arc::clone(&member.files);
    files.lock().insert("dial.crt".into(), dialling.cert.clone());
    files.lock().insert("dial.key".into(), dialling.key.clone());
    let read: ReadFile = Arc::new(move |path: &Path| {
        let text = files.lock().get(path).cloned();
        text.map(String::into_bytes).ok_or(io::ErrorKind::NotFound.into())
    });
    let options = TlsOptions {
        cert_file: "tls.crt".into(),
        key_file: "tls.key".into(),
        dial_with: Some(("dial.crt".into(), "dial.key".into())),
        dials: true,
        trusted_ca_file: Some("ca.crt".into()),
        ..Default::default()
    };
    let tls = Arc::new(Reloader::open(options, read, Duration::ZERO).unwrap());
    let loaded = tls.current().await.loaded.clone();
    assert_eq!(loaded.accept.unwrap().sha256, fingerprint(&leaf.cert));
    assert_eq!(loaded.dial.unwrap().sha256, fingerprint(&dialling.cert));
}
