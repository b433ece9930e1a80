//! Finds the frame heads in a stream of HTTP/2 bytes (RFC 9113, section 4.1) without looking at payloads. For counting only: what the
//! frames mean is for the h2 stack.

const HEAD_BYTES: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub const FLAG_FIRST: u8 = 1;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// Where in the stream of frames one direction stands.
pub struct Scanner {
    head: [u8; HEAD_BYTES],
    head_read: usize,
    payload_left: usize,
}

impl Scanner {
    /// Begins with `skip` bytes that are no frame (the client's preface).
    pub fn after(skip: usize) -> Scanner {
        Scanner { head: [0; HEAD_BYTES], head_read: 0, payload_left: skip }
    }

    /// Whether no frame is cut off here.
    pub fn at_boundary(&self) -> bool {
        self.head_read == 0 && self.payload_left == 0
    }

    /// Goes on by `bytes`; `seen` is told each head that is complete.
    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(bytes.len());
                self.payload_left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD_BYTES - self.head_read).min(bytes.len());
            self.head[self.head_read..self.head_read + taken].copy_from_slice(&bytes[..taken]);
            self.head_read += taken;
            bytes = &bytes[taken..];
            if self.head_read == HEAD_BYTES {
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                let head = Head {
                    length: u32::from_be_bytes([0, a, b, c]),
                    kind,
                    flags,
                    stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1),
                };
                self.head_read = 0;
                self.payload_left = head.length as usize;
                seen(head);
            }
        }
    }
}

/// A GOAWAY frame (RFC 9113, section 6.8).
pub fn goaway(last_stream: u32, error: u32, reason: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + reason.len()).unwrap_or(8);
    let mut frame = Vec::with_capacity(HEAD_BYTES + length as usize);
    frame.extend_from_slice(&length.to_be_bytes()[1..]);
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&error.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 8, PING, FLAG_FIRST, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        bytes.extend(goaway(7, 11, b"too_many_pings"));
        for cut in 1..=bytes.len() {
            let mut scanner = Scanner::after(24);
            let mut heads = Vec::new();
            for piece in bytes.chunks(cut) {
                scanner.scan(piece, |head| heads.push((head.kind, head.length, head.flags)));
            }
            assert_eq!(heads, [(SETTINGS, 0, 0), (PING, 8, FLAG_FIRST), (GOAWAY, 22, 0)], "cut into {cut}");
            assert!(scanner.at_boundary());
        }
        let mut scanner = Scanner::after(0);
        scanner.scan(&bytes[24..30], |_| ());
        assert!(!scanner.at_boundary());
    }
}
