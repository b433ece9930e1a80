use std::path::Path;

use super::*;
use crate::flags::Url;
use crate::flags::parse::Request;
use crate::flags::parse::parse;
use crate::log::Format;
use crate::log::Level;
use crate::log::Target;

fn settings(line: &str) -> Settings {
    match parse(line.split_whitespace().map(str::to_owned)) {
        Ok(Request::Serve(settings)) => settings,
        other => panic!("{line}: {other:?}"),
    }
}

fn read_with_host(line: &str, host: Option<&str>) -> Result<(Config, Vec<String>), ConfigError> {
    let (config, notices) = Config::new(settings(line), || host.map(str::to_owned))?;
    Ok((config, notices.iter().map(Notice::to_string).collect()))
}

pub fn config(line: &str) -> Config {
    read_with_host(line, None).unwrap_or_else(|error| panic!("{line}: {error}")).0
}

/// What is said about a command line, but for what is said about the default name and data directory.
fn notices(line: &str) -> Vec<String> {
    read_with_host(&format!("--name=m --data-dir=d {line}"), None).unwrap_or_else(|error| panic!("{line}: {error}")).1
}

fn error(line: &str) -> String {
    match read_with_host(line, None) {
        Ok(_) => panic!("{line} is accepted"),
        Err(error) => error.to_string(),
    }
}

