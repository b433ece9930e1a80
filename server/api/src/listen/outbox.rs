//! An HTTP/2 connection's bytes on their way out, gathered for one write per turn of the connection's task.
//!
//! The h2 stack flushes behind nearly every frame: one system call for each event of a watch, each answer. Here a flush waits until the
//! task has done all that it can do in this turn; then everything goes out at once. What is large anyway is not copied. Invariant: bytes go
//! out in their order, and the task never waits for something else while it has bytes that the socket would take.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::listen::wire::Wire;

/// As much is gathered; for more, copying costs more than a system call.
const GATHERED_BYTES_MAX: usize = 16 << 10;

struct State {
    wire: Wire,
    out: Vec<u8>,
    written: usize,
}

/// What the HTTP stack reads and writes.
pub struct Gathering(Arc<Mutex<State>>);

/// What the connection's task sends out at the end of its turn.
pub struct Outbox(Arc<Mutex<State>>);

/// Both ends, over a connection's bytes.
pub fn gather(wire: Wire) -> (Gathering, Outbox) {
    let state = Arc::new(Mutex::new(State { wire, out: Vec::new(), written: 0 }));
    (Gathering(Arc::clone(&state)), Outbox(state))
}

impl Outbox {
    /// Sends what was gathered; Pending if the socket takes no more for now.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(state.send(cx))?;
        Pin::new(&mut state.wire).poll_flush(cx)
    }
}

impl State {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, &self.out[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes the bytes if they are few; makes room for them first if it must. False: they are to be written as they are.
    fn take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<bool>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.out.len() + len > GATHERED_BYTES_MAX {
            ready!(self.send(cx))?;
        }
        if len > GATHERED_BYTES_MAX / 2 {
            ready!(self.send(cx))?;
            return Poll::Ready(Ok(false));
        }
        slices.iter().for_each(|slice| self.out.extend_from_slice(slice));
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Gathering {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if ready!(state.take(cx, slices))? {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        Pin::new(&mut state.wire).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().wire.is_write_vectored()
    }

    /// Nothing: [`Outbox::poll_send`] does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.send(cx))?;
        ready!(Pin::new(&mut state.wire).poll_flush(cx))?;
        Pin::new(&mut state.wire).poll_shutdown(cx)
    }
}
