//! The certificates that a cluster needs, and the Secret that each is in: signed by the operator, or copied from where [others](super::foreign)
//! have put it.
//!
//! Every Secret holds one certificate, as Kubernetes' own and cert-manager's do: `tls.crt`, `tls.key` and `ca.crt`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::authority::Authority;
use super::authority::Signer;
use super::authority::authority_name;
use super::metadata;
use crate::cluster::validate::Plane;
use crate::cluster::validate::Valid;
use crate::crd::status::RotationPhase;
use crate::names;
use crate::store::Credentials;
use crate::tls;
use crate::tls::Leaf;
use crate::tls::Pair;
use crate::tls::TlsError;

/// A certificate, and the operator's Secret that it is or is to be in.
pub struct Need {
    pub secret: String,
    pub plane: Plane,
    /// Whose it is; `None`: a client's.
    pub member: Option<String>,
    pub leaf: Leaf,
    /// A client's that is neither the operator nor a Pod of its.
    pub is_users: bool,
    /// The name that a member is called by.
    host: Option<String>,
}

/// What a member shows on `plane`; `None`: nothing, in the clear.
pub fn member_secret(valid: &Valid, plane: Plane, member: &str) -> Option<String> {
    valid.source(plane).map(|_| format!("{member}-{plane}-tls"))
}

/// What the operator shows to members. Needed before any member is: whoever founds the cluster has to be asked.
pub fn operator_need(valid: &Valid) -> Option<Need> {
    client_need(valid, names::MANAGER, valid.names.operator_client())
}

/// What Pods of backups show to members: the operator's own key stays with the operator.
fn backup_need(valid: &Valid) -> Option<Need> {
    client_need(valid, "garboard-backup", valid.names.backup_client())
}

fn client_need(valid: &Valid, common_name: &str, secret: String) -> Option<Need> {
    valid.source(Plane::Client)?;
    let leaf = Leaf { common_name: common_name.to_owned(), ..Leaf::default() };
    Some(Need { secret, plane: Plane::Client, member: None, leaf, is_users: false, host: None })
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
            is_users: true,
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
pub fn member_need(valid: &Valid, plane: Plane, member: &str) -> Option<Need> {
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
        is_users: false,
        host: Some(valid.names.host(member)),
    })
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
        self.is_met_by(&credentials(secret).map_err(fail)?, now).map_err(fail)
    }

    /// Whether those who trust `shown.ca` take this; answers the end of its validity.
    ///
    /// # Errors
    /// Why not.
    pub fn is_met_by(&self, shown: &Credentials, now: Timestamp) -> Result<Timestamp, String> {
        let as_client = self.host.is_none() || self.plane == Plane::Peer;
        tls::check(shown, self.host.as_deref(), as_client, now)
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

const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";

// === what is put into them ===

/// Who has signed a certificate, and for whom: another one is made when this changes.
const SUBJECT: &str = "garboard.dev/subject";

/// What is to be in the Secret of `need` now; `None`: it is.
///
/// # Errors
/// Nothing can be.
pub fn compose(
    valid: &Valid,
    authority: &Authority,
    existing: &BTreeMap<String, Secret>,
    need: &Need,
    now: Timestamp,
) -> Result<Option<Secret>, TlsError> {
    let (signer, there) = (authority.signer(), existing.get(&need.secret));
    let held = there.and_then(|there| pair(&credentials(there).ok()?));
    let of_signer = Some(subject(need, signer));
    let (pair, subject) = match signer {
        Signer::Kept(ca) => {
            let lasts = |end: Timestamp| end.duration_since(now) > valid.renew_before;
            let stays = there.and_then(noted) == of_signer.as_ref() && need.check(existing, now).is_ok_and(lasts);
            let made = held.clone().filter(|_| stays).map_or_else(|| sign(valid, ca, need, now), Ok)?;
            (made, of_signer)
        }
        Signer::Foreign(foreign) => match (foreign.offers(need, existing, now), held.clone()) {
            (Ok(offered), _) => (offered, of_signer),
            // What it shows is taken as long as it was: what is trusted may change meanwhile.
            (Err(_), Some(held)) => (held, there.and_then(noted).cloned()),
            (Err(why), None) => return Err(TlsError::Foreign(why)),
        },
    };
    let is_noted = there.and_then(noted) == subject.as_ref();
    if held.as_ref() == Some(&pair) && is_noted && there.is_some_and(|there| trusts(there, authority)) {
        return Ok(None);
    }
    let data = [(CERT, pair.cert), (KEY, pair.key), (CA, authority.bundle())];
    let data = data.map(|(key, text)| (key.to_owned(), text)).into();
    let mut secret = secret_of(valid, need.secret.clone(), need.member.as_deref(), data);
    secret.metadata.annotations = subject.map(|subject| BTreeMap::from([(SUBJECT.to_owned(), subject)]));
    Ok(Some(secret))
}

fn sign(valid: &Valid, ca: &Pair, need: &Need, now: Timestamp) -> Result<Pair, TlsError> {
    let unusable = |why| TlsError::Secret(authority_name(valid, need.plane), why);
    tls::check_authority(ca, now).map_err(unusable)?;
    tls::sign(ca, &need.leaf, valid.cert_validity, now)
}

/// Why what is in the Secret of `need` is not yet as `authority` has it in its phase.
pub fn lags(authority: &Authority, existing: &BTreeMap<String, Secret>, need: &Need) -> Option<String> {
    let (signer, phase) = (authority.signer(), authority.phase);
    let is_kept = signer.is_kept();
    let Some(there) = existing.get(&need.secret) else {
        // Of others there may be nothing that would be taken: nobody shows anything from there.
        return is_kept.then(|| format!("Secret {} is not there yet", need.secret));
    };
    if !trusts(there, authority) {
        return Some(format!("Secret {} does not hold all CAs yet", need.secret));
    }
    // What others have signed before may stay, until they are those who are to sign.
    let may_stay = !is_kept && matches!(phase, RotationPhase::Stable | RotationPhase::TrustBoth);
    let is_signed = noted(there) == Some(&subject(need, signer));
    (!may_stay && !is_signed)
        .then(|| format!("Secret {} does not hold a certificate of the CA that signs yet", need.secret))
}

fn trusts(there: &Secret, authority: &Authority) -> bool {
    let ca = there.data.as_ref().and_then(|data| data.get(CA));
    ca.is_some_and(|ca| ca.0 == authority.bundle().as_bytes())
}

fn noted(there: &Secret) -> Option<&String> {
    there.metadata.annotations.as_ref()?.get(SUBJECT)
}

fn subject(need: &Need, signer: &Signer) -> String {
    crate::cluster::hash(format!("{:?}{}", need.leaf, signer.trust().concat()).as_bytes())
}

/// Certificate and key as text.
pub fn pair(shown: &Credentials) -> Option<Pair> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Pair { cert: text(&shown.cert)?, key: text(&shown.key)? })
}

/// A Secret of the cluster's, or of one of its members.
pub fn secret_of(valid: &Valid, name: String, member: Option<&str>, data: BTreeMap<String, String>) -> Secret {
    let mut metadata = metadata(valid, name);
    if let Some(member) = member {
        metadata.labels = Some(valid.names.member_labels(member));
    }
    let data = data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect();
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}
