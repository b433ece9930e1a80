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
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

use super::PassError;
use super::act;
use super::act::ActError;
use super::apply;
use super::build::authority::Authority;
use super::build::authority::Signer;
use super::build::authority::authority_name;
use super::build::certificate;
use super::build::foreign;
use super::build::foreign::Foreign;
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
    if valid.uses_cert_manager() || objects.secrets.values().any(is_issued) {
        problems.extend(ask_cert_manager(client, valid, &needs, objects).await?);
    }
    for plane in Plane::ALL.into_iter().filter(|plane| valid.source(*plane).is_some()) {
        problems.extend(fill(&api, valid, objects, &needs, plane, now).await?);
    }
    forget(&api, objects).await?;
    Ok(problems)
}

/// Puts into the Secrets of a plane what its authority gives; answers what stands in the way.
async fn fill(
    api: &Api<Secret>,
    valid: &Valid,
    objects: &mut Objects,
    needs: &[Need],
    plane: Plane,
    now: Timestamp,
) -> Result<Vec<String>, PassError> {
    // Before there is a member, none is asked for.
    let is_needed = needs.iter().any(|need| need.plane == plane);
    if !is_needed && matches!(valid.source(plane), Some(Source::CertManager(_))) {
        return Ok(Vec::new());
    }
    let unusable = |why| TlsError::Secret(authority_name(valid, plane), why).to_string();
    let asked = foreign::asked(valid, plane, needs, &objects.secrets, now);
    let mut problems: Vec<String> =
        asked.as_ref().err().map(|why| from_whom(valid, plane, why.clone())).into_iter().collect();
    let authority = match authority(api, valid, objects, plane, asked, now).await? {
        Some(Ok(authority)) => authority,
        Some(Err(why)) => {
            problems.push(unusable(why));
            return Ok(problems);
        }
        None => return Ok(problems),
    };
    if let Signer::Kept(ca) = authority.signer() {
        problems.extend(tls::check_authority(ca, now).err().map(unusable));
    }
    for need in needs.iter().filter(|need| need.plane == plane) {
        match secret::compose(valid, &authority, &objects.secrets, need, now) {
            Ok(Some(secret)) => put(api, secret, objects, valid).await?,
            Ok(None) => {}
            Err(TlsError::Foreign(why)) => problems.push(from_whom(valid, plane, why)),
            Err(error @ TlsError::Secret(..)) => problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(problems)
}

/// The authority of a plane, or why it cannot be read. Made when there is none; `None`: others are to sign, and have not yet.
async fn authority(
    api: &Api<Secret>,
    valid: &Valid,
    objects: &mut Objects,
    plane: Plane,
    asked: Result<Option<Foreign>, String>,
    now: Timestamp,
) -> Result<Option<Result<Authority, String>>, PassError> {
    if let Some(secret) = objects.secrets.get(&authority_name(valid, plane)) {
        return Ok(Some(Authority::read(secret)));
    }
    let signer = match asked {
        Ok(Some(foreign)) => Signer::Foreign(foreign),
        Ok(None) => Signer::new(valid, plane, now)?,
        Err(_) => return Ok(None),
    };
    let authority = Authority::new(signer, valid.rotate_ca.clone());
    put(api, authority.secret(valid, plane), objects, valid).await?;
    Ok(Some(Ok(authority)))
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
                let why = from_whom(valid, need.plane, why);
                if let Some(member) = need.member {
                    found.of.entry(member).or_insert_with(|| why.clone());
                }
                found.problems.insert(why);
            }
        }
    }
    if let Some(need) = secret::operator_need(valid) {
        found.shared = need.check(&objects.secrets, now).err().map(|why| from_whom(valid, need.plane, why));
    }
    found
}

/// With the issuer, where there is one: a name that is nobody's is what goes wrong first, and the Secret alone does not tell it.
fn from_whom(valid: &Valid, plane: Plane, why: String) -> String {
    match valid.source(plane) {
        Some(Source::CertManager(issuer)) => format!("{why} (cert-manager: {} {})", issuer.kind, issuer.name),
        _ => why,
    }
}

