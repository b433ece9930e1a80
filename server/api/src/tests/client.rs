//! A gRPC client that can also misbehave: frames by hand over the h2 crate.

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::Bytes;
use bytes::BytesMut;
use garboard_runtime::clock;
use garboard_runtime::spawn;
use h2::RecvStream;
use h2::SendStream;
use h2::client::SendRequest;
use http::HeaderMap;
use http::Request;
use prost::Message;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;

use crate::tests::fixture::PATIENCE;

pub struct Client {
    sender: SendRequest<Bytes>,
    /// How the connection ended.
    pub ended: spawn::JoinHandle<Result<(), h2::Error>>,
    pub pings: Option<h2::PingPong>,
}

/// A stream of messages in both directions.
pub struct Call {
    pub send: SendStream<Bytes>,
    receive: RecvStream,
    buffer: BytesMut,
    headers: HeaderMap,
}

/// A request on its way.
pub struct Unanswered {
    response: h2::client::ResponseFuture,
    _send: SendStream<Bytes>,
}

impl Unanswered {
    /// How it is refused.
    pub async fn answered(self) -> End {
        let response = clock::timeout(PATIENCE, self.response).await.unwrap().unwrap();
        end_of(response.headers())
    }
}

fn end_of(headers: &HeaderMap) -> End {
    let text = |name| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    (text("grpc-status").parse().unwrap(), text("grpc-message").replace("%20", " "))
}

/// Code and text of a call's end.
pub type End = (i32, String);

impl Client {
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Client {
        let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
        let pings = connection.ping_pong();
        Client { sender, ended: spawn::task(connection), pings }
    }

    /// Opens a call whose request begins with `first` and goes on.
    pub async fn open(&self, path: &str, first: &impl Message, headers: &[(&'static str, &str)]) -> Call {
        self.post(path, framed(first), false, headers).await.1
    }

    /// Opens a call with one request and no more to come.
    pub async fn open_ended(&self, path: &str, request: &impl Message) -> Call {
        self.post(path, framed(request), true, &[]).await.1
    }

    /// Begins a request that neither ends nor waits for its answer.
    pub async fn begin(&self, path: &str, body: Bytes) -> Unanswered {
        let request = Request::post(format!("http://member{path}")).header("content-type", "application/grpc");
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        send.send_data(body, false).unwrap();
        Unanswered { response, _send: send }
    }

    async fn post(&self, path: &str, body: Bytes, end: bool, headers: &[(&'static str, &str)]) -> (u16, Call) {
        let mut request = Request::post(format!("http://member{path}")).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (response, mut send) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        send.send_data(body, end).unwrap();
        let response = clock::timeout(PATIENCE, response).await.unwrap().unwrap();
        let (parts, receive) = response.into_parts();
        let call = Call { send, receive, buffer: BytesMut::new(), headers: parts.headers };
        (parts.status.as_u16(), call)
    }

    /// A call of one message each way.
    pub async fn unary<A: Message + Default>(&self, path: &str, request: &impl Message) -> Result<A, End> {
        self.unary_with(path, request, &[]).await
    }

    pub async fn unary_with<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
        headers: &[(&'static str, &str)],
    ) -> Result<A, End> {
        self.raw(path, framed(request), headers).await.map(|bytes| A::decode(bytes).unwrap())
    }

    /// The HTTP status of a request without a message.
    pub async fn status(&self, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        self.post(path, Bytes::new(), true, headers).await.0
    }

    /// Sends these bytes as the whole request; answers the first message of the answer.
    pub async fn raw(&self, path: &str, body: Bytes, headers: &[(&'static str, &str)]) -> Result<Bytes, End> {
        let mut call = self.post(path, body, true, headers).await.1;
        let message = call.next_bytes().await?;
        let end = call.next_bytes().await.unwrap_err();
        assert_eq!(end.0, 0, "a message, then a good end: {end:?}");
        Ok(message)
    }
}

impl Call {
    pub fn ask(&mut self, request: &impl Message) {
        self.send.send_data(framed(request), false).unwrap();
    }

    pub async fn next<A: Message + Default>(&mut self) -> Result<A, End> {
        self.next_bytes().await.map(|bytes| A::decode(bytes).unwrap())
    }

    /// The next message, or how the call ended.
    pub async fn next_bytes(&mut self) -> Result<Bytes, End> {
        clock::timeout(PATIENCE, self.read()).await.expect("an answer in time")
    }

    async fn read(&mut self) -> Result<Bytes, End> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            match self.receive.data().await {
                Some(Ok(data)) => {
                    self.receive.flow_control().release_capacity(data.len()).unwrap();
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err((-1, error.to_string())),
                None => {
                    let trailers = self.receive.trailers().await.unwrap().unwrap_or_else(|| self.headers.clone());
                    return Err(end_of(&trailers));
                }
            }
        }
    }
}

pub fn framed(message: &impl Message) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut buffer).unwrap();
    buffer.freeze()
}
