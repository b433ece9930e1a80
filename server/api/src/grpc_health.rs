//! `grpc.health.v1.Health` for the service "": serving from the first to the last moment, as etcd's.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

const SERVING: i32 = 1;
const SERVICE_UNKNOWN: i32 = 3;

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthListRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthListResponse {
    #[prost(map = "string, message", tag = "1")]
    pub statuses: HashMap<String, HealthCheckResponse>,
}

/// A service made of a function.
struct Answer<F>(F);

impl<F, Q, A> Service<Request<Q>> for Answer<F>
where
    F: FnMut(Q) -> Result<A, Status>,
    A: Send + 'static,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<A>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner()).map(Response::new);
        Box::pin(async { answer })
    }
}

/// One answer, then silence.
struct Unchanging(Option<HealthCheckResponse>);

impl Stream for Unchanging {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.take().map_or(Poll::Pending, |answer| Poll::Ready(Some(Ok(answer))))
    }
}

/// A request's body as tonic takes it.
pub trait RequestBody:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + 'static
{
}

impl<B> RequestBody for B where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send> + Send + 'static
{
}

/// `Check`.
pub fn check<B: RequestBody>(request: http::Request<B>) -> BoxFuture<'static, http::Response<Body>> {
    let answer = |request: HealthCheckRequest| {
        if request.service.is_empty() {
            Ok(HealthCheckResponse { status: SERVING })
        } else {
            Err(Status::not_found("unknown service"))
        }
    };
    Box::pin(async move { Grpc::new(ProstCodec::default()).unary(Answer(answer), request).await })
}

/// `List`.
pub fn list<B: RequestBody>(request: http::Request<B>) -> BoxFuture<'static, http::Response<Body>> {
    let answer = |_: HealthListRequest| {
        Ok(HealthListResponse { statuses: HashMap::from([(String::new(), HealthCheckResponse { status: SERVING })]) })
    };
    Box::pin(async move { Grpc::new(ProstCodec::default()).unary(Answer(answer), request).await })
}

/// `Watch`: one answer, since nothing changes it; the stream stays open.
pub fn watch<B: RequestBody>(request: http::Request<B>) -> BoxFuture<'static, http::Response<Body>> {
    let answer = |request: HealthCheckRequest| {
        let status = if request.service.is_empty() { SERVING } else { SERVICE_UNKNOWN };
        Ok(Unchanging(Some(HealthCheckResponse { status })))
    };
    Box::pin(async move { Grpc::new(ProstCodec::default()).server_streaming(Answer(answer), request).await })
}
