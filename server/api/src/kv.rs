//! The KV service.
//!
//! Reads of single keys, and counts, are served on the connection's own thread; whatever walks a range goes to the blocking pool, because it
//! may wait for the disk.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use garboard_mvcc as mvcc;
use garboard_mvcc::RangeRows;
use garboard_mvcc::Store;
use garboard_mvcc::validate;
use garboard_node::Node;
use garboard_proto::etcdserverpb as pb;
use garboard_proto::etcdserverpb::kv_server::Kv;
use garboard_proto::etcdserverpb::request_op;
use garboard_proto::raft::Command;
use garboard_proto::raft::command::Op;
use garboard_runtime::spawn;
use prost::Message as _;
use tonic::Request;
use tonic::Response;

use crate::answers;
use crate::answers::Place;
use crate::answers::Room;
use crate::range::RangeAnswer;
use crate::status;
use crate::status::Status;

/// KV, as etcd serves it.
pub struct KvService {
    pub node: Node,
    pub txn_ops_max: usize,
    /// For answers that are large.
    pub room: Room,
}

type RangeStreamAnswer = Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, tonic::Status>> + Send>>;

impl KvService {
    fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.node.header(revision));
    }

    async fn linearize(&self, serializable: bool) -> Result<(), Status> {
        if !serializable {
            self.node.linearizable_read().await?;
        }
        Ok(())
    }

    async fn propose(&self, op: Op) -> Result<mvcc::Response, Status> {
        Ok(self.node.propose(Command { op: Some(op) }).await?)
    }

    async fn read_txn(&self, request: pb::TxnRequest) -> Result<Response<pb::TxnResponse>, Status> {
        self.linearize(validate::is_serializable(&request)).await?;
        if single_keys_only(&request) {
            return Ok(Response::new(self.node.store().read_txn(&request)?));
        }
        let ranges = request.success.iter().chain(&request.failure).filter_map(|op| match &op.request {
            Some(request_op::Request::RequestRange(range)) => Some(range),
            _ => None,
        });
        let mut expected = 0;
        for range in ranges {
            expected += self.expect(range).await?;
        }
        let len = pb::TxnResponse::encoded_len;
        let (answer, place) = self.read(expected, move |store| store.read_txn(&request), len).await?;
        let mut response = Response::new(answer);
        if let Some(place) = place {
            // The body of the answer looks for it.
            response.extensions_mut().insert(place);
        }
        Ok(response)
    }

    /// About how many bytes the answer to a range will have; looked at more closely when it may be many.
    async fn expect(&self, range: &pb::RangeRequest) -> Result<u64, Status> {
        let most = self.node.expected_bytes(range);
        if most < answers::LARGE_BYTES {
            return Ok(most);
        }
        let keys = self.node.store().expected_keys(range);
        let sampled = range.clone();
        let average = blocking(self.node.store(), move |store| store.average_row_bytes(&sampled)).await?;
        Ok(keys.saturating_mul(average))
    }

    /// Range, its answer not yet encoded.
    pub async fn read_range(&self, request: pb::RangeRequest) -> Result<RangeAnswer, Status> {
        validate::range(&request)?;
        self.linearize(request.serializable).await?;
        let (rows, place) = if request.range_end.is_empty() || is_count_of_now(&request) {
            (self.node.store().range_rows(&request)?, None)
        } else {
            let len = |rows: &RangeRows| rows.encoded_len(&pb::ResponseHeader::default());
            self.read(self.expect(&request).await?, move |store| store.range_rows(&request), len).await?
        };
        Ok(RangeAnswer { header: self.node.header(rows.revision), rows, place })
    }

    /// Runs a read that may take long where nothing waits behind it, and one with a large answer when there is room for that.
    async fn read<T: Send + 'static>(
        &self,
        expected_bytes: u64,
        read: impl FnOnce(&Arc<Store>) -> Result<T, mvcc::Error> + Send + 'static,
        len: impl FnOnce(&T) -> usize,
    ) -> Result<(T, Option<Place>), Status> {
        let permit = self.room.enter(expected_bytes).await;
        let answer = blocking(self.node.store(), read).await?;
        let place = permit.map(|permit| Place::settle(permit, len(&answer) as u64));
        Ok((answer, place))
    }
}

