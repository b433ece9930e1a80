//! Large answers, bounded by their bytes: from before they are read until the client has taken them.
//!
//! A range can be as large as the store, and HTTP/2 lets a client take its time: answers to many clients at once, or to slow ones, would
//! pile up in memory. Here they wait for room before anything is read for them. One that is larger than all the room goes alone.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

/// Smaller answers are not counted: what they can hold is bounded by the number of streams.
pub const LARGE_BYTES: u64 = 1 << 20;
/// Unit of the room.
const PERMIT_BYTES: u64 = 64 << 10;

/// The room that large answers share.
#[derive(Clone)]
pub struct Room {
    permits: Arc<Semaphore>,
    total: u32,
}

/// The part of the room that one answer has, as long as any clone lives.
#[derive(Clone)]
pub struct Place(#[allow(dead_code, reason = "dropping it gives the room back")] Arc<OwnedSemaphorePermit>);

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

impl Room {
    pub fn new(bytes: u64) -> Self {
        let total = permits(bytes).max(1);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits, in turn, for room for an answer of about so many bytes; None if it needs none.
    pub async fn enter(&self, expected_bytes: u64) -> Option<OwnedSemaphorePermit> {
        if expected_bytes < LARGE_BYTES {
            return None;
        }
        let wanted = permits(expected_bytes).min(self.total);
        // It is never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }
}

impl Place {
    /// Gives back what an answer has too much once its size is known.
    pub fn settle(mut permit: OwnedSemaphorePermit, bytes: u64) -> Self {
        let surplus = permit.num_permits().saturating_sub(permits(bytes) as usize);
        drop(permit.split(surplus));
        Self(Arc::new(permit))
    }

    /// The bytes, with the place held as long as they are.
    pub fn hold(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _place: self.clone() })
    }
}

struct Held {
    bytes: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn large_answers_wait_for_each_other_and_small_ones_for_nobody() {
        let room = Room::new(8 << 20);
        let enter = |bytes| room.enter(bytes).now_or_never();
        let first = enter(5 << 20).unwrap().unwrap();
        assert!(enter(5 << 20).is_none(), "no room for another");
        assert!(enter(100).unwrap().is_none(), "small");
        let place = Place::settle(first, 2 << 20);
        let second = enter(5 << 20).unwrap().unwrap();
        assert!(enter(2 << 20).is_none());
        let bytes = place.hold(Bytes::from_static(b"answer"));
        drop(place);
        assert!(enter(2 << 20).is_none(), "its bytes are not sent yet");
        assert_eq!(bytes, "answer");
        drop((bytes, second));
        let alone = enter(1 << 40).unwrap().unwrap();
        assert!(enter(1 << 20).is_none(), "larger than the room: alone");
        drop(alone);
        assert!(enter(8 << 20).unwrap().is_some());
    }
}
