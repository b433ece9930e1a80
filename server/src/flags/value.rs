//! A flag's value, read from text.

use super::FeatureGates;
use super::Kind;
use super::Url;
use super::go_syntax;
use super::url::UrlError;

/// Why a text is no value of a flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("parse error")]
    Parse,
    #[error("value out of range")]
    Range,
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("invalid value {0:?}")]
    Choice(String),
    #[error("missing bool value for {0}")]
    GateWithoutValue(String),
    #[error("invalid value of {gate}={value}, err: not a bool")]
    GateValue { gate: String, value: String },
    #[error("unrecognized feature gate: {0}")]
    UnknownGate(String),
}

/// A well-formed value; the variant follows from the flag's [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Nanoseconds; may be negative, as in Go.
    Duration(i64),
    Text(String),
    List(Vec<String>),
    Urls(Vec<Url>),
    FeatureGates(FeatureGates),
    Ignored,
}

impl Value {
    /// Reads `text` as a value of that kind.
    ///
    /// # Errors
    /// The text is malformed; etcd's own words where it has some.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, ValueError> {
        Ok(match kind {
            Kind::Bool => Self::Bool(go_syntax::parse_bool(text)?),
            Kind::Int => Self::Int(go_syntax::parse_int(text)?),
            Kind::Uint => Self::Uint(go_syntax::parse_uint(text)?),
            Kind::Uint32 => match go_syntax::parse_uint(text)? {
                n if n <= u64::from(u32::MAX) => Self::Uint(n),
                _ => return Err(ValueError::Range),
            },
            Kind::Duration => Self::Duration(go_syntax::parse_duration(text)?),
            Kind::Text => Self::Text(text.to_owned()),
            Kind::Set => {
                let mut words = split(text);
                words.sort();
                words.dedup();
                Self::List(words)
            }
            Kind::List => Self::List(split(text)),
            Kind::Urls => Self::Urls(urls(text)?),
            Kind::Origins if text == "*" => Self::List(vec![text.to_owned()]),
            Kind::Origins => Self::List(urls(text)?.iter().map(Url::to_string).collect()),
            Kind::Choice(words) if words.contains(&text) => Self::Text(text.to_owned()),
            Kind::Choice(_) => return Err(ValueError::Choice(text.to_owned())),
            Kind::FeatureGates => Self::FeatureGates(FeatureGates::parse(text)?),
            Kind::Ignored => Self::Ignored,
        })
    }
}

fn split(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

fn urls(text: &str) -> Result<Vec<Url>, UrlError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut urls = text.split(',').map(|part| Url::parse(part.trim())).collect::<Result<Vec<_>, _>>()?;
    urls.sort_by_key(Url::to_string);
    urls.dedup();
    Ok(urls)
}
