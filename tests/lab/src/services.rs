//! The services of the control plane and of a node, with their arguments.

use std::collections::BTreeMap;

use crate::config::node_name;
use crate::lab::Store;
use crate::network;
use crate::network::Families;
use crate::spec::OWN;
use crate::spec::PROGRAMS;
use crate::spec::Service;

/// The store of the API server; a program in the folder of the control plane.
pub const STORE: &str = "store";
pub const API_SERVER: &str = "kube-apiserver";
pub const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub const SCHEDULER: &str = "kube-scheduler";
pub const LOCAL_PATH: &str = "local-path-provisioner";
pub const CSI_DRIVER: &str = "csi-driver";
pub const CSI_PROVISIONER: &str = "csi-provisioner";
pub const CSI_RESIZER: &str = "csi-resizer";
pub const CONTAINERD: &str = "containerd";
pub const KUBELET: &str = "kubelet";
pub const KUBE_PROXY: &str = "kube-proxy";

/// Where the driver of volumes that expand is asked.
const CSI_SOCKET: &str = "/run/csi.sock";

const STORE_URL: &str = "http://127.0.0.1:2379";

/// Collects arguments that say where things are.
struct Argv(Service);

// === impl Argv ===

impl Argv {
    fn new(name: &str, program: &str) -> Self {
        Self(Service { name: name.to_owned(), argv: vec![program.to_owned()], env: BTreeMap::new() })
    }

    /// One of the lab's own programs.
    fn program(name: &str) -> Self {
        Self::new(name, &format!("{PROGRAMS}/{name}"))
    }

    fn with(mut self, flag: &str, value: &str) -> Self {
        self.0.argv.push(format!("--{flag}={value}"));
        self
    }

    /// A flag whose value is a file in the node's `etc`.
    fn file(self, flag: &str, file: &str) -> Self {
        self.with(flag, &format!("{OWN}/etc/{file}"))
    }
}

pub fn control(store: Store, families: Families) -> Vec<Service> {
    [
        store_server(store),
        api_server(families),
        controller_manager(),
        scheduler(),
        local_path(),
        csi_driver(),
        csi_sidecar(CSI_RESIZER, "admin"),
    ]
    .map(|argv| argv.0)
    .to_vec()
}

fn store_server(store: Store) -> Argv {
    let peer = "http://127.0.0.1:2380";
    let argv = Argv::new(STORE, &format!("{OWN}/{STORE}"))
        .with("name", "lab")
        .with("data-dir", "/var/lib/store")
        .with("listen-client-urls", STORE_URL)
        .with("advertise-client-urls", STORE_URL)
        .with("listen-peer-urls", peer)
        .with("initial-advertise-peer-urls", peer)
        .with("initial-cluster", &format!("lab={peer}"));
    match store {
        // The defaults are what is to be seen.
        Store::Garboard => argv,
        Store::Etcd => argv.with("log-level", "warn"),
    }
}

