//! What is known of the node that a member is on.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::jiff::Timestamp;

/// Somebody says that what ran there does not run any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Since when a node is gone or says nothing; `unseen` is when that of one that is gone was noticed.
pub fn lost_since(node: Option<&Node>, unseen: Option<Timestamp>) -> Option<Timestamp> {
    let Some(node) = node else { return unseen };
    let ready = ready(node)?;
    // Unknown: its kubelet has not been heard of. Who is out of service need not be waited for.
    match ready.status.as_str() {
        "True" => None,
        _ if is_tainted(node, OUT_OF_SERVICE) => Some(Timestamp::UNIX_EPOCH),
        "Unknown" => Some(ready.last_transition_time.as_ref()?.0),
        _ => None,
    }
}

/// Whether no Pods are to come to it.
pub fn is_cordoned(node: &Node) -> bool {
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    unschedulable || is_tainted(node, UNSCHEDULABLE)
}

pub fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "True")
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

fn is_tainted(node: &Node, key: &str) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(spec: serde_json::Value, ready: &str) -> Node {
        let since = "2026-01-01T00:00:00Z";
        let condition = serde_json::json!({"type": "Ready", "status": ready, "lastTransitionTime": since});
        serde_json::from_value(serde_json::json!({"spec": spec, "status": {"conditions": [condition]}})).unwrap()
    }

    #[test]
    fn a_node_is_cordoned_by_its_spec_or_by_the_taint() {
        let taint = |key: &str| serde_json::json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        for (spec, expected) in [
            (serde_json::json!({}), false),
            (serde_json::json!({"unschedulable": false}), false),
            (serde_json::json!({"unschedulable": true}), true),
            (taint("node.kubernetes.io/unschedulable"), true),
            (taint("dedicated"), false),
        ] {
            assert_eq!(is_cordoned(&node(spec.clone(), "True")), expected, "{spec}");
        }
    }

    #[test]
    fn a_node_is_lost_when_it_is_gone_silent_or_out_of_service() {
        let (silent, noticed) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-02-01T00:00:00Z".parse().unwrap());
        let plain = serde_json::json!({});
        let out = serde_json::json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]});
        assert_eq!(lost_since(None, Some(noticed)), Some(noticed));
        for (spec, ready, expected) in [
            (&plain, "True", None),
            (&plain, "False", None),
            (&plain, "Unknown", Some(silent)),
            (&out, "True", None),
            (&out, "False", Some(Timestamp::UNIX_EPOCH)),
        ] {
            let node = node(spec.clone(), ready);
            assert_eq!(lost_since(Some(&node), Some(noticed)), expected, "{spec} {ready}");
            assert_eq!(is_ready(&node), ready == "True");
        }
    }
}
