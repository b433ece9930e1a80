//! The certificates that a cluster needs, the Secret that each is in, and those that the operator signs itself.
//!
//! Every Secret holds one certificate, as Kubernetes' own and cert-manager's do: `tls.crt`, `tls.key` and `ca.crt`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::authority::Authority;
use super::authority::authority_name;
use super::metadata;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Source;
use crate::cluster::validate::Valid;
use crate::names;
use crate::store::Credentials;
use crate::tls;
use crate::tls::Leaf;
use crate::tls::Pair;
use crate::tls::TlsError;

/// A certificate, and the Secret that it is or is to be in.
pub struct Need {
    pub secret: String,
    pub plane: Plane,
    /// Whose it is; `None`: a client's.
    pub member: Option<String>,
    pub leaf: Leaf,
    /// The name that a member is called by.
    host: Option<String>,
}

/// What a member shows on `plane`.
pub fn member_secret(valid: &Valid, plane: Plane, member: &str) -> Option<String> {
    valid.source(plane).map(|source| secret(source, format!("{member}-{plane}-tls")))
}

fn secret(source: &Source, made: String) -> String {
    match source {
        Source::Secret(name) => name.clone(),
        Source::OperatorCa | Source::CertManager(_) => made,
    }
}

/// What the operator shows to members.
fn operator_need(valid: &Valid) -> Option<Need> {
    client_need(valid, names::MANAGER, valid.names.operator_client())
}

/// What Pods of backups show to members: the operator's own key stays with the operator.
fn backup_need(valid: &Valid) -> Option<Need> {
    client_need(valid, "garboard-backup", valid.names.backup_client())
}

fn client_need(valid: &Valid, common_name: &str, made: String) -> Option<Need> {
    let source = valid.source(Plane::Client)?;
    let leaf = Leaf { common_name: common_name.to_owned(), ..Leaf::default() };
    Some(Need { secret: secret(source, made), plane: Plane::Client, member: None, leaf, host: None })
}

/// The Secret that Pods of backups mount; `None`: clients talk in the clear.
pub fn backup_secret(valid: &Valid) -> Option<String> {
    backup_need(valid).map(|need| need.secret)
}

/// All of them: first the operator's own.
pub fn needs<'a>(valid: &Valid, members: impl IntoIterator<Item = &'a String>) -> Vec<Need> {
    let mut needs: Vec<Need> = operator_need(valid).into_iter().chain(backup_need(valid)).collect();
    if valid.source(Plane::Client).is_some() {
        needs.extend(valid.spec.tls.client_certificates.iter().map(|wanted| Need {
            secret: wanted.secret_name.clone(),
            plane: Plane::Client,
            member: None,
            leaf: Leaf {
                common_name: wanted.common_name.clone().unwrap_or_else(|| wanted.name.clone()),
                organizations: wanted.organizations.clone(),
                ..Leaf::default()
            },
            host: None,
        }));
    }
    for member in members {
        for plane in Plane::ALL {
            needs.extend(member_need(valid, plane, member));
        }
    }
    needs
}

/// What `member` needs on `plane`.
fn member_need(valid: &Valid, plane: Plane, member: &str) -> Option<Need> {
    let mut sans = valid.names.member_hosts(member);
    sans.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if plane == Plane::Client {
        sans.extend(valid.names.client_hosts());
        sans.extend(valid.spec.tls.client.extra_sans.iter().cloned());
    }
    Some(Need {
        secret: member_secret(valid, plane, member)?,
        plane,
        member: Some(member.to_owned()),
        leaf: Leaf { common_name: member.to_owned(), sans, server: true, ..Leaf::default() },
        host: Some(valid.names.host(member)),
    })
}

/// Needs that are there before any member is: whoever founds the cluster has to be asked, and a Secret that all members share must do.
pub fn shared_needs(valid: &Valid) -> Vec<Need> {
    let mut needs: Vec<Need> = operator_need(valid).into_iter().collect();
    let shared = |plane: &Plane| matches!(valid.source(*plane), Some(Source::Secret(_)));
    let any = format!("{}-00000", valid.names.cluster);
    needs.extend(Plane::ALL.into_iter().filter(shared).filter_map(|plane| member_need(valid, plane, &any)));
    needs
}

// === impl Need ===