/// Writes a Secret, unless somebody has since it was read: another operator may be further.
pub(super) async fn put(
    api: &Api<Secret>,
    secret: Secret,
    objects: &mut Objects,
    valid: &Valid,
) -> Result<(), PassError> {
    let name = secret.name_any();
    let field_manager = Some(names::MANAGER.to_owned());
    let written = match objects.secrets.get(&name) {
        Some(there) if there.labels().get(names::CLUSTER) != Some(&valid.names.cluster) => {
            return Err(ActError::Taken(name).into());
        }
        Some(there) => {
            let change = Patch::Merge(change(there, &secret).map_err(kube::Error::SerdeError)?);
            api.patch(&name, &PatchParams { field_manager, ..PatchParams::default() }, &change).await?
        }
        None => match api.create(&PostParams { field_manager, ..PostParams::default() }, &secret).await {
            Err(error) if act::is_already_there(&error) => return Err(ActError::Taken(name).into()),
            created => created?,
        },
    };
    objects.secrets.insert(name, written);
    Ok(())
}

/// What makes `wanted` of `there`. Nothing stays of its data; of its annotations those that are others'.
fn change(there: &Secret, wanted: &Secret) -> serde_json::Result<Value> {
    let mut change = json!({"metadata": {"resourceVersion": there.resource_version(), "annotations": {}}, "data": {}});
    for key in there.data.iter().flatten().map(|(key, _)| key) {
        change["data"][key] = Value::Null;
    }
    for key in there.annotations().keys().filter(|key| key.starts_with("garboard.dev/")) {
        change["metadata"]["annotations"][key] = Value::Null;
    }
    for (key, bytes) in wanted.data.iter().flatten() {
        change["data"][key] = serde_json::to_value(bytes)?;
    }
    for (key, value) in wanted.annotations() {
        change["metadata"]["annotations"][key] = json!(value);
    }
    change["metadata"]["labels"] = json!(wanted.labels());
    change["metadata"]["ownerReferences"] = serde_json::to_value(wanted.owner_references())?;
    Ok(change)
}

/// Certificates as they are needed, and no others.
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
        Err(error) if act::is(&error, 404) && !valid.uses_cert_manager() => return Ok(None),
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
    // Who is to sign no more, still does until the members trust another.
    let stays = |need: &&Need| {
        let authority = objects.secrets.get(&authority_name(valid, need.plane));
        let authority = authority.and_then(|secret| Authority::read(secret).ok());
        let signs = authority.is_some_and(|authority| authority.foreign().any(|foreign| foreign.secret.is_none()));
        signs || matches!(valid.source(need.plane), Some(Source::CertManager(_)))
    };
    let stay: BTreeMap<String, &str> =
        needs.iter().filter(stays).map(|need| (foreign::issued(need), need.secret.as_str())).collect();
    for left in there.iter().filter(|object| !stay.values().any(|name| object.name_any() == *name)) {
        remove(&api, &left.name_any()).await?;
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), &valid.names.namespace);
    for (name, _) in objects.secrets.iter().filter(|(name, secret)| is_issued(secret) && !stay.contains_key(*name)) {
        remove(&secrets, name).await?;
    }
    Ok(None)
}

/// Whether cert-manager writes it, for the operator to copy.
fn is_issued(secret: &Secret) -> bool {
    secret.annotations().contains_key("cert-manager.io/certificate-name")
        && secret.name_any().ends_with(foreign::ISSUED)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_retired_and_a_note_that_is_over_do_not_stay() {
        let secret = |value: Value| -> Secret { serde_json::from_value(value).unwrap() };
        let there = secret(json!({
            "metadata": {"resourceVersion": "7", "annotations": {"garboard.dev/settled-at": "then", "other": "x"}},
            "data": {"tls.key": "b2xk", "next.key": "bmV3"},
        }));
        let wanted = secret(json!({
            "metadata": {"labels": {"a": "b"}, "annotations": {"garboard.dev/rotate-ca": "1"}},
            "data": {"tls.key": "bmV3"},
        }));
        let expected = json!({
            "metadata": {
                "resourceVersion": "7",
                "labels": {"a": "b"},
                "ownerReferences": [],
                "annotations": {"garboard.dev/settled-at": null, "garboard.dev/rotate-ca": "1"},
            },
            "data": {"tls.key": "bmV3", "next.key": null},
        });
        assert_eq!(change(&there, &wanted).unwrap(), expected);
    }
}
