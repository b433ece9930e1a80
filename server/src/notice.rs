//! Something to log once the logger is there: what reading the configuration came upon before.

use std::fmt;

use serde_json::Map;
use serde_json::Value;

use crate::log::Level;

/// A log line to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub level: Level,
    pub message: String,
    pub fields: Map<String, Value>,
}

impl Notice {
    pub fn info(message: impl Into<String>) -> Self {
        Self { level: Level::Info, message: message.into(), fields: Map::new() }
    }

    pub fn warn(message: impl Into<String>) -> Self {
        Self { level: Level::Warn, message: message.into(), fields: Map::new() }
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.level, self.message, Value::Object(self.fields.clone()))
    }
}
