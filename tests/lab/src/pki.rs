//! The certificates of a lab and the kubeconfigs that show them.

use std::path::Path;

use anyhow::Context as _;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use serde_json::json;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
    key: String,
}

// === impl Authority ===

impl Authority {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (cert, pem) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        Ok(Self { issuer: Issuer::new(params, key), cert, key: pem })
    }

    /// Its certificate as `<folder>/<name>.crt`.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        write(folder, &format!("{name}.crt"), &self.cert)
    }

    pub fn write_key(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        write(folder, &format!("{name}.key"), &self.key)
    }

    /// A client's certificate and key as `<folder>/<file>.{crt,key}`.
    pub fn client(&self, folder: &Path, file: &str, name: &str, group: Option<&str>) -> anyhow::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.issue(folder, file, params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same for a server of these names and addresses.
    pub fn server(&self, folder: &Path, file: &str, names: &[&str]) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, file);
        self.issue(folder, file, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(
        &self,
        folder: &Path,
        file: &str,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        write(folder, &format!("{file}.crt"), &params.signed_by(&key, &self.issuer)?.pem())?;
        write(folder, &format!("{file}.key"), &key.serialize_pem())
    }
}

/// A key pair without a certificate, for signatures on tokens.
pub fn signing_key(folder: &Path, file: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    write(folder, &format!("{file}.pub"), &key.public_key_pem())?;
    write(folder, &format!("{file}.key"), &key.serialize_pem())
}

/// How to reach the API server at `server` as the client `name`, whose files and `ca.crt` are in `seen_at`, as `<folder>/<name>.kubeconfig`.
pub fn kubeconfig(folder: &Path, name: &str, server: &str, seen_at: &Path) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": seen_at.join("ca.crt")}}],
        "users": [{"name": name, "user": {
            "client-certificate": seen_at.join(format!("{name}.crt")),
            "client-key": seen_at.join(format!("{name}.key")),
        }}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        "current-context": "lab",
    });
    // YAML is what is asked for, and JSON is YAML.
    write(folder, &format!("{name}.kubeconfig"), &format!("{config:#}\n"))
}

fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
