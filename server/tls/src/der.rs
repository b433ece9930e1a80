//! A reader of as much DER (X.690) as stands before the subject's key in a certificate (RFC 5280, section 4.1). Every length is checked: what
//! does not fit is not there.

pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// The fields of a certificate, its serial number first.
pub fn fields(certificate: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, fields, _) = element(certificate)? else { return None };
    if fields.first() == Some(&VERSION) { Some(element(fields)?.2) } else { Some(fields) }
}

/// What follows after `count` elements.
pub fn skip(mut bytes: &[u8], count: usize) -> Option<&[u8]> {
    for _ in 0..count {
        bytes = element(bytes)?.2;
    }
    Some(bytes)
}

/// Tag, content and what follows of the first element.
pub fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Up to four bytes of length; a certificate is never longer.
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
