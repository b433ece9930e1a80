use std::collections::BTreeSet;
use std::path::Path;

use garboard_storage::disk::Disk;
use garboard_storage::disk::OpenOptions;
use garboard_storage::disk::RealDisk;

use super::*;

/// The names that `flagSet.VisitAll` of etcd 3.6.14 and 3.7.1 gives, with the defaults both print.
const ETCD: &str = include_str!("tests/etcd_flags.txt");

fn etcd_flags() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ETCD.lines().map(|line| {
        let mut fields = line.splitn(3, ' ');
        let mut next = || fields.next().unwrap_or_default();
        (next(), next(), next())
    })
}

#[test]
fn every_flag_of_etcd_is_here_with_its_default() {
    assert_eq!(etcd_flags().count(), 151);
    for (name, release, default) in etcd_flags() {
        let flag = find(name).unwrap_or_else(|| panic!("--{name} is missing"));
        let expected = if release == "3.6" { Release::Only36 } else { Release::Both };
        assert_eq!(flag.release, expected, "--{name}");
        assert_eq!(flag.default, default, "--{name}");
    }
    let known: BTreeSet<_> = etcd_flags().map(|(name, ..)| name).collect();
    let own: Vec<_> = all().filter(|flag| !known.contains(flag.name)).collect();
    assert!(own.iter().all(|flag| flag.release == Release::Own), "{own:?}");
}

#[test]
fn names_are_unique_and_defaults_well_formed() {
    let mut names = BTreeSet::new();
    for flag in all() {
        assert!(names.insert(flag.name), "--{} twice", flag.name);
        flag.default_value();
        assert!(flag.help.ends_with('.'), "--{}: {}", flag.name, flag.help);
    }
}

#[test]
fn older_names_lead_to_flags_of_the_same_kind_and_to_gates() {
    for flag in all() {
        match flag.support {
            Support::Alias(now) => assert_eq!(find(now).map(|flag| flag.kind), Some(flag.kind), "--{}", flag.name),
            Support::GateAlias(gate) => {
                assert_eq!(FeatureGates::default().enabled(gate).to_string(), flag.default, "--{}", flag.name);
            }
            _ => {}
        }
    }
}

#[test]
fn variables_are_named_as_etcds() {
    assert_eq!(find("listen-client-urls").map(Flag::variable).as_deref(), Some("ETCD_LISTEN_CLIENT_URLS"));
    assert_eq!(find("v2-deprecation").map(Flag::variable).as_deref(), Some("ETCD_V2_DEPRECATION"));
}

#[test]
fn help_names_every_flag() {
    let help = help::flags();
    for flag in all() {
        assert!(help.contains(&format!("--{}", flag.name)), "--{}", flag.name);
    }
}

#[test]
fn flags_md_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/flags.md");
    let expected = docs::flags_md();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let file = RealDisk.open(&path, OpenOptions::create().with_truncate()).expect("docs/flags.md can be written");
        file.pwrite(expected.as_bytes(), 0).expect("docs/flags.md can be written");
    }
    let found = RealDisk.read_to_string(&path, 1 << 20).expect("docs/flags.md can be read");
    assert!(found == expected, "docs/flags.md is not in step: UPDATE_DOCS=1 cargo test -p garboard flags_md");
}
