//! Range, which is most of what a store is asked: its answers are copied from the rows as they are stored, not built of messages.

use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use garboard_mvcc::RangeRows;
use garboard_proto::etcdserverpb as pb;
use prost::Message as _;
use tonic::Request;
use tonic::Response;
use tonic::codec::Codec;
use tonic::codec::DecodeBuf;
use tonic::codec::Decoder;
use tonic::codec::EncodeBuf;
use tonic::codec::Encoder;
use tonic::codegen::Service;

use crate::kv::KvService;

/// One `RangeResponse`, not yet encoded.
pub struct RangeAnswer {
    pub rows: RangeRows,
    pub header: pb::ResponseHeader,
}

/// KV.Range, as etcd serves it.
#[derive(Clone)]
pub struct RangeService {
    pub kv: Arc<KvService>,
    pub message_bytes_max: usize,
}

impl RangeService {
    /// Answers one call.
    pub async fn call<B>(&self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let mut grpc = tonic::server::Grpc::new(RangeCodec).max_decoding_message_size(self.message_bytes_max);
        grpc.unary(Open(Arc::clone(&self.kv)), request).await
    }
}

struct Open(Arc<KvService>);

impl Service<Request<pb::RangeRequest>> for Open {
    type Response = Response<RangeAnswer>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Response<RangeAnswer>, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<pb::RangeRequest>) -> Self::Future {
        let kv = Arc::clone(&self.0);
        Box::pin(async move { Ok(kv.read_range(request.into_inner()).await?) })
    }
}

/// Requests by prost, answers as they lie in the store.
#[derive(Clone, Copy)]
struct RangeCodec;

impl Codec for RangeCodec {
    type Encode = RangeAnswer;
    type Decode = pb::RangeRequest;
    type Encoder = RangeCodec;
    type Decoder = RangeCodec;

    fn encoder(&mut self) -> RangeCodec {
        *self
    }

    fn decoder(&mut self) -> RangeCodec {
        *self
    }
}

impl Encoder for RangeCodec {
    type Item = RangeAnswer;
    type Error = tonic::Status;

    fn encode(&mut self, answer: RangeAnswer, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.reserve(answer.rows.encoded_len(&answer.header));
        answer.rows.encode(&answer.header, buffer);
        Ok(())
    }
}

impl Decoder for RangeCodec {
    type Item = pb::RangeRequest;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<pb::RangeRequest>, tonic::Status> {
        let request = pb::RangeRequest::decode(buffer);
        request
            .map(Some)
            .map_err(|error| tonic::Status::internal(format!("grpc: error unmarshalling request: {error}")))
    }
}
