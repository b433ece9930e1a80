//! A TCP proxy in front of one member's peer port: it delays, slows down, corrupts and resets what other members send it and get back.
//!
//! Who calls is known by the address it calls from, so that each pair of members and each direction has a condition of its own. Order is kept, as TCP keeps it.

mod pipe;

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

use crate::links::Links;

/// More at a time are refused: members hold a handful per peer.
const CONNECTIONS_MAX: usize = 512;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Dropping it stops accepting and ends what it carries.
pub struct Proxy {
    pub address: SocketAddrV4,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A connection from one member to another, and its two halves.
pub struct Connection {
    pub from: usize,
    pub to: usize,
    caller: TcpStream,
    called: TcpStream,
    reset: AtomicBool,
    corrupted: AtomicBool,
}

/// Which member a proxy stands for and who may call.
pub struct Front {
    pub slot: usize,
    pub target: SocketAddrV4,
    /// By slot.
    pub members: Vec<Ipv4Addr>,
}

// === impl Proxy ===

impl Proxy {
    /// Listens on a free port of `host`.
    pub fn new(host: Ipv4Addr, front: Front, links: Arc<Links>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddrV4::new(host, 0)).context("listen for a proxy")?;
        let SocketAddr::V4(address) = listener.local_addr()? else { anyhow::bail!("a proxy listens on IPv4") };
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        let thread = std::thread::spawn(move || accept(&listener, &front, &links, &seen));
        Ok(Self { address, closed, thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address.into(), CONNECT_LIMIT);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Connection ===

impl Connection {
    /// Ends it as a broken path does, once; both members are told by a reset.
    pub fn reset(&self) -> bool {
        if self.reset.swap(true, Ordering::SeqCst) {
            return false;
        }
        for stream in [&self.caller, &self.called] {
            // With bytes lost on purpose, the close that follows is a reset. Reading ends now, so that the threads see it.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(std::net::Shutdown::Read);
        }
        true
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, front: &Front, links: &Arc<Links>, closed: &AtomicBool) {
    for stream in listener.incoming() {
        if closed.load(Ordering::SeqCst) {
            // Ends what is there: nobody is to talk through a proxy that is gone.
            links.reset(&[front.slot]);
            return;
        }
        let Ok(caller) = stream else { continue };
        let from = match caller.peer_addr() {
            Ok(SocketAddr::V4(address)) => front.members.iter().position(|member| member == address.ip()),
            _ => None,
        };
        // Dropping it is a refusal.
        let Some(from) = from else { continue };
        if links.open() >= CONNECTIONS_MAX {
            continue;
        }
        let (target, to, links) = (front.target, front.slot, links.clone());
        std::thread::spawn(move || {
            if let Ok(called) = TcpStream::connect_timeout(&target.into(), CONNECT_LIMIT) {
                let state = (AtomicBool::new(false), AtomicBool::new(false));
                carry(Connection { from, to, caller, called, reset: state.0, corrupted: state.1 }, &links);
            }
        });
    }
}

/// Carries both directions until both have ended.
fn carry(connection: Connection, links: &Arc<Links>) {
    for stream in [&connection.caller, &connection.called] {
        let _ = stream.set_nodelay(true);
        // A member that does not read must not hide a reset from the thread that writes to it.
        let _ = stream.set_write_timeout(Some(pipe::WRITE_TURN));
    }
    let connection = Arc::new(connection);
    links.enter(&connection);
    let both = &connection;
    std::thread::scope(|scope| {
        let (from, to) = (connection.from, connection.to);
        let there = pipe::Pipe { source: &both.caller, sink: &both.called, from, to };
        let back = pipe::Pipe { source: &both.called, sink: &both.caller, from: to, to: from };
        scope.spawn(move || there.run(both, links));
        back.run(both, links);
    });
    links.leave(&connection);
    if connection.corrupted.load(Ordering::SeqCst) && !connection.is_reset() {
        links.counters.ended_after_corruption.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
