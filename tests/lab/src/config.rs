//! The files in a node's `etc`: certificates, and what its services are configured with.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::network;
use crate::network::Families;
use crate::pki;
use crate::pki::Authority;
use crate::services;
use crate::spec::OWN;

/// The name of node `n`, of 1 and up.
pub fn node_name(n: usize) -> String {
    format!("node{n}")
}

/// Who signs in a lab.
pub struct Authorities {
    families: Families,
    cluster: Authority,
    front_proxy: Authority,
}

// === impl Authorities ===

impl Authorities {
    pub fn new(families: Families) -> anyhow::Result<Self> {
        Ok(Self { families, cluster: Authority::new("lab")?, front_proxy: Authority::new("lab-front-proxy")? })
    }

    /// The user of the machine: `admin.kubeconfig` in `home`.
    pub fn admin(&self, home: &Path, server: &str) -> anyhow::Result<()> {
        self.cluster.write(home, "ca")?;
        self.cluster.client(home, "admin", "admin", Some(pki::MASTERS))?;
        pki::kubeconfig(home, "admin", server, home)
    }

    /// The control plane.
    pub fn control(&self, etc: &Path) -> anyhow::Result<()> {
        self.cluster.write(etc, "ca")?;
        self.cluster.write_key(etc, "ca")?;
        self.front_proxy.write(etc, "front-proxy-ca")?;
        self.front_proxy.client(etc, "front-proxy", "front-proxy", None)?;
        let domain = format!("kubernetes.default.svc.{}", network::CLUSTER_DOMAIN);
        let addresses = self.families.api();
        let mut names =
            vec!["kubernetes", "kubernetes.default", "kubernetes.default.svc", &domain, "localhost", "127.0.0.1"];
        names.extend(addresses.iter().map(String::as_str));
        self.cluster.server(etc, "apiserver", &names)?;
        self.cluster.client(etc, "apiserver-kubelet", "kube-apiserver-kubelet", Some(pki::MASTERS))?;
        pki::signing_key(etc, "sa")?;
        self.client(etc, "controller-manager", "system:kube-controller-manager", None)?;
        self.client(etc, "scheduler", "system:kube-scheduler", None)?;
        self.client(etc, "admin", "admin", Some(pki::MASTERS))?;
        write(etc, "local-path.json", &format!("{:#}\n", local_path()))?;
        write(etc, "local-path-helper.json", &format!("{:#}\n", local_path_helper()))
    }

    /// Node `n`.
    pub fn node(&self, etc: &Path, n: usize, cgroup: &str) -> anyhow::Result<()> {
        let (name, addresses) = (node_name(n), self.families.node(n));
        let names = [&[name.as_str()], &addresses.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
        self.cluster.write(etc, "ca")?;
        self.cluster.server(etc, "serving", &names)?;
        self.client(etc, "kubelet", &format!("system:node:{name}"), Some("system:nodes"))?;
        self.client(etc, "kube-proxy", "system:kube-proxy", None)?;
        self.client(etc, services::CSI_PROVISIONER, services::CSI_PROVISIONER, None)?;
        std::fs::create_dir_all(etc.join("cni"))?;
        write(etc, "cni/10-lab.conflist", &format!("{:#}\n", cni(self.families, n)))?;
        write(etc, "containerd.toml", CONTAINERD)?;
        // Pods that ask for the node's name servers get none: there are none.
        write(etc, "resolv.conf", "")?;
        write(etc, "kubelet.json", &format!("{:#}\n", kubelet(self.families, cgroup)))?;
        write(etc, "kube-proxy.json", &format!("{:#}\n", kube_proxy(self.families, n)))
    }

    fn client(&self, etc: &Path, file: &str, name: &str, group: Option<&str>) -> anyhow::Result<()> {
        self.cluster.client(etc, file, name, group)?;
        pki::kubeconfig(etc, file, &self.families.api_url(), &Path::new(OWN).join("etc"))
    }
}

fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Oom scores are not lowered below what containerd itself has: where root lacks CAP_SYS_RESOURCE, runc would fail.
const CONTAINERD: &str = r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/run/lab/node/etc/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"#;

fn cni(families: Families, n: usize) -> Value {
    let ranges: Vec<Value> = families.pods(n).into_iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let routes: Vec<Value> = families.everywhere().into_iter().map(|all| json!({"dst": all})).collect();
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {
            "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                // Gone with the node, as the Pods are.
                "dataDir": "/run/cni-ipam",
                "ranges": ranges,
                "routes": routes,
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]})
}

fn kubelet(families: Families, cgroup: &str) -> Value {
    let etc = format!("{OWN}/etc");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{etc}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{etc}/serving.crt"),
        "tlsPrivateKeyFile": format!("{etc}/serving.key"),
        "address": families.any(),
        "clusterDNS": [families.dns()],
        "clusterDomain": network::CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": format!("{etc}/resolv.conf"),
        "failSwapOn": false,
        // The disk is the machine's: a node does not empty itself because something else fills it.
        "evictionHard": {
            "memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        // With the grace period of the controller manager (see `services`): a lost node is seen in less than half the usual time.
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        "syncFrequency": "10s",
    })
}

fn kube_proxy(families: Families, n: usize) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": format!("{OWN}/etc/kube-proxy.kubeconfig")},
        "clusterCIDR": families.all_pods(),
        // The kernel's table is the machine's: it is left alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nodePortAddresses": families.node_alone(n),
    })
}

/// Where volumes of the class local-path are, on each node.
fn local_path() -> Value {
    json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/var/lib/local-path"]}]})
}

fn local_path_helper() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {"name": "helper-pod", "image": crate::images::TOOLBOX, "imagePullPolicy": "Never"},
            ],
        },
    })
}
