use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::seen::State;
use super::*;

const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

/// One that ended so many hours ago.
fn backup(name: &str, hours: i64) -> Backup {
    Backup {
        name: name.to_owned(),
        uid: name.to_owned(),
        state: State::Succeeded(NOW - SignedDuration::from_hours(hours)),
        bytes: 10,
        verified: false,
        in_use: false,
        deleting: false,
    }
}

fn failed(name: &str, hours: i64) -> Backup {
    Backup { state: State::Failed(NOW - SignedDuration::from_hours(hours)), ..backup(name, hours) }
}

fn keep(count: usize) -> Limits {
    Limits { keep_last: Some(count), ..Limits::default() }
}

fn age(hours: i64) -> Limits {
    Limits { max_age: Some(SignedDuration::from_hours(hours)), ..Limits::default() }
}

fn size(bytes: u64) -> Limits {
    Limits { max_total_bytes: Some(bytes), ..Limits::default() }
}

#[test]
fn each_limit_gives_up_the_oldest() {
    let backups = [backup("d", 1), backup("b", 3), backup("a", 4), backup("c", 2)];
    for (limits, expected) in [
        (Limits::default(), &[][..]),
        (keep(4), &[]),
        (keep(2), &["a", "b"]),
        (keep(1), &["a", "b", "c"]),
        (age(4), &[]),
        (age(2), &["a", "b"]),
        (age(0), &["a", "b", "c"]),
        (size(40), &[]),
        (size(39), &["a"]),
        (size(20), &["a", "b"]),
        (size(1), &["a", "b", "c"]),
        (Limits { max_total_bytes: Some(20), ..keep(3) }, &["a", "b"]),
    ] {
        assert_eq!(given_up(&backups, &limits, NOW), expected, "{limits:?}");
    }
}

#[test]
fn the_newest_verified_one_is_kept_however_old_it_is() {
    let mut backups = [backup("a", 9), backup("b", 8), backup("c", 2), backup("d", 1)];
    backups[0].verified = true;
    assert_eq!(given_up(&backups, &keep(1), NOW), ["b", "c"]);
    backups[1].verified = true;
    assert_eq!(given_up(&backups, &keep(1), NOW), ["a", "c"]);
    // It costs none of those that are to be kept, but its bytes count.
    assert_eq!(given_up(&backups, &keep(2), NOW), ["a"]);
    assert_eq!(given_up(&backups, &size(20), NOW), ["a", "c"]);
}

#[test]
fn what_is_going_counts_as_gone() {
    let mut backups = [backup("a", 3), backup("b", 2), backup("c", 1)];
    backups[2].deleting = true;
    backups[2].verified = true;
    assert_eq!(given_up(&backups, &keep(1), NOW), ["a"]);
    assert_eq!(given_up(&backups, &size(20), NOW), [""; 0]);
}

#[test]
fn what_a_restore_needs_is_kept() {
    let mut backups = [backup("a", 3), backup("b", 2), backup("c", 1)];
    backups[0].in_use = true;
    assert_eq!(given_up(&backups, &keep(1), NOW), ["b"]);
    assert_eq!(given_up(&backups, &keep(2), NOW), [""; 0]);
}

#[test]
fn three_that_failed_are_kept() {
    let mut backups: Vec<_> = (1..=5).map(|hours| failed(&format!("f{hours}"), hours)).collect();
    backups.push(backup("s", 9));
    assert_eq!(given_up(&backups, &Limits { max_age: Some(SignedDuration::ZERO), ..keep(1) }, NOW), ["f5", "f4"]);
    backups[0].deleting = true;
    assert_eq!(given_up(&backups, &Limits::default(), NOW), ["f5"]);
}

prop_compose! {
    fn any_backup()(
        kind in 0..6u8,
        hours in 0..20i64,
        bytes in prop_oneof![0..50u64, Just(u64::MAX)],
        verified in any::<bool>(),
        in_use in prop::bool::weighted(0.1),
        deleting in prop::bool::weighted(0.1),
    ) -> Backup {
        let at = NOW - SignedDuration::from_hours(hours);
        let state = match kind {
            0 => State::Active,
            1 => State::Failed(at),
            _ => State::Succeeded(at),
        };
        Backup { state, bytes, verified, in_use, deleting, ..backup("", 0) }
    }
}

