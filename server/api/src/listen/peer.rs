//! Who is at the other end of a connection.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwapOption;
use garboard_tls::Identity;

use crate::listen::Surface;
use crate::metrics::VersionCounters;

/// One connection, as handlers see it.
pub struct Peer {
    remote: String,
    identity: Option<Identity>,
    surface: Surface,
    open_streams: AtomicUsize,
    /// Bytes of messages that are not complete yet.
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
    /// Counters for the version that the client names in each of its requests.
    client_version: ArcSwapOption<(Box<[u8]>, VersionCounters)>,
}

/// A stream that is open as long as this lives.
pub struct OpenStream(Arc<Peer>);

impl Peer {
    pub fn new(remote: String, identity: Option<Identity>, surface: Surface, held_bytes_max: usize) -> Peer {
        Peer {
            remote,
            identity,
            surface,
            open_streams: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            held_bytes_max,
            client_version: ArcSwapOption::empty(),
        }
    }

    /// Address and port; `@` for a Unix socket.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// The verified client certificate, if one was sent.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// What this connection may reach.
    pub fn surface(&self) -> Surface {
        self.surface
    }

    /// Counts one more stream as open.
    pub fn open_stream(self: &Arc<Self>) -> OpenStream {
        self.open_streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Streams open now.
    pub fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::Relaxed)
    }

    /// A stream's incomplete message went from `before` to `now` bytes; false if the connection may not hold that much.
    pub fn hold(&self, before: usize, now: usize) -> bool {
        if before == now {
            return true;
        }
        let held = self.held_bytes.fetch_add(now, Ordering::Relaxed) + now;
        self.held_bytes.fetch_sub(before, Ordering::Relaxed);
        now < before || held - before <= self.held_bytes_max
    }

    /// Runs `count` on the counters of `version`, resolved by `resolve` when a connection first names it.
    pub fn count_version(
        &self,
        version: &[u8],
        resolve: impl FnOnce() -> VersionCounters,
        count: impl FnOnce(&VersionCounters),
    ) {
        let known = self.client_version.load();
        match &*known {
            Some(known) if &*known.0 == version => count(&known.1),
            _ => {
                let counters = resolve();
                count(&counters);
                self.client_version.store(Some(Arc::new((version.into(), counters))));
            }
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let before = self.0.open_streams.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a stream closes once");
    }
}
