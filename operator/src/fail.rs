//! Places where the operator dies when a test asks for it: built with the feature `fail-points` only.
//!
//! `GARBOARD_OPERATOR_DIES=recorded:2` ends the process between the record of the second step and its deed, `acted:1` right after the first
//! deed. Started again and again, `acted:1` thus dies after every deed, and `recorded:2` does each step only after a death between its
//! record and its deed. Some steps are nothing but a record, which the next process does not make again: so that none of them is passed over,
//! it dies at once at a step that `GARBOARD_OPERATOR_DIED`, a list, does not name.

use std::fmt::Debug;
#[cfg(feature = "fail-points")]
use std::sync::atomic::AtomicU64;
#[cfg(feature = "fail-points")]
use std::sync::atomic::Ordering;

/// Steps that do nothing.
#[cfg(feature = "fail-points")]
const IDLE: [&str; 6] = ["Steady", "Wait", "Refuse", "Rest", "Watch", "Grace"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The status says what is to be done.
    Recorded,
    /// It is done.
    Acted,
}

/// Here the operator may be made to die.
#[cfg(not(feature = "fail-points"))]
pub fn reached(_: Point, _: &impl Debug) {}

#[cfg(feature = "fail-points")]
pub fn reached(point: Point, step: &impl Debug) {
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let Some(wanted) = std::env::var("GARBOARD_OPERATOR_DIES").ok() else { return };
    let (name, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    let here = match point {
        Point::Recorded => "recorded",
        Point::Acted => "acted",
    };
    let said = format!("{step:?}");
    let step = said.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    if name != here || IDLE.contains(&step) {
        return;
    }
    let died = std::env::var("GARBOARD_OPERATOR_DIED").unwrap_or_default();
    let is_new = !died.split(',').any(|name| name == step);
    if is_new || REACHED.fetch_add(1, Ordering::Relaxed) + 1 == count.parse().unwrap_or(1) {
        eprintln!("died: {here} {step}");
        std::process::abort();
    }
}
