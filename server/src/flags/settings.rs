//! The values given, by flag, and where from.

use std::collections::BTreeMap;
use std::time::Duration;

use super::FeatureGates;
use super::Flag;
use super::Kind;
use super::Url;
use super::Value;
use super::ValueError;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    CommandLine,
    Environment,
    File,
}

/// A value given to a flag.
#[derive(Clone, Debug)]
pub struct Given {
    pub flag: &'static Flag,
    pub text: String,
    pub value: Value,
    pub source: Source,
}

/// What was given; everything else is at its default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    given: BTreeMap<&'static str, Given>,
}

impl Settings {
    /// Gives `flag` a value. A later one replaces an earlier one.
    ///
    /// # Errors
    /// The text is no value of the flag's kind.
    pub fn set(&mut self, flag: &'static Flag, text: &str, source: Source) -> Result<(), ValueError> {
        // As in etcd, an empty list of URLs is no list of URLs.
        if flag.kind == Kind::Urls && text.is_empty() {
            return Ok(());
        }
        let value = Value::parse(flag.kind, text)?;
        self.given.insert(flag.name, Given { flag, text: text.to_owned(), value, source });
        Ok(())
    }

    /// Replaces the value of `flag` by that of another one of the same kind.
    pub fn put(&mut self, flag: &'static Flag, given: Given) {
        assert_eq!(flag.kind, given.flag.kind, "--{} and --{} differ in kind", flag.name, given.flag.name);
        self.given.insert(flag.name, Given { flag, ..given });
    }

    /// Replaces the feature gates.
    pub fn put_gates(&mut self, flag: &'static Flag, gates: FeatureGates, source: Source) {
        assert_eq!(flag.kind, Kind::FeatureGates, "--{} does not hold feature gates", flag.name);
        let text = gates.to_string();
        self.given.insert(flag.name, Given { flag, text, value: Value::FeatureGates(gates), source });
    }

    pub fn given(&self) -> impl Iterator<Item = &Given> {
        self.given.values()
    }

    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn value(&self, name: &str) -> Value {
        match (self.given.get(name), super::find(name)) {
            (Some(given), _) => given.value.clone(),
            (None, Some(flag)) => flag.default_value(),
            (None, None) => unreachable!("no flag --{name}"),
        }
    }
}

/// One getter per kind of value. Asking for a flag that does not exist, or for another kind than its own, is a fault of
/// ours.
macro_rules! getter {
    ($name:ident, $variant:ident, $type:ty) => {
        pub fn $name(&self, name: &str) -> $type {
            match self.value(name) {
                Value::$variant(value) => value,
                other => unreachable!("--{name} is {other:?}"),
            }
        }
    };
}

impl Settings {
    getter!(bool, Bool, bool);
    getter!(int, Int, i64);
    getter!(uint, Uint, u64);
    getter!(nanoseconds, Duration, i64);
    getter!(text, Text, String);
    getter!(list, List, Vec<String>);
    getter!(urls, Urls, Vec<Url>);
    getter!(feature_gates, FeatureGates, FeatureGates);

    /// A duration; `None` when it is negative.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        u64::try_from(self.nanoseconds(name)).ok().map(Duration::from_nanos)
    }
}
