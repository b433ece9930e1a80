//! A way into the node: the listening socket that it got as its standard input belongs to the network that it was started from.

use std::io;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context as _;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 512;

/// From now on what is accepted there is connected to `to` in here.
pub fn serve(to: SocketAddr) -> anyhow::Result<()> {
    let listener = io::stdin().as_fd().try_clone_to_owned().context("the listening socket")?;
    let listener = TcpListener::from(listener);
    listener.local_addr().context("standard input is no listening socket")?;
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for accepted in listener.incoming() {
            let Ok(outside) = accepted else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = open.clone();
            std::thread::spawn(move || {
                // An end of either side ends both: that is all there is to say to them.
                let _ = connect(&outside, to);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

fn connect(outside: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let inside = TcpStream::connect(to)?;
    outside.set_nodelay(true)?;
    inside.set_nodelay(true)?;
    let (from, into) = (outside.try_clone()?, inside.try_clone()?);
    let there = std::thread::spawn(move || pass(&from, &into));
    pass(&inside, outside);
    let _ = there.join();
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
