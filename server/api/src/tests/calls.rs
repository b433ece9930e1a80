//! Calls of one message each way: what they answer, and how they are refused.

use bytes::Bytes;
use garboard_proto::etcdserverpb as pb;

use crate::tests::client::framed;
use crate::tests::fixture::Member;
use crate::tests::fixture::config;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn range_op(range: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) }
}

#[tokio::test]
async fn what_is_put_is_read_and_headers_are_filled() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let first: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
    let header = first.header.unwrap();
    assert_eq!((header.cluster_id, header.member_id), (member.node.cluster_id(), member.node.member_id()));
    assert_eq!(header.revision, 2);
    assert!(header.raft_term > 0);
    client.unary::<pb::PutResponse>(PUT, &put("b", "2")).await.unwrap();

    let one: pb::RangeResponse = client.unary(RANGE, &range("a", "")).await.unwrap();
    assert_eq!(one.kvs[0].value, "1");
    assert_eq!(one.header.unwrap().revision, 3);
    let all: pb::RangeResponse = client.unary(RANGE, &range("a", "z")).await.unwrap();
    assert_eq!((all.kvs.len(), all.count), (2, 2));

    let reads =
        pb::TxnRequest { success: vec![range_op(range("a", "")), range_op(range("a", "z"))], ..Default::default() };
    let read: pb::TxnResponse = client.unary(TXN, &reads).await.unwrap();
    assert_eq!(read.header.unwrap().member_id, member.node.member_id());
    let Some(pb::response_op::Response::ResponseRange(inner)) = &read.responses[1].response else { panic!("a range") };
    assert_eq!((inner.count, inner.header.unwrap().member_id), (2, 0), "inner headers carry the revision only");

    let deleted: pb::DeleteRangeResponse = client
        .unary("/etcdserverpb.KV/DeleteRange", &pb::DeleteRangeRequest { key: "a".into(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(deleted.deleted, 1);
    let compacted = pb::CompactionRequest { revision: 3, physical: true };
    client.unary::<pb::CompactionResponse>("/etcdserverpb.KV/Compact", &compacted).await.unwrap();
    let past = pb::RangeRequest { revision: 2, ..range("a", "") };
    let refused = client.unary::<pb::RangeResponse>(RANGE, &past).await.unwrap_err();
    assert_eq!(refused, (11, "etcdserver: mvcc: required revision has been compacted".into()));
    member.stop().await;
}

#[tokio::test]
async fn refusals_have_etcds_code_and_text() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let refused = client.unary::<pb::PutResponse>(PUT, &put("", "x")).await.unwrap_err();
    assert_eq!(refused, (3, "etcdserver: key is not provided".into()));
    let leased = pb::PutRequest { lease: 77, ..put("a", "x") };
    let refused = client.unary::<pb::PutResponse>(PUT, &leased).await.unwrap_err();
    assert_eq!(refused, (5, "etcdserver: requested lease not found".into()));
    let large = pb::PutRequest { key: "a".into(), value: Bytes::from(vec![0; 3 << 19]), ..Default::default() };
    let refused = client.unary::<pb::PutResponse>(PUT, &large).await.unwrap_err();
    assert_eq!(refused, (3, "etcdserver: request is too large".into()));
    let many = pb::TxnRequest { success: vec![range_op(range("a", "")); 129], ..Default::default() };
    let refused = client.unary::<pb::TxnResponse>(TXN, &many).await.unwrap_err();
    assert_eq!(refused, (3, "etcdserver: too many operations in txn request".into()));
    let future = pb::RangeRequest { revision: 99, ..range("a", "") };
    let refused = client.unary::<pb::RangeResponse>(RANGE, &future).await.unwrap_err();
    assert_eq!(refused, (11, "etcdserver: mvcc: required revision is a future revision".into()));
    let added = |url: &str| pb::MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner: true };
    for (url, code) in [("nonsense", 3), ("http://localhost:2380", 9)] {
        let path = "/etcdserverpb.Cluster/MemberAdd";
        assert_eq!(client.unary::<pb::MemberAddResponse>(path, &added(url)).await.unwrap_err().0, code, "{url}");
    }
    let refused = client
        .unary::<pb::AuthenticateResponse>("/etcdserverpb.Auth/Authenticate", &pb::AuthenticateRequest::default())
        .await;
    assert_eq!(refused.unwrap_err(), (9, "etcdserver: authentication is not enabled".into()));
    member.stop().await;
}