fn api_server(families: Families) -> Argv {
    Argv::program(API_SERVER)
        .with("etcd-servers", STORE_URL)
        .with("service-cluster-ip-range", &families.services())
        .with("bind-address", families.any())
        .with("advertise-address", families.control())
        .with("secure-port", &network::API_PORT.to_string())
        .file("tls-cert-file", "apiserver.crt")
        .file("tls-private-key-file", "apiserver.key")
        .file("client-ca-file", "ca.crt")
        .with("service-account-issuer", &format!("https://kubernetes.default.svc.{}", network::CLUSTER_DOMAIN))
        .file("service-account-key-file", "sa.pub")
        .file("service-account-signing-key-file", "sa.key")
        .with("authorization-mode", "Node,RBAC")
        .with("enable-admission-plugins", "NodeRestriction")
        .with("allow-privileged", "true")
        .file("kubelet-client-certificate", "apiserver-kubelet.crt")
        .file("kubelet-client-key", "apiserver-kubelet.key")
        .file("kubelet-certificate-authority", "ca.crt")
        .with("kubelet-preferred-address-types", "InternalIP")
        .file("requestheader-client-ca-file", "front-proxy-ca.crt")
        .with("requestheader-allowed-names", "front-proxy")
        .with("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .with("requestheader-group-headers", "X-Remote-Group")
        .with("requestheader-username-headers", "X-Remote-User")
        .file("proxy-client-cert-file", "front-proxy.crt")
        .file("proxy-client-key-file", "front-proxy.key")
        // No kube-proxy runs beside it: webhooks are called at their Pods' own addresses.
        .with("enable-aggregator-routing", "true")
}

fn controller_manager() -> Argv {
    authenticated(Argv::program(CONTROLLER_MANAGER), "controller-manager")
        .with("leader-elect", "false")
        .with("use-service-account-credentials", "true")
        .file("service-account-private-key-file", "sa.key")
        .file("root-ca-file", "ca.crt")
        .file("cluster-signing-cert-file", "ca.crt")
        .file("cluster-signing-key-file", "ca.key")
        .with("allocate-node-cidrs", "false")
        // Less than half of the default: tests wait for it. See `config::kubelet`.
        .with("node-monitor-grace-period", "20s")
}

fn scheduler() -> Argv {
    authenticated(Argv::program(SCHEDULER), "scheduler").with("leader-elect", "false")
}

fn authenticated(argv: Argv, who: &str) -> Argv {
    let kubeconfig = format!("{who}.kubeconfig");
    argv.file("kubeconfig", &kubeconfig)
        .file("authentication-kubeconfig", &kubeconfig)
        .file("authorization-kubeconfig", &kubeconfig)
        .with("bind-address", "127.0.0.1")
}

fn local_path() -> Argv {
    let mut argv = Argv::program(LOCAL_PATH);
    argv.0.argv.push("start".to_owned());
    argv.file("kubeconfig", "admin.kubeconfig")
        .file("config", "local-path.json")
        .file("helper-pod-file", "local-path-helper.json")
        .with("provisioner-name", "rancher.io/local-path")
        .with("namespace", "local-path-storage")
        .with("helper-image", crate::images::TOOLBOX)
        .with("configmap-name", "local-path-config")
        .with("service-account-name", "local-path-provisioner")
}

fn csi_driver() -> Argv {
    Argv::program(CSI_DRIVER).with("listen", CSI_SOCKET)
}

/// A program that asks the driver for what objects of the API want.
fn csi_sidecar(name: &str, who: &str) -> Argv {
    Argv::program(name).with("csi-address", CSI_SOCKET).file("kubeconfig", &format!("{who}.kubeconfig"))
}

pub fn node(n: usize, families: Families) -> Vec<Service> {
    let containerd = Argv::program(CONTAINERD).file("config", "containerd.toml");
    let kubelet = Argv::program(KUBELET)
        .file("kubeconfig", "kubelet.kubeconfig")
        .file("config", "kubelet.json")
        .with("hostname-override", &node_name(n))
        .with("node-ip", &families.node(n).join(","))
        .with("node-labels", &format!("topology.kubernetes.io/zone=zone{n}"))
        .with("root-dir", "/var/lib/kubelet");
    let proxy = Argv::program(KUBE_PROXY).file("config", "kube-proxy.json").with("hostname-override", &node_name(n));
    let csi_driver = csi_driver()
        .with("node", &node_name(n))
        .with("volumes", "/var/lib/csi-volumes")
        .with("registry", "/var/lib/kubelet/plugins_registry");
    let mut csi_provisioner = csi_sidecar(CSI_PROVISIONER, CSI_PROVISIONER)
        .with("node-deployment", "true")
        .with("node-deployment-immediate-binding", "false")
        .with("strict-topology", "true")
        .with("immediate-topology", "false");
    csi_provisioner.0.env.insert("NODE_NAME".to_owned(), node_name(n));
    [containerd, kubelet, proxy, csi_driver, csi_provisioner].map(|argv| argv.0).to_vec()
}
