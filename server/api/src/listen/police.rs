//! What a client may send that costs the server and brings it nothing: pings (etcd's keep-alive enforcement, which is grpc-go's) and frames
//! without effect. The h2 stack below bounds the rest itself: resets, header blocks, what lies unacknowledged.

use std::time::Duration;

use garboard_runtime::clock::Instant;

use crate::listen::frames;
use crate::listen::frames::Head;

/// Pings in quick succession that are forgiven.
const PING_STRIKES_MAX: u32 = 2;
/// The least time between pings while no call is open.
const IDLE_PING_MIN_TIME: Duration = Duration::from_secs(2 * 3600);
/// Frames without effect: so many at once, so many a second.
const IDLE_FRAMES_BURST: f64 = 1000.0;
const IDLE_FRAMES_PER_SECOND: f64 = 100.0;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    TooManyPings,
    TooManyIdleFrames,
}

impl Offence {
    /// The debug data of the GOAWAY frame; grpc clients know the first and ping less often then.
    pub fn reason(self) -> &'static str {
        match self {
            Offence::TooManyPings => "too_many_pings",
            Offence::TooManyIdleFrames => "too_many_idle_frames",
        }
    }
}

/// The record of one connection.
pub struct Police {
    ping_min_time: Duration,
    pinged_at: Option<Instant>,
    strikes: u32,
    /// The server sent headers or data since the last ping: the client may measure its line with one.
    forgiven: bool,
    idle_frames: f64,
    idle_frames_at: Option<Instant>,
}

impl Police {
    /// `ping_min_time`: the least time between two pings while calls are open.
    pub fn new(ping_min_time: Duration) -> Police {
        Police { ping_min_time, pinged_at: None, strikes: 0, forgiven: false, idle_frames: 0.0, idle_frames_at: None }
    }

    /// The server sent a frame.
    pub fn sent(&mut self, head: Head) {
        if matches!(head.kind, frames::DATA | frames::HEADERS) {
            self.forgiven = true;
        }
    }

    /// The client sent a frame.
    pub fn received(&mut self, head: Head, open_streams: usize, now: impl FnOnce() -> Instant) -> Result<(), Offence> {
        let first = head.flags & frames::FLAG_FIRST != 0;
        match head.kind {
            frames::PING if !first => self.ping(open_streams, now()),
            frames::DATA if head.length == 0 && !first => self.idle_frame(now()),
            frames::SETTINGS if !first => self.idle_frame(now()),
            frames::DATA | frames::HEADERS | frames::CONTINUATION | frames::RST_STREAM => Ok(()),
            frames::WINDOW_UPDATE | frames::PING | frames::SETTINGS | frames::GOAWAY => Ok(()),
            _ => self.idle_frame(now()),
        }
    }

    fn ping(&mut self, open_streams: usize, now: Instant) -> Result<(), Offence> {
        let pinged_at = self.pinged_at.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return Ok(());
        }
        let min_time = if open_streams == 0 { IDLE_PING_MIN_TIME } else { self.ping_min_time };
        if pinged_at.is_some_and(|at| now.saturating_duration_since(at) < min_time) {
            self.strikes += 1;
        }
        if self.strikes > PING_STRIKES_MAX { Err(Offence::TooManyPings) } else { Ok(()) }
    }

    fn idle_frame(&mut self, now: Instant) -> Result<(), Offence> {
        let elapsed = self.idle_frames_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.idle_frames = (self.idle_frames - elapsed.as_secs_f64() * IDLE_FRAMES_PER_SECOND).max(0.0) + 1.0;
        if self.idle_frames > IDLE_FRAMES_BURST { Err(Offence::TooManyIdleFrames) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, length: u32, flags: u8) -> Head {
        Head { length, kind, flags, stream: 0 }
    }

    fn pings(police: &mut Police, open_streams: usize, every: Duration, count: u32) -> Option<u32> {
        let start = garboard_runtime::clock::now();
        (0..count).find(|n| police.received(head(frames::PING, 8, 0), open_streams, || start + every * *n).is_err())
    }

    #[test]
    fn the_fourth_quick_ping_is_one_too_many() {
        let five = Duration::from_secs(5);
        assert_eq!(pings(&mut Police::new(five), 1, Duration::from_secs(1), 10), Some(3));
        assert_eq!(pings(&mut Police::new(five), 1, five, 100), None);
        // Without a call, two hours are the least.
        assert_eq!(pings(&mut Police::new(five), 0, Duration::from_secs(60), 10), Some(3));
    }

    #[test]
    fn data_sent_forgives() {
        let mut police = Police::new(Duration::from_secs(5));
        for _ in 0..100 {
            police.sent(head(frames::DATA, 10, 0));
            assert_eq!(pings(&mut police, 1, Duration::from_millis(1), 3), None);
        }
        // Acknowledgements of the server's own pings are none of the client's.
        let mut police = Police::new(Duration::from_secs(5));
        for _ in 0..100 {
            assert!(police.received(head(frames::PING, 8, 1), 1, garboard_runtime::clock::now).is_ok());
        }
    }

    #[test]
    fn frames_without_effect_have_a_budget() {
        for (kind, length) in [(frames::SETTINGS, 0), (2, 5), (frames::DATA, 0), (0x42, 1)] {
            let start = garboard_runtime::clock::now();
            let flood =
                |police: &mut Police| (0..2000).find(|_| police.received(head(kind, length, 0), 1, || start).is_err());
            assert_eq!(flood(&mut Police::new(Duration::ZERO)), Some(1000), "kind {kind}");
            let mut police = Police::new(Duration::ZERO);
            let slow = (0..5000).find(|n| {
                police.received(head(kind, length, 0), 1, || start + Duration::from_millis(10) * *n).is_err()
            });
            assert_eq!(slow, None, "kind {kind}");
        }
    }
}
