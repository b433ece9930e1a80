//! An EtcdCluster where Pods have addresses of both families, and where they have IPv6 alone.

use std::path::Path;

use anyhow::ensure;
use garboard_lab::Families;

use super::super::kubernetes::Steps;
use super::super::kubernetes::bring_up;
use super::store;
use super::store::EXAMPLE;
use super::store::SHORTEST;
use super::store::Store;
use crate::scenario::Lab;

/// There where the kernel has IPv6.
const IPV6: &str = "/proc/net/if_inet6";
/// A name as long as may be.
const LONGEST: &str = "an-etcdcluster-whose-name-is-40-long-abc";

pub fn operator_dual_stack(lab: &Lab) -> anyhow::Result<u32> {
    run(lab, Families::Dual, &["IPv4", "IPv6"])
}

pub fn operator_ipv6(lab: &Lab) -> anyhow::Result<u32> {
    run(lab, Families::Ipv6, &["IPv6"])
}

fn run(lab: &Lab, families: Families, expected: &[&str]) -> anyhow::Result<u32> {
    let mut steps = Steps::begin();
    if !Path::new(IPV6).exists() {
        steps.held("this machine has no IPv6: nothing was tried");
        return Ok(steps.count());
    }
    let cluster = bring_up(lab, 3, families, &mut steps)?;
    store::install(lab, &cluster)?;
    let mut store = Store::new(&cluster, "store");
    cluster.apply(EXAMPLE)?;
    store.wait(3)?;
    store.start_client()?;
    store.check()?;
    let health = store.etcdctl_ok(&["endpoint", "health", "--cluster"])?;
    ensure!(health.matches("is healthy").count() == 3, "{health}");
    steps.held("three members, by their names and by the Service's");

    let service = cluster.kubectl_ok(&["get", "service", "store-client", "--output=json"])?;
    let service: serde_json::Value = serde_json::from_str(&service)?;
    ensure!(service["spec"]["ipFamilies"] == serde_json::json!(expected), "{}", service["spec"]);
    let addresses = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    for address in addresses.iter().filter_map(|address| address.as_str()) {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        store.start_client_of(&format!("https://{host}:2379"))?;
        // The certificate names the Service, not its addresses.
        let served = store.etcdctl_ok(&["--insecure-skip-tls-verify", "get", "key", "--prefix"])?;
        ensure!(served.contains("value"), "{address}: {served:?}");
    }
    store.start_client()?;
    steps.held(&format!("the Service serves by {} addresses: {}", addresses.len(), expected.join(", ")));

    store.scale(1)?;
    store.wait(1)?;
    store.scale(3)?;
    store.wait(3)?;
    let pod = store.first("pods")?;
    store.insist(&["delete", "pod", &pod])?;
    store.wait(3)?;
    store.check()?;
    store.agree()?;
    steps.held("it shrinks, grows, and loses a Pod");

    cluster.apply(&SHORTEST.replace("store", LONGEST))?;
    Store::new(&cluster, LONGEST).wait(3)?;
    steps.held(&format!("three members of {LONGEST}"));
    let held = steps.count();
    cluster.down()?;
    Ok(held)
}
