//! Takes `tracing` events to the log. Spans are not kept: nothing reads them.

use std::fmt;

use garboard_runtime::clock;
use tracing::Event;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::level_filters::LevelFilter;
use tracing::span;

use super::Level;
use super::Line;

/// Crates of ours begin so; of others only errors are heard unless at level debug, since what they tell is meant for their developers (openraft
/// warns of every vote that changes).
const OURS: &str = "garboard";

/// An event with this target is the last of the process: its level is fatal, and it is on its way out before the call
/// returns.
const FATAL: &str = "garboard::fatal";

pub struct LogSubscriber {
    ours: LevelFilter,
    others: LevelFilter,
}

impl LogSubscriber {
    pub fn new(level: Level) -> Self {
        let (ours, others) = match level {
            Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
            Level::Info => (LevelFilter::INFO, LevelFilter::ERROR),
            Level::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
            Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
            // Error is the highest that tracing has: what is fatal comes at it, with a target of its own.
            Level::Panic | Level::Fatal => (LevelFilter::OFF, LevelFilter::OFF),
        };
        Self { ours, others }
    }
}

impl Subscriber for LogSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == FATAL {
            return true;
        }
        let limit = if metadata.target().starts_with(OURS) { self.ours } else { self.others };
        metadata.is_event() && *metadata.level() <= limit
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // What is fatal is heard at every level.
        Some(self.ours.max(self.others).max(LevelFilter::ERROR))
    }

    fn event(&self, event: &Event<'_>) {
        super::log(&line(event));
        if event.metadata().target() == FATAL {
            super::flush();
        }
    }

    // No span is ever enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn line(event: &Event<'_>) -> Line {
    let metadata = event.metadata();
    let level = match *metadata.level() {
        _ if metadata.target() == FATAL => Level::Fatal,
        tracing::Level::TRACE | tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    };
    let file = metadata.file().unwrap_or(metadata.target());
    let mut line = Line::new(level, clock::unix_time(), file, metadata.line().unwrap_or(0), "");
    event.record(&mut Fields(&mut line));
    line
}

/// Puts an event's fields into a line.
struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.0.set_message(value),
            name => self.0.string(name, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.string(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.raw(field.name(), &value.to_string());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinities: null stands for them.
        self.0.json(field.name(), &serde_json::Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::log::Format;

    /// Keeps the lines of what is enabled at a level.
    struct Kept {
        subscriber: LogSubscriber,
        lines: Arc<Mutex<Vec<serde_json::Value>>>,
    }

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.subscriber.enabled(metadata)
        }

        fn event(&self, event: &Event<'_>) {
            let encoded = line(event).encode(Format::Json);
            self.lines.lock().push(serde_json::from_slice(&encoded).unwrap());
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            unreachable!("no span is enabled")
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    fn lines(level: Level, body: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Kept { subscriber: LogSubscriber::new(level), lines: Arc::clone(&lines) };
        tracing::subscriber::with_default(kept, body);
        std::mem::take(&mut *lines.lock())
    }

    #[test]
    fn an_event_is_a_line_with_typed_fields() {
        let lines = lines(Level::Info, || {
            let error = std::io::Error::other("broken");
            tracing::warn!(
                count = 3,
                share = 0.5,
                done = true,
                path = "a\"b",
                list = ?["x"],
                error = &error as &dyn std::error::Error,
                "took {} ms",
                7
            );
        });
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "took 7 ms");
        assert_eq!(line["count"], 3);
        assert_eq!(line["share"], 0.5);
        assert_eq!(line["done"], true);
        assert_eq!(line["path"], "a\"b");
        assert_eq!(line["list"], "[\"x\"]");
        assert_eq!(line["error"], "broken");
        assert!(line["caller"].as_str().unwrap().starts_with("log/subscriber.rs:"), "{line}");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn levels_and_other_peoples_crates() {
        let speak = || {
            let _span = tracing::error_span!("span").entered();
            tracing::debug!("a");
            tracing::info!("b");
            tracing::info!(target: "openraft::core", "c");
            tracing::warn!(target: "openraft::core", "w");
            tracing::error!(target: "openraft::core", "d");
            tracing::error!("e");
            tracing::error!(target: "garboard::fatal", "f");
        };
        let heard =
            |level| lines(level, speak).iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect::<String>();
        assert_eq!(heard(Level::Debug), "abcwdef");
        assert_eq!(heard(Level::Info), "bdef");
        assert_eq!(heard(Level::Warn), "def");
        assert_eq!(heard(Level::Error), "def");
        assert_eq!(heard(Level::Fatal), "f");
        let last = lines(Level::Info, speak).pop().unwrap();
        assert_eq!((&last["level"], &last["msg"]), (&"fatal".into(), &"f".into()));
    }
}