/// Runs a read that may take long where nothing waits behind it.
async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    read: impl FnOnce(&Arc<Store>) -> Result<T, mvcc::Error> + Send + 'static,
) -> Result<T, Status> {
    let store = Arc::clone(store);
    Ok(spawn::blocking(move || read(&store)).await.map_err(|_| status::STOPPED)??)
}

/// The index knows it without walking.
fn is_count_of_now(request: &pb::RangeRequest) -> bool {
    request.count_only && request.revision <= 0
}

fn single_keys_only(request: &pb::TxnRequest) -> bool {
    let single = |op: &pb::RequestOp| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.range_end.is_empty(),
        _ => false,
    };
    request.compare.iter().all(|compare| compare.range_end.is_empty())
        && request.success.iter().chain(&request.failure).all(single)
}

fn unexpected() -> Status {
    Status::fixed(tonic::Code::Internal, "the state machine gave another command's answer")
}

#[tonic::async_trait]
impl Kv for KvService {
    /// Calls come to [`KvService::read_range`] by [`crate::range`]; this is the same for who wants the message.
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, tonic::Status> {
        let RangeAnswer { rows, header, place: _place } = self.read_range(request.into_inner()).await?;
        let mut answer = rows.into_response().map_err(Status::from)?;
        answer.header = Some(header);
        Ok(Response::new(answer))
    }

    type RangeStreamStream = RangeStreamAnswer;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeStreamAnswer>, tonic::Status> {
        let request = request.into_inner();
        validate::range_stream(&request).map_err(Status::from)?;
        self.linearize(request.serializable).await?;
        let chunk_bytes = self.node.max_request_bytes();
        let source = blocking(self.node.store(), move |store| store.range_stream(&request, chunk_bytes)).await?;
        let node = self.node.clone();
        let chunks = stream::unfold(Some((source, node)), |state| async {
            let (mut source, node) = state?;
            let read = spawn::blocking(move || {
                let chunk = source.next_chunk();
                (chunk, source)
            });
            let Ok((chunk, source)) = read.await else { return Some((Err(status::STOPPED.into()), None)) };
            match chunk? {
                Ok(mut chunk) => {
                    if let Some(header) = &mut chunk.header {
                        *header = node.header(header.revision);
                    }
                    Some((Ok(pb::RangeStreamResponse { range_response: Some(chunk) }), Some((source, node))))
                }
                Err(error) => Some((Err(Status::from(error).into()), None)),
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, tonic::Status> {
        let request = request.into_inner();
        validate::put(&request).map_err(Status::from)?;
        let mvcc::Response::Put(mut answer) = self.propose(Op::Put(request)).await? else {
            return Err(unexpected().into());
        };
        self.fill(&mut answer.header);
        Ok(Response::new(answer))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, tonic::Status> {
        let request = request.into_inner();
        validate::delete_range(&request).map_err(Status::from)?;
        let mvcc::Response::DeleteRange(mut answer) = self.propose(Op::DeleteRange(request)).await? else {
            return Err(unexpected().into());
        };
        self.fill(&mut answer.header);
        Ok(Response::new(answer))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, tonic::Status> {
        let request = request.into_inner();
        validate::txn(&request, self.txn_ops_max).map_err(Status::from)?;
        let mut answer = if validate::is_read_only(&request) {
            self.read_txn(request).await?
        } else {
            match self.propose(Op::Txn(request)).await? {
                mvcc::Response::Txn(answer) => Response::new(answer),
                _ => return Err(unexpected().into()),
            }
        };
        self.fill(&mut answer.get_mut().header);
        Ok(answer)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, tonic::Status> {
        let mvcc::Response::Compaction(mut answer) = self.propose(Op::Compaction(request.into_inner())).await? else {
            return Err(unexpected().into());
        };
        self.fill(&mut answer.header);
        Ok(Response::new(answer))
    }
}
