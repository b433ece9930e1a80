//! cert-manager's Certificates. What they are is cert-manager's own: the operator writes down what it needs, and takes the Secret that comes.

use kube::api::ApiResource;
use kube::api::DynamicObject;
use kube::api::GroupVersionKind;
use serde_json::json;

use super::foreign::issued;
use super::metadata;
use super::secret::Need;
use crate::cluster::validate::Valid;
use crate::crd::cluster::IssuerRef;
use crate::names;

pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"))
}

/// The Certificate of what is needed. It belongs to the cluster, and its Secret to whoever cert-manager says.
pub fn certificate(valid: &Valid, need: &Need, issuer: &IssuerRef) -> DynamicObject {
    let labels = match &need.member {
        Some(member) => valid.names.member_labels(member),
        None => valid.names.labels(),
    };
    let (addresses, names): (Vec<_>, Vec<_>) =
        need.leaf.sans.iter().partition(|name| name.parse::<std::net::IpAddr>().is_ok());
    let mut usages = vec!["digital signature", "client auth"];
    if need.leaf.server {
        usages.push("server auth");
    }
    let tls = &valid.spec.tls;
    let spec = json!({
        "secretName": issued(need),
        // By its labels the operator finds the Secret, and knows whose it is.
        "secretTemplate": {"labels": labels},
        "commonName": need.leaf.common_name,
        "subject": {"organizations": need.leaf.organizations},
        "dnsNames": names,
        "ipAddresses": addresses,
        "usages": usages,
        "duration": tls.cert_validity,
        "renewBefore": tls.renew_before,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "encoding": "PKCS8", "rotationPolicy": "Always"},
        "issuerRef": issuer,
    });
    let mut object = DynamicObject::new(&need.secret, &resource());
    object.metadata = metadata(valid, need.secret.clone());
    object.metadata.labels = Some(labels);
    let hash = crate::cluster::hash(spec.to_string().as_bytes());
    object.metadata.annotations = Some([(names::SPEC_HASH.to_owned(), hash)].into());
    object.data = json!({"spec": spec});
    object
}
