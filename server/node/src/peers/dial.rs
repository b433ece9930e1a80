//! From a member's peer URLs to bytes: names are resolved at every dial, TLS files looked at at every handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use garboard_runtime::clock;
use garboard_tls::Reloader;
use rustls_pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No connection could be made: nothing of a call has been sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to member {id:x}: {why}")]
pub(crate) struct DialError {
    pub(crate) id: u64,
    pub(crate) why: String,
}

/// Dials.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Option<Arc<Reloader>>,
    /// For the connection and for the handshake.
    pub(crate) timeout: Duration,
}

/// A connection that was made.
pub(crate) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// Connects to one of `urls`, each in its turn; `turn` says with which to begin, and moves on when it fails.
    ///
    /// # Errors
    /// None of them answers.
    pub(crate) async fn dial(&self, id: u64, urls: &[String], turn: &AtomicUsize) -> Result<Wire, DialError> {
        let mut why = String::from("no peer URL is known");
        for _ in urls {
            let url = &urls[turn.load(Ordering::Relaxed) % urls.len()];
            let dialled = clock::timeout(self.timeout, self.dial_url(url)).await;
            match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(wire) => return Ok(wire),
                Err(error) => why = format!("{url}: {error}"),
            }
            turn.fetch_add(1, Ordering::Relaxed);
        }
        Err(DialError { id, why })
    }

    async fn dial_url(&self, url: &str) -> io::Result<Wire> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let (scheme, address) = url.split_once("://").ok_or_else(|| invalid("not a URL"))?;
        if scheme == "unix" {
            return UnixStream::connect(address).await.map(Wire::Unix);
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match scheme {
            "http" => Ok(Wire::Tcp(stream)),
            "https" => {
                let tls = self.tls.as_ref().ok_or_else(|| invalid("TLS, and there is no peer-cert-file"))?;
                let settings = tls.current().await;
                let config =
                    settings.dial.clone().ok_or_else(|| invalid("TLS, and there is no peer-trusted-ca-file"))?;
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|_| invalid("its host is no name for TLS"))?;
                Ok(Wire::Tls(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
            }
            _ => Err(invalid("unknown scheme")),
        }
    }
}

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Tcp($inner) => $call,
            Wire::Unix($inner) => $call,
            Wire::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