impl Need {
    /// Whether what is in the Secret does; answers the end of its validity.
    ///
    /// # Errors
    /// What is wrong with it, naming the Secret.
    pub fn check(&self, existing: &BTreeMap<String, Secret>, now: Timestamp) -> Result<Timestamp, String> {
        let fail = |why: String| format!("Secret {}: {why}", self.secret);
        let secret = existing.get(&self.secret).ok_or_else(|| fail("is not there".to_owned()))?;
        let credentials = credentials(secret).map_err(fail)?;
        let as_client = self.host.is_none() || self.plane == Plane::Peer;
        tls::check(&credentials, self.host.as_deref(), as_client, now).map_err(fail)
    }
}

/// What the operator shows to members; `None` while clients talk in the clear, or while there is none.
pub fn operator_credentials(valid: &Valid, existing: &BTreeMap<String, Secret>) -> Option<Credentials> {
    credentials(existing.get(&operator_need(valid)?.secret)?).ok()
}

/// What a Secret with one certificate holds.
///
/// # Errors
/// What it lacks.
pub fn credentials(secret: &Secret) -> Result<Credentials, String> {
    let get = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| bytes.0.clone()).ok_or_else(|| format!("has no {key}"))
    };
    Ok(Credentials { cert: get(CERT)?, key: get(KEY)?, ca: get(CA)? })
}

pub(super) const CERT: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
const CA: &str = "ca.crt";

// === signing ===

/// What a certificate says besides its end, and who has signed it: another one is made when this changes.
const SUBJECT: &str = "garboard.dev/subject";

/// What `authority` gives now: a certificate that is signed, or the one that there is with other CAs beside it. `None`: what is there does, and
/// for long enough.
///
/// # Errors
/// The CA cannot sign.
pub fn sign(
    valid: &Valid,
    authority: &Authority,
    existing: &BTreeMap<String, Secret>,
    need: &Need,
    now: Timestamp,
) -> Result<Option<Secret>, TlsError> {
    let (signer, bundle) = (authority.signer(), authority.bundle());
    let there = existing.get(&need.secret).filter(|there| is_of(there, need, signer));
    let lasts = |end: Timestamp| end.duration_since(now) > valid.renew_before;
    let kept = there.filter(|_| need.check(existing, now).is_ok_and(lasts)).and_then(pair);
    let pair = match kept {
        Some(_) if is_given(authority, existing, need) => return Ok(None),
        Some(kept) => kept,
        None => {
            let unusable = |why| TlsError::Secret(authority_name(valid, need.plane), why);
            tls::check_authority(signer, now).map_err(unusable)?;
            tls::sign(signer, &need.leaf, valid.cert_validity, now)?
        }
    };
    let data = [(CERT, pair.cert), (KEY, pair.key), (CA, bundle)];
    let data = data.map(|(key, text)| (key.to_owned(), text)).into();
    let mut secret = secret_of(valid, need.secret.clone(), need.member.as_deref(), data);
    secret.metadata.annotations = Some(BTreeMap::from([(SUBJECT.to_owned(), subject(need, signer))]));
    Ok(Some(secret))
}

/// Whether what is in the Secret is signed and trusts as `authority` has it now.
pub fn is_given(authority: &Authority, existing: &BTreeMap<String, Secret>, need: &Need) -> bool {
    existing.get(&need.secret).is_some_and(|there| {
        let ca = there.data.as_ref().and_then(|data| data.get(CA));
        is_of(there, need, authority.signer()) && ca.is_some_and(|ca| ca.0 == authority.bundle().as_bytes())
    })
}

fn is_of(there: &Secret, need: &Need, signer: &Pair) -> bool {
    there.metadata.annotations.as_ref().and_then(|noted| noted.get(SUBJECT)) == Some(&subject(need, signer))
}

fn subject(need: &Need, signer: &Pair) -> String {
    crate::cluster::hash(format!("{:?}{}", need.leaf, signer.cert).as_bytes())
}

fn pair(secret: &Secret) -> Option<Pair> {
    let credentials = credentials(secret).ok()?;
    Some(Pair { cert: String::from_utf8(credentials.cert).ok()?, key: String::from_utf8(credentials.key).ok()? })
}

/// A Secret of the cluster's, or of one of its members.
pub(super) fn secret_of(valid: &Valid, name: String, member: Option<&str>, data: BTreeMap<String, String>) -> Secret {
    let mut metadata = metadata(valid, name);
    if let Some(member) = member {
        metadata.labels = Some(valid.names.member_labels(member));
    }
    let data = data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect();
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}