prop_compose! {
    fn any_limits()(
        keep_last in prop::option::of(1..10usize),
        hours in prop::option::of(0..20i64),
        max_total_bytes in prop::option::of(0..300u64),
    ) -> Limits {
        Limits { keep_last, max_age: hours.map(SignedDuration::from_hours), max_total_bytes }
    }
}

fn named(mut backups: Vec<Backup>) -> Vec<Backup> {
    for (place, backup) in backups.iter_mut().enumerate() {
        backup.name = format!("b{place:02}");
    }
    backups
}

/// The succeeded ones that stay, the newest first, by a way of its own.
fn succeeded(backups: &[Backup]) -> Vec<Backup> {
    let mut found: Vec<Backup> =
        backups.iter().filter(|backup| backup.succeeded().is_some() && !backup.deleting).cloned().collect();
    found.sort_by(|a, b| (a.succeeded(), &a.name).cmp(&(b.succeeded(), &b.name)));
    found.reverse();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_must_stay_stays_and_limits_hold(
        backups in prop::collection::vec(any_backup(), 0..16).prop_map(named),
        limits in any_limits(),
    ) {
        let names = given_up(&backups, &limits, NOW);
        let gone: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        prop_assert_eq!(gone.len(), names.len(), "a name is there twice");
        let (going, left): (Vec<Backup>, Vec<Backup>) =
            backups.iter().cloned().partition(|backup| gone.contains(backup.name.as_str()));
        for backup in &going {
            prop_assert!(!backup.is_active() && !backup.deleting && !backup.in_use, "{backup:?}");
        }

        let before = succeeded(&backups);
        let newest = before.first().map(|backup| backup.name.clone());
        let verified = before.iter().find(|backup| backup.verified).map(|backup| backup.name.clone());
        prop_assert!(newest.as_deref().is_none_or(|name| !gone.contains(name)), "the newest one");
        prop_assert!(verified.as_deref().is_none_or(|name| !gone.contains(name)), "the newest verified one");

        let after = succeeded(&left);
        let free: Vec<&Backup> = after
            .iter()
            .filter(|backup| Some(&backup.name) != newest.as_ref() && Some(&backup.name) != verified.as_ref())
            .filter(|backup| !backup.in_use)
            .collect();
        let old = |backup: &Backup| {
            let age = backup.succeeded().map(|at| NOW.duration_since(at));
            limits.max_age.is_some_and(|max| age.is_some_and(|age| age > max))
        };
        prop_assert!(!free.iter().any(|backup| old(backup)), "too old");
        let total: u128 = after.iter().map(|backup| u128::from(backup.bytes)).sum();
        prop_assert!(limits.max_total_bytes.is_none_or(|max| total <= max.into() || free.is_empty()), "too large");
        if let Some(keep) = limits.keep_last {
            let last: Vec<&str> = before.iter().take(keep).map(|backup| backup.name.as_str()).collect();
            prop_assert!(free.iter().all(|backup| last.contains(&backup.name.as_str())), "too many");
            if limits.max_age.is_none() && limits.max_total_bytes.is_none() {
                prop_assert!(last.iter().all(|name| !gone.contains(name)), "one of the last {}", keep);
            }
        }
        let failed = left.iter().filter(|backup| backup.failed().is_some() && !backup.deleting && !backup.in_use);
        prop_assert!(failed.count() <= FAILED_KEPT);

        // Whether they are gone, or going.
        prop_assert_eq!(given_up(&left, &limits, NOW), Vec::<String>::new());
        let mut going_on = backups.clone();
        going_on.iter_mut().filter(|backup| gone.contains(backup.name.as_str())).for_each(|backup| backup.deleting = true);
        prop_assert_eq!(given_up(&going_on, &limits, NOW), Vec::<String>::new());
    }

    #[test]
    fn nothing_goes_that_no_limit_asks_for(backups in prop::collection::vec(any_backup(), 0..16).prop_map(named)) {
        let succeeded: Vec<Backup> = succeeded(&backups);
        prop_assert_eq!(given_up(&succeeded, &Limits::default(), NOW), Vec::<String>::new());
    }
}
