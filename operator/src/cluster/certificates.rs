//! The certificates of a cluster: asks for those that it needs, signs those that are the operator's to sign, and says which of them do not do.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::api::ListParams;
use kube::api::PostParams;

use super::PassError;
use super::act;
use super::act::ActError;
use super::apply;
use super::build::authority::Authority;
use super::build::authority::authority_name;
use super::build::authority::new_ca;
use super::build::certificate;
use super::build::secret;
use super::build::secret::Need;
use super::fetch::Objects;
use super::validate::Plane;
use super::validate::Source;
use super::validate::Valid;
use crate::crd::status::CertificateStatus;
use crate::names;
use crate::tls;
use crate::tls::TlsError;

/// What is known of them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Certificates {
    /// All that is wrong.
    pub problems: BTreeSet<String>,
    /// Why no member can start: what is wrong with those that all need.
    pub shared: Option<String>,
    /// Why a member cannot start.
    pub of: BTreeMap<String, String>,
    pub in_use: Vec<CertificateStatus>,
}

/// Makes what is needed; answers what stands in the way.
///
/// # Errors
/// The API server refuses.
pub async fn ensure(
    client: &Client,
    valid: &Valid,
    objects: &mut Objects,
    now: Timestamp,
) -> Result<Vec<String>, PassError> {
    let mut problems = Vec::new();
    let api = Api::<Secret>::namespaced(client.clone(), &valid.names.namespace);
    let needs = secret::needs(valid, &objects.names());
    for plane in Plane::ALL.into_iter().filter(|plane| valid.source(*plane) == Some(&Source::OperatorCa)) {
        let unusable = |why| TlsError::Secret(authority_name(valid, plane), why).to_string();
        let authority = match authority(&api, valid, objects, plane, now).await? {
            Ok(authority) => authority,
            Err(why) => {
                problems.push(unusable(why));
                continue;
            }
        };
        problems.extend(tls::check_authority(authority.signer(), now).err().map(unusable));
        for need in needs.iter().filter(|need| need.plane == plane) {
            match secret::sign(valid, &authority, &objects.secrets, need, now) {
                Ok(Some(secret)) => put(&api, secret, objects, valid).await?,
                Ok(None) => {}
                Err(error @ TlsError::Secret(..)) => problems.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    if valid.uses_cert_manager() {
        problems.extend(ask_cert_manager(client, valid, &needs, objects).await?);
    }
    forget(&api, objects).await?;
    Ok(problems)
}

/// The CA of a plane, made when there is none; or why it cannot be read.
async fn authority(
    api: &Api<Secret>,
    valid: &Valid,
    objects: &mut Objects,
    plane: Plane,
    now: Timestamp,
) -> Result<Result<Authority, String>, PassError> {
    let name = authority_name(valid, plane);
    if let Some(secret) = objects.secrets.get(&name) {
        return Ok(Authority::read(secret));
    }
    let authority = Authority::new(new_ca(valid, plane, now)?, valid.rotate_ca.clone());
    let params = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, &authority.secret(valid, plane)).await {
        Ok(secret) => {
            objects.secrets.insert(name, secret);
            Ok(Ok(authority))
        }
        // Another operator's, perhaps: what was signed by the one that is not kept nobody would take.
        Err(error) if act::is_already_there(&error) => Err(ActError::Taken(name).into()),
        Err(error) => Err(error.into()),
    }
}

/// Looks at all of them, as they are now.
pub fn look(valid: &Valid, objects: &Objects, stand_in_the_way: Vec<String>, now: Timestamp) -> Certificates {
    let mut found = Certificates { problems: stand_in_the_way.into_iter().collect(), ..Certificates::default() };
    for need in secret::needs(valid, &objects.names()) {
        match need.check(&objects.secrets, now) {
            Ok(end) => {
                let status = CertificateStatus { secret_name: need.secret, not_after: Time(end) };
                if !found.in_use.contains(&status) {
                    found.in_use.push(status);
                }
            }
            Err(why) => {
                let why = from_whom(valid, &need, why);
                if let Some(member) = need.member {
                    found.of.entry(member).or_insert_with(|| why.clone());
                }
                found.problems.insert(why);
            }
        }
    }
    for need in secret::shared_needs(valid) {
        if let Err(why) = need.check(&objects.secrets, now) {
            let why = from_whom(valid, &need, why);
            found.shared.get_or_insert_with(|| why.clone());
            found.problems.insert(why);
        }
    }
    found
}

/// With the issuer, where there is one: a name that is nobody's is what goes wrong first, and the Secret alone does not tell it.
fn from_whom(valid: &Valid, need: &Need, why: String) -> String {
    match valid.source(need.plane) {
        Some(Source::CertManager(issuer)) => format!("{why} (cert-manager: {} {})", issuer.kind, issuer.name),
        _ => why,
    }
}

/// Writes a Secret, unless somebody has since it was read.
pub(super) async fn put(
    api: &Api<Secret>,
    mut secret: Secret,
    objects: &mut Objects,
    valid: &Valid,
) -> Result<(), PassError> {
    let name = secret.name_any();
    secret.metadata.resource_version = objects.secrets.get(&name).and_then(Secret::resource_version);
    let written = apply(api, &secret, valid).await?;
    objects.secrets.insert(name, written);
    Ok(())
}

/// Certificates as they are needed, and none of members that have gone.
async fn ask_cert_manager(
    client: &Client,
    valid: &Valid,
    needs: &[Need],
    objects: &Objects,
) -> Result<Option<String>, PassError> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &valid.names.namespace, &certificate::resource());
    let labelled = ListParams::default().labels(&valid.names.selector_text());
    let there = match api.list(&labelled).await {
        Ok(there) => there.items,
        Err(error) if act::is(&error, 404) => {
            return Ok(Some("cert-manager is not installed: there are no Certificates".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    for need in needs {
        let Some(Source::CertManager(issuer)) = valid.source(need.plane) else { continue };
        let wanted = certificate::certificate(valid, need, issuer);
        let hash = |object: &DynamicObject| object.annotations().get(names::SPEC_HASH).cloned();
        let is = |object: &DynamicObject| object.name_any() == need.secret && hash(object) == hash(&wanted);
        if !there.iter().any(is) {
            apply(&api, &wanted, valid).await?;
        }
    }
    for left in there.iter().filter(|object| is_left(object.labels(), objects)) {
        remove(&api, &left.name_any()).await?;
    }
    Ok(None)
}

/// Secrets of members that have gone.
async fn forget(api: &Api<Secret>, objects: &Objects) -> Result<(), PassError> {
    for (name, secret) in &objects.secrets {
        if is_left(secret.labels(), objects) {
            remove(api, name).await?;
        }
    }
    Ok(())
}

fn is_left(labels: &BTreeMap<String, String>, objects: &Objects) -> bool {
    labels.get(names::MEMBER).is_some_and(|member| !objects.names().contains(member))
}

async fn remove<K>(api: &Api<K>, name: &str) -> Result<(), PassError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &Default::default()).await {
        Err(error) if !act::is(&error, 404) => Err(error.into()),
        _ => Ok(()),
    }
}
