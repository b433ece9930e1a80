//! The table of all flags. Names and defaults are etcd's; the help is ours.

mod clustering;
mod legacy;
mod logging;
mod member;
mod security;
mod tuning;

use super::Flag;
use super::Kind;
use super::Release;
use super::Support;

/// Flags that belong together.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub flags: &'static [Flag],
}

pub const SECTIONS: &[Section] = &[
    Section { title: "Member", flags: member::FLAGS },
    Section { title: "Clustering", flags: clustering::FLAGS },
    Section { title: "Discovery", flags: clustering::DISCOVERY },
    Section { title: "Security", flags: security::FLAGS },
    Section { title: "Auth", flags: security::AUTH },
    Section { title: "Logging", flags: logging::FLAGS },
    Section { title: "Metrics, tracing and profiling", flags: logging::OBSERVING },
    Section { title: "Compaction and checks", flags: tuning::FLAGS },
    Section { title: "Unsafe", flags: tuning::UNSAFE },
    Section { title: "Older names", flags: legacy::OLDER_NAMES },
    Section { title: "Ignored, as etcd ignores them", flags: legacy::IGNORED },
];

const fn flag(name: &'static str, kind: Kind, default: &'static str, support: Support, help: &'static str) -> Flag {
    Flag { name, kind, default, release: Release::Both, support, help }
}

const fn only_36(flag: Flag) -> Flag {
    Flag { release: Release::Only36, ..flag }
}
