//! Certificate authorities and certificates for tests, on P-256.

use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;

/// An authority with its certificate on disk.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub cert: PathBuf,
}

/// A certificate (or a public key alone) and the private key on disk.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What this machine is called.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

// === impl Authority ===

impl Authority {
    pub fn new(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let cert = dir.join(format!("{name}.crt"));
        std::fs::write(&cert, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), cert })
    }

    /// A certificate for servers on this machine and for clients, in `<dir>/<file>.{crt,key}`; files that exist are replaced.
    pub fn issue(
        &self,
        dir: &Path,
        file: &str,
        common_name: &str,
        organization: Option<&str>,
    ) -> anyhow::Result<Identity> {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        self.sign(dir, file, params)
    }

    /// The same for one more name of this machine, which is also the file's.
    pub fn issue_for_host(&self, dir: &Path, host: &str) -> anyhow::Result<Identity> {
        let names = NAMES.iter().chain([&host]).map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, host);
        self.sign(dir, host, params)
    }

    /// The same for servers at `addresses`, and under no name of this machine; with none at all, for clients.
    pub fn issue_for_addresses(&self, dir: &Path, name: &str, addresses: &[Ipv4Addr]) -> anyhow::Result<Identity> {
        self.issue_for(dir, name, addresses.iter().map(Ipv4Addr::to_string).collect())
    }

    /// The same for servers with these names.
    pub fn issue_for(&self, dir: &Path, file: &str, names: Vec<String>) -> anyhow::Result<Identity> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, file);
        self.sign(dir, file, params)
    }

    fn sign(&self, dir: &Path, file: &str, mut params: CertificateParams) -> anyhow::Result<Identity> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let identity = Identity { cert: dir.join(format!("{file}.crt")), key: dir.join(format!("{file}.key")) };
        replace(&identity.cert, &params.signed_by(&key, &self.issuer)?.pem())?;
        replace(&identity.key, &key.serialize_pem())?;
        Ok(identity)
    }
}

/// A key pair without a certificate, for signatures on tokens.
pub fn signing_key(dir: &Path, file: &str) -> anyhow::Result<Identity> {
    let key = KeyPair::generate()?;
    let identity = Identity { cert: dir.join(format!("{file}.pub")), key: dir.join(format!("{file}.key")) };
    replace(&identity.cert, &key.public_key_pem())?;
    replace(&identity.key, &key.serialize_pem())?;
    Ok(identity)
}

/// Replaces a file in one step, as certificate tools do.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, text)?;
    Ok(std::fs::rename(next, path)?)
}
