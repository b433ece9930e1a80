//! Revisions, and the row keys that stand for them in the `Revisions` table.
//!
//! Row keys are etcd's, byte for byte (HashKV covers them): main as 8 big-endian bytes, `_`, sub as 8 big-endian
//! bytes, and a `t` behind when the row is a tombstone. Their byte order is revision order.

const ROW_KEY_LEN: usize = 17;
const TOMBSTONE_ROW_KEY_LEN: usize = 18;

/// A point in the history: `main` counts write requests, `sub` the changes within one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
}

impl Revision {
    pub fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }
}

/// The encoded key of one row of the `Revisions` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKey {
    bytes: [u8; TOMBSTONE_ROW_KEY_LEN],
    len: u8,
}

impl RowKey {
    pub fn new(revision: Revision, tombstone: bool) -> RowKey {
        let mut bytes = [0; TOMBSTONE_ROW_KEY_LEN];
        bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&revision.sub.to_be_bytes());
        if tombstone {
            bytes[17] = b't';
        }
        RowKey { bytes, len: if tombstone { TOMBSTONE_ROW_KEY_LEN as u8 } else { ROW_KEY_LEN as u8 } }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The revision a row key stands for and whether it is a tombstone; `None` if it is no row key.
    pub fn decode(bytes: &[u8]) -> Option<(Revision, bool)> {
        let tombstone = match (bytes.len(), bytes.last()) {
            (ROW_KEY_LEN, _) => false,
            (TOMBSTONE_ROW_KEY_LEN, Some(b't')) => true,
            _ => return None,
        };
        if bytes[8] != b'_' {
            return None;
        }
        let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
        let sub = i64::from_be_bytes(bytes[9..17].try_into().ok()?);
        if main < 0 || sub < 0 {
            return None;
        }
        Some((Revision { main, sub }, tombstone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_are_those_of_etcd() {
        let put = RowKey::new(Revision::new(258, 3), false);
        assert_eq!(put.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        let tombstone = RowKey::new(Revision::new(258, 3), true);
        assert_eq!(tombstone.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
        assert_eq!(RowKey::decode(put.as_bytes()), Some((Revision::new(258, 3), false)));
        assert_eq!(RowKey::decode(tombstone.as_bytes()), Some((Revision::new(258, 3), true)));
    }

    #[test]
    fn what_is_no_row_key_is_refused() {
        let mut key = *RowKey::new(Revision::new(1, 0), true).as_bytes().first_chunk::<18>().unwrap();
        assert_eq!(RowKey::decode(&key[..16]), None);
        key[17] = b'x';
        assert_eq!(RowKey::decode(&key), None);
        key[8] = b'-';
        assert_eq!(RowKey::decode(&key[..17]), None);
        let negative = RowKey::new(Revision::new(-1, 0), false);
        assert_eq!(RowKey::decode(negative.as_bytes()), None);
    }
}
