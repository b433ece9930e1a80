//! Every flag of etcd 3.6 and 3.7 (and the few of our own), and the values that were given to them.
//!
//! The tables say what each flag does here. No flag is taken and then silently without effect: it works, or etcd
//! ignores it as well, or it is named in a warning, or the start is refused. A value is checked against the flag's kind
//! when it is set, so that what [`Settings`] hands out is well formed.

pub mod docs;
pub mod feature_gates;
pub mod go_syntax;
pub mod help;
pub mod parse;
mod settings;
mod table;
pub mod url;
mod value;

pub use feature_gates::FeatureGates;
pub use settings::Given;
pub use settings::Settings;
pub use settings::Source;
pub use table::SECTIONS;
pub use table::Section;
pub use url::Url;
pub use value::Value;
pub use value::ValueError;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written on the command line.
    pub default: &'static str,
    pub release: Release,
    pub support: Support,
    pub help: &'static str,
}

/// What a flag's value looks like. Numbers, durations and booleans are written as Go's `flag` package reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Uint,
    Uint32,
    Duration,
    Text,
    /// Separated by commas; sorted, each once.
    Set,
    /// Separated by commas, in order.
    List,
    /// URLs separated by commas; sorted, each once. An empty value leaves the default.
    Urls,
    /// `*`, empty, or URLs as in [`Kind::Urls`].
    Origins,
    Choice(&'static [&'static str]),
    FeatureGates,
    /// Taken with or without a value, which is not read.
    Ignored,
}

impl Kind {
    /// Whether the flag may stand alone, and therefore never takes the next word as its value.
    pub const fn stands_alone(self) -> bool {
        matches!(self, Self::Bool | Self::Ignored)
    }

    /// How the value is called in help texts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint | Self::Uint32 => "uint",
            Self::Duration => "duration",
            Self::Text | Self::Choice(_) => "string",
            Self::Set | Self::List => "list",
            Self::Urls | Self::Origins => "urls",
            Self::FeatureGates => "gates",
            Self::Ignored => "",
        }
    }
}

/// Who knows the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Both,
    Only36,
    /// Not a flag of etcd.
    Own,
}

/// What a flag does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Used,
    /// etcd takes it and ignores it too.
    IgnoredByEtcd,
    /// Taken, without effect for the reason given; another value than the default is named in a warning.
    NoEffect(&'static str),
    /// Another value than the default ends the start, for the reason given.
    Refused(&'static str),
    /// An older name of the flag given.
    Alias(&'static str),
    /// An older way to switch the feature gate given.
    GateAlias(&'static str),
}

impl Flag {
    /// The environment variable that sets the flag.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The default as a value.
    pub fn default_value(&self) -> Value {
        match Value::parse(self.kind, self.default) {
            Ok(value) => value,
            Err(error) => unreachable!("default of --{}: {error}", self.name),
        }
    }
}

/// All flags, section by section.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

/// The flag of that name.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

#[cfg(test)]
mod tests;
