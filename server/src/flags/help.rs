//! What `-h` and `--version` print.

use std::fmt::Write;

use super::Flag;
use super::Kind;
use super::Support;

/// Printed on a fault in the command line, and before the flags by `-h`.
pub const USAGE: &str = "Usage:

  garboard [flags]
    Start a member.

  garboard --config-file <path>
    Start a member with the configuration in a file; other flags and the environment are not read.

  garboard snapshot status <file> [--write-out simple|json]
    Tell what a snapshot holds, ours or etcd's.

  garboard snapshot restore <file> [--data-dir, --wal-dir, --name, --initial-cluster, --initial-cluster-token,
      --initial-advertise-peer-urls, --skip-hash-check, --bump-revision <number> --mark-compacted, --resume]
    Make a new member's data directory from a snapshot.

  garboard inspect <data directory> [--wal-dir <directory>]
    Tell what the disk of a member that does not run holds, and what of it is damaged. Changes nothing.

  garboard wal dump <directory>
    Print what is in a write-ahead log.

  garboard --version
    Print the version.

  garboard -h | --help
    Print all flags.

Each flag has an environment variable: ETCD_ and its name, in capitals, with _ for -.
";

/// The text of `-h`: every flag with its default and what it does.
pub fn flags() -> String {
    let mut text = String::new();
    for section in super::SECTIONS {
        let _ = writeln!(text, "{}:", section.title);
        for flag in section.flags {
            let _ = writeln!(text, "  {}\n    {}", head(flag), flag.help);
            if let Some(note) = note(flag) {
                let _ = writeln!(text, "    {note}");
            }
        }
        text.push('\n');
    }
    text
}

fn head(flag: &Flag) -> String {
    match flag.kind {
        Kind::Ignored => format!("--{}", flag.name),
        kind => format!("--{} '{}' ({})", flag.name, flag.default, kind.word()),
    }
}

fn note(flag: &Flag) -> Option<String> {
    match flag.support {
        Support::Used | Support::IgnoredByEtcd => None,
        Support::NoEffect(reason) => Some(format!("No effect: {reason}.")),
        Support::Refused(reason) => Some(format!("Not supported: {reason}.")),
        Support::Alias(now) => Some(format!("Use --{now}.")),
        Support::GateAlias(gate) => Some(format!("Use --feature-gates={gate}=true.")),
    }
}
