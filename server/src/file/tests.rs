use super::*;

fn settings(text: &str) -> Settings {
    let loaded = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(loaded.notices.is_empty(), "{text}: {:?}", loaded.notices);
    loaded.settings
}

fn warnings(text: &str) -> Vec<String> {
    read(text).unwrap().notices.iter().map(Notice::to_string).collect()
}

fn error(text: &str) -> String {
    read(text).map(drop).unwrap_err().to_string()
}

const FULL: &str = "
name: 'a'
data-dir: /var/lib/etcd
wal-dir:
snapshot-count: 20000
heartbeat-interval: 200
quota-backend-bytes: 8589934592
listen-client-urls: https://10.0.0.1:2379,http://127.0.0.1:2379
cors:
initial-cluster: a=http://localhost:2380
pre-vote: off
grpc-keepalive-interval: 10000000000
watch-progress-notify-interval: 5s
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
log-outputs: [stderr, /var/log/etcd.log]
feature-gates: InitialCorruptCheck=true
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
client-transport-security:
  cert-file: server.crt
  key-file: server.key
  client-cert-auth: true
  trusted-ca-file: ca.crt
  auto-tls: false
  allowed-cn:
  allowed-hostname: [a.example, b.example]
peer-transport-security:
  cert-file: peer.crt
  allowed-cn: [etcd]
socket-options:
  reuse-address: true
";

#[test]
fn keys_sections_lists_and_durations() {
    let settings = settings(FULL);
    assert_eq!(settings.text("name"), "a");
    assert!(!settings.is_given("wal-dir"), "null leaves the default");
    assert!(!settings.is_given("cors"));
    assert_eq!(settings.uint("snapshot-count"), 20_000);
    assert_eq!(settings.int("quota-backend-bytes"), 8 << 30);
    assert_eq!(settings.urls("listen-client-urls").len(), 2);
    assert!(!settings.bool("pre-vote"));
    assert_eq!(settings.nanoseconds("grpc-keepalive-interval"), 10_000_000_000, "nanoseconds");
    assert_eq!(settings.nanoseconds("watch-progress-notify-interval"), 5_000_000_000, "as for the flag");
    assert_eq!(settings.text("auto-compaction-retention"), "1");
    assert_eq!(settings.list("log-outputs"), ["/var/log/etcd.log", "stderr"]);
    assert!(settings.feature_gates("feature-gates").enabled("InitialCorruptCheck"));
    assert_eq!(settings.list("cipher-suites").len(), 2);
    assert_eq!(settings.text("cert-file"), "server.crt");
    assert!(settings.bool("client-cert-auth"));
    assert_eq!(settings.list("client-cert-allowed-hostname"), ["a.example", "b.example"]);
    assert_eq!(settings.text("peer-cert-file"), "peer.crt");
    assert_eq!(settings.list("peer-cert-allowed-cn"), ["etcd"]);
    assert!(settings.bool("socket-reuse-address"));
    assert!(settings.given().all(|given| given.source == Source::File));
}

#[test]
fn json_is_read_too() {
    let text = r#"{"name": "a", "snapshot-count": 7, "pre-vote": false, "grpc-keepalive-timeout": 1000000000,
        "client-transport-security": {"cert-file": "c"}, "log-outputs": ["stdout"]}"#;
    let settings = settings(text);
    assert_eq!((settings.text("name").as_str(), settings.uint("snapshot-count")), ("a", 7));
    assert!(!settings.bool("pre-vote"));
    assert_eq!(settings.nanoseconds("grpc-keepalive-timeout"), 1_000_000_000);
    assert_eq!(settings.text("cert-file"), "c");
    assert_eq!(settings.list("log-outputs"), ["stdout"]);
}

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(settings("").given().count(), 0);
    assert_eq!(settings("client-transport-security:\n").given().count(), 0);
}

#[test]
fn keys_that_are_not_read_are_named() {
    let warning = |key: &str, line: usize| {
        format!(
            "warn the config file has a key that is not known, or is not read from a file {}",
            serde_json::json!({"key": key, "line": line})
        )
    };
    assert_eq!(warnings("proxy: off\nname: a\nnope: [1]"), [warning("proxy", 1), warning("nope", 3)]);
    assert_eq!(warnings("cert-file: x"), [warning("cert-file", 1)], "it belongs in a section");
    assert_eq!(warnings("config-file: x"), [warning("config-file", 1)]);
    let text = "peer-transport-security:\n  crl: x\ndiscovery-config:\n  dial-timeout: 1";
    assert_eq!(
        warnings(text),
        [warning("peer-transport-security.crl", 2), warning("discovery-config.dial-timeout", 4)]
    );
}

#[test]
fn malformed_values_are_named_with_their_line() {
    let table = [
        ("name: a\nsnapshot-count: many", "config file, line 2: snapshot-count: invalid value \"many\": parse error"),
        ("snapshot-count: -1", "config file, line 1: snapshot-count: invalid value \"-1\": parse error"),
        ("pre-vote: 'off'", "config file, line 1: pre-vote: invalid value \"off\": parse error"),
        (
            "grpc-keepalive-timeout: 1.5",
            "config file, line 1: grpc-keepalive-timeout: invalid value \"1.5\": parse error",
        ),
        ("name: {a: b}", "config file, line 1: name: a single value or a list of them is needed"),
        ("client-transport-security: x", "config file, line 1: client-transport-security: a mapping is needed"),
        ("- name", "config file, line 1: the file: a mapping is needed"),
        ("name", "config file, line 1: the file: a mapping is needed"),
        (
            "client-transport-security:\n  skip-client-san-verification: true",
            "config file, line 2: client-transport-security.skip-client-san-verification: is not supported",
        ),
        (
            "feature-gates: Nope=true",
            "config file, line 1: feature-gates: invalid value \"Nope=true\": unrecognized feature gate: Nope",
        ),
        ("a: [", "cannot parse the config file"),
    ];
    for (text, expected) in table {
        assert!(error(text).starts_with(expected), "{text}: {}", error(text));
    }
}

#[test]
fn every_flag_but_the_known_few_is_a_key() {
    let not_keys: Vec<_> = flags::all()
        .filter(|flag| flag.kind != Kind::Ignored && !is_key(flag))
        .filter(|flag| !IN_A_SECTION.iter().any(|entry| entry.2 == flag.name))
        .filter(|flag| !flag.name.starts_with("discovery-"))
        .map(|flag| flag.name)
        .collect();
    assert_eq!(not_keys, ["config-file", "version"]);
    for entry in IN_A_SECTION {
        assert!(flags::find(entry.2).is_some(), "{entry:?}");
    }
}
