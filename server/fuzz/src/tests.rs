//! Seeds do what they are made for, and inputs that were kept are replayed: a search begins where the last one ended.

use std::path::Path;

use crate::bolt_read;
use crate::config;
use crate::requests;
use crate::seeds;
use crate::wal_record;
use crate::wal_segments;

/// Bytes of one kept input, and of all of them.
const KEPT_BYTES_MAX: u64 = 8 << 10;
const CORPUS_BYTES_MAX: u64 = 400 << 10;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("bolt_read", |input| drop(bolt_read::run(input))),
    ("config", |input| drop(config::run(input))),
    ("requests", |input| _ = requests::run(input)),
    ("wal_record", |input| drop(wal_record::run(input))),
    ("wal_segments", |input| drop(wal_segments::run(input))),
];

#[test]
fn every_record_seed_is_a_record() {
    for (name, seed) in seeds::of("wal_record") {
        assert!(wal_record::run(&seed).is_some(), "{name}");
    }
}

#[test]
fn every_log_seed_is_recovered_whole() {
    for (name, seed) in seeds::of("wal_segments") {
        let recovered = wal_segments::run(&seed).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((recovered.created, recovered.torn), (name == "none", None), "{name}");
        let last = recovered.last.map_or(0, |last| last.index);
        let expected = [("one", 3), ("several", 5), ("cut", 5), ("none", 0)];
        let wanted = expected.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, last)| *last);
        assert_eq!(Some(last), wanted, "{name}");
    }
}

#[test]
fn file_seeds_are_read_and_restored_but_for_the_foreign_one() {
    for (name, seed) in seeds::of("bolt_read") {
        let outcome = bolt_read::run(&seed);
        assert!(outcome.read.is_some(), "{name}");
        match outcome.restored {
            Ok(restored) => assert!(outcome.opened && restored.revision > 1, "{name}: {restored:?}"),
            Err(error) => assert!(name == "foreign", "{name}: {error}"),
        }
    }
}

#[test]
fn a_meta_that_was_changed_is_resealed() {
    let raw = seeds::of("bolt_read").into_iter().find(|(name, _)| *name == "raw").unwrap().1;
    let mut file = raw[1..].to_vec();
    let whole = file.clone();
    // The transaction of the first meta.
    file[16 + 48] ^= 0x10;
    assert!(garboard_bolt::read_all(&file).is_ok(), "the second meta is whole");
    file[1024 + 16 + 48] ^= 0x10;
    assert!(garboard_bolt::read_all(&file).is_err());
    bolt_read::reseal(&mut file);
    assert_eq!(garboard_bolt::read_all(&file).ok(), garboard_bolt::read_all(&whole).ok());
}

#[test]
fn request_seeds_are_answered() {
    for (name, seed) in seeds::of("requests") {
        let tally = requests::run(&seed);
        assert_eq!(tally.malformed, 0, "{name}: {tally:?}");
        let refused = usize::from(name == "alarms");
        assert!(tally.answered >= 2 && tally.refused == refused, "{name}: {tally:?}");
    }
}

#[test]
fn configuration_seeds_are_configurations() {
    for (name, seed) in seeds::of("config") {
        config::run(&seed).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The kept inputs of a target by name.
// The corpus belongs to the source tree, not to the product's disk.
#[allow(clippy::disallowed_methods)]
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn kept_inputs_do_no_harm() {
    for (target, run) in TARGETS {
        for (path, input) in corpus(target) {
            println!("{path}");
            run(&input);
        }
    }
}

#[test]
fn kept_inputs_are_small() {
    let mut bytes = 0;
    for (target, _) in TARGETS {
        for (path, input) in corpus(target) {
            assert!(input.len() as u64 <= KEPT_BYTES_MAX, "{path}: {} bytes", input.len());
            bytes += input.len() as u64;
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
}
