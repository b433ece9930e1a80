//! Command lines and files, as kubeadm and etcd's own documentation have them.

use crate::config::FILE;

const KUBEADM: &str = "--advertise-client-urls=https://10.0.0.2:2379
--client-cert-auth=true
--data-dir=/var/lib/etcd
--feature-gates=InitialCorruptCheck=true
--initial-advertise-peer-urls=https://10.0.0.2:2380
--initial-cluster=node=https://10.0.0.2:2380
--key-file=/etc/server.key
--cert-file=/etc/server.crt
--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.2:2379
--listen-metrics-urls=http://127.0.0.1:2381
--listen-peer-urls=https://10.0.0.2:2380
--name=node
--peer-cert-file=/etc/peer.crt
--peer-client-cert-auth=true
--peer-key-file=/etc/peer.key
--peer-trusted-ca-file=/etc/ca.crt
--snapshot-count=10000
--trusted-ca-file=/etc/ca.crt
--watch-progress-notify-interval=5s";

const TUNED: &str = "--name=a
--auto-compaction-mode=periodic
-auto-compaction-retention=1h30m
--quota-backend-bytes=0x10000000
--max-request-bytes
1572864
--cors=*
--log-level=warn
--log-outputs=stderr
--socket-reuse-port

ETCD_HEARTBEAT_INTERVAL=100
ETCD_ELECTION_TIMEOUT=1000
ETCD_VERSION=v3.6.0
ETCD_CIPHER_SUITES=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256";

const YAML: &str = "name: 'a'
data-dir: /d
snapshot-count: 0x10
heartbeat-interval: 100
listen-client-urls: http://localhost:2379
initial-cluster: a=http://localhost:2380
cors: [http://a:1, http://b:2]
strict-reconfig-check: yes
client-transport-security:
  cert-file: c
  key-file: k
  client-cert-auth: false
  allowed-cn: [a, \"b\"]
log-outputs: [stderr]
auto-compaction-mode: revision
auto-compaction-retention: \"5\"
compaction-sleep-interval: 10ms
feature-gates: InitialCorruptCheck=true
";

const JSON: &str = r#"{"name": "a", "max-txn-ops": 12, "warning-apply-duration": 100000000, "log-level": "info"}"#;

pub fn configs() -> Vec<(&'static str, Vec<u8>)> {
    let input = |first: u8, text: &str| [&[first], text.as_bytes()].concat();
    vec![
        ("kubeadm", input(0, KUBEADM)),
        ("tuned", input(2, TUNED)),
        ("yaml", input(FILE, YAML)),
        ("json", input(FILE | 2, JSON)),
        ("nothing", input(0, "")),
    ]
}
