//! Range, which is most of what a store is asked. Its answers are not built of messages: they are copied from the rows as these are stored, piece
//! by piece as the client takes them, so that a large one is in memory once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use garboard_mvcc::RangePieces;
use garboard_mvcc::RangeRows;
use garboard_proto::etcdserverpb as pb;
use http::HeaderMap;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use prost::Message as _;
use tonic::codec::DecodeBuf;
use tonic::codec::Decoder;
use tonic::codec::Streaming;

use crate::answers::Place;
use crate::kv::KvService;
use crate::status;

/// As in etcd.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// One answer, not yet encoded.
pub struct RangeAnswer {
    pub rows: RangeRows,
    pub header: pb::ResponseHeader,
    /// Of a large one.
    pub place: Option<Place>,
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
        match self.answer(request).await {
            Ok(answer) => {
                let mut response = http::Response::new(tonic::body::Body::new(RangeBody::new(answer)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response
            }
            Err(status) => status.into_http(),
        }
    }

    async fn answer<B>(&self, request: http::Request<B>) -> Result<RangeAnswer, tonic::Status>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        refuse_compressed(request.headers())?;
        let mut requests =
            Streaming::new_request(RangeRequests, request.into_body(), None, Some(self.message_bytes_max));
        let missing = || tonic::Status::internal("Missing request message.");
        let request = requests.message().await?.ok_or_else(missing)?;
        // Read to its end, as the trailers are part of the request.
        requests.trailers().await?;
        if !request.serializable && self.kv.node.is_learner() {
            return Err(status::NOT_SUPPORTED_FOR_LEARNER.into());
        }
        let answer = self.kv.read_range(request).await?;
        let len = answer.rows.encoded_len(&answer.header);
        if len > MESSAGE_BYTES_MAX {
            let text = format!("trying to send message larger than max ({len} vs. {MESSAGE_BYTES_MAX})");
            return Err(tonic::Status::resource_exhausted(text));
        }
        Ok(answer)
    }
}

/// No compression is taken, here as in the other services.
fn refuse_compressed(headers: &HeaderMap) -> Result<(), tonic::Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(()),
        Some(encoding) => {
            let encoding = encoding.escape_ascii();
            let mut status =
                tonic::Status::unimplemented(format!("Content is compressed with `{encoding}` which isn't supported"));
            let identity = tonic::metadata::MetadataValue::from_static("identity");
            status.metadata_mut().insert("grpc-accept-encoding", identity);
            Err(status)
        }
    }
}

struct RangeRequests;

impl Decoder for RangeRequests {
    type Item = pb::RangeRequest;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<pb::RangeRequest>, tonic::Status> {
        let request = pb::RangeRequest::decode(buffer);
        request
            .map(Some)
            .map_err(|error| tonic::Status::internal(format!("grpc: error unmarshalling request: {error}")))
    }
}

/// The pieces, then the trailers.
struct RangeBody {
    pieces: Option<RangePieces>,
    _place: Option<Place>,
}

impl RangeBody {
    fn new(answer: RangeAnswer) -> Self {
        // A message without compression, and its length, which is below MESSAGE_BYTES_MAX.
        let mut lead = [0; 5];
        let len = answer.rows.encoded_len(&answer.header);
        lead[1..].copy_from_slice(&(len as u32).to_be_bytes());
        Self { pieces: Some(answer.rows.pieces(&answer.header, &lead)), _place: answer.place }
    }
}

impl http_body::Body for RangeBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        if let Some(piece) = pieces.next() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.pieces = None;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}
