//! Booleans, numbers and durations as Go's `strconv` and `time` packages read and write them (base 0: `0x`, `0o`, `0b`,
//! `0` prefixes and `_` between digits), since etcd's flags are read by them.

use super::ValueError;

const NANOSECOND: i128 = 1;
const MICROSECOND: i128 = 1_000;
const MILLISECOND: i128 = 1_000_000;
const SECOND: i128 = 1_000_000_000;

pub fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Parse),
    }
}

pub fn parse_int(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| ValueError::Range)
}

pub fn parse_uint(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (base, digits, prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        _ => (10, lower.as_str(), false),
    };
    let mut number: u64 = 0;
    let mut in_range = true;
    // An underscore is allowed after a digit or the prefix, and needs a digit after it.
    let mut after_digit = prefixed;
    let mut ends_in_digit = false;
    for character in digits.chars() {
        if character == '_' && after_digit {
            (after_digit, ends_in_digit) = (false, false);
            continue;
        }
        let digit = character.to_digit(base).ok_or(ValueError::Parse)?;
        match number.checked_mul(base.into()).and_then(|n| n.checked_add(digit.into())) {
            Some(next) => number = next,
            None => in_range = false,
        }
        (after_digit, ends_in_digit) = (true, true);
    }
    match (ends_in_digit, in_range) {
        (false, _) => Err(ValueError::Parse),
        (true, false) => Err(ValueError::Range),
        (true, true) => Ok(number),
    }
}

/// A duration such as `1h2m3.5s`, `100ms`, `-1.5h` or `0`, in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, ValueError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ValueError::Parse);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ValueError::Parse)?;
        let (number, after) = rest.split_at(unit_at);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        total += scaled(number, unit_nanoseconds(unit)?)?;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(ValueError::Parse);
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| ValueError::Parse)
}

fn unit_nanoseconds(unit: &str) -> Result<i128, ValueError> {
    Ok(match unit {
        "ns" => NANOSECOND,
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return Err(ValueError::Parse),
    })
}

/// `number` (digits with at most one point) times `unit`, cut to whole nanoseconds.
fn scaled(number: &str, unit: i128) -> Result<i128, ValueError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(ValueError::Parse);
    }
    let whole: i128 = match whole {
        "" => 0,
        digits => i128::from(digits.parse::<u64>().map_err(|_| ValueError::Parse)?),
    };
    // Past 18 digits nothing is left of a nanosecond, whatever the unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| ValueError::Parse)? };
    Ok(whole * unit + parts * unit / 10_i128.pow(fraction.len() as u32))
}

/// As Go prints a duration: `1h0m0s`, `1.5s`, `100ms`, `0s`.
pub fn format_duration(nanoseconds: i64) -> String {
    let magnitude = i128::from(nanoseconds).abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = match magnitude {
        0 => "0s".to_owned(),
        n if n < MICROSECOND => format!("{n}ns"),
        n if n < MILLISECOND => format!("{}\u{b5}s", decimal(n, MICROSECOND)),
        n if n < SECOND => format!("{}ms", decimal(n, MILLISECOND)),
        n => {
            let seconds = decimal(n % (60 * SECOND), SECOND);
            match n / (60 * SECOND) {
                0 => format!("{seconds}s"),
                minutes if minutes < 60 => format!("{minutes}m{seconds}s"),
                minutes => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    };
    format!("{sign}{text}")
}

fn decimal(n: i128, unit: i128) -> String {
    let digits = unit.to_string().len() - 1;
    let text = format!("{}.{:0digits$}", n / unit, n % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_gos_twelve() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "on", "tRUE", " true", "2"] {
            assert_eq!(parse_bool(text), Err(ValueError::Parse), "{text}");
        }
    }

    #[test]
    fn integers_of_every_base() {
        let table = [
            ("0", Ok(0)),
            ("10000", Ok(10_000)),
            ("+7", Ok(7)),
            ("-1", Ok(-1)),
            ("0x1F", Ok(31)),
            ("0X_1f", Ok(31)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("1_000_000", Ok(1_000_000)),
            ("1_0_0", Ok(100)),
            ("0_7", Ok(7)),
            ("00", Ok(0)),
            ("-0x10", Ok(-16)),
            ("0b2", Err(ValueError::Parse)),
            ("0_", Err(ValueError::Parse)),
            ("0x1_", Err(ValueError::Parse)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(ValueError::Range)),
            ("99999999999999999999", Err(ValueError::Range)),
            ("", Err(ValueError::Parse)),
            ("-", Err(ValueError::Parse)),
            ("08", Err(ValueError::Parse)),
            ("0x", Err(ValueError::Parse)),
            ("1__0", Err(ValueError::Parse)),
            ("1_", Err(ValueError::Parse)),
            ("_1", Err(ValueError::Parse)),
            ("1e3", Err(ValueError::Parse)),
            ("1.0", Err(ValueError::Parse)),
            (" 1", Err(ValueError::Parse)),
            ("--1", Err(ValueError::Parse)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_int(text), expected, "{text}");
        }
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_uint("18446744073709551616"), Err(ValueError::Range));
        assert_eq!(parse_uint("-1"), Err(ValueError::Parse));
        assert_eq!(parse_uint("+1"), Err(ValueError::Parse));
    }

    #[test]
    fn durations_there_and_back() {
        const S: i64 = 1_000_000_000;
        let table = [
            ("0", Ok(0), "0s"),
            ("0s", Ok(0), "0s"),
            ("5s", Ok(5 * S), "5s"),
            ("100ms", Ok(S / 10), "100ms"),
            ("1h2m3.5s", Ok(3723 * S + S / 2), "1h2m3.5s"),
            ("2h", Ok(7200 * S), "2h0m0s"),
            ("90s", Ok(90 * S), "1m30s"),
            (".5s", Ok(S / 2), "500ms"),
            ("1.s", Ok(S), "1s"),
            ("1.5h", Ok(5400 * S), "1h30m0s"),
            ("10us", Ok(10_000), "10\u{b5}s"),
            ("10\u{b5}s", Ok(10_000), "10\u{b5}s"),
            ("10\u{3bc}s", Ok(10_000), "10\u{b5}s"),
            ("1ns", Ok(1), "1ns"),
            ("0.3ns", Ok(0), "0s"),
            ("0.1234567891234h", Ok(444_444_440_844), "7m24.444440844s"),
            ("1us500ns", Ok(1500), "1.5\u{b5}s"),
            ("-0.5us", Ok(-500), "-500ns"),
            ("-0", Ok(0), "0s"),
            ("-1.5s", Ok(-3 * S / 2), "-1.5s"),
            ("+1m", Ok(60 * S), "1m0s"),
            ("2562047h47m16.854775807s", Ok(i64::MAX), "2562047h47m16.854775807s"),
            ("-2562047h47m16.854775808s", Ok(i64::MIN), "-2562047h47m16.854775808s"),
        ];
        for (text, expected, printed) in table {
            assert_eq!(parse_duration(text), expected, "{text}");
            assert_eq!(expected.map(format_duration).as_deref(), Ok(printed), "{text}");
        }
        for text in
            ["", "5", "s", ".s", "1.1.1s", "1x", "1 s", "1h-2m", "2562048h", "1d", "--1s", "99999999999999999999s"]
        {
            assert_eq!(parse_duration(text), Err(ValueError::Parse), "{text}");
        }
    }
}
