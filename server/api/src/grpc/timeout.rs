//! The `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2).

use std::time::Duration;

use garboard_runtime::clock;
use http::HeaderMap;
use tonic::Code;

use crate::status::Status;

/// Until when the caller waits; None if it did not say.
pub fn deadline(headers: &HeaderMap) -> Result<Option<clock::Instant>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = parse(value.as_bytes()).ok_or_else(|| {
        let shown = String::from_utf8_lossy(value.as_bytes());
        Status::new(Code::Internal, format!("malformed grpc-timeout: {shown:?}"))
    })?;
    // Further away than the clock can tell is no deadline.
    Ok(clock::now().checked_add(timeout))
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (&unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_refusals() {
        assert_eq!(parse(b"3H"), Some(Duration::from_secs(3 * 3600)));
        assert_eq!(parse(b"99999999M"), Some(Duration::from_secs(99_999_999 * 60)));
        assert_eq!(parse(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse(b"7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse(b"0n"), Some(Duration::ZERO));
        for malformed in [&b""[..], b"S", b"10", b"123456789S", b"-1S", b"1.5S", b"1x", b" 1S"] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
    }
}
