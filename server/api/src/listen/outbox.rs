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

/// As much is gathered; for more, copying costs more than a system call.
const GATHERED_BYTES_MAX: usize = 16 << 10;

struct State<W> {
    wire: W,
    out: Vec<u8>,
    written: usize,
    /// The wire has taken bytes that it may not have passed on: TLS keeps what the socket would not take.
    unflushed: bool,
    /// The wire takes nothing any more: the stack is told when it reads next, and ends its streams.
    failed: bool,
}

/// What the HTTP stack reads and writes.
pub struct Gathering<W>(Arc<Mutex<State<W>>>);

/// What the connection's task sends out at the end of its turn.
pub struct Outbox<W>(Arc<Mutex<State<W>>>);

/// Both ends, over a connection's bytes.
pub fn gather<W>(wire: W) -> (Gathering<W>, Outbox<W>) {
    let state = Arc::new(Mutex::new(State { wire, out: Vec::new(), written: 0, unflushed: false, failed: false }));
    (Gathering(Arc::clone(&state)), Outbox(state))
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    /// Sends what was gathered; Pending if the socket takes no more for now.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let sent = state.flush(cx);
        state.failed |= matches!(sent, Poll::Ready(Err(_)));
        sent
    }
}

impl<W: AsyncWrite + Unpin> State<W> {
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.wire).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            self.unflushed = true;
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

impl<W: AsyncRead + Unpin> AsyncRead for Gathering<W> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut state.wire).poll_read(cx, buf)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Gathering<W> {
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
        state.unflushed = true;
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
        ready!(state.flush(cx))?;
        Pin::new(&mut state.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As TLS does it: takes everything at once, and passes it on only when flushed as often as it says.
    #[derive(Default)]
    struct Keeps {
        kept: usize,
        passed: usize,
        flushes: usize,
    }

    impl AsyncWrite for Keeps {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            (self.kept, self.flushes) = (self.kept + bytes.len(), 2);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.flushes > 0 {
                self.flushes -= 1;
                return Poll::Pending;
            }
            self.passed += std::mem::take(&mut self.kept);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A flush that was held up is taken up again in the next turn, though nothing new was said.
    #[test]
    fn what_the_wire_keeps_is_flushed_whether_few_bytes_or_many() {
        for len in [10, GATHERED_BYTES_MAX / 2 + 1, 3 * GATHERED_BYTES_MAX] {
            let (mut stack, outbox) = gather(Keeps::default());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let bytes = vec![7; len];
            assert!(matches!(Pin::new(&mut stack).poll_write(&mut cx, &bytes), Poll::Ready(Ok(n)) if n == len));
            for _ in 0..2 {
                assert!(outbox.poll_send(&mut cx).is_pending(), "{len}");
            }
            assert!(matches!(outbox.poll_send(&mut cx), Poll::Ready(Ok(()))), "{len}");
            assert_eq!(outbox.0.lock().wire.passed, len);
        }
    }
}
