//! Calls that stream: watches, keep-alives, RangeStream; and how they end.

use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::watch_request::RequestUnion;
use garboard_runtime::clock;

use crate::tests::client::Call;
use crate::tests::fixture::Member;
use crate::tests::fixture::PATIENCE;
use crate::tests::fixture::config;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PUT: &str = "/etcdserverpb.KV/Put";

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

fn ask(call: &mut Call, union: RequestUnion) {
    call.ask(&request(union));
}

fn prefix(start_revision: i64) -> RequestUnion {
    let create =
        pb::WatchCreateRequest { key: "k".into(), range_end: "l".into(), start_revision, ..Default::default() };
    RequestUnion::CreateRequest(create)
}

fn put(n: usize) -> pb::PutRequest {
    pb::PutRequest { key: format!("k{n:04}").into(), value: vec![7; 100].into(), ..Default::default() }
}

/// Reads answers until `count` events came; their revisions.
async fn events(call: &mut Call, count: usize) -> Vec<i64> {
    let mut revisions = Vec::new();
    while revisions.len() < count {
        let answer: pb::WatchResponse = call.next().await.unwrap();
        revisions.extend(answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    }
    revisions
}

#[tokio::test]
async fn a_watch_sees_the_past_and_the_present_once_and_in_order() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    for n in 0..50 {
        client.unary::<pb::PutResponse>(PUT, &put(n)).await.unwrap();
    }
    let mut call = client.open(WATCH, &request(prefix(2)), &[("hasleader", "true")]).await;
    let created: pb::WatchResponse = call.next().await.unwrap();
    assert!(created.created && !created.canceled && created.events.is_empty());
    assert_eq!(created.header.unwrap().member_id, member.node.member_id());
    for n in 50..100 {
        client.unary::<pb::PutResponse>(PUT, &put(n)).await.unwrap();
    }
    assert_eq!(events(&mut call, 100).await, (2..102).collect::<Vec<_>>());

    ask(&mut call, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    let progress: pb::WatchResponse = call.next().await.unwrap();
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 101));
    ask(&mut call, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: created.watch_id }));
    let canceled: pb::WatchResponse = call.next().await.unwrap();
    assert!(canceled.canceled);
    member.stop().await;
}

#[tokio::test]
async fn idle_watchers_hear_of_progress() {
    let mut config = config();
    config.watch_progress_interval = std::time::Duration::from_millis(1);
    let member = Member::start(config).await;
    let create = pb::WatchCreateRequest { key: "k".into(), progress_notify: true, ..Default::default() };
    let mut call = member.client().await.open(WATCH, &request(RequestUnion::CreateRequest(create)), &[]).await;
    let created: pb::WatchResponse = call.next().await.unwrap();
    assert!(created.created);
    let progress: pb::WatchResponse = call.next().await.unwrap();
    assert!(!progress.created && progress.events.is_empty() && progress.watch_id == created.watch_id);
    member.stop().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_back_nobody_and_loses_nothing() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let mut call = client.open(WATCH, &request(prefix(0)), &[]).await;
    let created: pb::WatchResponse = call.next().await.unwrap();
    let from = created.header.unwrap().revision + 1;
    let large = |n| pb::PutRequest { value: vec![7; 1 << 20].into(), ..put(n) };
    // Far more than the stream's window, the send buffers and the hub's queue hold.
    for n in 0..40 {
        client.unary::<pb::PutResponse>(PUT, &large(n)).await.unwrap();
    }
    assert_eq!(events(&mut call, 40).await, (from..from + 40).collect::<Vec<_>>());
    member.stop().await;
}

