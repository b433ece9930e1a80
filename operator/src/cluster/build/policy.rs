//! Who may reach the members, where a network plugin sees to it.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::networking::v1::NetworkPolicyIngressRule;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use super::selector;
use crate::cluster::validate::Valid;
use crate::names;

/// Members reach each other, clients whom the spec lets, and everybody the metrics. What members themselves reach is not restricted.
pub fn network_policy(valid: &Valid) -> NetworkPolicy {
    let members = NetworkPolicyPeer { pod_selector: Some(selector(valid)), ..NetworkPolicyPeer::default() };
    let wanted = &valid.spec.network.network_policy.client_peers;
    let clients =
        (!wanted.is_empty()).then(|| [&[members.clone(), operator(valid), backups(valid)], wanted.as_slice()].concat());
    let rules = [(names::CLIENT_PORT, clients), (names::PEER_PORT, Some(vec![members])), (names::METRICS_PORT, None)];
    NetworkPolicy {
        metadata: metadata(valid, valid.names.cluster.clone()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(valid)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules.map(|(port, from)| rule(port, from)).into()),
            egress: None,
        }),
    }
}

/// `from`: `None` is anybody.
fn rule(port: i32, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicyIngressRule { ports: Some(vec![port]), from }
}

fn operator(valid: &Valid) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(labelled("kubernetes.io/metadata.name", &valid.operator_namespace)),
        pod_selector: Some(labelled("app.kubernetes.io/name", names::MANAGER)),
        ip_block: None,
    }
}

/// The Pods that take snapshots.
fn backups(valid: &Valid) -> NetworkPolicyPeer {
    let pod_selector = Some(labelled(names::BACKUP_OF, &valid.names.cluster));
    NetworkPolicyPeer { pod_selector, ..NetworkPolicyPeer::default() }
}

fn labelled(name: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(name.to_owned(), value.to_owned())])),
        ..LabelSelector::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::validate::tests::cluster;
    use crate::cluster::validate::tests::defaults;
    use crate::cluster::validate::validate;

    fn ingress(policy: serde_json::Value) -> serde_json::Value {
        let valid = validate(&cluster(json!({"network": {"networkPolicy": policy}})), &defaults()).unwrap();
        serde_json::to_value(network_policy(&valid).spec.unwrap().ingress).unwrap()
    }

    #[test]
    fn members_alone_reach_the_peer_port_and_clients_are_whom_the_spec_names() {
        let members = json!({"podSelector": {"matchLabels": {"garboard.dev/cluster": "a"}}});
        let operator = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "o"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "garboard-operator"}},
        });
        let backups = json!({"podSelector": {"matchLabels": {"garboard.dev/backup-of": "a"}}});
        let apps = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}});
        let rules = ingress(json!({"enabled": true, "clientPeers": [apps]}));
        assert_eq!(
            rules,
            json!([
                {"ports": [{"port": 2379, "protocol": "TCP"}], "from": [members, operator, backups, apps]},
                {"ports": [{"port": 2380, "protocol": "TCP"}], "from": [members]},
                {"ports": [{"port": 2381, "protocol": "TCP"}]},
            ])
        );
        assert_eq!(ingress(json!({"enabled": true}))[0], json!({"ports": [{"port": 2379, "protocol": "TCP"}]}));
    }
}
