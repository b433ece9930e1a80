//! Connections: Unix sockets, several URLs, clients that say nothing, too much, or ping too often.

use std::time::Duration;

use garboard_proto::etcdserverpb as pb;
use garboard_runtime::clock;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::tests::client::Client;
use crate::tests::fixture::Member;
use crate::tests::fixture::PATIENCE;
use crate::tests::fixture::address;
use crate::tests::fixture::config;

const RANGE: &str = "/etcdserverpb.KV/Range";

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), ..Default::default() }
}

#[tokio::test]
async fn several_urls_and_a_unix_socket_that_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("localhost:2379");
    let mut config = config();
    config.client_urls.push("http://localhost:0".parse().unwrap());
    config.client_urls.push(format!("unix://{}", socket.display()).parse().unwrap());
    // What a killed process left behind is no hindrance.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let member = Member::start(config).await;
    for url in &member.running.client_urls[..2] {
        let address = url.address.replace("localhost", "127.0.0.1");
        let client = Client::connect(TcpStream::connect(address).await.unwrap()).await;
        client.unary::<pb::RangeResponse>(RANGE, &range()).await.unwrap();
    }
    let client = Client::connect(UnixStream::connect(&socket).await.unwrap()).await;
    client.unary::<pb::RangeResponse>(RANGE, &range()).await.unwrap();
    let mut page = UnixStream::connect(&socket).await.unwrap();
    page.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    page.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    member.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let member = Member::start(config()).await;
    let mut again = config();
    again.client_urls = member.running.client_urls.clone();
    let served = crate::serve(again, member.node.clone(), prometheus::Registry::new(), std::future::pending()).await;
    let error = served.err().unwrap().to_string();
    assert!(error.contains(&member.running.client_urls[0].to_string()), "{error}");
    member.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let mut config = config();
    config.limits.handshake_timeout = Duration::from_millis(50);
    let member = Member::start(config).await;
    for beginning in [&b""[..], b"PRI * HTTP", b"GET /health HTTP/1.1\r\nHost"] {
        let mut stream = TcpStream::connect(member.address()).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        clock::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
    }
    member.stop().await;
}

#[tokio::test]
async fn past_the_limit_connections_wait_until_one_goes() {
    let mut config = config();
    config.limits.connections_max = 1;
    let member = Member::start(config).await;
    let first = member.client().await;
    first.unary::<pb::RangeResponse>(RANGE, &range()).await.unwrap();
    let second = Client::connect(TcpStream::connect(address(&member.running.client_urls[0])).await.unwrap()).await;
    let request = range();
    let mut waiting = std::pin::pin!(second.unary::<pb::RangeResponse>(RANGE, &request));
    tokio::select! {
        _ = &mut waiting => panic!("served beyond the limit"),
        answer = first.unary::<pb::RangeResponse>(RANGE, &request) => assert!(answer.is_ok()),
    }
    drop(first);
    clock::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    member.stop().await;
}

#[tokio::test]
async fn too_many_pings_end_the_connection_with_the_reason_clients_know() {
    let member = Member::start(config()).await;
    let mut client = member.client().await;
    client.unary::<pb::RangeResponse>(RANGE, &range()).await.unwrap();
    let mut pings = client.pings.take().unwrap();
    let mut answered = 0;
    // One is forgiven for the data sent before; the next sets the clock; two strikes more are let pass.
    while clock::timeout(PATIENCE, pings.ping(h2::Ping::opaque())).await.unwrap().is_ok() {
        answered += 1;
        assert!(answered < 100, "nobody polices pings");
    }
    let ended = clock::timeout(PATIENCE, client.ended).await.unwrap().unwrap().unwrap_err();
    assert!(ended.is_go_away(), "{ended:?}");
    assert_eq!(ended.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert!(ended.to_string().contains("too_many_pings"), "{ended}");
    assert_eq!(answered, 3);
    member.stop().await;
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let large = "x".repeat(20 << 10);
    assert_eq!(client.status(RANGE, &[("client-api-version", &large)]).await, 431);
    assert_eq!(client.status(RANGE, &[("client-api-version", "3.6.0")]).await, 200);
    member.stop().await;
}

#[tokio::test]
async fn unfinished_messages_of_one_connection_are_bounded() {
    let mut config = config();
    config.limits.request_bytes_max = 100 << 10;
    let member = Member::start(config).await;
    let client = member.client().await;
    let whole = pb::PutRequest { key: "a".into(), value: vec![0; 90 << 10].into(), ..Default::default() };
    let unfinished = crate::tests::client::framed(&whole).slice(..60 << 10);
    let first = client.begin("/etcdserverpb.KV/Put", unfinished.clone()).await;
    let second = client.begin("/etcdserverpb.KV/Put", unfinished.clone()).await;
    // Whichever came second is refused; the other one goes on waiting for its rest.
    let (first, second) = (std::pin::pin!(first.answered()), std::pin::pin!(second.answered()));
    let refused = futures_util::future::select(first, second).await.factor_first().0;
    assert_eq!(refused, (8, "grpc: too many unfinished messages on this connection".into()));
    // What is finished at once never counts.
    client.unary::<pb::PutResponse>("/etcdserverpb.KV/Put", &whole).await.unwrap();
    member.stop().await;
}
