//! The accept loop: sockets in, each connection dealt to the least loaded of the client runtimes.
//!
//! One task accepts per listening URL and only while a place is free: past `connections_max` clients wait in the kernel's backlog. HTTP/1.1 and
//! HTTP/2 share each port. Which stack serves a call is known here and in `grpc` only.

pub mod bind;
pub mod connection;
pub mod frames;
pub mod outbox;
pub mod peer;
pub mod police;
pub mod transport;
pub mod url;
pub mod wire;
pub mod workers;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_runtime::spawn;
use garboard_tls::Reloader;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::body::Body;
use crate::listen::bind::Listener;
use crate::listen::peer::Peer;
use crate::listen::url::ListenUrl;
use crate::listen::workers::Job;
use crate::listen::workers::Workers;

/// Which of the faces of the server a URL shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Client,
    /// `/metrics` and the health checks only.
    Metrics,
    /// What members say to each other.
    Peer,
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of `peer`.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// The bounds of one listener. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Until when a connection must have shaken hands and sent its first bytes; also for the head of an HTTP/1.1 request.
    pub handshake_timeout: Duration,
    pub header_bytes: u32,
    pub concurrent_streams_max: u32,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub frame_bytes: u32,
    /// Bytes an answer's stream may hold unsent.
    pub send_buffer_bytes: usize,
    /// Bytes of messages not yet complete, over all streams of a connection. The windows of HTTP/2 do not bound them, since what is received is
    /// taken out of them at once.
    pub request_bytes_max: usize,
    /// How often the server pings (zero: never), and how long it waits for the answer.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// The least time between a client's pings.
    pub keepalive_min_time: Duration,
    /// How long open calls may go on after shutdown began.
    pub drain_timeout: Duration,
    pub reuse_port: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 32_768,
            handshake_timeout: Duration::from_secs(5),
            header_bytes: 16 << 10,
            concurrent_streams_max: 65_536,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
            frame_bytes: 256 << 10,
            send_buffer_bytes: 256 << 10,
            request_bytes_max: 256 << 20,
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
            keepalive_min_time: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
            reuse_port: false,
        }
    }
}

/// One listening URL.
pub struct Entrance {
    pub surface: Surface,
    pub tls: Option<Arc<Reloader>>,
}

/// A socket that listens, before anything is accepted from it.
pub struct Bound {
    /// The URL as it is reachable: port 0 has become the port it got.
    pub url: ListenUrl,
    listener: Listener,
    entrance: Arc<Entrance>,
}

/// Listens on `url`.
///
/// # Errors
/// The address cannot be resolved or bound.
pub fn listen(url: &ListenUrl, entrance: Entrance, limits: &Limits) -> io::Result<Bound> {
    let (listener, url) = bind::bind(url, limits)?;
    Ok(Bound { url, listener, entrance: Arc::new(entrance) })
}

/// Accepts until `stop` turns true; the workers then drain what is open. `client` is held by each connection.
pub fn accept(
    bound: Bound,
    workers: &Arc<Workers>,
    places: &Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    client: Option<mpsc::Sender<()>>,
) -> spawn::JoinHandle<()> {
    spawn::task(accept_loop(bound, Arc::clone(workers), Arc::clone(places), stop, client))
}

async fn accept_loop(
    bound: Bound,
    workers: Arc<Workers>,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    client: Option<mpsc::Sender<()>>,
) {
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            bound.listener.accept().await.map(|(socket, remote)| (socket, remote, place))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((socket, remote, place)) => {
                let (entrance, stop, client) = (Arc::clone(&bound.entrance), stop.clone(), client.clone());
                workers.deal(Job { socket, remote, entrance, stop, _place: place, _client: client });
            }
            Err(error) => {
                // Out of file descriptors, most likely: each retry at once would burn the processor that could free some.
                tracing::warn!(url = %bound.url, %error, "cannot accept");
                clock::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
