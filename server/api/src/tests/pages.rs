//! What is served over HTTP, on the same port as gRPC and on the metrics URLs.

use std::net::SocketAddr;

use garboard_proto::etcdserverpb as pb;
use garboard_runtime::clock;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::tests::fixture::Member;
use crate::tests::fixture::PATIENCE;
use crate::tests::fixture::address;
use crate::tests::fixture::config;

pub async fn http(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\nHost: member\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut page = String::new();
    clock::timeout(PATIENCE, stream.read_to_string(&mut page)).await.unwrap().unwrap();
    page
}

#[tokio::test]
async fn pages_of_the_client_url() {
    let member = Member::start(config()).await;
    let health = http(member.address(), "GET", "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    assert!(health.ends_with("\r\n\r\n{\"health\":\"true\",\"reason\":\"\"}"), "{health}");
    assert!(health.contains("access-control-allow-origin: *\r\n"), "{health}");
    assert!(http(member.address(), "GET", "/readyz?verbose").await.contains("[+]linearizable_read ok\n"));
    assert!(http(member.address(), "GET", "/livez").await.ends_with("\r\n\r\nok\n"));
    let refused = http(member.address(), "POST", "/health").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET\r\n"), "{refused}");
    let version = http(member.address(), "GET", "/version").await;
    let body: serde_json::Value = serde_json::from_str(version.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["etcdserver"], &body["storage"]), (&garboard_node::ETCD_VERSION.into(), &"3.6.0".into()));
    for path in ["/", "/v3/kv/range", "/nothing"] {
        let missing = http(member.address(), "GET", path).await;
        assert!(missing.starts_with("HTTP/1.1 404 ") && missing.ends_with("404 page not found\n"), "{missing}");
    }
    assert!(http(member.address(), "OPTIONS", "/v3/kv/range").await.starts_with("HTTP/1.1 200 "));
    assert!(http(member.address(), "GET", "/debug/vars").await.contains("raft.status"));
    member.stop().await;
}

#[tokio::test]
async fn metrics_urls_show_metrics_and_health_only() {
    let mut config = config();
    config.metrics_urls = vec!["http://127.0.0.1:0".parse().unwrap()];
    config.extensive_metrics = true;
    let member = Member::start(config).await;
    let metrics = address(&member.running.metrics_urls[0]);
    assert!(http(metrics, "GET", "/health").await.starts_with("HTTP/1.1 200 "));
    assert!(http(metrics, "GET", "/readyz").await.starts_with("HTTP/1.1 200 "));
    for path in ["/version", "/debug/vars", "/v3/kv/range"] {
        let missing = http(metrics, "GET", path).await;
        assert!(missing.starts_with("HTTP/1.1 404 ") && !missing.contains("access-control"), "{missing}");
    }
    assert!(http(metrics, "GET", "/metrics").await.contains("grpc_server_handling_seconds_bucket"));
    // gRPC is no more to be had there than any other page.
    let stream = TcpStream::connect(metrics).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    drop(garboard_runtime::spawn::task(connection));
    let request = http::Request::post("http://member/etcdserverpb.KV/Range")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(clock::timeout(PATIENCE, response).await.unwrap().unwrap().status(), 404);
    member.stop().await;
}

#[tokio::test]
async fn metrics_are_there_from_the_first_moment_and_count() {
    let member = Member::start(config()).await;
    let page = http(member.address(), "GET", "/metrics").await;
    for (name, kind) in [
        ("grpc_server_started_total", "counter"),
        ("grpc_server_handled_total", "counter"),
        ("grpc_server_msg_received_total", "counter"),
        ("grpc_server_msg_sent_total", "counter"),
        ("etcd_network_client_grpc_received_bytes_total", "counter"),
        ("etcd_network_client_grpc_sent_bytes_total", "counter"),
        ("etcd_server_health_success", "counter"),
        ("etcd_server_health_failures", "counter"),
        ("etcd_server_version", "gauge"),
        ("promhttp_metric_handler_requests_in_flight", "gauge"),
        ("promhttp_metric_handler_requests_total", "counter"),
    ] {
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
    }
    assert!(!page.contains("grpc_server_handling_seconds"), "only with --metrics extensive");
    let handled = page.lines().filter(|line| line.starts_with("grpc_server_handled_total{"));
    assert_eq!(handled.clone().count(), 45 * 17);
    assert!(handled.clone().all(|line| line.ends_with(" 0")));

    let client = member.client().await;
    let put = pb::PutRequest { key: "a".into(), ..Default::default() };
    let version = [("client-api-version", "3.6.0")];
    client.unary_with::<pb::PutResponse>("/etcdserverpb.KV/Put", &put, &version).await.unwrap();
    client.unary::<pb::PutResponse>("/etcdserverpb.KV/Put", &pb::PutRequest::default()).await.unwrap_err();
    let page = http(member.address(), "GET", "/metrics").await;
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
    for line in [
        format!("grpc_server_started_total{{{labels}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{labels}}} 1"),
        format!("grpc_server_msg_received_total{{{labels}}} 2"),
        format!("grpc_server_msg_sent_total{{{labels}}} 1"),
        "etcd_network_client_grpc_received_bytes_total 3".to_owned(),
        "etcd_server_client_requests_total{client_api_version=\"3.6.0\",type=\"unary\"} 1".to_owned(),
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"unary\"} 1".to_owned(),
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
    }
    member.stop().await;
}
