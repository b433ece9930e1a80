//! A connection's bytes on their way to the HTTP stack: tells HTTP/2 from HTTP/1.1 by the client's first bytes, and watches the frames of the
//! former. An offence ends the connection with GOAWAY `ENHANCE_YOUR_CALM`, as grpc-go does it; the h2 stack has no call for that, so the
//! frame is put between two frames of its own, or left out if one is cut off there.
//!
//! Then the client is read for a moment more: a socket closed with bytes unread is reset, and the client might lose the GOAWAY.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf as _;
use bytes::Bytes;
use bytes::BytesMut;
use garboard_runtime::clock;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::listen::frames;
use crate::listen::frames::Scanner;
use crate::listen::peer::Peer;
use crate::listen::police::Offence;
use crate::listen::police::Police;
use crate::listen::transport::Transport;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Error code of GOAWAY (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// After GOAWAY the client is read for so long, and so many bytes, unless it closes before.
const LEAVE_TIME: Duration = Duration::from_secs(1);
const LEAVE_BYTES: usize = 256 << 10;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// A connection's bytes.
pub struct Wire {
    transport: Transport,
    /// Read while finding out the version; the HTTP stack reads it first.
    head: BytesMut,
    watch: Option<Watch>,
    leaving: Option<Leaving>,
}

/// What is left of a connection after an offence.
struct Leaving {
    offence: Offence,
    goaway: Bytes,
    shut: bool,
    read: usize,
    late: Pin<Box<dyn Future<Output = ()> + Send>>,
}

struct Watch {
    inbound: Scanner,
    outbound: Scanner,
    police: Police,
    peer: Arc<Peer>,
    last_stream: u32,
    offence: Option<Offence>,
}

impl Wire {
    /// Nothing is read yet.
    pub fn new(transport: Transport) -> Wire {
        Wire { transport, head: BytesMut::new(), watch: None, leaving: None }
    }

    /// Reads until the version is clear; None if the client closed before.
    pub async fn version(&mut self) -> io::Result<Option<Version>> {
        loop {
            let known = self.head.len().min(PREFACE.len());
            if self.head[..known] != PREFACE[..known] {
                return Ok(Some(Version::Http1));
            }
            if known == PREFACE.len() {
                return Ok(Some(Version::Http2));
            }
            let mut space = [0; PREFACE.len()];
            let mut buf = ReadBuf::new(&mut space[..PREFACE.len() - known]);
            poll_fn(|cx| Pin::new(&mut self.transport).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                return Ok(None);
            }
            self.head.extend_from_slice(buf.filled());
        }
    }

    /// Watches the frames from here on; what was read so far must be the preface.
    pub fn watch(&mut self, peer: Arc<Peer>, ping_min_time: Duration) {
        assert_eq!(self.head, PREFACE);
        self.watch = Some(Watch {
            inbound: Scanner::after(PREFACE.len()),
            outbound: Scanner::after(0),
            police: Police::new(ping_min_time),
            peer,
            last_stream: 0,
            offence: None,
        });
    }

    /// Goes on to the end: GOAWAY, no more bytes out, bytes in dropped.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(leaving) = &mut self.leaving else { return Poll::Pending };
        let ended = leaving.offence.reason();
        loop {
            match leaving.step(&mut self.transport, cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => break,
                Poll::Pending if leaving.late.as_mut().poll(cx).is_ready() => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, ended))
    }
}

impl Leaving {
    fn new(watch: &Watch, offence: Offence) -> Leaving {
        tracing::warn!(remote = watch.peer.remote(), reason = offence.reason(), "connection closed");
        let goaway = if watch.outbound.at_boundary() {
            frames::goaway(watch.last_stream, ENHANCE_YOUR_CALM, offence.reason().as_bytes())
        } else {
            Vec::new()
        };
        Leaving { offence, goaway: goaway.into(), shut: false, read: 0, late: Box::pin(clock::sleep(LEAVE_TIME)) }
    }

    /// One write or read; false when it was the last.
    fn step(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.goaway.is_empty() {
            let written = ready!(Pin::new(&mut *transport).poll_write(cx, &self.goaway))?;
            self.goaway.advance(written);
            return Poll::Ready(Ok(written > 0));
        }
        if !self.shut {
            ready!(Pin::new(&mut *transport).poll_shutdown(cx))?;
            self.shut = true;
        }
        let mut space = [0; 4096];
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(transport).poll_read(cx, &mut buf))?;
        self.read += buf.filled().len();
        Poll::Ready(Ok(!buf.filled().is_empty() && self.read < LEAVE_BYTES))
    }
}

impl Watch {
    fn received(&mut self, bytes: &[u8]) {
        let Watch { inbound, police, peer, last_stream, offence, .. } = self;
        inbound.scan(bytes, |head| {
            if head.kind == frames::HEADERS {
                *last_stream = head.stream.max(*last_stream);
            }
            if let Err(seen) = police.received(head, peer.open_streams(), clock::now) {
                offence.get_or_insert(seen);
            }
        });
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Watch { outbound, police, .. } = self;
        outbound.scan(bytes, |head| police.sent(head));
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.leaving.is_some() {
            return wire.leave(cx).map(Err);
        }
        let before = buf.filled().len();
        if wire.head.is_empty() {
            ready!(Pin::new(&mut wire.transport).poll_read(cx, buf))?;
        } else {
            let taken = wire.head.len().min(buf.remaining());
            buf.put_slice(&wire.head[..taken]);
            wire.head.advance(taken);
        }
        if let Some(watch) = &mut wire.watch {
            watch.received(&buf.filled()[before..]);
            if let Some(offence) = watch.offence {
                wire.leaving = Some(Leaving::new(watch, offence));
                buf.set_filled(before);
                return wire.leave(cx).map(Err);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.leaving.is_some() {
            // The read side ends the connection.
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut wire.transport).poll_write(cx, bytes))?;
        if let Some(watch) = &mut wire.watch {
            watch.sent(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.leaving.is_some() {
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut wire.transport).poll_write_vectored(cx, slices))?;
        if let Some(watch) = &mut wire.watch {
            let mut left = written;
            for slice in slices {
                let taken = left.min(slice.len());
                watch.sent(&slice[..taken]);
                left -= taken;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}
