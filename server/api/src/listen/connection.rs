//! One connection from its handshake to its end.

use std::convert::Infallible;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::listen::Entrance;
use crate::listen::Handler;
use crate::listen::Limits;
use crate::listen::Surface;
use crate::listen::outbox;
use crate::listen::outbox::Outbox;
use crate::listen::peer::Peer;
use crate::listen::transport::Socket;
use crate::listen::transport::Transport;
use crate::listen::wire::Version;
use crate::listen::wire::Wire;

/// Runs the HTTP stack's tasks on the runtime of the connection.
#[derive(Clone)]
struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(spawn::task(future));
    }
}

/// Serves the connection until either side ends it; after `stop` turns true only the calls already open.
///
/// # Errors
/// What ended the connection other than its peer's will.
pub async fn serve<H: Handler>(
    socket: Socket,
    remote: String,
    entrance: &Entrance,
    limits: &Limits,
    handler: Arc<H>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let opened =
        clock::timeout(limits.handshake_timeout, open(socket, remote, entrance, limits.request_bytes_max)).await;
    let Some((mut wire, peer, version)) = opened.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
    // Peers ping as often as they need to know of each other.
    if version == Version::Http2 && peer.surface() != Surface::Peer {
        wire.watch(Arc::clone(&peer), limits.keepalive_min_time);
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        let peer = Arc::clone(&peer);
        async move {
            let open = peer.open_stream();
            Ok::<_, Infallible>(handler.handle(request, peer).await.map(|body| body.on(open)))
        }
    });
    match version {
        Version::Http2 => {
            let (wire, outbox) = outbox::gather(wire);
            let connection = http2(limits).serve_connection(TokioIo::new(wire), service);
            drive(connection, Some(outbox), stop, |connection| connection.graceful_shutdown()).await
        }
        Version::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits.handshake_timeout);
            builder.max_buf_size(limits.header_bytes as usize);
            let connection = builder.serve_connection(TokioIo::new(wire), service);
            drive(connection, None, stop, |connection| connection.graceful_shutdown()).await
        }
    }
}

async fn open(
    socket: Socket,
    remote: String,
    entrance: &Entrance,
    request_bytes_max: usize,
) -> io::Result<Option<(Wire, Arc<Peer>, Version)>> {
    let (transport, identity) = match &entrance.tls {
        None => (Transport::Plain(socket), None),
        Some(tls) => {
            let settings = tls.current().await;
            let stream = TlsAcceptor::from(Arc::clone(&settings.config)).accept(socket).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let identity = certificates.map(|chain| settings.identify(chain)).transpose()?;
            (Transport::Tls(Box::new(stream)), identity)
        }
    };
    let mut wire = Wire::new(transport);
    let Some(version) = wire.version().await? else { return Ok(None) };
    Ok(Some((wire, Arc::new(Peer::new(remote, identity, entrance.surface, request_bytes_max)), version)))
}

fn http2(limits: &Limits) -> hyper::server::conn::http2::Builder<Tasks> {
    let mut builder = hyper::server::conn::http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .max_frame_size(limits.frame_bytes)
        .max_send_buf_size(limits.send_buffer_bytes)
        .max_header_list_size(limits.header_bytes)
        .keep_alive_interval((!limits.keepalive_interval.is_zero()).then_some(limits.keepalive_interval))
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

async fn drive<C>(
    connection: C,
    outbox: Option<Outbox<Wire>>,
    mut stop: watch::Receiver<bool>,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> io::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = poll_fn(|cx| turn(connection.as_mut(), outbox.as_ref(), cx)) => return ended,
        _ = stop.wait_for(|stop| *stop) => shut_down(connection.as_mut()),
    }
    poll_fn(|cx| turn(connection.as_mut(), outbox.as_ref(), cx)).await
}

/// One turn of the connection: all it can do, then what it has to say.
fn turn<C>(mut connection: Pin<&mut C>, outbox: Option<&Outbox<Wire>>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    C: Future<Output = hyper::Result<()>>,
{
    if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
        return Poll::Ready(ended.map_err(io::Error::other));
    }
    match outbox.map(|outbox| outbox.poll_send(cx)) {
        Some(Poll::Ready(Err(error))) => {
            // So that it learns of it, and ends the calls that are open.
            let _ = connection.poll(cx);
            Poll::Ready(Err(error))
        }
        _ => Poll::Pending,
    }
}
