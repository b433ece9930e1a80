//! A path to a member that breaks again and again.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use anyhow::Context as _;

/// A TCP proxy that cuts each connection that has carried so much to its target. Dropping it stops accepting.
pub(super) struct Cutter {
    pub(super) address: SocketAddr,
    rules: Arc<Rules>,
    thread: Option<JoinHandle<()>>,
}

struct Rules {
    target: SocketAddr,
    after_bytes: u64,
    calls: AtomicU64,
    cuts: AtomicU64,
    closed: AtomicBool,
}

// === impl Cutter ===

impl Cutter {
    pub(super) fn new(target: SocketAddr, after_bytes: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for the proxy")?;
        let address = listener.local_addr()?;
        let (calls, cuts) = (AtomicU64::new(0), AtomicU64::new(0));
        let rules = Arc::new(Rules { target, after_bytes, calls, cuts, closed: AtomicBool::new(false) });
        let shared = Arc::clone(&rules);
        let thread = std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let rules = Arc::clone(&shared);
                rules.calls.fetch_add(1, Ordering::SeqCst);
                // A connection that fails on one side is over on both.
                std::thread::spawn(move || rules.carry(&caller));
            }
        });
        Ok(Self { address, rules, thread: Some(thread) })
    }

    /// How many connections were made to it.
    pub(super) fn calls(&self) -> u64 {
        self.rules.calls.load(Ordering::SeqCst)
    }

    /// How many it has cut.
    pub(super) fn cuts(&self) -> u64 {
        self.rules.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.rules.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Rules ===

impl Rules {
    fn carry(&self, caller: &TcpStream) -> std::io::Result<()> {
        let called = TcpStream::connect(self.target)?;
        std::thread::scope(|scope| {
            scope.spawn(|| copy(&called, caller, u64::MAX));
            if copy(caller, &called, self.after_bytes) {
                self.cuts.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(())
    }
}

/// Carries up to so many bytes, then ends both; whether it was for their number.
fn copy(mut from: &TcpStream, mut to: &TcpStream, limit: u64) -> bool {
    let (mut bytes, mut carried) = (vec![0; 64 << 10], 0);
    while carried < limit {
        match from.read(&mut bytes) {
            Ok(count) if count > 0 && to.write_all(&bytes[..count]).is_ok() => carried += count as u64,
            _ => break,
        }
    }
    for stream in [from, to] {
        // Fails when the other end was faster.
        let _ = stream.shutdown(Shutdown::Both);
    }
    carried >= limit
}
