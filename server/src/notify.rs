//! Tells systemd (or whoever set `NOTIFY_SOCKET`) that the member serves, as sd_notify(3) does.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

/// Sends `READY=1` to the socket named: a path, or an abstract name after `@`.
///
/// # Errors
/// The socket cannot be reached.
pub fn ready(socket: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // Whoever waits for it must never hold up the member.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_datagram_to_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        ready(path.to_str().unwrap()).unwrap();
        let mut buffer = [0; 32];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1");
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(ready("/nowhere/notify").is_err());
        assert!(ready("@garboard-nobody-listens-here").is_err());
    }
}
