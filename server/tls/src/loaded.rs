//! What the settings of a handshake are made of, for those who have to know from outside: whoever rotates certificates takes the next step
//! only when all members have loaded what the one before has written.

use std::fmt;

use rustls_pki_types::CertificateDer;
use sha2::Digest as _;
use sha2::Sha256;

use crate::der::GENERALIZED_TIME;
use crate::der::SEQUENCE;
use crate::der::UTC_TIME;
use crate::der::element;
use crate::der::fields;
use crate::der::skip;

/// What handshakes use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Shown to those who connect.
    pub accept: Option<Shown>,
    /// Shown when connecting, where that is another one.
    pub dial: Option<Shown>,
    /// SHA-256 of each CA certificate that is trusted, in both directions: in hex, sorted.
    pub trust: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of its DER, in hex.
    pub sha256: String,
    /// None: it does not say so in any way that RFC 5280 knows.
    pub not_after: Option<End>,
}

/// The end of a certificate's validity. Displays as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    year: i64,
    /// Month, day, hour, minute and second.
    rest: [i64; 5],
}

// === impl Loaded ===

impl Loaded {
    pub(crate) fn of(accept: Option<Shown>, dial: Option<Shown>, trusted: &[CertificateDer<'_>]) -> Loaded {
        let mut trust: Vec<String> = trusted.iter().map(|certificate| fingerprint(certificate)).collect();
        trust.sort_unstable();
        trust.dedup();
        Loaded { accept, dial, trust }
    }
}

// === impl Shown ===

impl Shown {
    /// The owner's certificate of a chain.
    pub(crate) fn first_of(chain: &[CertificateDer<'_>]) -> Option<Shown> {
        let own = chain.first()?;
        Some(Shown { sha256: fingerprint(own), not_after: not_after(own) })
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_after(certificate: &[u8]) -> Option<End> {
    // Serial number, signature algorithm, issuer.
    let (SEQUENCE, validity, _) = element(skip(fields(certificate)?, 3)?)? else { return None };
    match element(skip(validity, 1)?)? {
        (UTC_TIME, text, _) => End::read(text, 2),
        (GENERALIZED_TIME, text, _) => End::read(text, 4),
        _ => None,
    }
}

// === impl End ===

impl End {
    /// Reads a year of so many digits, month, day, hour, minute, second and `Z`: other forms are not for certificates.
    fn read(text: &[u8], year_digits: usize) -> Option<End> {
        let digits = text.strip_suffix(b"Z")?;
        if digits.len() != year_digits + 10 || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        let (year, others) = digits.split_at(year_digits);
        let year = match (number(year), year_digits) {
            (year, 2) => year + if year < 50 { 2000 } else { 1900 },
            (year, _) => year,
        };
        let mut rest = [0; 5];
        rest.iter_mut().zip(others.chunks(2)).for_each(|(field, digits)| *field = number(digits));
        let [month, day, hour, minute, second] = rest;
        let is_time = hour < 24 && minute < 60 && second < 60;
        ((1..=12).contains(&month) && (1..=31).contains(&day) && is_time).then_some(End { year, rest })
    }

    /// Seconds since the Unix epoch.
    pub fn unix_s(&self) -> i64 {
        let [month, day, hour, minute, second] = self.rest;
        // Years that begin in March: a leap day is the last of its year.
        let (year, month) = if month > 2 { (self.year, month - 3) } else { (self.year - 1, month + 9) };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468;
        ((days * 24 + hour) * 60 + minute) * 60 + second
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [month, day, hour, minute, second] = self.rest;
        write!(f, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", self.year)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::KeyPair;

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn ends_are_found() {
        // From 2050 on, they are written in another way.
        for (year, month, day, unix_s) in [
            (2026, 11, 23, 1_795_392_000),
            (2028, 2, 29, 1_835_395_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            let end = not_after(&certificate(year, month, day)).unwrap();
            assert_eq!(end.to_string(), format!("{year}-{month:02}-{day:02}T00:00:00Z"));
            assert_eq!(end.unix_s(), unix_s, "{end}");
        }
        let end = End::read(b"700101000130Z", 2).unwrap();
        assert_eq!((end.unix_s(), end.to_string().as_str()), (90, "1970-01-01T00:01:30Z"));
    }

    #[test]
    fn what_is_no_time_is_no_end() {
        for text in
            ["", "Z", "261123Z", "261123000000", "2611230000+0Z", "261323000000Z", "261100000000Z", "261123240000Z"]
        {
            assert_eq!(End::read(text.as_bytes(), 2), None, "{text}");
        }
    }

    #[test]
    fn no_cut_and_no_flip_makes_it_fail_otherwise_than_by_none() {
        let whole = certificate(2026, 11, 23);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None);
        }
        for position in 0..whole.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[position] ^= flip;
                let _ = not_after(&bytes).map(|end| end.unix_s());
            }
        }
    }
}
