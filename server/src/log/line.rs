//! One line of the log, in zap's form.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::Level;

/// Strings in a line are cut to this many bytes, so that a line is never larger than what is being logged deserves.
const STRING_BYTES_MAX: usize = 8 << 10;

/// Keys of the line itself.
const RESERVED: [&str; 4] = ["level", "ts", "caller", "msg"];

/// Form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// Fields separated by tabs, for people.
    Console,
}

/// A line being put together.
pub struct Line {
    pub level: Level,
    time: Duration,
    caller: String,
    message: String,
    /// Encoded members of the JSON object, each after a comma.
    fields: String,
}

impl Line {
    /// `time` is since the Unix epoch; `file` and `line` say where in the source.
    pub fn new(level: Level, time: Duration, file: &str, line: u32, message: &str) -> Self {
        Self { level, time, caller: caller(file, line), message: cut(message), fields: String::new() }
    }

    pub fn set_message(&mut self, message: &str) {
        self.message = cut(message);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.raw(key, &quoted(&cut(value)));
    }

    pub fn json(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(text) => self.string(key, text),
            other => self.raw(key, &other.to_string()),
        }
    }

    /// `encoded` is a JSON value.
    pub fn raw(&mut self, key: &str, encoded: &str) {
        let underscore = if RESERVED.contains(&key) { "_" } else { "" };
        let _ = write!(self.fields, ",{}:{encoded}", quoted(&format!("{key}{underscore}")));
    }

    /// The bytes to write, with the newline.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        let ts = timestamp(self.time);
        let line = match format {
            Format::Json => format!(
                "{{\"level\":\"{}\",\"ts\":\"{ts}\",\"caller\":{},\"msg\":{}{}}}\n",
                self.level,
                quoted(&self.caller),
                quoted(&self.message),
                self.fields
            ),
            Format::Console => {
                // One line each, whatever is in the message.
                let message = self.message.replace('\n', "\\n");
                let head = format!("{ts}\t{}\t{}\t{message}", self.level, self.caller);
                match self.fields.strip_prefix(',') {
                    Some(fields) => format!("{head}\t{{{fields}}}\n"),
                    None => format!("{head}\n"),
                }
            }
        };
        line.into_bytes()
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn cut(text: &str) -> String {
    if text.len() <= STRING_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(STRING_BYTES_MAX);
    format!("{}... ({} bytes)", &text[..end], text.len())
}

/// `folder/file.rs:12`, the crate standing for its `src`.
fn caller(file: &str, line: u32) -> String {
    let parts: Vec<_> = file.split('/').filter(|part| !part.is_empty() && *part != "src").collect();
    format!("{}:{line}", parts[parts.len().saturating_sub(2)..].join("/"))
}

/// `2026-11-21T11:39:00.123456Z`.
fn timestamp(time: Duration) -> String {
    let seconds = time.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", time.subsec_micros())
}

/// Year, month and day of the day so many days after 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days are counted from 0000-03-01, so that a leap day is the last of its year; an era is 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line::new(
            Level::Info,
            Duration::from_micros(1_795_261_140_123_456),
            "server/node/src/propose.rs",
            12,
            "a \"b\"\nc",
        )
    }

    #[test]
    fn a_line_is_json_with_zaps_keys_in_zaps_order() {
        let mut line = line();
        line.string("path", "x\ty");
        line.json("count", &Value::from(3));
        line.json("urls", &Value::from(vec!["http://a:1"]));
        let text = String::from_utf8(line.encode(Format::Json)).unwrap();
        assert_eq!(
            text,
            "{\"level\":\"info\",\"ts\":\"2026-11-21T11:39:00.123456Z\",\"caller\":\"node/propose.rs:12\",\
             \"msg\":\"a \\\"b\\\"\\nc\",\"path\":\"x\\ty\",\"count\":3,\"urls\":[\"http://a:1\"]}\n"
        );
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["msg"], "a \"b\"\nc");
    }

    #[test]
    fn console_is_tabs_on_one_line() {
        let mut with_field = line();
        with_field.json("n", &Value::from(1));
        assert_eq!(
            String::from_utf8(with_field.encode(Format::Console)).unwrap(),
            "2026-11-21T11:39:00.123456Z\tinfo\tnode/propose.rs:12\ta \"b\"\\nc\t{\"n\":1}\n"
        );
        assert!(line().encode(Format::Console).ends_with(b"\\nc\n"));
    }

    #[test]
    fn a_field_never_hides_a_key_of_the_line() {
        let mut line = line();
        line.string("msg", "x");
        let object: Value = serde_json::from_slice(&line.encode(Format::Json)).unwrap();
        assert_eq!((&object["msg"], &object["msg_"]), (&Value::from("a \"b\"\nc"), &Value::from("x")));
    }

    #[test]
    fn long_strings_are_cut_between_characters() {
        let mut line = line();
        line.string("long", &"\u{20ac}".repeat(100_000));
        let encoded = line.encode(Format::Json);
        assert!(encoded.len() < STRING_BYTES_MAX + 300);
        let object: Value = serde_json::from_slice(&encoded).unwrap();
        assert!(object["long"].as_str().unwrap().ends_with("\u{20ac}... (300000 bytes)"));
    }

    #[test]
    fn callers() {
        for (file, expected) in [
            ("server/src/config.rs", "server/config.rs:7"),
            ("server/node/src/consensus/log.rs", "consensus/log.rs:7"),
            ("/r/openraft-0.10.0/src/core/raft_core.rs", "core/raft_core.rs:7"),
            ("/r/h2-0.4/src/lib.rs", "h2-0.4/lib.rs:7"),
            ("main.rs", "main.rs:7"),
        ] {
            assert_eq!(caller(file, 7), expected);
        }
    }

    #[test]
    fn timestamps() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), expected);
        }
    }
}
