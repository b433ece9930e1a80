//! One direction of a proxied connection: a thread reads, another waits, alters and writes; a bounded queue between them.

use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use std::time::Instant;

use super::Connection;
use crate::links::Links;
use garboard_e2e::random::Random;

const CHUNK: usize = 16 << 10;
/// So many chunks are on their way at most; further ones wait at the sender.
const QUEUE: usize = 64;
/// After so long without progress a write looks for a reset.
pub(super) const WRITE_TURN: Duration = Duration::from_millis(200);

pub(super) struct Pipe<'a> {
    pub source: &'a TcpStream,
    pub sink: &'a TcpStream,
    pub from: usize,
    pub to: usize,
}

struct Chunk {
    read_at: Instant,
    bytes: Vec<u8>,
}

// === impl Pipe ===

impl Pipe<'_> {
    /// Ends when the source has ended and all of it is written, or when either side or a reset has broken it.
    pub(super) fn run(&self, connection: &Connection, links: &Links) {
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut source = self.source;
                let mut buffer = vec![0; CHUNK];
                loop {
                    match source.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(n) => {
                            let chunk = Chunk { read_at: Instant::now(), bytes: buffer[..n].to_vec() };
                            if connection.is_reset() || sender.send(chunk).is_err() {
                                return;
                            }
                        }
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return,
                    }
                }
            });
            if self.write_all(receiver, connection, links).is_err() {
                // The other direction has nobody to talk to either.
                let _ = self.source.shutdown(Shutdown::Both);
                let _ = self.sink.shutdown(Shutdown::Both);
            } else if !connection.is_reset() {
                let _ = self.sink.shutdown(Shutdown::Write);
            }
        });
    }

    fn write_all(&self, chunks: Receiver<Chunk>, connection: &Connection, links: &Links) -> std::io::Result<()> {
        let mut random = Random::new((self.from * 1000 + self.to) as u64);
        for mut chunk in chunks {
            let condition = links.condition(self.from, self.to);
            let jitter = random.between(0, condition.jitter.as_micros() as u64);
            let due = chunk.read_at + condition.delay + Duration::from_micros(jitter);
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                links.counters.delayed.fetch_add(1, Ordering::Relaxed);
                sleep(wait, connection);
            }
            if let Some(every) = condition.corrupt_every
                && random.between(1, every) <= chunk.bytes.len() as u64
            {
                let at = random.below(chunk.bytes.len());
                chunk.bytes[at] ^= 1 << random.below(8);
                connection.corrupted.store(true, Ordering::SeqCst);
                links.counters.corrupted.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(rate) = condition.bytes_per_s {
                links.counters.throttled.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs_f64(chunk.bytes.len() as f64 / rate as f64), connection);
            }
            self.write(&chunk.bytes, connection)?;
        }
        Ok(())
    }

    fn write(&self, mut bytes: &[u8], connection: &Connection) -> std::io::Result<()> {
        let mut sink = self.sink;
        while !bytes.is_empty() {
            if connection.is_reset() {
                return Ok(());
            }
            match sink.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind()) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sleeps, but not through a reset.
fn sleep(time: Duration, connection: &Connection) {
    let until = Instant::now() + time;
    while !connection.is_reset() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(WRITE_TURN));
    }
}
