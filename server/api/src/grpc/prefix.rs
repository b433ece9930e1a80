//! Follows the length prefixes of gRPC messages (one byte of flags, four of length) through a stream of bytes, for counting only.

const PREFIX_BYTES: usize = 5;

/// Where in the stream of messages one direction stands.
#[derive(Default)]
pub struct Prefixes {
    prefix: [u8; PREFIX_BYTES],
    prefix_read: usize,
    message_left: usize,
    message_bytes: usize,
}

impl Prefixes {
    /// Bytes received of a message that is not complete.
    pub fn incomplete(&self) -> usize {
        if self.message_left > 0 { self.message_bytes - self.message_left } else { 0 }
    }

    /// Goes on by `bytes`; `seen` is told the length of each message that begins.
    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(usize)) {
        while !bytes.is_empty() {
            if self.message_left > 0 {
                let skipped = self.message_left.min(bytes.len());
                self.message_left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (PREFIX_BYTES - self.prefix_read).min(bytes.len());
            self.prefix[self.prefix_read..self.prefix_read + taken].copy_from_slice(&bytes[..taken]);
            self.prefix_read += taken;
            bytes = &bytes[taken..];
            if self.prefix_read == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.prefix_read = 0;
                self.message_bytes = u32::from_be_bytes(length) as usize;
                self.message_left = self.message_bytes;
                seen(self.message_left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_however_the_bytes_are_cut() {
        let bytes = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[0, 0, 0, 1, 1], &[7; 257]].concat();
        for cut in 1..=bytes.len() {
            let mut prefixes = Prefixes::default();
            let mut lengths = Vec::new();
            bytes.chunks(cut).for_each(|piece| prefixes.scan(piece, |length| lengths.push(length)));
            assert_eq!(lengths, [3, 0, 257], "cut into {cut}");
            assert_eq!(prefixes.incomplete(), 0);
        }
        let mut prefixes = Prefixes::default();
        prefixes.scan(&bytes[..20], |_| ());
        assert_eq!(prefixes.incomplete(), 2, "of 257");
    }
}