fn urls(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

fn initial(config: &Config) -> Vec<String> {
    config.cluster.initial.iter().map(|(name, url)| format!("{name}={url}")).collect()
}

#[test]
fn with_nothing_given_it_is_etcds_defaults() {
    let config = config("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(config.wal_dir, None);
    assert_eq!(initial(&config), ["default=http://localhost:2380"]);
    assert_eq!(urls(&config.listen.client_urls), ["http://localhost:2379"]);
    assert_eq!(urls(&config.cluster.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(
        (config.heartbeat_interval, config.election_timeout),
        (Duration::from_millis(100), Duration::from_secs(1))
    );
    assert_eq!((config.snapshot_count, config.snapshot_catchup_entries), (10_000, 5000));
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
    assert_eq!((config.grpc.max_concurrent_streams, config.cors.as_slice()), (None, &["*".to_owned()][..]));
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!((config.compaction_batch_limit, config.compaction_sleep_interval), (1000, Duration::from_millis(10)));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_mins(10));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.log, LogConfig { level: Level::Info, format: Format::Json, targets: vec![Target::Stderr] });
    assert!(config.validate_bootstrap().is_ok());
}

#[test]
fn rules_that_end_the_start() {
    let table = [
        (
            "--listen-client-urls=http://127.0.0.1:1",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ("--listen-peer-urls=http://example.com:1", "expected IP in URL for binding (http://example.com:1)"),
        (
            "--listen-client-urls=http://example.com:1 --advertise-client-urls=http://a:1",
            "expected IP in URL for binding (http://example.com:1)",
        ),
        ("--listen-metrics-urls=http://example.com:1", "expected IP in URL for binding (http://example.com:1)"),
        (
            "--initial-advertise-peer-urls=http://:1",
            "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))",
        ),
        (
            "--advertise-client-urls=http://:1",
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout=0", "--election-timeout must be >0 (set to 0ms)"),
        (
            "--election-timeout=499",
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        ("--election-timeout=50001", "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
        ("--auto-compaction-mode=daily", "unknown auto-compaction-mode \"daily\""),
        (
            "--auto-compaction-retention=soon",
            "error parsing CompactionRetention: \"soon\" is no number of hours and no duration",
        ),
        (
            "--auto-compaction-retention=-1h",
            "error parsing CompactionRetention: \"-1h\" is no number of hours and no duration",
        ),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=5m",
            "error parsing CompactionRetention: \"5m\" is no number of revisions",
        ),
        ("--compact-hash-check-time=0s", "--compact-hash-check-time must be >0"),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
    ];
    check_rules(&table);
}

#[test]
fn rules_about_logs_tls_and_limits() {
    let table = [
        ("--logger=capnslog", "unknown logger option \"capnslog\""),
        ("--log-level=loud", "unknown log level \"loud\", supported values debug, info, warn, error, panic, fatal"),
        ("--log-format=xml", "unknown log format: xml, supported values json, console"),
        ("--log-outputs=default,stdout", "multi logoutput for \"default\" is not supported yet"),
        ("--tls-min-version=TLS1.1", "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1 --cert-file=a",
            "KeyFile and CertFile must both be present[key: , cert: a]",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1",
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 \
             with HTTPS scheme",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1 --cert-file=c --key-file=k \
             --client-cert-auth",
            "--client-cert-auth needs --trusted-ca-file: the authorities that clients' certificates are held to",
        ),
        ("--backend-batch-interval=-1s", "--backend-batch-interval must not be negative"),
        ("--max-txn-ops=0", "--max-txn-ops must be >0"),
        ("--name=", "--name must not be empty"),
        ("--initial-cluster=a", "--initial-cluster: URL scheme must be http, https, unix, or unixs: "),
    ];
    check_rules(&table);
}

fn check_rules(table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(error(line), *expected, "{line}");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for flag in crate::flags::all() {
        let crate::flags::Support::Refused(reason) = flag.support else { continue };
        let text = match flag.kind {
            crate::flags::Kind::Bool => "true",
            crate::flags::Kind::Urls => "http://127.0.0.1:1",
            crate::flags::Kind::Choice(words) => words.iter().find(|word| **word != flag.default).unwrap(),
            _ => "x",
        };
        let expected = format!("--{}={text} is not supported: {reason}", flag.name);
        assert_eq!(error(&format!("--{}={text}", flag.name)), expected);
        // Its default asks for nothing.
        config(&format!("--{}={}", flag.name, flag.default));
    }
}

#[test]
fn what_has_no_effect_is_named() {
    assert_eq!(
        notices("--max-wals=3 --backend-bbolt-freelist-type= --force"),
        [
            r#"warn flag is no longer supported - ignoring {"flag-name":"force"}"#,
            concat!(
                r#"warn flag has no effect {"flag-name":"max-wals","#,
                r#""reason":"segments are removed as soon as a checkpoint covers them"}"#
            ),
        ]
    );
    assert_eq!(notices("--metrics=some"), [r#"warn unknown --metrics, using basic {"metrics":"some"}"#]);
    assert_eq!(config("--snapshot-count=0 --host-whitelist=").snapshot_count, 10_000);
    assert_eq!(notices("--cert-file=a --client-cert-auth").len(), 2, "no URL has TLS");
    assert_eq!(notices("--max-wals=5 --pre-vote=true"), [""; 0], "the default asks for nothing");
    let gates =
        notices("--feature-gates=StopGRPCServiceOnDefrag=true,FastLeaseKeepAlive=true,InitialCorruptCheck=true");
    assert_eq!(gates.len(), 1);
    assert!(gates[0].contains(r#""feature-gate":"StopGRPCServiceOnDefrag""#), "{gates:?}");
}

#[test]
fn older_names() {
    let line = "--experimental-watch-progress-notify-interval=5s --experimental-initial-corrupt-check";
    let config = config(line);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(config.feature_gates.enabled("InitialCorruptCheck"));
    assert_eq!(
        notices(line)[..2],
        [
            "warn --experimental-initial-corrupt-check is deprecated in 3.6 and gone in 3.7. \
             Use --feature-gates=InitialCorruptCheck=true instead. {}",
            "warn --experimental-watch-progress-notify-interval is deprecated in 3.6 and gone in 3.7. \
             Use --watch-progress-notify-interval instead. {}",
        ]
    );
    assert_eq!(
        error("--experimental-initial-corrupt-check=true --feature-gates=InitialCorruptCheck=false"),
        "cannot specify both flags: --experimental-initial-corrupt-check=true and \
         --feature-gates=InitialCorruptCheck=... at the same time, \
         please just use --feature-gates=InitialCorruptCheck=true"
    );
    assert_eq!(
        error("--experimental-warning-unary-request-duration=1s --warning-unary-request-duration=1s"),
        "both --experimental-warning-unary-request-duration and --warning-unary-request-duration flags are set. \
         Use only --warning-unary-request-duration"
    );
    let gates = "--feature-gates=LeaseCheckpoint=true --experimental-enable-lease-checkpoint-persist";
    let gates = super::tests::config(gates).feature_gates;
    assert!(gates.enabled("LeaseCheckpoint") && gates.enabled("LeaseCheckpointPersist"), "gates are added up");
}

#[test]
fn auto_compaction() {
    let table = [
        ("", AutoCompaction::Off),
        ("--auto-compaction-retention=0", AutoCompaction::Off),
        ("--auto-compaction-retention=0s", AutoCompaction::Off),
        ("--auto-compaction-retention=8", AutoCompaction::Periodic(Duration::from_hours(8))),
        ("--auto-compaction-retention=30m", AutoCompaction::Periodic(Duration::from_mins(30))),
        ("--auto-compaction-mode=revision --auto-compaction-retention=0", AutoCompaction::Off),
        ("--auto-compaction-mode=revision --auto-compaction-retention=1000", AutoCompaction::Revisions(1000)),
    ];
    for (line, expected) in table {
        assert_eq!(config(line).auto_compaction, expected, "{line}");
    }
}

#[test]
fn a_name_alone_is_a_cluster_of_its_own() {
    let named = config("--name=a");
    assert_eq!(initial(&named), ["a=http://localhost:2380"]);
    assert_eq!(named.data_dir, Path::new("a.etcd"));
    assert!(named.validate_bootstrap().is_ok());
    let advertised = config("--name=a --initial-advertise-peer-urls=http://10.0.0.1:2380,http://10.0.0.2:2380");
    assert_eq!(initial(&advertised), ["a=http://10.0.0.1:2380", "a=http://10.0.0.2:2380"]);
}

#[test]
fn the_default_host_replaces_what_others_cannot_reach() {
    let line = "--name=a --listen-peer-urls=http://0.0.0.0:2390";
    let (config, notices) = read_with_host(line, Some("10.1.2.3")).unwrap();
    assert_eq!(initial(&config), ["a=http://10.1.2.3:2390"]);
    assert_eq!(urls(&config.cluster.advertise_client_urls), ["http://localhost:2379"]);
    assert!(
        notices.contains(&r#"info detected default host for advertise {"host":"10.1.2.3"}"#.to_owned()),
        "{notices:?}"
    );
    let line = "--listen-client-urls=http://0.0.0.0:2370 --advertise-client-urls=http://localhost:2379";
    let (config, _) = read_with_host(line, Some("10.1.2.3")).unwrap();
    assert_eq!(urls(&config.cluster.advertise_client_urls), ["http://10.1.2.3:2370"]);
    let (config, _) = read_with_host("--name=a --listen-peer-urls=http://0.0.0.0:2390", None).unwrap();
    assert_eq!(initial(&config), ["a=http://localhost:2380"], "without one the default stands");
}

#[test]
fn what_a_member_without_data_asks_of_the_initial_cluster() {
    let table = [
        (
            "--name=a --initial-cluster=b=http://localhost:2380",
            "couldn't find local name \"a\" in the initial cluster configuration",
        ),
        (
            "--name=a --initial-cluster=a=http://x:1",
            "--initial-cluster has a=http://x:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            "--name=a --initial-cluster=a=http://x:1 --initial-advertise-peer-urls=http://x:1,http://y:1",
            "--initial-advertise-peer-urls has http://y:1 but missing from --initial-cluster=a=http://x:1",
        ),
        (
            "--name=a --initial-cluster=a=http://x:1,b=http://x:1 --initial-advertise-peer-urls=http://x:1",
            "initial cluster a=http://x:1,b=http://x:1 has duplicate url",
        ),
        ("--initial-cluster=", "couldn't find local name \"default\" in the initial cluster configuration"),
    ];
    for (line, expected) in table {
        assert_eq!(config(line).validate_bootstrap().unwrap_err().to_string(), expected, "{line}");
    }
    let several =
        "--name=a --initial-cluster=a=http://x:1,a=http://y:1 --initial-advertise-peer-urls=http://y:1,http://x:1";
    assert_eq!(config(several).validate_bootstrap(), Ok(()), "one name may have several URLs");
    let three = "--name=a --initial-cluster=a=http://x:1,b=http://y:1,c=http://z:1 \
                 --initial-advertise-peer-urls=http://x:1";
    assert_eq!(config(three).validate_bootstrap(), Ok(()), "a cluster may have several members");
    let joining = "--name=d --join=http://x:1 --initial-advertise-peer-urls=http://d:1";
    assert_eq!(config(joining).validate_bootstrap(), Ok(()), "who joins is told who the members are");
}

#[test]
fn peers_with_tls_need_a_certificate_and_authorities() {
    let refused = |line: &str| config(line).validate_peers().unwrap_err().to_string();
    assert!(refused("--listen-peer-urls=https://127.0.0.1:1").contains("--peer-cert-file"));
    assert!(
        refused("--name=a --join=https://b:1 --peer-cert-file=c --peer-key-file=k").contains("--peer-trusted-ca-file")
    );
    assert_eq!(config(KUBEADM).validate_peers(), Ok(()));
    assert_eq!(config("").validate_peers(), Ok(()));
}

#[test]
fn log_outputs() {
    let targets = |line: &str| config(line).log.targets;
    assert_eq!(targets("--log-outputs=stderr,/x/log"), [Target::File("/x/log".into()), Target::Stderr]);
    assert_eq!(targets("--log-outputs=stdout"), [Target::Stdout]);
    assert_eq!(targets("--log-outputs=/dev/null,stderr"), []);
    assert_eq!(targets("--log-outputs="), [Target::Stderr]);
    assert!(error("--log-outputs=systemd/journal").starts_with("--log-outputs=systemd/journal is not supported"));
}

/// As kubeadm 1.35 writes it for etcd 3.6.
const KUBEADM: &str = "--advertise-client-urls=https://10.0.0.5:2379 --cert-file=/etc/kubernetes/pki/etcd/server.crt \
    --client-cert-auth=true --data-dir=/var/lib/etcd --feature-gates=InitialCorruptCheck=true \
    --initial-advertise-peer-urls=https://10.0.0.5:2380 --initial-cluster=cp=https://10.0.0.5:2380 \
    --key-file=/etc/kubernetes/pki/etcd/server.key --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.5:2379 \
    --listen-metrics-urls=http://127.0.0.1:2381 --listen-peer-urls=https://10.0.0.5:2380 --name=cp \
    --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt --peer-client-cert-auth=true \
    --peer-key-file=/etc/kubernetes/pki/etcd/peer.key --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt \
    --snapshot-count=10000 --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt --watch-progress-notify-interval=5s";

#[test]
fn kubeadms_command_line() {
    let config = config(KUBEADM);
    assert_eq!(config.name, "cp");
    assert_eq!(config.data_dir, Path::new("/var/lib/etcd"));
    assert_eq!(urls(&config.listen.client_urls), ["https://10.0.0.5:2379", "https://127.0.0.1:2379"]);
    assert_eq!(urls(&config.listen.metrics_urls), ["http://127.0.0.1:2381"]);
    assert_eq!(urls(&config.cluster.advertise_client_urls), ["https://10.0.0.5:2379"]);
    assert_eq!(initial(&config), ["cp=https://10.0.0.5:2380"]);
    assert_eq!(
        config.client_tls,
        Tls {
            certificate: Some((
                "/etc/kubernetes/pki/etcd/server.crt".into(),
                "/etc/kubernetes/pki/etcd/server.key".into()
            )),
            dial_with: None,
            client_cert_auth: true,
            trusted_ca_file: Some("/etc/kubernetes/pki/etcd/ca.crt".into()),
            crl_file: None,
            allowed_common_names: vec![],
            allowed_hostnames: vec![],
            cipher_suites: vec![],
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
        }
    );
    let path = |name: &str| Path::new("/etc/kubernetes/pki/etcd").join(name);
    assert_eq!(config.peer_tls.certificate, Some((path("peer.crt"), path("peer.key"))));
    assert_eq!(config.peer_tls.trusted_ca_file, Some(path("ca.crt")));
    assert!(config.peer_tls.client_cert_auth);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(config.feature_gates.enabled("InitialCorruptCheck"));
    assert_eq!(config.validate_bootstrap(), Ok(()));
    let about_tls = notices(KUBEADM).iter().filter(|notice| notice.contains("scheme is http")).count();
    assert_eq!(about_tls, 0, "its metrics URL has no TLS on purpose");
    // Older tags get the older names.
    let older = KUBEADM
        .replace("--feature-gates=InitialCorruptCheck=true", "--experimental-initial-corrupt-check=true")
        .replace("--watch-", "--experimental-watch-");
    assert_eq!(super::tests::config(&older), config);
}

#[test]
fn the_kubernetes_integration_tests_command_line() {
    let config = config(
        "--data-dir /tmp/x --listen-client-urls unix://localhost:1234 --advertise-client-urls unix://localhost:1234 \
         --listen-peer-urls http://127.0.0.1:0 -log-level warn --unsafe-no-fsync --enable-grpc-gateway=false",
    );
    assert_eq!(config.log.level, Level::Warn);
    assert_eq!(urls(&config.listen.client_urls), ["unix://localhost:1234"]);
    assert!(config.unsafe_no_fsync);
}

#[test]
fn in_a_file_the_default_to_advertise_stands() {
    let dir = tempfile::tempdir().unwrap();
    let disk = garboard_storage::disk::RealDisk;
    let path = dir.path().join("etcd.conf.yml");
    garboard_storage::disk::write_atomic(&disk, &path, b"name: a\nlisten-client-urls: http://127.0.0.1:1\n").unwrap();
    let loaded = crate::file::load(&disk, &path).unwrap();
    let (config, _) = Config::new(loaded.settings, || None).unwrap();
    assert_eq!(urls(&config.cluster.advertise_client_urls), ["http://localhost:2379"]);
}
