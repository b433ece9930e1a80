//! Encodes answers from the hub's events, which were encoded once for all streams.

use garboard_mvcc::watch::WatchOutput;
use garboard_proto::etcdserverpb::ResponseHeader;
use garboard_proto::etcdserverpb::WatchRequest;
use prost::Message as _;
use tonic::Status;
use tonic::codec::Codec;
use tonic::codec::DecodeBuf;
use tonic::codec::Decoder;
use tonic::codec::EncodeBuf;
use tonic::codec::Encoder;

/// One `WatchResponse`, not yet encoded.
pub struct WatchAnswer {
    pub output: WatchOutput,
    pub header: ResponseHeader,
}

/// Requests by prost, answers as they lie in the hub.
#[derive(Clone, Copy)]
pub struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = WatchAnswer;
    type Decode = WatchRequest;
    type Encoder = WatchCodec;
    type Decoder = WatchCodec;

    fn encoder(&mut self) -> WatchCodec {
        *self
    }

    fn decoder(&mut self) -> WatchCodec {
        *self
    }
}

impl Encoder for WatchCodec {
    type Item = WatchAnswer;
    type Error = Status;

    fn encode(&mut self, answer: WatchAnswer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.output.encoded_len(&answer.header));
        answer.output.encode(&answer.header, buffer);
        Ok(())
    }
}

impl Decoder for WatchCodec {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        let request = WatchRequest::decode(buffer);
        request.map(Some).map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
    }
}