#[tokio::test]
async fn leases_are_kept_alive_and_gone_ones_have_no_time_left() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
    let granted: pb::LeaseGrantResponse = client.unary("/etcdserverpb.Lease/LeaseGrant", &grant).await.unwrap();
    assert_eq!(granted.ttl, 100);
    let mut call =
        client.open("/etcdserverpb.Lease/LeaseKeepAlive", &pb::LeaseKeepAliveRequest { id: granted.id }, &[]).await;
    for (id, ttl, next) in [(granted.id, 100, granted.id + 1), (granted.id + 1, 0, granted.id), (granted.id, 100, 0)] {
        if next != 0 {
            call.ask(&pb::LeaseKeepAliveRequest { id: next });
        }
        let alive: pb::LeaseKeepAliveResponse = call.next().await.unwrap();
        assert_eq!((alive.id, alive.ttl), (id, ttl));
        assert!(alive.header.unwrap().revision > 0);
    }
    call.send.send_data(bytes::Bytes::new(), true).unwrap();
    assert_eq!(
        call.next::<pb::LeaseKeepAliveResponse>().await.unwrap_err().0,
        0,
        "it ends when the client has no more to ask"
    );
    let ask = pb::LeaseTimeToLiveRequest { id: 12345, keys: false };
    let unknown: pb::LeaseTimeToLiveResponse = client.unary("/etcdserverpb.Lease/LeaseTimeToLive", &ask).await.unwrap();
    assert_eq!((unknown.id, unknown.ttl), (12345, -1));
    let leases: pb::LeaseLeasesResponse =
        client.unary("/etcdserverpb.Lease/LeaseLeases", &pb::LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(leases.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [granted.id]);
    let revoke = pb::LeaseRevokeRequest { id: granted.id };
    client.unary::<pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", &revoke).await.unwrap();
    let again = client.unary::<pb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", &revoke).await.unwrap_err();
    assert_eq!(again, (5, "etcdserver: requested lease not found".into()));
    member.stop().await;
}

#[tokio::test]
async fn a_range_streams_in_chunks_that_make_the_whole() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    for n in 0..100 {
        client.unary::<pb::PutResponse>(PUT, &put(n)).await.unwrap();
    }
    let range = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let mut call = client.open_ended("/etcdserverpb.KV/RangeStream", &range).await;
    let (mut keys, mut chunks) = (Vec::new(), 0);
    let last = loop {
        match call.next::<pb::RangeStreamResponse>().await {
            Ok(chunk) => {
                let chunk = chunk.range_response.unwrap();
                keys.extend(chunk.kvs.iter().map(|kv| kv.key.clone()));
                chunks += 1;
                if let Some(header) = chunk.header {
                    assert_eq!((header.member_id, chunk.count), (member.node.member_id(), 100));
                }
            }
            Err(end) => break end,
        }
    };
    assert_eq!(last.0, 0);
    assert_eq!(keys, (0..100).map(|n| format!("k{n:04}")).collect::<Vec<_>>());
    assert!(chunks > 1);
    let sorted = pb::RangeRequest { sort_order: 2, ..range };
    let mut call = client.open_ended("/etcdserverpb.KV/RangeStream", &sorted).await;
    let refused = call.next::<pb::RangeStreamResponse>().await.unwrap_err();
    assert_eq!(refused, (12, "RangeStream does not support custom sort orders".into()));
    member.stop().await;
}

#[tokio::test]
async fn the_first_message_of_a_snapshot_tells_what_it_is_of() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    // Some hundred KiB: more than one message.
    for n in 0..40 {
        let large = pb::PutRequest { value: vec![7; 10_000].into(), ..put(n) };
        client.unary::<pb::PutResponse>(PUT, &large).await.unwrap();
    }
    let mut call = client.open_ended("/etcdserverpb.Maintenance/Snapshot", &pb::SnapshotRequest {}).await;
    let first: pb::SnapshotResponse = call.next().await.unwrap();
    assert_eq!(first.header, Some(member.node.header(41)));
    let (mut received, total) = (first.blob.len() as u64, first.blob.len() as u64 + first.remaining_bytes);
    let mut messages = 1;
    let end = loop {
        match call.next::<pb::SnapshotResponse>().await {
            Ok(message) => {
                assert_eq!(message.header, None);
                (received, messages) = (received + message.blob.len() as u64, messages + 1);
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end.0, 0);
    // The file, and its hash.
    assert!(messages > 2 && received == total + 32, "{received} of {total} bytes in {messages} messages");
    member.stop().await;
}

#[tokio::test]
async fn shutdown_ends_streams_with_a_reason_to_go_elsewhere() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let mut call = client.open(WATCH, &request(prefix(0)), &[]).await;
    let created: pb::WatchResponse = call.next().await.unwrap();
    assert!(created.created);
    let (running, node) = member.begin_stop();
    let end = call.next::<pb::WatchResponse>().await.unwrap_err();
    assert_eq!(end, (14, "etcdserver: server stopped".into()));
    clock::timeout(PATIENCE, running.finished()).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_past_its_deadline_ends() {
    let member = Member::start(config()).await;
    let mut call = member.client().await.open(WATCH, &request(prefix(0)), &[("grpc-timeout", "300m")]).await;
    assert!(call.next::<pb::WatchResponse>().await.unwrap().created);
    assert_eq!(call.next::<pb::WatchResponse>().await.unwrap_err(), (4, "context deadline exceeded".into()));
    member.stop().await;
}
