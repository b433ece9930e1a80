//! Listening sockets, TCP and Unix.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::UnixListener;

use crate::listen::Limits;
use crate::listen::url::ListenUrl;

/// What the kernel is asked to queue; it caps the number itself.
const BACKLOG: i32 = 4096;
/// Linux: the kernel knows nothing of IPv6. The standard library has no name for it.
const EAFNOSUPPORT: i32 = 97;

/// A listening socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// Removes the socket's file when the listener goes.
pub struct SocketFile(PathBuf);

/// An accepted socket, not yet owned by a runtime.
pub enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// The next connection and its far end.
    pub async fn accept(&self) -> io::Result<(Accepted, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Accepted::Tcp(stream.into_std()?), remote.to_string()))
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream.into_std()?), "@".to_owned()))
            }
        }
    }
}

/// Binds and listens; answers the URL with the port it got.
pub fn bind(url: &ListenUrl, limits: &Limits) -> io::Result<(Listener, ListenUrl)> {
    if url.scheme.is_unix() {
        let path = PathBuf::from(&url.address);
        // What a process that was killed left behind would make the bind fail, as etcd knows too.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        return Ok((Listener::Unix { listener, _file: SocketFile(path) }, url.clone()));
    }
    let mut refused = io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{url}: no such address"));
    for address in resolve(&url.address)? {
        match bind_any(address, limits) {
            Ok(listener) => {
                let bound = listener.local_addr()?;
                let host = url.address.rsplit_once(':').map_or("", |(host, _)| host);
                let url = ListenUrl { scheme: url.scheme, address: format!("{host}:{}", bound.port()) };
                return Ok((Listener::Tcp(listener), url));
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// IPv4 first, as Go prefers it for names with both; no host at all means every address.
fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(port) = address.strip_prefix(':') {
        return resolve_any(port);
    }
    let mut addresses: Vec<_> = address.to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

fn resolve_any(port: &str) -> io::Result<Vec<SocketAddr>> {
    let port: u16 = port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no port"))?;
    Ok(vec![SocketAddr::from(([0u16; 8], port)), SocketAddr::from(([0u8; 4], port))])
}

/// `[::]` is every address that the machine has: of one without IPv6, those of IPv4.
fn bind_any(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let is_any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match bind_tcp(address, limits) {
        Err(error) if is_any && has_no_ipv6(&error) => {
            bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())), limits)
        }
        bound => bound,
    }
}

/// Not that the port is taken: then it is, whichever way it is asked for.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn bind_tcp(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Go sets SO_REUSEADDR on every listener, so that a restart does not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    if limits.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_without_ipv6_is_asked_for_ipv4_instead() {
        assert!(has_no_ipv6(&io::Error::from_raw_os_error(EAFNOSUPPORT)));
        assert!(has_no_ipv6(&io::Error::from(io::ErrorKind::AddrNotAvailable)));
        assert!(!has_no_ipv6(&io::Error::from(io::ErrorKind::AddrInUse)));
    }
}
