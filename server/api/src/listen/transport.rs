//! Bytes in and out, whatever the socket: one type, so that the HTTP stacks are compiled once.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::server::TlsStream;

use crate::listen::bind::Accepted;

/// A connected socket.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection, with or without TLS.
pub enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Socket {
    /// Puts the socket into the calling task's runtime.
    pub fn enter(accepted: Accepted) -> io::Result<Socket> {
        Ok(match accepted {
            Accepted::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Accepted::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

macro_rules! forward {
    ($type:ident { $($variant:ident),* }) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(inner) => Pin::new(inner).poll_read(cx, buf)),* }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($type::$variant(inner) => Pin::new(inner).poll_write(cx, bytes)),* }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(inner) => Pin::new(inner).poll_flush(cx)),* }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($type::$variant(inner) => Pin::new(inner).poll_shutdown(cx)),* }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($type::$variant(inner) => Pin::new(inner).poll_write_vectored(cx, slices)),* }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($type::$variant(inner) => inner.is_write_vectored()),* }
            }
        }
    };
}

forward!(Socket { Tcp, Unix });
forward!(Transport { Plain, Tls });
