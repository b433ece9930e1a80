//! The configuration file, in YAML or JSON, with etcd's keys.
//!
//! It stands instead of flags and environment, not beside them. A key that is not known is named in a warning, since
//! etcd skips such keys; a value that is malformed ends the start and names its line.

mod yaml;

use std::path::Path;

use garboard_storage::disk::Disk;

use crate::flags;
use crate::flags::Flag;
use crate::flags::Kind;
use crate::flags::Settings;
use crate::flags::Source;
use crate::flags::Support;
use crate::flags::ValueError;
use crate::notice::Notice;
use yaml::Content;
use yaml::Node;

pub use yaml::YamlError;

const FILE_BYTES_MAX: usize = 1 << 20;

const CLIENT_SECURITY: &str = "client-transport-security";
const PEER_SECURITY: &str = "peer-transport-security";

/// Flags whose value is given under another key, in one of the sections.
const IN_A_SECTION: &[(&str, &str, &str)] = &[
    (CLIENT_SECURITY, "cert-file", "cert-file"),
    (CLIENT_SECURITY, "key-file", "key-file"),
    (CLIENT_SECURITY, "client-cert-file", "client-cert-file"),
    (CLIENT_SECURITY, "client-key-file", "client-key-file"),
    (CLIENT_SECURITY, "client-cert-auth", "client-cert-auth"),
    (CLIENT_SECURITY, "trusted-ca-file", "trusted-ca-file"),
    (CLIENT_SECURITY, "auto-tls", "auto-tls"),
    (CLIENT_SECURITY, "allowed-cn", "client-cert-allowed-cn"),
    (CLIENT_SECURITY, "allowed-hostname", "client-cert-allowed-hostname"),
    (PEER_SECURITY, "cert-file", "peer-cert-file"),
    (PEER_SECURITY, "key-file", "peer-key-file"),
    (PEER_SECURITY, "client-cert-file", "peer-client-cert-file"),
    (PEER_SECURITY, "client-key-file", "peer-client-key-file"),
    (PEER_SECURITY, "client-cert-auth", "peer-client-cert-auth"),
    (PEER_SECURITY, "trusted-ca-file", "peer-trusted-ca-file"),
    (PEER_SECURITY, "auto-tls", "peer-auto-tls"),
    (PEER_SECURITY, "allowed-cn", "peer-cert-allowed-cn"),
    (PEER_SECURITY, "allowed-hostname", "peer-cert-allowed-hostname"),
    (PEER_SECURITY, "skip-client-san-verification", "peer-skip-client-san-verification"),
    ("socket-options", "reuse-port", "socket-reuse-port"),
    ("socket-options", "reuse-address", "socket-reuse-address"),
    ("discovery-config", "token", "discovery-token"),
];

/// Keys that say who may connect and are not supported: never to be passed over.
const NOT_SUPPORTED: &[(&str, &str)] = &[(CLIENT_SECURITY, "skip-client-san-verification")];

/// Flags that make no sense in a file.
const NOT_A_KEY: &[&str] = &["config-file", "version"];

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the config file: {0}")]
    Read(#[from] std::io::Error),
    #[error("cannot parse the config file: {0}")]
    Yaml(#[from] YamlError),
    #[error("config file, line {line}: {key}: {reason}")]
    Value { line: usize, key: String, reason: Reason },
}

/// What is wrong with a key's value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("a mapping is needed")]
    NotAMapping,
    #[error("a single value or a list of them is needed")]
    NotAScalar,
    #[error("invalid value {text:?}: {error}")]
    Invalid { text: String, error: ValueError },
    #[error("is not supported")]
    NotSupported,
}

/// What a file says, and what to log about it.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub notices: Vec<Notice>,
}

/// Reads the file at `path`.
///
/// # Errors
/// It cannot be read, is no YAML, or has a malformed or unsupported value.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<Loaded, FileError> {
    read(&disk.read_to_string(path, FILE_BYTES_MAX)?)
}