#[tokio::test]
async fn a_message_above_the_limit_and_frames_that_are_none() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let limit = (3 << 19) + (512 << 10);
    let huge = pb::PutRequest { key: "a".into(), value: Bytes::from(vec![0; limit]), ..Default::default() };
    let length = framed(&huge).len() - 5;
    let refused = client.unary::<pb::PutResponse>(PUT, &huge).await.unwrap_err();
    assert_eq!(refused, (8, format!("grpc: received message larger than max ({length} vs. {limit})")));

    let not_protobuf = Bytes::from_static(&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]);
    assert_eq!(client.raw(PUT, not_protobuf, &[]).await.unwrap_err().0, 13);
    let cut_off = framed(&put("a", "1")).slice(..7);
    assert_eq!(client.raw(PUT, cut_off, &[]).await.unwrap_err().0, 13);
    let bad_flag = Bytes::from_static(&[9, 0, 0, 0, 0]);
    assert_eq!(client.raw(PUT, bad_flag, &[]).await.unwrap_err().0, 13);
    assert_eq!(client.raw(PUT, Bytes::new(), &[]).await.unwrap_err().0, 13);

    let unknown = client.raw("/etcdserverpb.KV/Nothing", Bytes::new(), &[]).await.unwrap_err();
    assert_eq!(unknown, (12, "unknown method Nothing for service etcdserverpb.KV".into()));
    let unknown = client.raw("/v3lockpb.Lock/Lock", Bytes::new(), &[]).await.unwrap_err();
    assert_eq!(unknown, (12, "unknown service v3lockpb.Lock".into()));
    // The connection outlives all of that.
    client.unary::<pb::PutResponse>(PUT, &put("a", "1")).await.unwrap();
    member.stop().await;
}

#[tokio::test]
async fn a_deadline_that_has_passed_ends_the_call() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let late = client.unary_with::<pb::PutResponse>(PUT, &put("a", "1"), &[("grpc-timeout", "1n")]).await.unwrap_err();
    assert_eq!(late, (4, "context deadline exceeded".into()));
    client.unary_with::<pb::PutResponse>(PUT, &put("a", "1"), &[("grpc-timeout", "30S")]).await.unwrap();
    let malformed =
        client.unary_with::<pb::PutResponse>(PUT, &put("a", "1"), &[("grpc-timeout", "soon")]).await.unwrap_err();
    assert_eq!(malformed.0, 13);
    member.stop().await;
}

#[tokio::test]
async fn status_members_and_health() {
    let member = Member::start(config()).await;
    let client = member.client().await;
    let status: pb::StatusResponse =
        client.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), (garboard_node::ETCD_VERSION, "3.6.0"));
    assert_eq!(status.leader, member.node.member_id());
    assert!(status.raft_index > 0 && status.db_size_quota > 0, "{status:?}");
    let members: pb::MemberListResponse =
        client.unary("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: true }).await.unwrap();
    assert_eq!(members.members[0].id, member.node.member_id());
    let auth: pb::AuthStatusResponse =
        client.unary("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}).await.unwrap();
    assert!(!auth.enabled);
    let hash: pb::HashKvResponse =
        client.unary("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest { revision: 0 }).await.unwrap();
    assert_eq!(hash.hash_revision, hash.header.unwrap().revision);
    let health = client.raw("/grpc.health.v1.Health/Check", Bytes::from_static(&[0; 5]), &[]).await.unwrap();
    assert_eq!(&health[..], [8, 1], "SERVING");
    member.stop().await;
}
