//! `docs/flags.md`, made from the tables.

use std::fmt::Write;

use super::Flag;
use super::Kind;
use super::Release;
use super::Support;
use super::feature_gates;
use super::feature_gates::Gate;
use super::feature_gates::Stage;

const INTRODUCTION: &str = "# Flags

Made from the tables in `server/src/flags/table/`; a test says that it is in step, and
`UPDATE_DOCS=1 cargo test -p garboard flags_md` writes it anew.

Garboard takes every flag of etcd 3.6 and 3.7. Flags are written as for Go's `flag` package: one dash or two, `-x=y`
or `-x y`; a boolean never takes the next word; numbers may be `0x1f`, `1_000`; durations are `1h2m3.5s`, `100ms`.

Each flag has an environment variable: `ETCD_` and its name, in capitals, with `_` for `-` (`--data-dir`:
`ETCD_DATA_DIR`). A flag and its variable together are an error. An empty variable counts as unset. An unknown
`ETCD_*` variable is only warned about.

With `--config-file` (or `ETCD_CONFIG_FILE`) everything comes from that file, in YAML or JSON, and other flags and the
environment are not read. Keys are the flags' names, except under `client-transport-security` and
`peer-transport-security` (`cert-file`, `key-file`, `client-cert-file`, `client-key-file`, `client-cert-auth`,
`trusted-ca-file`, `auto-tls`, `allowed-cn`, `allowed-hostname`, `skip-client-san-verification`) and `socket-options`
(`reuse-port`, `reuse-address`). Durations are whole nanoseconds, as in etcd, or written as for the flag. An unknown
key is only warned about.

What a flag does here:

- **used**: what it does in etcd.
- **ignored**: nothing, as in etcd.
- **no effect**: it is taken; a value other than the default is named in a warning.
- **not supported**: a value other than the default ends the start.
";

/// The whole document.
pub fn flags_md() -> String {
    let mut text = INTRODUCTION.to_owned();
    for section in super::SECTIONS {
        let _ =
            write!(text, "\n## {}\n\n| flag | default | in etcd | here | |\n|---|---|---|---|---|\n", section.title);
        for flag in section.flags {
            let _ = writeln!(text, "{}", row(flag));
        }
    }
    text.push_str("\n## Feature gates\n\n| gate | default | stage | here |\n|---|---|---|---|\n");
    for gate in feature_gates::GATES {
        let _ = writeln!(text, "{}", gate_row(gate));
    }
    text.push_str("\n`AllAlpha` and `AllBeta` switch all gates of a stage that are not named themselves.\n");
    text
}

fn row(flag: &Flag) -> String {
    let default = match (flag.kind, flag.default) {
        (Kind::Ignored, _) | (_, "") => String::new(),
        (_, default) => format!("`{default}`"),
    };
    let release = match flag.release {
        Release::Both => "3.6, 3.7",
        Release::Only36 => "3.6",
        Release::Own => "no",
    };
    let (support, note) = match flag.support {
        Support::Used => ("used".to_owned(), String::new()),
        Support::IgnoredByEtcd => ("ignored".to_owned(), String::new()),
        Support::NoEffect(reason) => ("no effect".to_owned(), format!(" Here: {reason}.")),
        Support::Refused(reason) => ("not supported".to_owned(), format!(" Here: {reason}.")),
        Support::Alias(now) => (format!("`--{now}`"), String::new()),
        Support::GateAlias(gate) => (format!("`--feature-gates={gate}=`"), String::new()),
    };
    format!("| `--{}` | {default} | {release} | {support} | {}{note} |", flag.name, flag.help)
}

fn gate_row(gate: &Gate) -> String {
    let stage = match gate.stage {
        Stage::Alpha => "alpha",
        Stage::Beta => "beta",
    };
    let here = match gate.without_effect {
        None => "used".to_owned(),
        Some(reason) => format!("no effect: {reason}"),
    };
    format!("| `{}` | `{}` | {stage} | {here} |", gate.name, gate.default)
}