fn read(text: &str) -> Result<Loaded, FileError> {
    let mut loaded = Loaded { settings: Settings::default(), notices: Vec::new() };
    let root = yaml::parse(text)?;
    let members = match &root.content {
        Content::Null => return Ok(loaded),
        Content::Mapping(members) => members,
        _ => return Err(fault(&root, "the file", Reason::NotAMapping)),
    };
    for (key, node) in members {
        match section(key) {
            None => match flags::find(key).filter(|flag| is_key(flag)) {
                Some(flag) => loaded.set(flag, key, node)?,
                None => loaded.unknown(key, node),
            },
            Some(section) => loaded.read_section(section, node)?,
        }
    }
    Ok(loaded)
}

/// The section of that name, if it is one.
fn section(key: &str) -> Option<&'static str> {
    IN_A_SECTION.iter().map(|entry| entry.0).find(|section| *section == key)
}

fn is_key(flag: &Flag) -> bool {
    let in_a_section = IN_A_SECTION.iter().any(|entry| entry.2 == flag.name) || flag.name.starts_with("discovery-");
    // Discovery by DNS has keys of its own.
    let is_srv = flag.name.starts_with("discovery-srv");
    let ignored = flag.kind == Kind::Ignored;
    (!in_a_section || is_srv) && !ignored && !NOT_A_KEY.contains(&flag.name)
}

fn fault(node: &Node, key: &str, reason: Reason) -> FileError {
    FileError::Value { line: node.line, key: key.to_owned(), reason }
}

impl Loaded {
    fn read_section(&mut self, section: &str, node: &Node) -> Result<(), FileError> {
        let members = match &node.content {
            Content::Null => return Ok(()),
            Content::Mapping(members) => members,
            _ => return Err(fault(node, section, Reason::NotAMapping)),
        };
        for (key, node) in members {
            let full_key = format!("{section}.{key}");
            if NOT_SUPPORTED.contains(&(section, key.as_str())) {
                if !is_unset(node) {
                    return Err(fault(node, &full_key, Reason::NotSupported));
                }
                continue;
            }
            let entry = IN_A_SECTION.iter().find(|entry| (entry.0, entry.1) == (section, key.as_str()));
            match entry.and_then(|entry| flags::find(entry.2)) {
                Some(flag) => self.set(flag, &full_key, node)?,
                None => self.unknown(&full_key, node),
            }
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, key: &str, node: &Node) -> Result<(), FileError> {
        let text = match &node.content {
            Content::Null => return Ok(()),
            Content::Scalar { text, plain } => scalar(flag.kind, text, *plain),
            Content::Sequence(items) => {
                let words: Option<Vec<&str>> = items.iter().map(Node::as_text).collect();
                words.ok_or_else(|| fault(node, key, Reason::NotAScalar))?.join(",")
            }
            Content::Mapping(_) => return Err(fault(node, key, Reason::NotAScalar)),
        };
        let set = self.settings.set(flag, &text, Source::File);
        set.map_err(|error| fault(node, key, Reason::Invalid { text, error }))?;
        if flag.support == Support::IgnoredByEtcd {
            self.unknown(key, node);
        }
        Ok(())
    }

    fn unknown(&mut self, key: &str, node: &Node) {
        let notice = Notice::warn("the config file has a key that is not known, or is not read from a file");
        self.notices.push(notice.with("key", key).with("line", node.line));
    }
}

/// The text of a scalar as the flag would be written.
fn scalar(kind: Kind, text: &str, plain: bool) -> String {
    match kind {
        // A bare number of nanoseconds.
        Kind::Duration if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => format!("{text}ns"),
        // YAML 1.1, which etcd reads, has more words for these.
        Kind::Bool if plain => match text {
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => "true".to_owned(),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => "false".to_owned(),
            other => other.to_owned(),
        },
        _ => text.to_owned(),
    }
}

/// Whether the value asks for nothing.
fn is_unset(node: &Node) -> bool {
    match &node.content {
        Content::Null => true,
        Content::Scalar { text, .. } => text.is_empty() || text == "false",
        Content::Sequence(items) => items.is_empty(),
        Content::Mapping(members) => members.is_empty(),
    }
}

#[cfg(test)]
mod tests;
